"""The command that shows the traffic: top."""

from __future__ import annotations

import http.server
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, Counter, start_http_server

from command import WITHIN, command, environment, invoke, numbers, started
from prometheus_server import Prometheus, configuration
from ratelimited_notify.cli.endpoints import Endpoints
from ratelimited_notify.cli.traffic import (
    DECISIONS,
    DELIVERIES,
    Counts,
    Reading,
    Sample,
    add,
    by_type,
    rates_between,
    summed,
)
from ratelimited_notify.cli.web import Address, Unanswered
from servers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Program:
    """A program that exports the metrics of the library."""

    def __init__(self, port: int = 0) -> None:
        registry = CollectorRegistry()
        self.decisions = Counter(DECISIONS, "Decisions.", ["type", "verdict", "rule"], registry=registry)
        self.deliveries = Counter(DELIVERIES, "Deliveries.", ["type", "status"], registry=registry)
        self._server, self._thread = start_http_server(port, HOST, registry)
        self.port: int = self._server.server_port
        self.url = f"http://{HOST}:{self.port}/metrics"

    def count(self, type: str, *, sent: int = 0, failed: int = 0, **refused: int) -> None:
        """Count what was sent and failed, and what rules refused."""
        self.decisions.labels(type, "allowed", "").inc(sent + failed)
        self.deliveries.labels(type, "sent").inc(sent)
        self.deliveries.labels(type, "failed").inc(failed)
        self.deliveries.labels(type, "suppressed").inc(sum(refused.values()))
        for rule, number in refused.items():
            self.decisions.labels(type, "refused", rule).inc(number)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def program() -> Iterator[Program]:
    """A program that has sent and suppressed."""
    program = Program()
    program.count("news", sent=3, failed=1, news=5, cap=15)
    yield program
    program.stop()


@contextmanager
def answering(
    status: int, body: bytes, seen: list[http.server.BaseHTTPRequestHandler] | None = None, **headers: str
) -> Iterator[str]:
    """The URL of a server that always answers so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name of http.server
            if seen is not None:
                seen.append(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_traffic_by_type(program: Program) -> None:
    """The main job: sent, suppressed, failed, and the rule that refuses most, in a process of its own."""
    run = command("top", "--metrics", program.url, "--once", "--every", "0.1")

    assert (run.returncode, run.stderr) == (0, b"")
    assert numbers(run.stdout.decode(), "news") == ["news", "3", "20", "1", "-", "-", "cap", "(75%)"]


SENDS = """
import sys, time
from prometheus_client import start_http_server
from ratelimited_notify import Notifier, Rule, rate_limited
from ratelimited_notify.instrumentation.prometheus import instrument

instrument()

def gateway(recipient):
    if recipient == "nobody@example.com":
        raise ValueError

notifier = Notifier(gateway, [Rule("news", "1/day"), Rule("status", "9/day"), Rule("*", "2/day", by="recipient", name="cap")])

@rate_limited("welcome", "1/day", on_limit="drop")
def welcome(recipient): ...

server, _ = start_http_server(0, "127.0.0.1")
print(server.server_port, flush=True)
while True:
    for number in range(4):
        notifier.send("news", "ana@example.com")
    notifier.send_many("status", ["ana@example.com", "ana@example.com", "nobody@example.com"])
    welcome("ana@example.com")
    # Until it is told to send more.
    if not sys.stdin.readline():
        break
"""


@pytest.fixture
def sending() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A program in a process of its own that sends with the library, and where its metrics are."""
    with subprocess.Popen(
        [sys.executable, "-c", SENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        port = running.stdout.readline().decode().strip()
        yield running, f"http://{HOST}:{port}/metrics"
        running.stdin.close()


def test_what_the_library_counts_is_shown(sending: tuple[subprocess.Popen[bytes], str]) -> None:
    """Of another process that sends by a notifier and a decorated function."""
    result = invoke("top", "--metrics", sending[1], "--once", "--every", "0.1")

    assert (result.exit_code, result.stderr) == (0, "")
    assert numbers(result.stdout, "news")[:4] == ["news", "1", "3", "-"]
    assert numbers(result.stdout, "news")[6:] == ["news", "(100%)"]
    assert numbers(result.stdout, "status")[:4] == ["status", "1", "1", "1"]
    assert numbers(result.stdout, "status")[6:] == ["cap", "(100%)"]
    assert numbers(result.stdout, "welcome")[:4] == ["welcome", "1", "-", "-"]


def test_several_programs_are_added_up(program: Program) -> None:
    """Each is asked once, even if it is named twice."""
    other = Program()
    other.count("news", sent=4, news=40)
    other.count("alerts", sent=1)
    result = invoke("top", *("--metrics", program.url) * 2, "--metrics", other.url, "--once", "--every", "0.1")
    other.stop()

    assert result.exit_code == 0, result.output
    assert numbers(result.stdout, "news") == ["news", "7", "60", "1", "-", "-", "news", "(75%)"]
    assert numbers(result.stdout, "alerts") == ["alerts", "1", "-", "-", "-", "-"]


def test_an_endpoint_that_is_down_is_named(program: Program) -> None:
    """The others are shown; the status is 1; a password is in no message."""
    program.stop()
    other = Program()
    other.count("news", sent=4)
    down = program.url.replace("http://", "http://user:geheim@") + "?token=geheim"
    result = invoke("top", "--metrics", down, "--metrics", other.url, "--once", "--every", "0.1")
    other.stop()

    assert result.exit_code == 1
    assert numbers(result.stdout, "news")[1] == "4"
    assert result.stderr == f"{program.url} cannot be reached: Connection refused.\n"


class Screen:
    """What the command draws on a terminal."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.running = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "ratelimited_notify", "top", *arguments],
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=environment(TERM="xterm-256color"),
        )  # fmt: skip
        os.close(theirs)
        self.seen = b""

    def until(self, text: bytes) -> None:
        """Wait until this is drawn, after what was waited for before."""
        while text not in self.seen:
            assert select.select([self._ours], [], [], WITHIN)[0], self.seen
            self.seen += os.read(self._ours, 65536)
        self.seen = self.seen.partition(text)[2]

    def end(self, number: int) -> tuple[int, bytes]:
        """End it with a signal: its status, and what it wrote to standard error."""
        self.running.send_signal(number)
        _, said = self.running.communicate(timeout=WITHIN)
        os.close(self._ours)
        return self.running.returncode, said


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_on_a_terminal_the_table_is_drawn_anew(program: Program, ending: int) -> None:
    """It follows the counts, and programs that stop and start again; Ctrl-C ends it, and that is no error."""
    screen = Screen("--metrics", program.url, "--every", "0.1")
    screen.until(b"cap (75%)")
    program.count("alerts", sent=8)
    screen.until(b"alerts")
    program.stop()
    screen.until(b"cannot be reached: Connection refused.")
    again = Program(program.port)
    again.count("reborn", sent=1)
    screen.until(b"reborn")

    assert screen.end(ending) == (0, b"")
    again.stop()


def test_without_a_terminal_tables_are_printed(program: Program) -> None:
    """One after each reading, without control characters; Ctrl-C ends it."""
    with started("top", "--metrics", program.url, "--every", "0.1") as running:
        assert running.stdout is not None
        lines: list[bytes] = []
        while b"".join(lines).count(b"news") < 2:
            lines.append(running.stdout.readline())
            assert lines[-1]
        running.send_signal(signal.SIGINT)
        rest, said = running.communicate(timeout=WITHIN)

    assert (running.returncode, said) == (0, b"")
    assert b"\x1b" not in b"".join(lines) + rest


def test_an_interrupted_single_reading_is_no_success(program: Program) -> None:
    """It has printed nothing."""
    with started("top", "--metrics", program.url, "--once", "--every", "3600") as running:
        server = program._server
        asked = threading.Event()
        finish = server.finish_request

        def finishing(*arguments: object) -> None:
            finish(*arguments)
            asked.set()

        server.finish_request = finishing
        assert asked.wait(WITHIN)
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=WITHIN)

    assert (running.returncode, output) == (130, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Say where the metrics are: --metrics http://localhost:8000/metrics"),
        (["--metrics", "http://a/", "--prometheus", "http://b/"], "Choose either --metrics or --prometheus."),
        (["--metrics", "localhost:8000"], "--metrics must be an http or https URL"),
        (["--metrics", "file:///geheim"], "--metrics must be an http or https URL"),
        (["--metrics", "http://user:geheim@:99/"], "--metrics must be an http or https URL"),
        (["--metrics", "http://a:geheim/"], "--metrics must be an http or https URL"),
        (["--prometheus", "http://[geheim"], "--prometheus must be an http or https URL"),
        (["--metrics", "http://a/", "--every", "0"], "it must be a number of seconds from 0.1 to 3600"),
        (["--metrics", "http://a/", "--every", "often"], "it must be a number of seconds from 0.1 to 3600"),
        (["--metrics", "http://a/", "--every", "nan"], "it must be a number of seconds from 0.1 to 3600"),
    ],
)
def test_what_cannot_be_used_is_told(arguments: list[str], said: str) -> None:
    """Before anything is asked."""
    result = invoke("top", *arguments, "--once")

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.replace("│", "").split())
    assert "geheim" not in result.stderr


def test_the_extra_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--prometheus` does not need it."""
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)
    result = invoke("top", "--metrics", "http://a/", "--once")

    assert (result.exit_code, "pip install 'ratelimited-notify[prometheus]'" in result.stderr) == (2, True)
    with answering(200, b'{"status": "success", "data": {"resultType": "vector", "result": []}}') as url:
        assert invoke("top", "--prometheus", url, "--once", "--every", "0.1").exit_code == 0


# --- A Prometheus -------------------------------------------------------------------------------------------------------


@pytest.fixture
def prometheus(tmp_path: Path, sending: tuple[subprocess.Popen[bytes], str]) -> Iterator[Prometheus]:
    """A real Prometheus that asks the program twice a second."""
    (tmp_path / "rules.yaml").write_text("groups: []")
    target = sending[1].removeprefix("http://").removesuffix("/metrics")
    server = Prometheus(configuration({"shop": {}}, target, tmp_path / "rules.yaml"))
    yield server
    server.remove()


def test_a_prometheus_is_asked(prometheus: Prometheus, sending: tuple[subprocess.Popen[bytes], str]) -> None:
    """Totals, rates, and the rule that refuses most lately."""
    prometheus.until(lambda: prometheus.series(f"{DELIVERIES} > 0"))
    first = invoke("top", "--prometheus", f"{prometheus.url}/", "--once", "--every", "0.1")
    running, _ = sending
    assert running.stdin is not None
    running.stdin.write(b"more\n")
    running.stdin.flush()
    prometheus.until(lambda: prometheus.series(f'rate({DELIVERIES}{{type="news",status="suppressed"}}[5m]) > 0'))
    second = invoke("top", "--prometheus", prometheus.url, "--once", "--every", "0.1")

    assert (first.exit_code, first.stderr, second.exit_code, second.stderr) == (0, "", 0, "")
    assert numbers(first.stdout, "news")[:4] == ["news", "1", "3", "-"]
    news = numbers(second.stdout, "news")
    assert news[:5] == ["news", "1", "7", "-", "-"]
    assert float(news[5]) > 0
    # The cap refuses now as well, and comes after the rule for news.
    assert news[6:] == ["news", "(100%)"]
    assert "in the last 5 minutes" in second.stdout


def test_a_prometheus_that_stops_is_named(prometheus: Prometheus) -> None:
    """On a terminal, what it last said stays."""
    prometheus.until(lambda: prometheus.series(f"{DELIVERIES} > 0"))
    screen = Screen("--prometheus", prometheus.url, "--every", "0.1")
    screen.until(b"status")
    prometheus.stop()
    screen.until(b"cannot be reached")
    screen.until(b"status")

    assert screen.end(signal.SIGINT) == (0, b"")


def test_other_answers_than_those_of_a_prometheus(program: Program) -> None:
    """They are told."""
    for status, body, said in (
        (200, b"{}", "does not answer as Prometheus does."),
        (200, b"<html>", "does not answer as Prometheus does."),
        (200, b'{"data": {"result": [{"metric": {}, "value": [1, "x"]}]}}', "does not answer as Prometheus does."),
        (503, b"", "answers with HTTP status 503."),
    ):
        with answering(status, body) as url:
            result = invoke("top", "--prometheus", url, "--once", "--every", "0.1")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{url} {said}\n")


# --- HTTP ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"", "answers with HTTP status 404."),
        (200, b"<html>geheim</html>", "does not answer in the text format of Prometheus."),
        (200, b"\xff\xfe", "does not answer in the text format of Prometheus."),
        (200, b"ratelimited_notify_decisions_total{type= 1", "does not answer in the text format of Prometheus."),
    ],
)
def test_other_answers_than_metrics(status: int, body: bytes, said: str) -> None:
    """They are told, and not quoted."""
    with answering(status, body) as url:
        result = invoke("top", "--metrics", url, "--once", "--every", "0.1")

        assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{url} {said}\n")


def test_a_program_without_metrics_of_the_library() -> None:
    """It says what to call."""
    with answering(200, b"other 1\n") as url:
        result = invoke("top", "--metrics", url, "--once", "--every", "0.1")

    assert (result.exit_code, "call instrument()" in result.stdout) == (0, True)


def test_a_login_is_sent_to_its_host_only() -> None:
    """A redirection does not take it along."""
    first: list[http.server.BaseHTTPRequestHandler] = []
    second: list[http.server.BaseHTTPRequestHandler] = []
    with answering(200, b"x 1\n", second) as target, answering(302, b"", first, Location=target) as url:
        Address(url.replace("//", "//us%20er:ge%3Aheim@"), "--metrics").get("text/plain")

    assert first[0].headers["Authorization"] == "Basic dXMgZXI6Z2U6aGVpbQ=="
    assert "Authorization" not in second[0].headers


def test_a_redirection_leads_to_no_file() -> None:
    """Only to http and https."""
    with answering(302, b"", Location="file:///etc/passwd") as url, pytest.raises(Unanswered, match="status 302"):
        Address(url, "--metrics").get("text/plain")


def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time, and after a size."""
    monkeypatch.setattr("ratelimited_notify.cli.web.WITHIN", 0.2)
    monkeypatch.setattr("ratelimited_notify.cli.web._LARGEST", 1000)
    with answering(200, b"#" * 2000) as url, pytest.raises(Unanswered, match="more than 1,000 bytes"):
        Address(url, "--metrics").get("text/plain")
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unanswered, match="does not answer within"):
            Address(f"http://{HOST}:{port}/", "--metrics").get("text/plain")


def test_a_program_that_hangs_holds_up_no_other(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and not asked again before it has answered."""
    monkeypatch.setattr("ratelimited_notify.cli.endpoints.WITHIN", 0.2)
    with socket.create_server((HOST, 0)) as silent:
        url = f"http://{HOST}:{silent.getsockname()[1]}/metrics"
        endpoints = Endpoints([url, program.url])
        before = threading.active_count()
        for _ in range(3):
            reading = endpoints.read()
            assert endpoints.problems == [f"{url} does not answer within 0.2 seconds."]
            assert reading.totals[DELIVERIES, "news", "sent"] == 3
            assert sum(each.name == "ratelimited-notify top" for each in threading.enumerate()) == 1
        assert threading.active_count() == before + 1
        connection, _ = silent.accept()
        with connection:
            # Unread bytes would make the system reset the connection.
            assert connection.recv(65536).endswith(b"\r\n\r\n")
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + f'{DELIVERIES}{{type="news",status="sent"}} 4\n'.encode())
        answered = endpoints.read()

    assert endpoints.problems == []
    assert answered.totals[DELIVERIES, "news", "sent"] == 7


def test_a_server_that_speaks_something_else() -> None:
    """It is told."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"220 mail.example.com ESMTP\r\n")
                connection.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(Unanswered, match="does not answer as HTTP does"):
            Address(f"http://{HOST}:{port}/", "--metrics").get("text/plain")
        thread.join()


def test_an_address_in_words() -> None:
    """Without what may be secret; the port and an IPv6 address stay."""
    assert str(Address("http://u:p@[::1]:90/metrics?token=x#y", "--metrics")) == "http://[::1]:90/metrics"
    assert str(Address("HTTPS://Example.com", "--metrics")) == "https://example.com"


# --- Counts -------------------------------------------------------------------------------------------------------------


def _delivered(type: str, status: str) -> tuple[str, ...]:
    return (DELIVERIES, type, status)


def test_rates_between_two_readings() -> None:
    """Per second; a series that is new, or of a process that was started anew, counts from 0."""
    before = Sample(10.0, {_delivered("a", "sent"): 10, _delivered("b", "sent"): 10})
    after = Sample(12.0, {_delivered("a", "sent"): 30, _delivered("b", "sent"): 4, _delivered("c", "sent"): 2})

    assert rates_between(before, after) == {
        _delivered("a", "sent"): 10,
        _delivered("b", "sent"): 2,
        _delivered("c", "sent"): 1,
    }
    assert rates_between(None, after) == {}
    assert rates_between(after, after) == {}


def test_a_limiter_that_decides_alone() -> None:
    """What it allowed counts as sent, in whatever way; what was delivered counts otherwise."""
    counts: Counts = {
        (DECISIONS, "alone", verdict, ""): 1 for verdict in ("allowed", "exempt", "unlimited", "failed_open")
    }
    counts |= {(DECISIONS, "alone", "would_refuse", "r"): 1, (DECISIONS, "alone", "refused", "r"): 3}
    counts |= {(DECISIONS, "alone", "failed_closed", ""): 1, _delivered("alone", "sent"): 0}
    (alone,) = by_type(Reading(counts, counts))
    (both,) = by_type(Reading({**counts, _delivered("alone", "sent"): 2}, counts))

    assert alone[1:] == (5, 4, 0, 5, 4, "r", 1)
    assert both[1:5] == (2, 0, 0, 0)


def test_the_rule_that_refuses_most_lately() -> None:
    """It comes before the one that refused most in all; the busiest type is first."""
    totals: Counts = {
        (DECISIONS, "a", "refused", "old"): 90,
        (DECISIONS, "a", "refused", "new"): 10,
        _delivered("b", "sent"): 5,
    }
    quiet = by_type(Reading(totals, {}))
    busy = by_type(Reading(totals, {(DECISIONS, "a", "refused", "new"): 1.0}))

    assert [(each.type, each.rule, each.share) for each in quiet] == [("a", "old", 0.9), ("b", "", 0)]
    assert [(each.type, each.rule, each.share) for each in busy] == [("a", "new", 1), ("b", "", 0)]


def test_only_what_is_a_count_is_counted() -> None:
    """Series that differ in other labels are added up."""
    counts: Counts = {}
    for labels, value in (({"pid": "1"}, 1.0), ({"pid": "2"}, 2.0), ({}, float("nan")), ({}, -1.0)):
        add(counts, DELIVERIES, {"type": "a", "status": "sent", **labels}, value)
    add(counts, "other", {"type": "a"}, 1.0)

    assert counts == {_delivered("a", "sent"): 3}


_COUNTS = st.dictionaries(
    st.tuples(st.just(DELIVERIES), st.sampled_from("ab"), st.sampled_from(["sent", "suppressed"])), st.integers(0, 100)
)


@given(st.lists(_COUNTS, min_size=2, max_size=6))
def test_rates_are_never_negative(parts: list[Counts]) -> None:
    """Whatever programs stop and start again."""
    samples = [Sample(float(number), counts) for number, counts in enumerate(parts)]
    rates = summed(rates_between(*pair) for pair in pairwise(samples))

    assert all(value >= 0 for value in rates.values())
    assert all(each.sent_rate >= 0 for each in by_type(Reading(summed(parts), rates)))
