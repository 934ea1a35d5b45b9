"""OpenTelemetry: metrics about all limiters, and a span around each delivery, read from the exporters of the SDK."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from opentelemetry import context, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import ratelimited_notify
from outcomes import Unreliable
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    StorageError,
    rate_limited,
)
from ratelimited_notify.instrumentation.labels import MOST_VALUES
from ratelimited_notify.instrumentation.otel import instrument
from striking import Striking, Struck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from servers import Valkey

ANA = "ana@example.com"
BEN = "ben@example.com"

P = "ratelimited_notify."


class Seen(NamedTuple):
    """What OpenTelemetry got."""

    meters: MeterProvider
    tracers: TracerProvider
    reader: InMemoryMetricReader
    exporter: InMemorySpanExporter

    def counted(self, name: str) -> dict[tuple[Any, ...], Any]:
        """The points of a metric: the sorted values of the attributes, and the value or the number of values."""
        return {
            tuple(sorted(map(str, (point.attributes or {}).values()))): getattr(point, "value", None)
            or getattr(point, "count", 0)
            for metric in self.metrics()
            if metric.name == P + name
            for point in metric.data.data_points
        }

    def metrics(self) -> list[Any]:
        """All metrics."""
        data = self.reader.get_metrics_data()
        return [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def spans(self) -> list[ReadableSpan]:
        """The spans of deliveries."""
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("notify")]

    def ends(self) -> list[tuple[Any, ...]]:
        """Verdict, rule, status and error of each span."""
        keys = (P + "verdict", P + "rule", P + "status", "error.type")
        return [tuple((span.attributes or {}).get(key) for key in keys) for span in self.spans()]


def providers() -> Seen:
    """An SDK without any thread."""
    reader, exporter, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    return Seen(MeterProvider([reader]), tracers, reader, exporter)


@pytest.fixture
def seen() -> Iterator[Seen]:
    """What is seen from now on."""
    made = providers()
    with instrument(made.meters, made.tracers):
        yield made
    assert trace.get_current_span() is trace.INVALID_SPAN
    made.meters.shutdown()


def http(seen: Seen) -> None:
    """A client of HTTP that is instrumented."""
    with seen.tracers.get_tracer("http").start_as_current_span("POST"):
        pass


def kinds(seen: Seen, *, fails: type[BaseException] | None = None) -> dict[str, Callable[[int], None]]:
    """Ways to send so many notifications of the type news to Ana, of which two a day are allowed."""

    def gateway(recipient: str) -> None:
        http(seen)
        if fails is not None:
            raise fails(recipient)

    async def gateway_async(recipient: str) -> None:
        await asyncio.sleep(0)
        gateway(recipient)

    def tried(call: Callable[[], object], times: int) -> None:
        for _ in range(times):
            with suppress(RateLimitExceeded, ConnectionRefusedError):
                call()

    def awaited(call: Callable[[], Any], times: int) -> None:
        async def run() -> None:
            for _ in range(times):
                with suppress(RateLimitExceeded, ConnectionRefusedError):
                    await call()

        asyncio.run(run())

    rules = {"news": "2/day"}
    notifier = Notifier(gateway, rules)
    notifiers = [AsyncNotifier(each, rules, on_limit="raise") for each in (gateway_async, gateway)]
    batches = AsyncNotifier(gateway_async, rules, concurrency=3)

    def decorate(function: Any, limiter: Any, **options: Any) -> Any:
        return rate_limited("news", limiter=limiter(rules), **options)(function)

    dropping = decorate(gateway, Limiter, on_limit="drop")
    raising = decorate(gateway, Limiter)
    varying = rate_limited(lambda recipient: "news", recipient="recipient", limiter=Limiter(rules))(gateway)
    awaiting = decorate(gateway_async, AsyncLimiter)
    returning = decorate(lambda recipient: gateway_async(recipient), Limiter)  # noqa: PLW0108  # a plain function
    return {
        "send": lambda times: tried(lambda: notifier.send("news", ANA), times),
        "deliver": lambda times: tried(lambda: notifier.deliver(Notification("news", ANA)), times),
        "send_many": lambda times: tried(lambda: notifier.send_many("news", [ANA] * times), 1),
        "AsyncNotifier": lambda times: awaited(lambda: notifiers[0].send("news", ANA), times),
        "AsyncNotifier with a thread": lambda times: awaited(lambda: notifiers[1].send("news", ANA), times),
        "AsyncNotifier.send_many": lambda times: awaited(lambda: batches.send_many("news", [ANA] * times), 1),
        "a function that drops": lambda times: tried(lambda: dropping(ANA), times),
        "a function that raises": lambda times: tried(lambda: raising(ANA), times),
        "a function with a type that varies": lambda times: tried(lambda: varying(ANA), times),
        "a coroutine function": lambda times: awaited(lambda: awaiting(ANA), times),
        "a function that returns a coroutine": lambda times: awaited(lambda: returning(ANA), times),
    }


WAYS = list(kinds(providers()))
each_way = pytest.mark.parametrize("way", WAYS)


@each_way
def test_a_span_is_around_each_delivery(way: str, seen: Seen) -> None:
    """It has the verdict, what became of the message, and the spans of what the gateway called as its children."""
    kinds(seen)[way](3)

    # Those of one batch end in any order.
    assert sorted(seen.ends(), key=str) == [
        ("allowed", None, "sent", None),
        ("allowed", None, "sent", None),
        ("refused", "news", "suppressed", None),
    ]
    for span in seen.spans():
        assert (span.name, span.kind, span.parent) == ("notify news", SpanKind.INTERNAL, None)
        assert span.status.status_code is StatusCode.UNSET
        assert span.attributes is not None
        assert (span.attributes[P + "type"], span.attributes[P + "backend"]) == ("news", "memory")
    if way != "a function that returns a coroutine":
        sent = [span.context for span in seen.spans() if (span.attributes or {})[P + "status"] == "sent"]
        children = [span.parent for span in seen.exporter.get_finished_spans() if span.name == "POST"]
        assert {each.span_id for each in children if each} == {each.span_id for each in sent if each}


@each_way
def test_a_failure_is_the_end_of_its_span(way: str, seen: Seen) -> None:
    """It has the class of the exception, and neither its message nor its traceback: they may name the recipient."""
    kinds(seen, fails=ConnectionRefusedError)[way](2)

    assert seen.ends() == [("allowed", None, "failed", "ConnectionRefusedError")] * 2
    for span in seen.spans():
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        assert span.events == ()
        assert ANA not in span.to_json()


@each_way
def test_decisions_and_deliveries_are_counted(way: str, seen: Seen) -> None:
    """The metrics say the same as the spans."""
    kinds(seen)[way](5)

    assert seen.counted("decisions") == {("allowed", "news"): 2, ("news", "news", "refused"): 3}
    assert seen.counted("deliveries") == {("news", "sent"): 2, ("news", "suppressed"): 3}
    assert seen.counted("delivery.duration") == {("news", "sent"): 2}


@each_way
def test_without_spans_the_metrics_are_the_same(way: str) -> None:
    """A `NoOpTracerProvider` leaves the shortcuts of decisions in memory in place."""
    seen = providers()
    with instrument(seen.meters, trace.NoOpTracerProvider()):
        kinds(seen, fails=ConnectionRefusedError)[way](2)

    assert seen.spans() == []
    assert seen.counted("deliveries") == {("ConnectionRefusedError", "failed", "news"): 2}


def test_without_metrics_the_spans_are_the_same() -> None:
    """A `NoOpMeterProvider` measures nothing."""
    seen = providers()
    with instrument(NoOpMeterProvider(), seen.tracers):
        kinds(seen)["send"](3)

    assert len(seen.spans()) == 3
    assert seen.metrics() == []


def test_the_metrics_have_the_shape_of_the_conventions(seen: Seen) -> None:
    """Names, units and kinds, as `aspnetcore.rate_limiting.*` has them: counted things in braces, durations in seconds."""
    storage = Unreliable()
    notifier = Notifier(lambda recipient: None, {"news": "1/day"}, storage, on_limit="wait", max_wait=0.01)
    notifier.send_many("news", [ANA] * 2)
    with suppress(RateLimitExceeded):
        notifier.send("news", ANA)
    storage.failing = ("acquire",)
    with pytest.raises(StorageError):
        notifier.send("news", ANA)
    notifier.rules = {"news": "2/day"}

    metrics = {metric.name.removeprefix(P): metric for metric in seen.metrics()}
    assert {name: (type(metric.data).__name__, metric.unit) for name, metric in metrics.items()} == {
        "decisions": ("Sum", "{decision}"),
        "deliveries": ("Sum", "{delivery}"),
        "delivery.duration": ("Histogram", "s"),
        "storage.errors": ("Sum", "{error}"),
        "rules.changes": ("Sum", "{change}"),
    }
    assert all(metric.description.endswith(".") for metric in metrics.values())
    duration = metrics["delivery.duration"].data
    assert isinstance(duration, Histogram)
    assert duration.data_points[0].explicit_bounds[0] == 0.005
    assert seen.counted("storage.errors") == {("StorageError", "memory", "raise"): 1}
    assert seen.ends()[-1] == (None, None, "failed", "StorageError")


def test_a_wait_is_measured(seen: Seen) -> None:
    """How long it took, and whether it was worth it."""
    notifier = Notifier(lambda recipient: None, {"news": "1 per 1 second"}, on_limit="wait", max_wait=5)
    for _ in range(2):
        notifier.send("news", ANA)

    assert seen.counted("wait.duration") == {("allowed", "news"): 1}
    assert seen.ends() == [("allowed", None, "sent", None)] * 2


def test_a_decision_on_a_server_is_inside_the_span(valkey: Valkey, seen: Seen) -> None:
    """So the spans of an instrumented client are its children; how long the server took is measured."""
    current: list[object] = []

    class Asked(Unreliable):
        def acquire(self, *arguments: Any) -> Any:
            current.append(trace.get_current_span())
            return super().acquire(*arguments)

    Notifier(lambda recipient: None, {"news": "1/day"}, Asked()).send("news", ANA)
    rate_limited("news", limiter=Limiter({"news": "1/day"}, Asked()))(lambda recipient: None)(ANA)
    assert [span.get_span_context() for span in current if isinstance(span, trace.Span)] == [
        span.context for span in seen.spans()
    ]

    with Notifier(lambda recipient: None, {"news": "1/day"}, f"redis://{valkey.address}/7") as notifier:
        notifier.send("news", "somebody")
    assert seen.counted("decision.duration")["redis",] == 1
    [duration] = [metric for metric in seen.metrics() if metric.name == P + "decision.duration"]
    assert (type(duration.data), duration.unit) == (Histogram, "s")


def test_shadow_rules_and_exempt_priorities(seen: Seen) -> None:
    """A span says what a rule in shadow mode would refuse."""
    rules = [Rule("news", "1/day", enforce=False), Rule("alert", "1/day", exempt="critical")]
    notifier = Notifier(lambda recipient: None, rules)
    for _ in range(2):
        notifier.send("news", ANA)
        notifier.bind(priority="critical").send("alert", ANA)

    assert [end[:2] for end in seen.ends()][2:] == [("would_refuse", "news"), ("exempt", None)]


def test_a_limiter_alone_is_counted_and_has_no_span(seen: Seen) -> None:
    """Nobody but the caller knows what it is around."""
    limiter = Limiter({"news": "1/day"})
    for _ in range(2):
        limiter.hit("news", ANA)

    assert seen.spans() == []
    assert seen.counted("decisions") == {("allowed", "news"): 1, ("news", "news", "refused"): 1}


def test_what_cannot_be_decided_is_a_span_too(seen: Seen) -> None:
    """Whatever is wrong with a notification, its span ends."""
    notifier: Any = Notifier(lambda recipient: None, {"news": "1/day"})
    with pytest.raises(TypeError):
        notifier.send(5, ANA)
    with pytest.raises(TypeError):
        notifier.send("news", None)
    assert [bool(each) for each in notifier.send_many("news", [ANA, None])] == [True, False]

    assert [end[2:] for end in seen.ends()] == [
        ("failed", "TypeError"),
        ("failed", "TypeError"),
        ("sent", None),
        ("failed", "TypeError"),
    ]


def test_values_are_few_and_no_recipient_is_among_them(seen: Seen) -> None:
    """At most 100 types, then "other"; swapped arguments show no address, in metrics and in spans."""
    notifier = Notifier(lambda recipient: None, [Rule("*", "1000/day")])
    for number in range(MOST_VALUES + 10):
        notifier.send(f"type {number}", BEN)
    notifier.send(ANA, "news")

    types = {values[-1] if values[0] == "allowed" else values[0] for values in seen.counted("decisions")}
    assert len(types) == MOST_VALUES + 1
    assert "other" in types
    assert seen.spans()[-1].name == "notify other"
    shown = "".join(span.to_json() for span in seen.spans()) + repr(seen.counted("decisions"))
    assert "@" not in shown


def test_the_span_of_the_caller_is_the_parent(seen: Seen) -> None:
    """The delivery is a part of the trace of the program, and a delivery inside a gateway is a part of the outer one."""
    inner = Notifier(lambda recipient: None, {"inner": "9/day"})
    outer = Notifier(lambda recipient: inner.send("inner", recipient), {"outer": "9/day"})
    with seen.tracers.get_tracer("shop").start_as_current_span("order") as order:
        outer.send("outer", ANA)
        assert trace.get_current_span() is order

    spans = {span.name: span for span in seen.exporter.get_finished_spans()}
    assert spans["notify outer"].parent == order.get_span_context()
    assert spans["notify inner"].parent == spans["notify outer"].context
    assert spans["notify inner"].context is not None


def test_a_future_ends_the_span_later(seen: Seen) -> None:
    """What a function returns may end in another thread. The span ends then, and is not current meanwhile."""
    future: Future[None] = Future()
    send = rate_limited("news", limiter=Limiter({"news": "1/day"}))(lambda recipient: future)
    send(ANA)
    assert seen.spans() == []
    assert trace.get_current_span() is trace.INVALID_SPAN

    with ThreadPoolExecutor(1) as thread:
        thread.submit(future.set_exception, ValueError(ANA)).result()
    assert seen.ends() == [("allowed", None, "failed", "ValueError")]


def test_threads_and_tasks_do_not_mix_their_spans(seen: Seen) -> None:
    """Each gateway sees the span of its own delivery."""

    def gateway(recipient: str) -> None:
        with seen.tracers.get_tracer("http").start_as_current_span(recipient):
            pass

    async def gateway_async(recipient: str) -> None:
        await asyncio.sleep(0.001)
        gateway(recipient)
        await asyncio.sleep(0.001)

    names = [f"r{number}" for number in range(40)]
    notifier = Notifier(gateway, dict.fromkeys(names, "1/day"))
    notifier_async = AsyncNotifier(gateway_async, dict.fromkeys(names, "1/day"))

    async def together() -> None:
        await asyncio.gather(*(notifier_async.send(name, name) for name in names))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: notifier.send(name, name), names))
    asyncio.run(together())

    all_spans = seen.exporter.get_finished_spans()
    of_id = {span.context.span_id: span.name for span in all_spans if span.context is not None}
    parents = [(span.name, of_id[span.parent.span_id]) for span in all_spans if span.parent is not None]
    assert len(parents) == 80
    assert {(name, f"notify {name}") for name in names} == set(parents)


def test_a_cancelled_task_ends_its_span(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """A time-out ends the span as a failure, and OpenTelemetry does not complain."""

    async def gateway(recipient: str) -> None:
        await asyncio.sleep(60)

    async def run() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(AsyncNotifier(gateway, {"news": "1/day"}).send("news", ANA), 0.01)

    asyncio.run(run())
    assert seen.ends() == [("allowed", None, "failed", "CancelledError")]
    assert caplog.records == []


def test_a_coroutine_that_another_context_closes(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """The garbage collector closes what nobody awaited to its end, anywhere. OpenTelemetry does not complain."""
    import contextvars

    class Never:
        def __await__(self) -> Any:
            yield

    async def gateway(recipient: str) -> None:
        await Never()

    sending = AsyncNotifier(gateway, {"news": "1/day"}).send("news", ANA)
    contextvars.copy_context().run(sending.send, None)
    contextvars.copy_context().run(sending.close)

    assert seen.ends() == [("allowed", None, "failed", "GeneratorExit")]
    assert caplog.records == []


def test_an_exporter_that_logs_by_the_library_comes_to_an_end(caplog: pytest.LogCaptureFixture) -> None:
    """What an exporter sends has no span, which would have to be exported too."""

    class Mailing(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            mails.append(bool(mailer.send("log", "admin@example.com")))
            return SpanExportResult.SUCCESS

    mails: list[bool] = []
    mailer = Notifier(lambda recipient: None, {"log": "1/day"})
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(Mailing()))
    with instrument(NoOpMeterProvider(), tracers):
        Notifier(lambda recipient: None, {"news": "1/day"}).send("news", ANA)

    assert mails == [True]


def test_what_an_sdk_raises_does_not_reach_the_sender(caplog: pytest.LogCaptureFixture) -> None:
    """The message is sent, and the log says so once."""

    class Broken(trace.NoOpTracer):
        def start_span(self, *arguments: Any, **options: Any) -> Any:
            raise ValueError(ANA)

    class BrokenProvider(trace.TracerProvider):
        def get_tracer(self, *arguments: Any, **options: Any) -> trace.Tracer:
            return Broken()

    notifier = Notifier(lambda recipient: None, {"news": "5/day"})
    with instrument(NoOpMeterProvider(), BrokenProvider()):
        assert all(notifier.send("news", ANA) for _ in range(3))

    [said] = [record.getMessage() for record in caplog.records]
    assert "raised ValueError" in said
    assert ANA not in said


def test_closing_ends_it() -> None:
    """After `close` nothing is counted and no span begins, and the shortcuts are back."""
    seen = providers()
    limiter = Limiter({"news": "9/day"})
    notifier = Notifier(lambda recipient: None, limiter=limiter)
    handle = instrument(seen.meters, seen.tracers)
    notifier.send("news", ANA)
    handle.close()
    notifier.send("news", ANA)

    assert len(seen.spans()) == 1
    assert seen.counted("decisions") == {("allowed", "news"): 1}
    assert limiter.watching is None
    assert limiter.plans.shortcuts["news"] is not None


def test_the_global_providers_are_the_default() -> None:
    """An SDK that is set up after the call gets everything."""
    program = """
from opentelemetry import metrics, trace
from test_otel import providers
from ratelimited_notify import Notifier
from ratelimited_notify.instrumentation.otel import instrument
instrument()
notifier = Notifier(lambda recipient: None, {"news": "9/day"})
notifier.send("news", "ana")
seen = providers()
metrics.set_meter_provider(seen.meters)
trace.set_tracer_provider(seen.tracers)
notifier.send("news", "ana")
print(len(seen.spans()), seen.counted("decisions"))
"""
    assert _printed(program) == "1 {('allowed', 'news'): 1}"


def test_it_is_never_switched_on_by_itself() -> None:
    """That the package is installed means nothing: the library does not even load it."""
    program = """
import sys
from ratelimited_notify import Limiter, Notifier
import ratelimited_notify.instrumentation
notifier = Notifier(lambda recipient: None, {"news": "9/day"})
notifier.send("news", "ana")
print(notifier.limiter.watching, [name for name in sys.modules if name.startswith("opentelemetry")])
"""
    assert _printed(program) == "None []"


def test_without_the_package_the_error_says_how_to_install_it() -> None:
    """The extra is named. The SDK is not needed."""
    program = """
import sys
sys.modules["opentelemetry.metrics"] = None
try:
    from ratelimited_notify.instrumentation.otel import instrument
except ImportError as error:
    print(error)
"""
    assert "pip install 'ratelimited-notify[otel]'" in _printed(program)
    program = """
import sys
sys.modules["opentelemetry.sdk"] = None
from ratelimited_notify import Notifier
from ratelimited_notify.instrumentation.otel import instrument
instrument()
print(Notifier(lambda recipient: None, {"news": "9/day"}).send("news", "ana").status)
"""
    assert "SENT" in _printed(program).upper()


def _printed(program: str) -> str:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
def test_a_forked_child_goes_on() -> None:
    """A child of a process in the middle of a delivery sends, and its spans are in the same trace."""
    program = """
import os
from opentelemetry import trace
from test_otel import providers
from ratelimited_notify import Notifier
from ratelimited_notify.instrumentation.otel import instrument
seen = providers()
instrument(seen.meters, seen.tracers)
inner = Notifier(lambda recipient: None, {"news": "9/day"})
def gateway(recipient):
    child = os.fork()
    if child == 0:
        inner.send("news", "ana")
        [span] = seen.spans()
        os._exit(0 if span.parent == trace.get_current_span().get_span_context() else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
Notifier(gateway, {"outer": "9/day"}).send("outer", "ana")
print(seen.ends())
"""
    assert _printed(program) == "0\n[('allowed', None, 'sent', None)]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"meter_provider": "otlp://"}, "meter_provider="),
        ({"tracer_provider": 5}, "tracer_provider="),
        ({"meter_provider": TracerProvider()}, "meter_provider="),
    ],
)
def test_an_argument_that_cannot_be_used_is_an_error(arguments: dict[str, Any], message: str) -> None:
    """The message says which argument, and nothing is watched."""
    with pytest.raises(NotifyError, match=message):
        instrument(**arguments)
    assert Limiter({"news": "1/day"}).watching is None


class StrikingSends(Striking):
    """What is raised in a finalizer goes nowhere, so none is struck."""

    def follows(self, frame: FrameType) -> bool:
        return super().follows(frame) and frame.f_code.co_name != "__del__"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["send", "send_many", "a function that drops", "a coroutine function"])
def test_an_interrupt_at_any_line_leaves_no_span_current(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise all later spans of the thread would be children of a delivery that is over."""
    package = Path(ratelimited_notify.__file__).parent
    files = (
        str(package / "limiter" / "surrounding.py"),
        str(package / "notifier"),
        str(package / "decorator" / "surrounded.py"),
        str(package / "instrumentation" / "otel"),
    )
    at = 0
    while True:
        at += 1
        seen = providers()
        with instrument(seen.meters, seen.tracers):
            send = kinds(seen)[way]
            before = context.get_current()
            striking = StrikingSends(at, Struck, files)
            with suppress(Struck):
                error = striking.during(partial(send, 1))
                del error
            if striking.seen < at:
                break
            assert context.get_current() is before, striking.where
            seen.exporter.clear()
            send(1)
            assert [span.parent for span in seen.spans()] == [None], striking.where
        seen.meters.shutdown()
        seen.tracers.shutdown()
    assert at > 30
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
