"""A real Prometheus for the tests, and its promtool: from Debian's package, which `make test` unpacks, or from the system."""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from servers import Server, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UNPACKED = Path(__file__).parent.parent / ".cache" / "prometheus" / "usr" / "bin"
_WITHIN = 60.0


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`. Without it, the test is skipped or fails (see `unavailable`)."""
    found = shutil.which(name) or shutil.which(name, path=str(_UNPACKED))
    if found is None:
        unavailable(f"The program {name} is not installed")
    return found


class Series(NamedTuple):
    """One series of an answer."""

    labels: dict[str, str]
    value: float


class Prometheus(Server):
    """A Prometheus that asks often. Its options are its configuration, as JSON."""

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def command(self) -> list[str]:
        (configuration,) = self.options
        file = self.directory / "prometheus.yml"
        file.write_text(configuration)
        return [
            *(program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={self.directory}/data"),
            *(f"--web.listen-address={self.address}", "--log.level=warn"),
        ]

    def answering_pid(self) -> int | None:
        # It does not say its process id, but where it keeps its data.
        if self.ask(b"GET /-/ready HTTP/1.0\r\n\r\n", b"Ready.\n").split(b" ")[1] != b"200":
            return None
        return self.pid if self.get("status/flags")["storage.tsdb.path"] == f"{self.directory}/data" else None

    def get(self, path: str, **parameters: str) -> dict[str, object]:
        """What its API answers."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            found: dict[str, object] = json.load(answer)["data"]
        return found

    def series(self, expression: str) -> list[Series]:
        """What an expression is now. An expression that is no PromQL is an error."""
        found = self.get("query", query=expression)
        return [Series(each["metric"], float(each["value"][1])) for each in found["result"]]

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + _WITHIN
        while not holds():
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.1)


def configuration(jobs: Mapping[str, Mapping[str, object]], target: str, rules: Path) -> str:
    """The configuration of a Prometheus that asks this target twice a second.

    Arguments:
        jobs: the names of its jobs, and more options of each.
        target: host and port.
        rules: a file with alert rules.
    """
    twice = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    return json.dumps(
        {
            "global": {**twice, "evaluation_interval": "500ms"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": [target]}], **more} for name, more in jobs.items()
            ],
        }
    )
