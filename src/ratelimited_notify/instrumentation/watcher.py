"""A callback that is told about events, and how it is kept from doing harm."""

from __future__ import annotations

import signal
from functools import partial
from threading import local
from typing import TYPE_CHECKING, Protocol, TypeAlias
from weakref import ref

from ratelimited_notify.callables import check_is_called_only
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.instrumentation import registry
from ratelimited_notify.log import warning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType
    from typing import Self

    from ratelimited_notify.instrumentation.events import Decided, Delivered, Event
    from ratelimited_notify.rules.rule import Rule

    Callback: TypeAlias = Callable[[Event], object]


def watch(callback: Callback, *, recipients: bool = False) -> Handle:
    """Call a function for each event of all limiters of the process, also of those that are made later.

    It is called in the thread of the sender, before the sender goes on, so it should be quick. What it raises is logged once and
    never reaches the sender. If it asks a limiter itself, it is not called about that.

    Arguments:
        callback: takes an event, such as `Decided` or `Delivered`. There may be more kinds of events in later versions.
        recipients: True tells the recipient too, as it is counted: normalized, and pseudonymized if the limiter does that.

    Returns:
        A handle. Its `close()` ends the watching.

    Raises:
        NotifyError: the callback cannot be called, or is a coroutine function.
    """
    return Handle.begun(Watcher(callback, recipients=recipients), registry.begin, registry.end)


class Surround(Protocol):
    """What is around one delivery: the decision, and the call of the gateway."""

    def enter(self) -> None:
        """Begin, in the thread or task of the delivery."""
        ...

    def leave(self) -> None:
        """The call of the gateway has returned, in the same thread or task. Not called if it was not entered."""
        ...

    def end(self, decided: Decided | None, delivered: Delivered) -> None:
        """The delivery has ended, perhaps after `leave`, in any thread or task.

        Arguments:
            decided: the decision; None if there is none.
            delivered: how it ended.
        """
        ...


class Handle:
    """What ends the watching: `close()`, or a `with` block."""

    __slots__ = ("_end", "watcher")

    def __init__(self, watcher: Watcher, end: Callable[[Watcher], None]) -> None:
        self.watcher = watcher
        self._end = end

    @classmethod
    def begun(cls, watcher: Watcher, begin: Callable[[Watcher], None], end: Callable[[Watcher], None]) -> Self:
        """Begin to watch, and return what ends it."""
        handle = cls(watcher, end)
        begin(watcher)
        return handle

    def close(self) -> None:
        """End the watching. You can call this more than once."""
        self._end(self.watcher)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Call:
    """A running call of a callback. It is gone when the call is over, however that ended."""

    __slots__ = ("__weakref__",)


class Watcher:
    """Tells events to a callback.

    Arguments:
        callback: takes an event.
        recipients: whether it is told the recipients too.

    Raises:
        NotifyError: the callback cannot be called, or is a coroutine function.
    """

    times_deliveries = True
    """Whether it wants to know how long gateways take."""

    times_decisions = True
    """Whether it wants to know how long storages take."""

    names_rules = True
    """Whether it wants to know which rule suppressed a delivery. `Decided` tells that in any case."""

    surrounds = False
    """Whether it surrounds deliveries with something."""

    logs_suppressions = False
    """Whether it logs suppressed deliveries. If nobody does, each is a line at the level DEBUG."""

    def __init__(self, callback: Callback, *, recipients: bool = False) -> None:
        if not callable(callback):
            raise NotifyError(f"The callback that watches is a {type(callback).__name__}, not a function.")
        check_is_called_only(callback, "The callback that watches")
        if not isinstance(recipients, bool):
            raise NotifyError("recipients= must be True or False.")
        self.recipients = recipients
        self._callback = callback
        # By thread. In a forked child, the threads that the parent had are not there, and nothing of them is.
        self._here = local()
        self._has_raised = False

    def tell(self, event: Event) -> None:
        """Call the callback, unless it is what led here. It raises nothing but what a signal handler raised."""
        here = self._here.__dict__
        running: ref[_Call] | None = here.get("running")
        if running is not None and running() is not None:
            return
        call = _Call()
        try:
            here["running"] = ref(call)
            self._callback(event)
        except Exception as error:  # noqa: BLE001  # the callback is somebody else's code and may raise anything
            self.raised(error)
        finally:
            here["running"] = None

    def prepared(self, event: Event) -> Callable[[], object]:
        """A function that tells this event, which happens often."""
        return partial(self.tell, event)

    def surround(self, type: object) -> Surround | None:
        """Something around a delivery of this type, which has not begun yet; None if there is nothing.

        Arguments:
            type: the type of the notification. It may be anything: nothing has looked at it yet.
        """
        return None

    def prepared_decision(self, event: Decided) -> Callable[[float], object]:
        """A function that tells this decision, of which only the seconds differ from time to time."""
        from msgspec.structs import replace

        return lambda seconds: self.tell(replace(event, seconds=seconds))

    def rules_in_force(self, rules: Sequence[Rule]) -> None:
        """Note the rules of a limiter, those of decorators too: when the watching begins, when it is made, and when they change.
        It raises nothing.
        """

    def storage_in_use(self, backend: str, policy: str, circuits: Mapping[str, str]) -> None:
        """Note the storage of a limiter: when the watching begins, and when the limiter is made. It raises nothing.

        Arguments:
            backend: what holds the windows, as in `Decided`.
            policy: what the limiter does if the storage fails, as in `StorageFailed`.
            circuits: the state of the circuit of each server.
        """

    def raised(self, error: Exception) -> None:
        """Log the first exception of the callback. The exception of a signal handler is not its fault, and is passed on."""
        if _by_signal_handler(error):
            raise error
        if not self._has_raised:
            self._has_raised = True
            warning(
                "%s raised %s. It is still called, and what else it raises is not logged.",
                self._what(),
                type(error).__name__,
            )

    def _what(self) -> str:
        """What it is, at the beginning of a sentence in the log."""
        return f"A callback that watches, {getattr(self._callback, '__qualname__', type(self._callback).__name__)},"


def _by_signal_handler(error: BaseException) -> bool:
    """Whether a signal handler raised this, which ran in the middle of something else."""
    handlers = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number))) is not None}
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False


def _code_of(handler: object) -> CodeType | None:
    while isinstance(handler, partial):
        handler = handler.func
    called = getattr(handler, "__func__", handler)
    if not hasattr(called, "__code__"):
        # An object that can be called. A class, and what is written in C, have no code here.
        called = getattr(type(handler), "__call__", None)  # noqa: B004  # asks for the function, not whether there is one
    code: CodeType | None = getattr(called, "__code__", None)
    return code
