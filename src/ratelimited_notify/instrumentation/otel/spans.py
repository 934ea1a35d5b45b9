"""A span around each delivery: the decision, and the call of the gateway."""

from __future__ import annotations

from contextvars import ContextVar
from threading import local
from typing import TYPE_CHECKING
from weakref import ref

from opentelemetry import context
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from ratelimited_notify.instrumentation.labels import Label
from ratelimited_notify.instrumentation.otel.attributes import (
    BACKEND,
    DEGRADED,
    ERROR_TYPE,
    OTHER_ERROR,
    RULE,
    STATUS,
    TYPE,
    VERDICT,
    shown_type,
)

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from ratelimited_notify.instrumentation.events import Decided, Delivered

# Only to tell whether the context is still that in which the span became the current one.
_entered: ContextVar[None] = ContextVar("ratelimited_notify_span", default=None)


class _Call:
    """A running call of the SDK. It is gone when the call is over, however that ended."""

    __slots__ = ("__weakref__",)


class Spans:
    """Makes the spans.

    Arguments:
        tracer: makes a span.
    """

    __slots__ = ("_here", "_names", "tracer")

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self._names = Label()
        # The call of the SDK that this thread is in. An exporter that sends what it logs would never come to an end.
        self._here = local()

    def around(self, type: object) -> DeliverySpan | None:
        """The span of a delivery of this type; None if it is what an exporter sends."""
        running: ref[_Call] | None = getattr(self._here, "running", None)
        return DeliverySpan(self, type) if running is None or running() is None else None

    def started(self, type: object) -> Span:
        """A span that has begun."""
        name = f"notify {self._names.of(type) if isinstance(type, str) else self._names.of('')}"
        call = _Call()
        self._here.running = ref(call)
        return self.tracer.start_span(name, kind=SpanKind.INTERNAL, attributes={TYPE: shown_type(type)})

    def end(self, span: Span) -> None:
        """End a span."""
        call = _Call()
        self._here.running = ref(call)
        span.end()


class DeliverySpan:
    """The span of one delivery.

    Arguments:
        spans: starts and ends the span.
        type: the type of the notification.
    """

    __slots__ = ("_before", "_context", "_mark", "_span", "_spans", "_token", "_type")

    def __init__(self, spans: Spans, type: object) -> None:
        self._spans = spans
        self._type = type
        self._span: Span | None = None
        self._before: Context | None = None
        self._context: Context | None = None
        self._mark: Token[None] | None = None
        self._token: Token[Context] | None = None

    def enter(self) -> None:
        """Start the span, and make it the current one."""
        self._span = span = self._spans.started(self._type)
        self._before = context.get_current()
        self._context = set_span_in_context(span, self._before)
        self._mark = _entered.set(None)
        self._token = context.attach(self._context)

    def leave(self) -> None:
        """Make the span current that was it before."""
        if self._mark is not None and self._token is not None:
            try:
                _entered.reset(self._mark)
            except ValueError:
                # A coroutine was closed in another context than its own, by the garbage collector.
                self._context = None
                return
            context.detach(self._token)
            self._context = None

    def __del__(self) -> None:
        # An interrupt may come before the span is left. Then it must not stay the current one of this thread.
        entered = getattr(self, "_context", None)
        if entered is not None and self._before is not None and context.get_current() is entered:
            context.attach(self._before)

    def end(self, decided: Decided | None, delivered: Delivered) -> None:
        """Write down how the delivery ended, and end the span."""
        span = self._span
        if span is None:
            return
        if span.is_recording():
            span.set_attribute(STATUS, delivered.status)
            if decided is not None:
                _describe(span, decided)
            if delivered.status == "failed":
                # Neither the exception nor its message: they may name the recipient.
                span.set_attribute(ERROR_TYPE, OTHER_ERROR if delivered.error is None else delivered.error)
                span.set_status(Status(StatusCode.ERROR))
        self._spans.end(span)


def _describe(span: Span, decided: Decided) -> None:
    span.set_attribute(VERDICT, decided.verdict)
    span.set_attribute(BACKEND, decided.backend)
    if decided.rule is not None:
        span.set_attribute(RULE, decided.rule)
    if decided.degraded:
        span.set_attribute(DEGRADED, True)
