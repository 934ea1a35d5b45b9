"""Where metrics are read from: the `/metrics` endpoints of programs, or a Prometheus."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from ratelimited_notify.cli.traffic import (
    DECISIONS,
    DELIVERIES,
    LABELS,
    Counts,
    Reading,
    Sample,
    add,
    rates_between,
    summed,
)
from ratelimited_notify.cli.web import WITHIN, Address, Unanswered
from ratelimited_notify.errors import MissingExtra, NotifyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client import Metric

LATELY = "5m"
"""For how long back a Prometheus says how much was counted per second. Prometheus asks programs once in a minute, mostly."""


class MetricsSource(Protocol):
    """What can be asked for the counts of programs."""

    problems: Sequence[str]
    """What does not answer, and why. Empty if all do."""
    lately: str
    """Which time the rates are about."""

    def read(self) -> Reading:
        """Ask now. What does not answer is a problem, and counts as it did when it last answered."""
        ...


class Endpoints:
    """The `/metrics` endpoints of programs.

    Arguments:
        urls: their URLs.

    Raises:
        NotifyError: a URL cannot be used.
        MissingExtra: prometheus_client is not installed.
    """

    lately = "since the last reading"

    def __init__(self, urls: Iterable[str]) -> None:
        try:
            from prometheus_client.parser import text_string_to_metric_families
        except ModuleNotFoundError:
            raise MissingExtra("prometheus", "top --metrics") from None
        self._endpoints = [
            _Endpoint(Address(url, "--metrics"), text_string_to_metric_families) for url in dict.fromkeys(urls)
        ]
        self.problems: Sequence[str] = ()

    def read(self) -> Reading:
        """Ask all of them at once."""
        deadline = time.monotonic() + WITHIN
        for endpoint in self._endpoints:
            endpoint.ask()
        for endpoint in self._endpoints:
            endpoint.wait(max(0.0, deadline - time.monotonic()))
        self.problems = [f"{each.address} {each.problem}." for each in self._endpoints if each.problem]
        return Reading(
            summed(each.totals() for each in self._endpoints), summed(each.rates for each in self._endpoints)
        )


class _Endpoint:
    """One endpoint. It is asked in a thread, which ends by itself: an address may take long to resolve."""

    def __init__(self, address: Address, parse: Callable[[str], Iterable[Metric]]) -> None:
        self.address = address
        self.problem = ""
        self.rates: Counts = {}
        self._parse = parse
        self._latest: Sample | None = None
        self._asking: threading.Thread | None = None
        self._answer: Sample | str = ""

    def totals(self) -> Counts:
        """What it had counted when it last answered."""
        return {} if self._latest is None else self._latest.counts

    def ask(self) -> None:
        if self._asking is None:
            self._asking = threading.Thread(target=self._ask, daemon=True, name="ratelimited-notify top")
            self._asking.start()

    def wait(self, seconds: float) -> None:
        """Wait for the answer."""
        asking = self._asking
        if asking is None:
            return
        asking.join(seconds)
        self.rates = {}
        if asking.is_alive():
            self.problem = f"does not answer within {WITHIN:g} seconds"
            return
        self._asking = None
        if isinstance(self._answer, str):
            self.problem = self._answer
            return
        self.problem = ""
        self.rates = rates_between(self._latest, self._answer)
        self._latest = self._answer

    def _ask(self) -> None:
        try:
            text = self.address.get("text/plain;version=0.0.4").decode()
            counts: Counts = {}
            for family in self._parse(text):
                for sample in family.samples:
                    add(counts, sample.name, sample.labels, sample.value)
            self._answer = Sample(time.monotonic(), counts)
        except Unanswered as error:
            self._answer = str(error)
        except Exception:  # noqa: BLE001  # what the parser raises about a text in another format is not said anywhere
            self._answer = "does not answer in the text format of Prometheus"


class _Series(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Result(msgspec.Struct):
    result: list[_Series]


class _Answer(msgspec.Struct):
    data: _Result


class PrometheusServer:
    """A Prometheus that reads the metrics of all programs.

    Arguments:
        url: the URL of its pages, such as `http://localhost:9090`.

    Raises:
        NotifyError: the URL cannot be used.
    """

    lately = f"in the last {LATELY.replace('m', ' minutes')}"

    def __init__(self, url: str) -> None:
        self._address = Address(url, "--prometheus")
        self._latest = Reading({}, {})
        self.problems: Sequence[str] = ()

    def read(self) -> Reading:
        """Ask it."""
        try:
            totals = summed(self._asked(name, name) for name in (DELIVERIES, DECISIONS))
            rates = summed(self._asked(name, f"rate({name}[{LATELY}])") for name in (DELIVERIES, DECISIONS))
        except NotifyError as error:
            self.problems = [f"{self._address} {error}."]
            self._latest = Reading(self._latest.totals, {})
        else:
            self.problems = ()
            self._latest = Reading(totals, rates)
        return self._latest

    def _asked(self, name: str, expression: str) -> Counts:
        query = f"sum by ({', '.join(LABELS[name])}) ({expression})"
        document = self._address.under("api/v1/query", query=query).get("application/json")
        try:
            series = msgspec.json.decode(document, type=_Answer).data.result
            counts: Counts = {}
            for each in series:
                add(counts, name, each.metric, float(each.value[1]))
        except ValueError:
            raise Unanswered("does not answer as Prometheus does") from None
        return counts
