"""freezegun and time-machine: limiters follow them where they are asked to, with `clock=time.time`."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import freezegun
import pytest
import time_machine

from processes import unconfigured
from ratelimited_notify import AsyncLimiter, Limiter, Notifier, RateLimitExceeded, configure, rate_limited
from ratelimited_notify.storage import open_async_storage, open_storage
from ratelimited_notify.testing import isolated_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def _frozen(instant: datetime, *, tick: bool = False) -> Iterator[Callable[[datetime], None]]:
    with freezegun.freeze_time(instant, tick=tick) as frozen:
        yield frozen.move_to


@contextmanager
def _travelled(instant: datetime, *, tick: bool = False) -> Iterator[Callable[[datetime], None]]:
    with time_machine.travel(instant, tick=tick) as traveller:
        yield traveller.move_to


MACHINES: dict[str, Any] = {"freezegun": _frozen, "time-machine": _travelled}

each_machine = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


def _by_name() -> float:
    return time.time()


def _by_datetime() -> float:
    return datetime.now(UTC).timestamp()


KEPT = (time.time,)

CLOCKS: dict[str, Callable[[], Any]] = {
    "time.time": lambda: time.time,
    # freezegun replaces it in all modules that it knows, but not where somebody keeps it.
    "kept": lambda: KEPT[0],
    "by name": lambda: _by_name,
    "by datetime": lambda: _by_datetime,
}


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize("inside", [False, True], ids=["made before", "made inside"])
@each_machine
def test_limiters_follow(machine: Any, inside: bool, clock: Any) -> None:
    """A limiter with such a clock goes by the frozen time, also if it was made before, and by the real time afterwards."""
    limiter = None if inside else Limiter({"news": "1/day"}, clock=clock())
    with machine(NOON) as move_to:
        limiter = limiter or Limiter({"news": "1/day"}, clock=clock())
        assert limiter.hit("news", "ana")
        refusal = limiter.hit("news", "ana")
        assert refusal.retry_at == NOON + timedelta(days=1)
        move_to(NOON + timedelta(days=1, seconds=-1))
        assert limiter.hit("news", "ana").retry_after == 1
        move_to(NOON + timedelta(days=1))
        assert limiter.hit("news", "ana")
    after = limiter.hit("news", "bob").reset_at
    assert after is not None
    assert abs(after - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)


@each_machine
def test_decorated_functions_follow(machine: Any) -> None:
    """Decorated functions follow with `configure(clock=time.time)`, and in `isolated_limits(time.time)`, sync and async."""

    @rate_limited("news", "1/day", on_limit="drop")
    def send(to: str) -> bool:
        return True

    @rate_limited("news", on_limit="drop")
    async def send_async(to: str) -> bool:
        return True

    def a_day(move_to: Any, day: datetime) -> None:
        move_to(day)
        assert send("ana")
        assert not send("ana")
        assert not asyncio.run(send_async("ana"))
        move_to(day + timedelta(days=1))
        assert asyncio.run(send_async("ana"))

    configure(clock=time.time)
    with machine(NOON) as move_to:
        a_day(move_to, NOON)
    with machine(NOON) as move_to, isolated_limits(time.time):
        a_day(move_to, NOON)
    with isolated_limits(time.time), machine(NOON) as move_to:
        a_day(move_to, NOON)


@each_machine
def test_notifiers_and_storages_follow(machine: Any) -> None:
    """The clock of a storage in memory follows too, and what is shared by sync and async limiters is shared."""
    storage = open_storage("memory://", clock=time.time)
    notifier = Notifier(lambda to: to, {"news": "1/day"}, storage)
    with machine(NOON) as move_to:
        assert notifier.send("news", "ana")
        assert not asyncio.run(AsyncLimiter({"news": "1/day"}, storage).hit("news", "ana"))
        move_to(NOON + timedelta(days=1))
        assert notifier.send("news", "ana")


@each_machine
def test_others_do_not_follow(machine: Any) -> None:
    """Where nobody asks for it, windows go by the machine's time: a frozen clock neither opens nor closes one."""
    limiter = Limiter({"news": "1/day"})
    with machine(NOON) as move_to:
        assert limiter.hit("news", "ana")
        move_to(NOON + timedelta(days=2))
        assert not limiter.hit("news", "ana")
    assert not limiter.hit("news", "ana")


@pytest.mark.parametrize("opened", [open_storage, open_async_storage])
def test_memcached_follows(opened: Any) -> None:
    """Windows in memcached follow where they are asked to; those of others follow time-machine, and not freezegun."""
    asked, other = opened("memcached://localhost:1", clock=time.time), opened("memcached://localhost:1")
    noon = round(NOON.timestamp() * 1_000_000)

    with _frozen(NOON):
        assert asked.now() == noon
        assert abs(other.now() - noon) > 1_000_000
    with _travelled(NOON):
        assert asked.now() == other.now() == noon
    assert abs(asked.now() - time.time_ns() // 1000) < 60_000_000


@each_machine
def test_time_that_goes_on(machine: Any) -> None:
    """With `tick=True` the time goes on from there, and a wait takes as long as it takes."""
    limiter = Limiter({"news": "1/second"}, clock=time.time)
    send = rate_limited("news", limiter=limiter, on_limit="wait", max_wait=5)(lambda to: datetime.now(UTC))
    with machine(NOON, tick=True):
        first, second = send("ana"), send("ana")
    assert NOON <= first < second
    assert second - first > timedelta(seconds=0.9)


@each_machine
def test_time_that_goes_back(machine: Any) -> None:
    """A clock that is set back opens no window, and is no error."""
    limiter = Limiter({"news": "2/day"}, clock=time.time)
    send = rate_limited("news", limiter=limiter)(lambda to: True)
    with machine(NOON) as move_to:
        assert send("ana")
        move_to(NOON - timedelta(days=3))
        assert send("ana")
        with pytest.raises(RateLimitExceeded):
            send("ana")


def test_the_fixtures_follow(pytester: pytest.Pytester) -> None:
    """`notify_limits` goes by `notify_clock`, which a test may define as `time.time`."""
    pytester.makepyfile(
        """
        import time
        import freezegun
        import pytest
        import time_machine
        from ratelimited_notify import rate_limited

        @rate_limited("frozen", "1/day", on_limit="drop")
        def send(to):
            return "sent"

        @pytest.fixture
        def notify_clock():
            return time.time

        def test_frozen(notify_limits):
            with freezegun.freeze_time("2026-03-01 12:00") as frozen:
                assert [send("ana"), send("ana")] == ["sent", None]
                frozen.tick(86_400)
                assert [send("ana"), send("ana")] == ["sent", None]

        @freezegun.freeze_time("2026-03-01 12:00")
        def test_decorated(notify_limits):
            assert [send("ana"), send("ana")] == ["sent", None]

        @time_machine.travel("2026-03-01 12:00", tick=False)
        def test_travelled(notify_limits):
            assert [send("ana"), send("ana")] == ["sent", None]
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


pytest_plugins = ["pytester"]
