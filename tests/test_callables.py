"""Callables that the library calls and does not await: coroutine functions and generators are refused in all places."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notifier,
    NotifyError,
    Rule,
    configure,
    rate_limited,
)
from ratelimited_notify.callables import is_async, is_generator
from ratelimited_notify.storage import open_async_storage, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


MANY = {"news": "1000/day"}
TIERED = [Rule("news", "1000/day", tiers={"gold": "2000/day"})]


async def _async(*args: object, **kwargs: object) -> Any:
    return "ana"


def _generator(*args: object, **kwargs: object) -> Any:
    yield "ana"


async def _async_generator(*args: object, **kwargs: object) -> Any:
    yield "ana"


class _Object:
    async def __call__(self, *args: object, **kwargs: object) -> Any:
        return "ana"

    async def method(self, *args: object, **kwargs: object) -> Any:
        return "ana"

    @classmethod
    async def class_method(cls, *args: object, **kwargs: object) -> Any:
        return args or kwargs


class _GeneratorObject:
    def __call__(self, *args: object, **kwargs: object) -> Any:
        yield "ana"


class _Heir(_Object):
    """Its `__call__` is inherited."""


ASYNC: list[Any] = [
    _async,
    _Object(),
    _Heir(),
    _Object().method,
    _Object.class_method,
    _Object().__call__,
    functools.partial(_async, 1),
    functools.partial(functools.partial(_Object()), 1),
    functools.partial(_Object().method, 1),
]
GENERATORS: list[Any] = [_generator, _async_generator, _GeneratorObject(), functools.partial(_generator, 1)]

each_async = pytest.mark.parametrize("function", ASYNC, ids=range(len(ASYNC)))


def _clock(**methods: Any) -> Any:
    class Clock:
        def __call__(self) -> float:
            return 1e9

    clock: Any = Clock()
    for name, method in methods.items():
        setattr(clock, name, method)
    return clock


def _decorated(**options: Any) -> Any:
    return rate_limited(options.pop("type", "news"), **options)(lambda to: to)


OPTIONS: dict[str, Callable[[Any], object]] = {
    "type=": lambda function: _decorated(type=function),
    "recipient=": lambda function: _decorated(recipient=function),
    "cost=": lambda function: _decorated(cost=function),
    "priority=": lambda function: _decorated(priority=function),
    "tenant=": lambda function: _decorated(fields={"tenant": function}),
    "refund=": lambda function: _decorated(refund=function),
    "refund= ": lambda function: Notifier(print, MANY, refund=function),
    "refund=  ": lambda function: AsyncNotifier(print, MANY, refund=function),
    "tier_of=": lambda function: Limiter(TIERED, tier_of=function),
    "tier_of= ": lambda function: AsyncNotifier(print, TIERED, tier_of=function),
    "normalize=": lambda function: Limiter(MANY, normalize=function),
    "normalize= ": lambda function: AsyncLimiter(MANY, normalize=function),
    "normalize=  ": lambda function: configure(MANY, normalize=function),
    "clock=": lambda function: Limiter(MANY, clock=function),
    "clock= ": lambda function: AsyncLimiter(MANY, clock=function),
    "clock=  ": lambda function: Limiter(MANY, clock=function, enabled=False),
    "clock=   ": lambda function: open_storage("memory://", clock=function),
    "clock=    ": lambda function: open_async_storage("memory://", clock=function),
    "clock=     ": lambda function: open_storage("memcached://localhost:1", clock=function),
    "clock=      ": lambda function: open_async_storage("memcached://localhost:1", clock=function),
    "The method sleep of clock=": lambda function: Limiter(MANY, clock=_clock(sleep=function)),
    "The method sleep of clock= ": lambda function: AsyncLimiter(MANY, clock=_clock(sleep=function)),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        *((function, "a coroutine function, which nothing would await") for function in ASYNC),
        *((function, "a generator function, whose calls return no value") for function in GENERATORS),
    ],
    ids=range(len(ASYNC) + len(GENERATORS)),
)
def test_what_nothing_would_await_is_refused(option: str, function: Any, wrong: str) -> None:
    """A coroutine function, or a generator function, is refused where the option is given, and not at a call."""
    with pytest.raises(NotifyError) as caught:
        OPTIONS[option](function)
    assert str(caught.value).startswith(f"{option.strip()} is {wrong}; it must be a plain function.")


@each_async
def test_an_async_gateway_of_a_notifier_is_refused(function: Any) -> None:
    """A `Notifier` takes no gateway that must be awaited."""
    with pytest.raises(NotifyError, match=r"^The gateway is a coroutine function; use AsyncNotifier\.$"):
        Notifier(function, MANY)


class _Made:
    """A class: a call makes an object, and awaits nothing, although calls of the object would have to be awaited."""

    def __new__(cls, recipient: str) -> Any:
        return f"{recipient} Lee"

    async def __call__(self) -> None: ...


def test_a_class_is_called_and_not_awaited() -> None:
    """What is decided is whether the call must be awaited, and not a call of what it returns."""
    assert not is_async(_Made)
    assert not is_generator(_Made)
    assert Limiter(MANY, normalize=_Made).hit("news", "bob")


def _wrapping(function: Any) -> Any:
    """A wrapper of a decorator that does not look at what it decorates."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "function",
    [
        *GENERATORS[:3],
        _wrapping(_generator),
        _wrapping(_wrapping(_async_generator)),
        _wrapping(functools.partial(_generator)),
        functools.partial(_wrapping(_generator)),
        functools.partial(_wrapping(functools.partial(_wrapping(_async_generator)))),
        functools.lru_cache(_generator),
    ],
    ids=range(9),
)
def test_a_generator_behind_a_wrapper_is_refused(function: Any) -> None:
    """A wrapper that says by `functools.wraps` that it wraps a generator function is refused like the generator."""
    if hasattr(function, "__name__"):
        with pytest.raises(NotifyError, match=r"(_generator|wrapper) is a generator function or a class\.$"):
            rate_limited("news", recipient=lambda *_: "ana")(function)
    for notifier in (Notifier, AsyncNotifier):
        with pytest.raises(NotifyError, match=r"^The gateway is a generator function: a call of it would send nothing"):
            notifier(function, MANY)


def test_a_wrapper_that_wraps_itself_is_a_function() -> None:
    """A circle of wrappers is no reason to fail."""

    def send(to: str) -> str:
        return "sent"

    send.__wrapped__ = send  # type: ignore[attr-defined]  # that is the point
    assert not is_generator(send)
    assert Notifier(send, MANY).send("news", "ana")


# What only the call shows.


class _Awaitable:
    """Neither a coroutine nor a future."""

    def __await__(self) -> Any:
        return iter(())


RETURNING: list[Callable[..., Any]] = [
    lambda *_, **__: _async(),
    _wrapping(_async),
    lambda *_, **__: _Awaitable(),
]

CALLS: dict[str, tuple[type[Exception], Callable[[Any], object]]] = {
    "The type of a notification must be a string": (TypeError, lambda function: _decorated(type=function)("ana")),
    "The recipient is a ": (TypeError, lambda function: _decorated(recipient=function)("ana")),
    "The cost of a notification must be a whole": (TypeError, lambda function: _decorated(cost=function)("ana")),
    "The priority of a notification must be": (TypeError, lambda function: _decorated(priority=function)("ana")),
    "The tenant is a ": (TypeError, lambda function: _decorated(fields={"tenant": function})("ana")),
    "tier_of= returned a ": (TypeError, lambda function: Limiter(TIERED, tier_of=function).hit("news", "ana")),
    "normalize= returned ": (NotifyError, lambda function: Limiter(MANY, normalize=function).hit("news", "ana")),
    "clock= returned a ": (TypeError, lambda function: Limiter(MANY, clock=function).hit("news", "ana")),
    "clock= returned  ": (TypeError, lambda function: Limiter(MANY, clock=function).test("news", "ana")),
    "The method sleep of clock= returned a ": (
        NotifyError,
        lambda function: Limiter(MANY, clock=_clock(sleep=function)).wait(5),
    ),
    "The method sleep of clock=": (
        NotifyError,
        lambda function: asyncio.run(AsyncLimiter(MANY, clock=_clock(sleep=function)).wait(5)),
    ),
}


@pytest.mark.parametrize("begin", CALLS)
@pytest.mark.parametrize("function", RETURNING, ids=range(len(RETURNING)))
def test_what_nothing_awaited_is_told_at_the_call(begin: str, function: Any) -> None:
    """A plain function that returns a coroutine is told at the call, which closes the coroutine, so nothing is logged."""
    configure(MANY)
    error, call = CALLS[begin]

    with pytest.raises(error) as caught:
        call(function)
    said = str(caught.value)
    assert said.startswith(begin.strip())
    assert "oroutine" in said or "_Awaitable" in said
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    gc.collect()  # A coroutine that is never awaited is a warning, and warnings are errors.


@pytest.mark.parametrize("argument", [{"cost": 1}, {"priority": 1}, {"tenant": 1}, {}], ids=str)
def test_a_value_that_was_not_awaited(argument: dict[str, Any]) -> None:
    """Whoever forgets the `await` of an argument is told to write it."""
    limiter = Limiter(MANY)
    given: dict[str, Any] = {name: _async() for name in argument}

    with pytest.raises(TypeError, match=r"Await it first, and pass the result: nothing awaits it here\.$"):
        limiter.hit("news", "ana" if argument else _async(), **given)
    gc.collect()


@pytest.mark.parametrize("function", RETURNING[:1] + RETURNING[2:], ids=range(2))
def test_a_refund_that_was_not_awaited(function: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine is no answer: the hit is kept, and the log says so."""
    error = ValueError()

    def fail(recipient: str) -> None:
        raise error

    notifier = Notifier(fail, {"news": "1/day"}, refund=function)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # it is compared below
        notifier.send("news", "ana")
    assert caught.value is error
    assert not notifier.limiter.test("news", "ana")
    (message,) = caplog.messages
    assert message in (
        "refund= returned a coroutine, which nothing awaits; the hit is kept.",
        "refund= returned a _Awaitable, which nothing awaits; the hit is kept.",
    )


@pytest.mark.parametrize(
    "returned", [None, "soon", b"1", [1], object()], ids=["None", "text", "bytes", "a list", "an object"]
)
def test_a_clock_that_returns_no_number(returned: Any) -> None:
    """A clock that returns something else is told in these words, by hits and by tests."""
    for call in (Limiter(MANY, clock=lambda: returned).hit, Limiter(MANY, clock=lambda: returned).test):
        with pytest.raises(TypeError, match=r"^clock= returned a \w+; it must return seconds as a number, as time"):
            call("news", "ana")


class _Stubborn:
    """A coroutine that is none of Python's own, as some libraries have."""

    closed: ClassVar[list[object]] = []

    def send(self, value: object) -> Any:
        raise StopIteration("sent")

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        self.closed.append(self)

    def __await__(self) -> Any:
        return iter(())


def test_a_coroutine_of_another_kind_is_told_by_a_notifier() -> None:
    """A gateway that returns any kind of coroutine sent nothing: it is closed, and costs nothing."""
    notifier = Notifier(lambda to: _Stubborn(), {"news": "1/day"})

    for count in (1, 2):
        with pytest.raises(NotifyError, match=r"^The call returned a coroutine, and nothing was sent: use Async"):
            notifier.send("news", "ana")
        assert len(_Stubborn.closed) == count


def test_the_kinds_are_told_apart() -> None:
    """The examples of this file are what they are called."""
    assert all(map(is_async, ASYNC))
    assert not any(map(is_async, [*RETURNING, *GENERATORS, print, str, None, 5]))
    assert all(map(is_generator, GENERATORS))
    assert not any(map(is_generator, [*RETURNING, *ASYNC, print, str, None, 5, inspect.signature]))
