"""Several processes count together: under a real gunicorn, with and without --preload, every message is counted exactly once."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs forks.")]

WITHIN = 60.0
WORKERS = 3

APPLICATION = """
import json, os
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from ratelimited_notify import Circuit, Limiter, configure, limiter_of, rate_limited
from ratelimited_notify.instrumentation.prometheus import instrument
from ratelimited_notify.sources import FileRules

handle = instrument(gateway_seconds=True)
limiter = Limiter(
    FileRules(os.environ["RULES"], interval=0.1), os.environ["STORAGE"], on_storage_error="allow", circuit=Circuit(2, 0.05)
)

@rate_limited("news", limiter=limiter, on_limit="drop")
def send(recipient):
    if recipient.startswith("bad"):
        raise ValueError
    return "sent"

send("somebody before the fork")

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return [generate_latest(registry)]
    try:
        send(environ["QUERY_STRING"])
    except ValueError:
        pass
    return [str(os.getpid()).encode()]
"""

CONFIGURATION = """
from prometheus_client import multiprocess

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
"""


def asked(path: Path, target: str) -> str | None:
    """What a server on a Unix socket answers; None if it does not yet."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while more := connection.recv(4096):
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        return body.decode() if b" 200 " in head else None
    return None


class Site:
    """An application under gunicorn."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.address = folder / "socket"
        self.log = folder / "log"
        self.process = process
        until(lambda: asked(self.address, "/metrics") is not None, self.log)

    def send(self, recipient: str) -> int:
        """Send to a recipient, and return which process did."""
        answer = asked(self.address, f"/?{recipient}")
        assert answer is not None, self.log.read_text()
        return int(answer)

    def samples(self, name: str) -> dict[str, float]:
        """The samples of a metric, by what is between the braces."""
        text = asked(self.address, "/metrics")
        assert text is not None, self.log.read_text()
        return {
            labels: float(number)
            for labels, number in re.findall(rf"^ratelimited_notify_{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
        }


def until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@contextmanager
def site(folder: Path, storage: str, *, preload: bool) -> Iterator[Site]:
    """Run the application."""
    metrics = folder / "metrics"
    metrics.mkdir()
    (folder / "rules.toml").write_text('[[rules]]\ntype = "news"\nlimit = "1000/day"\n')
    (folder / "application.py").write_text(APPLICATION)
    (folder / "gunicorn.conf.py").write_text(CONFIGURATION)
    environment = {
        **os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "RULES": str(folder / "rules.toml"), "STORAGE": storage,
    }  # fmt: skip
    command = [
        sys.executable, "-m", "gunicorn", *(["--preload"] if preload else []), "--workers", str(WORKERS), "--threads", "2",
        "--config", str(folder / "gunicorn.conf.py"), "--chdir", str(folder), "--bind", f"unix:{folder / 'socket'}",
        "--worker-tmp-dir", str(folder), "application:application",
    ]  # fmt: skip
    with (
        (folder / "log").open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            yield Site(folder, server)
        finally:
            server.terminate()
            ended = server.wait(30)
    log = (folder / "log").read_text()
    assert (ended, "Traceback" in log) == (0, False), log


each_way = pytest.mark.parametrize("preload", [False, True], ids=["without preload", "with preload"])


@each_way
def test_counters_of_all_workers_add_up(preload: bool, tmp_path: Path) -> None:
    """What each process sent, failed to send and refused is counted once, also what the parent sent before the fork, and what a
    worker counted that is gone.
    """
    with site(tmp_path, "memory://", preload=preload) as running, ThreadPoolExecutor(8) as pool:
        # Each process sends one when it loads the application; with --preload that is the parent alone.
        loads = 1 if preload else WORKERS
        until(lambda: running.samples("deliveries_total").get('status="sent",type="news"') == loads, running.log)

        workers: set[int] = set()
        sent = 0
        # Whoever is idle takes the next one, so it may take a while until each has had one.
        while len(workers) < 2 or sent < 150:
            workers.update(pool.map(running.send, [f"user{sent + number}" for number in range(50)]))
            sent += 50
            assert sent < 10_000
        list(pool.map(running.send, [f"bad{number}" for number in range(30)]))

        gone = next(iter(workers))
        os.kill(gone, signal.SIGTERM)
        more = 0
        while gone in (answering := {running.send(f"more{(more := more + 1)}") for _ in range(20)}):
            assert more < 2000
        assert answering
        # The one that takes its place loads the application again.
        loads += 0 if preload else 1
        until(
            lambda: running.samples("deliveries_total")['status="sent",type="news"'] >= loads + sent + more, running.log
        )

        assert running.samples("deliveries_total") == {
            'status="sent",type="news"': loads + sent + more,
            'status="failed",type="news"': 30,
            'status="suppressed",type="news"': 0,
        }
        assert {each: count for each, count in running.samples("decisions_total").items() if count} == {
            'rule="",type="news",verdict="allowed"': loads + sent + 30 + more
        }
        assert running.samples("gateway_seconds_count") == {'type="news"': loads + sent + 30 + more}
        assert running.samples("rules_rejected_total") == {"": 0}


@each_way
def test_the_newest_rules_and_the_worst_circuit_are_shown(
    preload: bool, start_valkey: Callable[..., object], tmp_path: Path
) -> None:
    """One value for all processes: when rules were last loaded by any, and whether any finds a server dead."""
    server = start_valkey()
    with site(tmp_path, server.url, preload=preload) as running:
        loaded = running.samples("rules_loaded_timestamp_seconds")[""]
        assert abs(loaded - time.time()) < 300
        rules = tmp_path / "rules.toml"
        rules.write_text(rules.read_text().replace("1000", "2000"))
        # A worker that has decided keeps its rules up to date.
        until(
            lambda: bool(running.send("ana")) and running.samples("rules_loaded_timestamp_seconds")[""] > loaded,
            running.log,
        )
        rules.write_text("no rules")
        until(lambda: running.samples("rules_rejected_total")[""] > 0, running.log)

        assert running.samples("circuit_open") == {f'server="{server.address}"': 0}
        server.stop()
        until(lambda: bool(running.send("ana")) and set(running.samples("circuit_open").values()) == {1}, running.log)
        assert running.samples("storage_errors_total")['backend="redis",policy="allow"'] >= 2
        assert running.samples("decisions_total")['rule="",type="news",verdict="failed_open"'] >= 2
        server.start()
        until(lambda: bool(running.send("ana")) and set(running.samples("circuit_open").values()) == {0}, running.log)


@each_way
def test_a_circuit_of_a_process_that_is_gone_is_not_shown(
    preload: bool, start_valkey: Callable[..., object], tmp_path: Path
) -> None:
    """A worker that found a server dead, and is gone since, does not leave an alert behind."""
    server = start_valkey()
    with site(tmp_path, server.url, preload=preload) as running:
        server.stop()
        found: set[int] = set()

        def is_open() -> bool:
            found.add(running.send("ana"))
            return set(running.samples("circuit_open").values()) == {1}

        until(is_open, running.log)
        server.start()
        for worker in found:
            os.kill(worker, signal.SIGKILL)

        until(lambda: set(running.samples("circuit_open").values()) == {0}, running.log)
