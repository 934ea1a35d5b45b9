"""Plain functions that return something to await: the caller gets it as it is, and a failure gives the hit back."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, strategies as st

from outcomes import MAYBE_SENT, NOT_SENT, named
from processes import unconfigured
from ratelimited_notify import AsyncNotifier, Limiter, Notifier, NotifyError, RateLimitExceeded, rate_limited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


async def _act(step: BaseException | str, *, pause: bool = True) -> str:
    if pause:
        await asyncio.sleep(0)
    if isinstance(step, BaseException):
        # Cases are shared by tests: without what earlier ones left behind.
        raise step.with_traceback(None)
    return step


class _Awaitable:
    """Neither a coroutine nor a future, and may be awaited several times."""

    def __init__(self, step: BaseException | str) -> None:
        self.step = step

    def __await__(self) -> Any:
        return _act(self.step).__await__()


class _Request(Coroutine[Any, Any, Any]):
    """As requests of aiohttp are: a coroutine, and a context manager too."""

    def __init__(self, step: BaseException | str) -> None:
        self._coroutine = _act(step)
        self.exited = False

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    async def __aenter__(self) -> Any:
        return await self._coroutine

    async def __aexit__(self, *error: object) -> None:
        self.exited = True


class _Acquired:
    """As connections of a pool are: an awaitable that is no coroutine, and a context manager too."""

    def __init__(self, step: BaseException | str) -> None:
        self.step = step

    def __await__(self) -> Any:
        return _act(self.step).__await__()

    async def __aenter__(self) -> Any:
        return await _act(self.step)

    async def __aexit__(self, *error: object) -> bool:
        return True


def _end(future: asyncio.Future[str], step: BaseException | str) -> None:
    if isinstance(step, BaseException):
        future.set_exception(step.with_traceback(None))
    else:
        future.set_result(step)


def _future(step: BaseException | str) -> asyncio.Future[str]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def end() -> None:
        if not future.done():
            _end(future, step)

    loop.call_soon(loop.call_soon, end)
    return future


def _done(step: BaseException | str) -> asyncio.Future[str]:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    _end(future, step)
    return future


KINDS: dict[str, Callable[[Any], Any]] = {
    "coroutine": _act,
    "coroutine at once": functools.partial(_act, pause=False),
    "task": lambda step: asyncio.ensure_future(_act(step)),
    "future": _future,
    "done future": _done,
    "gathered": lambda step: asyncio.gather(_act(step)),
    "awaitable": _Awaitable,
    "request": _Request,
    "acquired": _Acquired,
}

COROUTINES = ("coroutine", "coroutine at once", "request")
ENTERED = ("request", "acquired")


async def _awaits(sent: Any) -> Any:
    return await sent


async def _enters(sent: Any) -> Any:
    async with sent as result:
        return result


WAYS: dict[str, Callable[[Any], Any]] = {
    "await": _awaits,
    "task": asyncio.ensure_future,
    "gather": asyncio.gather,
    "wait_for": lambda sent: asyncio.wait_for(sent, 60),
    "shield": asyncio.shield,
    "async with": _enters,
}

# A future takes no StopIteration, and a task lets an interrupt through to the event loop.
FAILURES = [error for error in (*NOT_SENT, *MAYBE_SENT) if isinstance(error, Exception)]


def run(coroutine: Any) -> Any:
    """What it returns, on an event loop of its own."""
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def limited(returning: Callable[[Any], Any], limit: str = "1/day", **options: Any) -> tuple[Any, Callable[[], int]]:
    """A limited plain function that returns something to await, and how many hits are counted."""
    limiter = Limiter({"news": limit})

    @rate_limited("news", limiter=limiter, **options)
    def send(to: str, step: Any = "sent") -> Any:
        return returning(step)

    def used() -> int:
        (window,) = limiter.windows("news", "ana")
        return window.item.amount - window.remaining

    return send, used


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, list) else result


@pytest.mark.parametrize(
    ("kind", "way"), [(kind, way) for kind in KINDS for way in WAYS if way != "async with" or kind in ENTERED]
)
def test_failed_looks_at_what_was_awaited(kind: str, way: str) -> None:
    """`failed=` gets the result and not the coroutine, once; the caller gets the result unchanged."""

    async def main(step: str, left: int) -> None:
        seen: list[object] = []

        def failed(result: object) -> bool:
            seen.append(_first(result))
            return _first(result) == "refused"

        send, used = limited(KINDS[kind], failed=failed)
        assert _first(_first(await WAYS[way](send("ana", step)))) == step
        # The callbacks of a future come a little later.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == [step]
        assert used() == left

    run(main("sent", 1))
    run(main("refused", 0))


@pytest.mark.parametrize(
    ("kind", "way"), [(kind, way) for kind in KINDS for way in WAYS if way != "async with" or kind in ENTERED]
)
def test_a_failure_gives_the_hit_back(kind: str, way: str) -> None:
    """What is awaited and fails is free unless the message may have gone out, however it is awaited; what it raises and
    returns comes as it is.
    """

    async def main(step: Any) -> None:
        send, used = limited(KINDS[kind])
        if not isinstance(step, BaseException):
            assert _first(_first(await WAYS[way](send("ana", step)))) == step
            assert used() == 1
            with pytest.raises(RateLimitExceeded):
                send("ana")
            return
        sent = send("ana", step)
        with pytest.raises(type(step)) as caught:
            await WAYS[way](sent)
        assert caught.value is step
        assert caught.value.__context__ is None
        assert used() == (0 if any(step is each for each in NOT_SENT) else 1)

    for step in ("sent", *FAILURES):
        run(main(step))


@given(
    steps=st.lists(st.tuples(st.sampled_from(list(KINDS)), st.sampled_from(["sent", *FAILURES])), max_size=6),
    together=st.booleans(),
)
def test_what_is_counted_is_what_may_have_gone_out(steps: list[Any], together: bool) -> None:
    """After any run of successes and failures, at once or one by one, exactly those are counted that may have gone out."""

    async def main() -> None:
        # One limiter for all, so that each release finds its own hit among those of the others.
        limiter = Limiter({"news": "100/day"})

        def sending(kind: str) -> Any:
            return rate_limited("news", limiter=limiter)(lambda to, step: KINDS[kind](step))

        sends = [sending(kind)("ana", step) for kind, step in steps] if together else []
        results = await asyncio.gather(*map(_awaits, sends), return_exceptions=True) if together else []
        if not together:
            for kind, step in steps:
                results += await asyncio.gather(_awaits(sending(kind)("ana", step)), return_exceptions=True)
        assert [_first(result) for result in results] == [step for _, step in steps]
        (window,) = limiter.windows("news", "ana")
        kept = [step for _, step in steps if not any(step is free for free in NOT_SENT)]
        assert 100 - window.remaining == len(kept)

    run(main())


@pytest.mark.parametrize(("refund", "counted"), [(True, 0), (False, 1), (TimeoutError, 0), (ValueError, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_refund_decides_otherwise(kind: str, refund: Any, counted: int) -> None:
    """`refund=` says when a failure gives the hit back."""

    async def main() -> int:
        send, used = limited(KINDS[kind], refund=refund)
        with pytest.raises(TimeoutError):
            await _awaits(send("ana", TimeoutError()))
        return used()

    assert run(main()) == counted


@pytest.mark.parametrize("kind", ["task", "future", "done future", "gathered"])
def test_futures_are_returned_themselves(kind: str) -> None:
    """A task or a future is the very object, so that it can be cancelled, named and compared."""

    async def main() -> None:
        made: list[Any] = []
        send, _ = limited(lambda step: made.append(KINDS[kind](step)) or made[0])
        sent = send("ana")
        assert sent is made[0]
        await sent

    run(main())


@pytest.mark.parametrize("kind", COROUTINES)
def test_a_coroutine_is_one(kind: str) -> None:
    """What works with the coroutine works with what the limited function returns: `asyncio.run`, `create_task`, `close`."""

    async def main() -> None:
        send, used = limited(KINDS[kind], "9/day")
        sent = send("ana")
        assert isinstance(sent, Coroutine)
        assert asyncio.iscoroutine(sent)
        assert inspect.isawaitable(sent)
        assert await asyncio.create_task(sent) == "sent"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(send("ana"), name="news")
        assert task.result() == "sent"
        assert repr(task)
        assert used() == 2

    run(main())
    send, _ = limited(KINDS[kind])
    assert asyncio.run(send("ana")) == "sent"


def test_a_coroutine_has_the_attributes_of_the_coroutine() -> None:
    """Tools that look at coroutines see the one that the function returned."""
    send, _ = limited(_act)
    sent = send("ana")

    assert (sent.__name__, sent.__qualname__, sent.cr_code) == ("_act", "_act", _act.__code__)
    assert repr(sent).startswith("<coroutine object _act at ")
    assert inspect.getcoroutinestate(sent) == inspect.CORO_CREATED
    with pytest.raises(AttributeError, match="'coroutine' object has no attribute 'result'"):
        sent.result  # noqa: B018  # that is the point
    sent.close()


def test_a_coroutine_on_trio() -> None:
    """Other event loops run it too."""

    async def act(step: Any) -> str:
        await trio.lowlevel.checkpoint()
        if isinstance(step, Exception):
            raise step
        return "sent"

    send, used = limited(act)
    with pytest.raises(ConnectionRefusedError):
        trio.run(send, "ana", ConnectionRefusedError())
    assert used() == 0
    assert trio.run(send, "ana") == "sent"
    assert used() == 1


# Cancelled, closed, never awaited, awaited twice.


@pytest.mark.parametrize("refund", [None, True, False])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("coroutine at once", "done future")])
def test_cancelled_in_the_middle(kind: str, refund: Any) -> None:
    """Cancelled while it is sent the message may have gone out: the hit is kept, unless `refund=` says otherwise."""

    async def main() -> int:
        send, used = limited(KINDS[kind], refund=refund)
        sent = send("ana")
        task = asyncio.ensure_future(_awaits(sent))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return used()

    assert run(main()) == (0 if refund else 1)


@pytest.mark.parametrize("refund", [None, False])
@pytest.mark.parametrize("end", ["cancel", "close", "throw"])
def test_what_never_began_is_free(end: str, refund: Any) -> None:
    """A coroutine that is cancelled or closed before its first step has sent nothing, so it costs nothing."""

    async def main() -> None:
        send, used = limited(_act, refund=refund)
        sent = send("ana")
        assert used() == 1
        if end == "cancel":
            task = asyncio.create_task(sent)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif end == "close":
            sent.close()
            sent.close()
        else:
            with pytest.raises(TimeoutError):
                sent.throw(TimeoutError())
        assert used() == 0
        assert await send("ana") == "sent"

    run(main())
    gc.collect()  # Nothing was left behind that was never awaited.


def test_closed_in_the_middle() -> None:
    """A coroutine that is closed after its first step may have sent the message: the hit is kept."""
    for refund, counted in ((None, 1), (GeneratorExit, 0)):
        send, used = limited(_act, refund=refund)
        sent = send("ana")
        sent.send(None)
        sent.close()
        assert used() == counted
        sent.close()
        assert used() == counted


def test_never_awaited() -> None:
    """A coroutine that is never awaited keeps its hit, and Python warns about it, once, as it does without the decorator."""
    send, used = limited(_act)

    def forget() -> None:
        send("ana")
        gc.collect()

    with pytest.warns(RuntimeWarning) as warned:
        forget()
    assert [str(each.message) for each in warned] == ["coroutine '_act' was never awaited"]
    assert used() == 1


@pytest.mark.parametrize("step", ["sent", ConnectionRefusedError(), TimeoutError()], ids=named)
@pytest.mark.parametrize("kind", KINDS)
def test_awaited_twice(kind: str, step: Any) -> None:
    """The second `await` does what it does without the decorator, and changes no count."""

    async def outcome(sent: Any) -> tuple[object, str]:
        try:
            return _first(await sent), ""
        except Exception as error:  # noqa: BLE001  # it is compared
            return type(error), str(error)

    async def main() -> None:
        send, used = limited(KINDS[kind], "9/day")
        plain, sent = KINDS[kind](step), send("ana", step)
        for _ in range(3):
            assert await outcome(sent) == await outcome(plain)
            assert used() == (0 if isinstance(step, ConnectionRefusedError) else 1)

    run(main())


def test_awaited_twice_at_once() -> None:
    """A coroutine that is already awaited is an error for the second, and goes on for the first."""

    async def main() -> None:
        send, used = limited(_act)
        sent = send("ana")
        first = asyncio.ensure_future(_awaits(sent))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await sent
        assert used() == 1
        assert await first == "sent"
        assert used() == 1

    run(main())


def test_asked_while_it_runs() -> None:
    """A coroutine that somebody else advances while it runs is no failure of the coroutine."""
    mine: list[Any] = []

    async def act(step: Any) -> str:
        for _ in range(2):
            with pytest.raises(ValueError, match="already executing"):
                mine[0].send(None)
        return "sent"

    send, used = limited(act)
    mine.append(send("ana"))
    assert asyncio.run(_awaits(mine[0])) == "sent"
    assert used() == 1


@pytest.mark.parametrize("kind", ["task", "future", "done future"])
def test_a_failure_that_nobody_retrieves_is_logged(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio says that nobody looked at the exception of a task or future, as it does without the decorator."""

    async def main() -> None:
        send, used = limited(KINDS[kind])
        send("ana", ConnectionRefusedError())
        for _ in range(4):
            await asyncio.sleep(0)
        assert used() == 0

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        run(main())
        gc.collect()
    assert [record.getMessage().split("\n")[0] for record in caplog.records if record.name == "asyncio"] == [
        f"{'Task' if kind == 'task' else 'Future'} exception was never retrieved"
    ]


def test_a_future_of_another_library() -> None:
    """What has the methods of a future is watched by these."""

    class Deferred:
        def __init__(self) -> None:
            self.callbacks: list[Any] = []
            self.failure: BaseException | None = None

        def __await__(self) -> Any:
            return iter(())

        def done(self) -> bool:
            return False

        def cancelled(self) -> bool:
            return False

        def exception(self) -> BaseException | None:
            return self.failure

        def add_done_callback(self, callback: Any) -> None:
            self.callbacks.append(callback)

    send, used = limited(lambda step: Deferred())
    deferred = send("ana")
    deferred.failure = ConnectionRefusedError()
    for callback in deferred.callbacks:
        callback(deferred)
    assert used() == 0


class _Failure:
    """As in Twisted: holds an exception."""

    def __init__(self, value: BaseException) -> None:
        self.value = value


class _Deferred:
    """As in Twisted: it can be awaited, and calls one callback or errback after the other, each with what the last one returned."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, Any]] = []

    def __await__(self) -> Any:
        raise AssertionError("Nobody awaits it.")

    def addCallbacks(self, callback: Any, errback: Any) -> _Deferred:  # noqa: N802  # as in Twisted
        self.steps.append((callback, errback))
        return self

    def ends(self, result: Any) -> Any:
        for callback, errback in self.steps:
            result = errback(result) if isinstance(result, _Failure) else callback(result)
        return result


@pytest.mark.parametrize(
    ("result", "counted"), [("sent", 1), (_Failure(ConnectionRefusedError()), 0), (_Failure(TimeoutError()), 1)]
)
def test_a_deferred_of_twisted(result: Any, counted: int) -> None:
    """It is returned itself, since Twisted awaits nothing else, with its result unchanged."""
    made: list[_Deferred] = []
    send, used = limited(lambda step: made.append(_Deferred()) or made[0])

    assert send("ana") is made[0]
    assert used() == 1
    assert made[0].ends(result) is result
    assert used() == counted


@pytest.mark.parametrize(("error", "counted"), [(None, 1), (ConnectionRefusedError(), 0)])
def test_a_future_with_an_attribute_of_its_own(error: BaseException | None, counted: int) -> None:
    """A private attribute that is no exception says nothing, as that of a future of Dask, which is a method."""

    class Future:
        def __await__(self) -> Any:
            return iter(())

        def done(self) -> bool:
            return True

        def cancelled(self) -> bool:
            return False

        def _exception(self) -> None:
            raise AssertionError

        def exception(self) -> BaseException | None:
            return error

        def result(self) -> str:
            return "sent"

        def add_done_callback(self, callback: Any) -> None:
            raise AssertionError

    send, used = limited(lambda step: Future(), refund=ConnectionRefusedError)
    send("ana")

    assert used() == counted


@pytest.mark.parametrize(
    ("step", "counted"),
    [("sent", 1), ("refused", 0), (ConnectionRefusedError(), 0), (TimeoutError(), 1)],
    ids=["sent", "refused", "not sent", "unknown"],
)
def test_a_future_of_a_pool_of_threads(step: BaseException | str, counted: int) -> None:
    """Nobody can await it, but it tells how it ends."""
    begin = threading.Event()

    def act(step: BaseException | str) -> str:
        begin.wait(60)
        return asyncio.run(_act(step))

    with ThreadPoolExecutor(1) as pool:
        made: list[Any] = []
        send, used = limited(
            lambda step: made.append(pool.submit(act, step)) or made[0], failed=lambda said: said == "refused"
        )
        assert send("ana", step) is made[0]
        assert used() == 1
        begin.set()
    assert used() == counted


@pytest.mark.parametrize("kind", COROUTINES)
def test_a_coroutine_can_be_referred_to_weakly(kind: str) -> None:
    """As one of Python."""

    async def main() -> None:
        send, _ = limited(KINDS[kind])
        sent = send("ana")
        assert weakref.ref(sent)() is sent
        await sent

    run(main())


class _Unbound:
    """A proxy without an object, as those of Werkzeug and Django are outside of a request."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]  # as proxies do
        raise RuntimeError("Working outside of request context.")


def test_a_result_is_not_looked_into() -> None:
    """A send that returned has sent, and returns what it returned: a proxy is not made to load its object."""
    result = _Unbound()
    send, used = limited(lambda step: result)

    assert send("ana") is result
    assert used() == 1
    assert Notifier(lambda to: result, {"news": "1/day"}).send("news", "ana").result is result


@pytest.mark.parametrize("kind", ENTERED)
def test_a_context_manager_is_left(kind: str) -> None:
    """`async with` leaves what the function returned."""

    async def main() -> None:
        made: list[Any] = []
        send, used = limited(lambda step: made.append(KINDS[kind](step)) or made[0])
        if kind == "request":
            async with send("ana"):
                pass
            assert made[0].exited
        else:
            async with send("ana"):
                raise ValueError  # it says that it deals with it
        assert used() == 1

    run(main())


# Elsewhere.


def test_a_limited_function_as_a_gateway() -> None:
    """A limited plain function that returns a coroutine is a gateway of an AsyncNotifier; a Notifier refuses what it returns,
    and both give everything back.
    """
    send, used = limited(_act, "9/day")
    with Notifier(send, {"news": "1/day"}) as notifier:
        with pytest.raises(NotifyError, match="nothing was sent: use AsyncNotifier"):
            notifier.send("news", "ana")
        assert notifier.limiter.test("news", "ana")
    assert used() == 0

    async def main() -> None:
        async with AsyncNotifier(send, {"news": "1/day"}) as notifier:
            with pytest.raises(ConnectionRefusedError):
                await notifier.send("news", "ana", ConnectionRefusedError())
            assert used() == 0
            delivery = await notifier.send("news", "ana")
            assert (delivery.result, used()) == ("sent", 1)

    run(main())


def test_methods_that_return_a_coroutine() -> None:
    """Methods of every kind are watched too."""
    limiter = Limiter({"news": "9/day"})

    class Sender:
        @rate_limited("news", limiter=limiter)
        def method(self, to: str) -> Any:
            return _act(ConnectionRefusedError())

        @rate_limited("news", limiter=limiter)
        @staticmethod
        def static(to: str, step: Any = None) -> Any:
            return _act(step or ConnectionRefusedError(to))

    for method in (Sender().method, Sender.static):
        with pytest.raises(ConnectionRefusedError):
            run(method("ana"))
    assert limiter.windows("news", "ana")[0].remaining == 9


def test_what_is_not_awaited_is_returned_itself() -> None:
    """Results that nobody awaits are the very objects that the function returned."""
    for result in (None, "sent", object(), SimpleNamespace(__await__=1), iter(()), [], _Awaitable):
        send, _ = limited(lambda step, result=result: result)
        assert send("ana") is result


def test_limiting_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """While limiting is off there is nothing to give back, and the failure comes as it is."""
    limiter = Limiter({"news": "1/day"}, enabled=False)
    send = rate_limited("news", limiter=limiter)(lambda to: _act(ConnectionRefusedError()))

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            run(send("ana"))
