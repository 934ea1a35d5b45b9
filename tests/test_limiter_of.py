"""What decides about a decorated function can be reached: `configure` returns it, and `limiter_of` finds it."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from limiting import Clock
from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    Limiter,
    NotifyError,
    RateLimitExceeded,
    configure,
    limiter_of,
    rate_limited,
)
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.decorator.deciding import is_limited
from ratelimited_notify.storage import open_storage
from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Valkey


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


def test_configure_returns_what_decides() -> None:
    """A sync and an async limiter on one set of windows; after another `configure`, those of the new one."""
    send = rate_limited("news")(lambda to: "sent")
    configured = configure({"news": "2/day"})
    send("ana")

    assert isinstance(configured.limiter, Limiter)
    assert isinstance(configured.async_limiter, AsyncLimiter)
    assert configured.limiter.test("news", "ana").remaining == 1
    assert asyncio.run(configured.async_limiter.test("news", "ana")).remaining == 1
    assert configured.limiter.clear("news", "ana") == 1
    again = configure({"news": "3/day"})
    assert configured.limiter is again.limiter
    assert again.limiter.test("news", "ana").remaining == 3


def test_the_rules_of_the_configuration_can_be_edited() -> None:
    """As those of any limiter."""
    send = rate_limited("news", on_limit="drop")(lambda to: "sent")
    configured = configure({"news": "1/day"})
    configured.limiter.rules = {"news": "2/day"}

    assert [send("ana") for _ in range(3)] == ["sent", "sent", None]


FIXED = Limiter({"news": "1/day"}, clock=Clock())
FIXED_LATER = AsyncLimiter({"news": "1/day"}, clock=Clock())


class Sender:
    """Every kind of function that can be decorated."""

    @rate_limited("limiter-of", "1/day")
    def method(self, to: str) -> str:
        return to

    @classmethod
    @rate_limited("limiter-of", "1/day")
    def of_class(cls, to: str) -> str:
        return to

    @staticmethod
    @rate_limited("limiter-of", "1/day")
    def static(to: str) -> str:
        return to

    @rate_limited("limiter-of", "1/day")
    @classmethod
    def outside(cls, to: str) -> str:
        return to

    @rate_limited("limiter-of", "1/day")
    async def later(self, to: str) -> str:
        return to


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that keeps the name, as most do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@rate_limited("limiter-of", "1/day")
def send(to: str) -> str:
    return "sent"


@rate_limited("news", limiter=FIXED)
def send_fixed(to: str) -> str:
    return "sent"


@rate_limited("news", limiter=FIXED_LATER)
async def send_fixed_later(to: str) -> str:
    return "sent"


@pytest.mark.parametrize(
    "function",
    [send, logged(send), logged(logged(send)), functools.partial(send, "ana"), logged(functools.partial(send, to="ana")),
     Sender.method, Sender().method, Sender.of_class, Sender().of_class, Sender.static, Sender().outside,
     vars(Sender)["of_class"], vars(Sender)["static"]],
)  # fmt: skip
def test_a_function_of_the_configuration(function: Any) -> None:
    """Functions, methods and what other decorators made of them: what the process is configured with decides."""
    assert limiter_of(function) is configuration.limiter()
    configured = configure({"news": "2/day"})
    assert limiter_of(function) is configured.limiter


@pytest.mark.parametrize("function", [Sender.later, Sender().later, logged(Sender.later)])
def test_a_coroutine_function(function: Any) -> None:
    """An async limiter decides about it."""
    assert limiter_of(function) is configuration.async_limiter()
    configured = configure({"news": "2/day"})
    assert limiter_of(function) is configured.async_limiter


def test_a_limiter_of_its_own() -> None:
    """Whatever is configured."""
    configure({"news": "2/day"})

    assert limiter_of(send_fixed) is FIXED
    assert limiter_of(logged(send_fixed)) is FIXED
    assert limiter_of(send_fixed_later) is FIXED_LATER


def test_the_outermost_of_two_decorators() -> None:
    """Of two limits on one function, the one that is asked first."""
    twice = rate_limited("code", limiter=FIXED)(send)

    assert limiter_of(twice) is FIXED
    assert limiter_of(send) is configuration.limiter()


def test_a_task_of_celery() -> None:
    """A task is made around the limited function."""
    from celery import Celery

    app = Celery("shop", set_as_current=False)

    assert limiter_of(app.task(send_fixed)) is FIXED
    assert limiter_of(app.task(send_fixed, bind=False, name="other")) is FIXED


@pytest.mark.parametrize("function", [print, len, lambda to: to, Sender, Sender(), functools.partial(print), 5])
def test_what_has_no_limit(function: Any) -> None:
    """The error says so."""
    with pytest.raises(NotifyError, match="has no @rate_limited, so no limiter decides about it"):
        limiter_of(function)


def test_a_wrapper_around_itself() -> None:
    """The search ends."""

    def one() -> None: ...

    one.__wrapped__ = one  # type: ignore[attr-defined]  # as a broken decorator might
    with pytest.raises(NotifyError, match="has no @rate_limited"):
        limiter_of(one)


def test_functions_are_not_kept() -> None:
    """A function that was decorated inside another one goes with it."""

    def make() -> weakref.ref[Any]:
        return weakref.ref(rate_limited("news", limiter=FIXED)(lambda to: "sent"))

    gone = make()
    gc.collect()
    assert gone() is None


# Windows that a later `configure` leaves behind.

MOVED = "count elsewhere from now on"


def moved(caplog: pytest.LogCaptureFixture) -> int:
    return sum(MOVED in record.getMessage() for record in caplog.records)


def test_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Functions that were called, and then configured, are told of once; the windows are new ones."""
    send = rate_limited("news", "1/day", on_limit="drop")(lambda to: "sent")
    assert [send("ana"), send("ana")] == ["sent", None]
    for number in range(3):
        configure(storage=MemoryStorage())
        assert [send("ana"), send("ana")] == ["sent", None]
        assert moved(caplog) == 1, number


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(
    "changed",
    [{"storage": "memcached://127.0.0.1:1"}, {"namespace": "other"}, {"pseudonymize": b"secret"}, {"clock": Clock()},
     {"storage": AsyncMemoryStorage()}],
    ids=["storage", "namespace", "pseudonymize", "clock", "object"],
)  # fmt: skip
def test_every_way_to_leave_windows_behind(
    caplog: pytest.LogCaptureFixture, awaited: bool, changed: dict[str, Any]
) -> None:
    """Another storage, or other keys."""

    async def later(to: str) -> str:
        return "sent"

    send = rate_limited("news", "1/day")(later if awaited else lambda to: "sent")
    result: Any = send("ana")
    if awaited:
        asyncio.run(result)
    configure({"news": "1/day"}, **changed)

    assert moved(caplog) == 1


@pytest.mark.parametrize(
    "same",
    [{}, {"storage": "memory://"}, {"rules": {"news": "5/day"}}, {"enabled": False}, {"on_storage_error": "allow"},
     {"namespace": "notify"}],
)  # fmt: skip
def test_windows_that_stay_are_not_told(caplog: pytest.LogCaptureFixture, same: dict[str, Any]) -> None:
    """Nor is a configuration that was replaced before any function was called."""
    configure(storage=MemoryStorage())
    configure(storage=open_storage("memory://"), clock=None)
    configure(storage="memory://")
    send = rate_limited("news", "1/day", on_limit="drop")(lambda to: "sent")
    send("ana")
    configure(**same)

    assert moved(caplog) == 0


def test_a_server_that_stays_is_not_told(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """The same URI again is the same place; another database is another."""
    send = rate_limited("news", "1/day", on_limit="drop")(lambda to: "sent")
    configure(storage=f"redis://{valkey.address}/3", namespace="limiter-of")
    send("ana")
    configure({"news": "1/day"}, storage=f"redis://{valkey.address}/3", namespace="limiter-of")
    assert (send("ana"), moved(caplog)) == (None, 0)
    configure({"news": "1/day"}, storage=f"redis://{valkey.address}/4", namespace="limiter-of")
    assert moved(caplog) == 1
    assert valkey.address not in caplog.text


class _Application:
    """Its limiter refers to it, and so does the function that the limiter decides about."""

    def __init__(self) -> None:
        self.limiter = Limiter({"news": "1/day"}, normalize=self.normalized)
        self.send = rate_limited("news", limiter=self.limiter)(self.sent)

    def normalized(self, recipient: str) -> str:
        return recipient.lower()

    def sent(self, to: str) -> None:
        """Sends."""


def test_a_circle_of_a_function_and_its_limiter_is_freed() -> None:
    """That `limiter_of` finds a limiter keeps nothing alive."""
    application = _Application()
    application.send("ana")
    assert limiter_of(application.send) is application.limiter
    freed = weakref.ref(application)
    del application
    gc.collect()

    assert freed() is None


def test_the_exception_of_a_decorated_function() -> None:
    """What a handler needs is on it."""
    send = rate_limited("news", "1/day")(lambda to: "sent")
    send("ana")
    with pytest.raises(RateLimitExceeded) as caught:
        send("ana")

    assert caught.value.headers() == {"Retry-After": "86400"}


def test_it_can_be_asked_whether_a_function_is_limited() -> None:
    """Nothing is configured for that, and no limiter is made."""
    limited = rate_limited("news")(lambda to: "sent")

    assert is_limited(limited)
    assert is_limited(functools.partial(limited))
    assert is_limited(Sender().method)
    assert not any(map(is_limited, (print, 5, [], Limiter, None)))
