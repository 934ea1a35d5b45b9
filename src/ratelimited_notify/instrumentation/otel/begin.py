"""Begin and end metrics and traces."""

from __future__ import annotations

from opentelemetry import metrics, trace

from ratelimited_notify._version import __version__
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.instrumentation import registry
from ratelimited_notify.instrumentation.otel.metrics import Metrics
from ratelimited_notify.instrumentation.otel.spans import Spans
from ratelimited_notify.instrumentation.otel.watcher import Telemetry
from ratelimited_notify.instrumentation.watcher import Handle

_SCOPE = "ratelimited_notify"


def instrument(
    meter_provider: metrics.MeterProvider | None = None, tracer_provider: trace.TracerProvider | None = None
) -> Handle:
    """Give OpenTelemetry metrics about what all limiters of the process decide, and a span around each delivery.

    Call it once, when the program starts. Only this call switches it on. Nothing is exported without an SDK, which you set up
    before or after this call.

    The span begins before the decision and ends after the gateway or the decorated function. It is the current span meanwhile, so
    the spans of your HTTP or Redis client become its children. It shows no recipient, and no message of an exception.

    Arguments:
        meter_provider: gets the metrics; by default the global one. `NoOpMeterProvider()` makes no metrics.
        tracer_provider: gets the spans; by default the global one. `NoOpTracerProvider()` makes no spans, and decisions in memory
            are as fast as without spans.

    Returns:
        A handle. Its `close()` ends it.

    Raises:
        MissingExtra: `opentelemetry-api` is not installed. The import of this module raises it.
        NotifyError: an argument cannot be used.
    """
    _check("meter_provider", meter_provider, metrics.MeterProvider)
    _check("tracer_provider", tracer_provider, trace.TracerProvider)
    measured = traced = None
    if not isinstance(meter_provider, metrics.NoOpMeterProvider):
        measured = Metrics(metrics.get_meter(_SCOPE, __version__, meter_provider))
    if not isinstance(tracer_provider, trace.NoOpTracerProvider):
        traced = Spans(trace.get_tracer(_SCOPE, __version__, tracer_provider))
    return Handle.begun(Telemetry(measured, traced), registry.begin, registry.end)


def _check(name: str, provider: object, kind: type) -> None:
    if provider is not None and not isinstance(provider, kind):
        raise NotifyError(f"{name}= must be a {kind.__name__} of OpenTelemetry, not a {type(provider).__name__}.")
