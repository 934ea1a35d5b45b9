from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

import ratelimited_notify
from ratelimited_notify import Notifier
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.pytest_plugin import Clock, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["pytester"]

SOURCE = str(Path(ratelimited_notify.__file__).parents[1])
INSTALLED = any(entry.name == "ratelimited_notify" for entry in entry_points(group="pytest11"))
# Where the package is run from its source nobody tells pytest of the plugin.
OPTIONS = ["-p", "no:cacheprovider", *([] if INSTALLED else ["-p", "ratelimited_notify.pytest_plugin"])]

SHOP = """
    import asyncio
    from ratelimited_notify import configure, rate_limited

    configure({"news": "2/day", "alert": "1/hour"})

    @rate_limited("news", on_limit="drop")
    def send_news(recipient, body="Hi"):
        return "sent"

    @rate_limited("news", on_limit="drop")
    async def send_news_later(recipient, body="Hi"):
        return "sent"

    @rate_limited("shop", limit="1/day", on_limit="drop")
    def send_offer(recipient):
        return "sent"

    def news(times, recipient="ana"):
        return [send_news(recipient) for _ in range(times)].count("sent")

    def news_later(times, recipient="ana"):
        return [asyncio.run(send_news_later(recipient)) for _ in range(times)].count("sent")
"""


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """What the programs under test configure in this process goes with them."""
    with configuration.overriding(Clock()):
        configuration._override = None
        yield


@pytest.fixture
def passes(pytester: pytest.Pytester) -> Callable[..., None]:
    """Runs a test module beside a program `shop`, and makes sure that so many of its tests pass."""

    def run(module: str, count: int, *options: str) -> None:
        pytester.makepyfile(shop=SHOP)
        pytester.makepyfile(module)
        pytester.runpytest_inprocess(*OPTIONS, *options).assert_outcomes(passed=count)

    return run


def test_limits_are_fresh_for_each_test(passes: Callable[..., None]) -> None:
    """`notify_limits` gives each test windows of its own, by the program's own rules, for sync and async functions."""
    passes(
        """
        import pytest
        import shop

        def test_before():
            assert shop.news(1) == 1

        @pytest.mark.parametrize("time", range(3))
        def test_fresh(notify_limits, time):
            assert shop.news(1) + shop.news_later(5) + shop.news(5) == 2
            assert [shop.send_offer("ana"), shop.send_offer("ana")] == ["sent", None]

        def test_after():
            assert shop.news(5) + shop.news_later(5) == 1
            assert [shop.send_offer("ana"), shop.send_offer("ana")] == ["sent", None]
        """,
        5,
    )


def test_time_passes_when_the_test_says_so(passes: Callable[..., None]) -> None:
    """With `notify_clock` a test moves through a day, to the instant at which the next is allowed."""
    passes(
        """
        import pytest
        import shop
        from ratelimited_notify import RateLimitExceeded, rate_limited

        def test_a_day(notify_limits, notify_clock):
            assert shop.news(3) == 2
            notify_clock.advance(86_399.999999)
            assert shop.news(1) == 0
            notify_clock.advance(0.000001)
            assert shop.news_later(3) == 2

        def test_until_it_is_allowed(notify_limits, notify_clock):
            @rate_limited("alert")
            def alert(to):
                return "sent"

            alert("ana")
            with pytest.raises(RateLimitExceeded) as caught:
                alert("ana")
            notify_clock.set(caught.value.decision.retry_at)
            assert alert("ana") == "sent"
        """,
        2,
    )


def test_waiting_takes_no_time(passes: Callable[..., None]) -> None:
    """What waits moves the clock instead of sleeping: decorated functions and notifiers, sync and async."""
    passes(
        """
        import asyncio
        from ratelimited_notify import AsyncNotifier, Notifier, configure, rate_limited

        DAY = 86_400

        def test_functions(notify_limits, notify_clock):
            configure({"digest": "1/day"})

            @rate_limited("digest", on_limit="wait", max_wait=DAY)
            def send(to): return "sent"

            @rate_limited("digest", on_limit="wait", max_wait=DAY)
            async def send_later(to): return "sent"

            start = notify_clock()
            assert [send("ana"), send("ana"), asyncio.run(send_later("ana"))] == ["sent"] * 3
            assert notify_clock() - start == 2 * DAY

        def test_notifiers(notify_clock, notify_outbox):
            start = notify_clock()
            options = {"on_limit": "wait", "max_wait": DAY, "clock": notify_clock}
            notifier = Notifier(notify_outbox, {"news": "1/day"}, **options)
            later = AsyncNotifier(notify_outbox, {"news": "1/day"}, **options)
            assert notifier.send("news", "ana") and notifier.send("news", "ana")
            assert asyncio.run(later.send("news", "ana")) and asyncio.run(later.send("news", "ana"))
            assert notify_clock() - start == 2 * DAY
            assert notify_outbox.recipients == ["ana"] * 4
        """,
        2,
    )


def test_a_test_may_configure(passes: Callable[..., None]) -> None:
    """What a test configures, or the program while it starts in the test, holds for that test, and opens no storage."""
    passes(
        """
        import pytest
        import shop
        from ratelimited_notify import configure, rate_limited

        @pytest.mark.parametrize("time", range(2))
        def test_other_rules(notify_limits, notify_clock, time):
            configure({"news": "1/minute"}, "redis://localhost:1/0", enabled=False)
            assert shop.news(3) == 1
            notify_clock.advance(60)
            assert shop.news(3) == 1

        @pytest.mark.parametrize("limit", ["1/day", "2/day"])
        def test_functions_of_its_own(notify_limits, limit):
            rate_limited("own", limit)(lambda to: None)("ana")

        def test_the_program_again():
            assert shop.news(3) == 2
        """,
        5,
    )


def test_limits_can_be_looked_at(passes: Callable[..., None]) -> None:
    """The fixture's limiters tell what is counted, for sync and async functions alike."""
    passes(
        """
        import asyncio
        import shop

        def test_windows(notify_limits):
            shop.news(1)
            assert notify_limits.limiter.windows("news", "ana")[0].remaining == 1
            shop.news_later(1)
            assert not asyncio.run(notify_limits.async_limiter.test("news", "ana"))
            assert notify_limits.limiter.clear("news", "ana") == 1
            assert shop.news(3) == 2
        """,
        1,
    )


def test_limits_are_on_whatever_the_environment_says(
    passes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite that is run with limiting off has its limits where a test asks for them."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "1")
    passes(
        """
        import shop

        def test_off():
            assert shop.news(9) == 9

        def test_on(notify_limits):
            assert shop.news(9) == 2

        def test_off_again():
            assert shop.news(9) == 9
        """,
        3,
    )


def test_limits_can_be_off(passes: Callable[..., None]) -> None:
    """`notify_disabled` sends everything, for functions and for notifiers, also beside `notify_limits`; and then no more."""
    passes(
        """
        import shop
        from ratelimited_notify import Notifier

        def everything(outbox):
            notifier = Notifier(outbox, {"news": "1/day"})
            return len(notifier.send_many("news", ["ana"] * 3)) == 3 == len(outbox)

        def test_off(notify_disabled, notify_outbox):
            assert shop.news(5) + shop.news_later(5) == 10
            assert everything(notify_outbox)

        def test_off_and_on(notify_limits, notify_disabled):
            assert shop.news(5) == 5

        def test_on(notify_outbox):
            assert shop.news(5) + shop.news_later(5) == 2
            assert not everything(notify_outbox)
        """,
        3,
    )
    assert not switch.off


def test_a_function_that_nobody_limits_may_be_off(passes: Callable[..., None]) -> None:
    """With limiting off a function needs no limit; with limiting on again it does."""
    passes(
        """
        import pytest
        from ratelimited_notify import NotifyError, configure, rate_limited
        from ratelimited_notify.decorator.configuration import configuration

        @rate_limited("anything")
        def send(to): return "sent"

        @pytest.fixture(autouse=True)
        def nothing_configured():
            configuration.reset()

        def test_off(notify_disabled):
            assert send("ana") == "sent"

        def test_on(notify_limits):
            with pytest.raises(NotifyError, match="Nothing limits send"):
                send("ana")
        """,
        2,
    )


def test_the_outbox(passes: Callable[..., None]) -> None:
    """`notify_outbox` is a gateway that records, can be told to raise, and takes the place of a function that sends."""
    passes(
        """
        import pytest
        import shop
        from ratelimited_notify import Notifier

        def test_records(notify_outbox):
            notifier = Notifier(notify_outbox, {"news": "1/day"})
            notifier.send("news", "ana", "Hello", copy=True)
            notifier.send("news", "ana", "Hello again")
            [sent] = notify_outbox
            assert (sent.recipient, sent.args, sent.kwargs) == ("ana", ("Hello",), {"copy": True})
            assert notify_outbox == [("ana", ("Hello",), {"copy": True})]

        def test_raises(notify_outbox):
            notifier = Notifier(notify_outbox, {"news": "1/day"})
            notify_outbox.error = ConnectionRefusedError("no")
            with pytest.raises(ConnectionRefusedError):
                notifier.send("news", "ana")
            notify_outbox.error = None
            assert notifier.send("news", "ana")
            notify_outbox.error = KeyError
            with pytest.raises(KeyError):
                notifier.send("news", "bob")
            assert notify_outbox.recipients == ["ana"]

        def test_takes_the_place(notify_outbox, monkeypatch):
            assert notify_outbox == []
            monkeypatch.setattr(shop, "news", notify_outbox)
            shop.news("ana", 3)
            shop.news(recipient="bob")
            assert notify_outbox == [("ana", (3,), {}), (None, (), {"recipient": "bob"})]

        def test_fresh(notify_outbox):
            assert not notify_outbox and notify_outbox.error is None
        """,
        4,
    )


def test_the_outbox_to_await(passes: Callable[..., None]) -> None:
    """`notify_async_outbox` is the same to await, as a gateway and in the place of a coroutine function."""
    passes(
        """
        import asyncio
        import pytest
        import shop
        from ratelimited_notify import AsyncNotifier, Notifier, NotifyError

        def test_records(notify_async_outbox):
            notifier = AsyncNotifier(notify_async_outbox, {"news": "1/day"})
            delivery = asyncio.run(notifier.send("news", "ana", "Hello", copy=True))
            assert delivery and delivery.result is None
            assert notify_async_outbox == [("ana", ("Hello",), {"copy": True})]
            with pytest.raises(NotifyError, match="use AsyncNotifier"):
                Notifier(notify_async_outbox, {"news": "1/day"})

        def test_raises(notify_async_outbox):
            notify_async_outbox.error = ConnectionRefusedError("no")
            with pytest.raises(ConnectionRefusedError):
                asyncio.run(notify_async_outbox("ana"))
            notify_async_outbox.error = None
            asyncio.run(notify_async_outbox("ana"))
            assert notify_async_outbox.recipients == ["ana"]

        def test_takes_the_place(notify_async_outbox, monkeypatch):
            async def notify():
                await shop.send_news_later("ana", body="Hello")
                await shop.send_news_later(recipient="bob")
            monkeypatch.setattr(shop, "send_news_later", notify_async_outbox)
            asyncio.run(notify())
            assert notify_async_outbox == [("ana", (), {"body": "Hello"}), (None, (), {"recipient": "bob"})]

        def test_both(notify_outbox, notify_async_outbox):
            notify_outbox("ana")
            assert notify_outbox.recipients == ["ana"] and notify_async_outbox == []
        """,
        4,
    )


def test_the_fixtures_are_documented(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` tells what each of them is for."""
    output = pytester.runpytest_inprocess(*OPTIONS, "--fixtures").stdout.str()

    for name in ("notify_clock", "notify_limits", "notify_disabled", "notify_outbox", "notify_async_outbox"):
        assert name in output
    section = output[output.index("notify_clock") :]
    # The fixtures of another plugin may come after them.
    assert "no docstring available" not in section.split("fixtures defined from")[0]


def test_a_run_that_does_not_ask_for_them(pytester: pytest.Pytester) -> None:
    """In a run whose tests ask for none of the fixtures the plugin loads nothing heavy, and changes nothing."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "ratelimited_notify.pytest_plugin" in sys.modules
            loaded = {"limits", "msgspec", "redis", "pymemcache", "smtplib", "aiosmtplib", "ratelimited_notify.storage.memory"}
            assert loaded & sys.modules.keys() == set()
        """
    )
    # Another process, without the other plugins that are installed here, and which load what they like.
    program = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "ratelimited_notify.pytest_plugin"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        environment.setenv("PYTHONPATH", SOURCE)
        run = pytester.run(*program)

    run.assert_outcomes(passed=1)


def test_the_plugin_imports_nothing_but_pytest() -> None:
    """Importing the plugin adds no module to what pytest and the package's own import load."""
    program = (
        "import sys, pytest, ratelimited_notify; before = set(sys.modules); import ratelimited_notify.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=SOURCE)

    assert run.stdout.split() == ["ratelimited_notify.pytest_plugin"]


@given(moves=st.lists(st.integers(0, 10**12), max_size=50))
def test_the_clock_does_not_drift(moves: list[int]) -> None:
    """However often it is moved by fractions of a second, the clock is where it should be, to the microsecond."""
    clock = Clock()
    start = round(clock() * 1_000_000)
    for microseconds in moves:
        clock.sleep(microseconds / 1_000_000)

    assert round(clock() * 1_000_000) - start == sum(moves)


def test_the_clock_is_set() -> None:
    """The clock begins at a known instant, and goes to an aware datetime or to seconds since 1970."""
    clock = Clock()
    noon = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=1)))

    assert datetime.fromtimestamp(clock(), UTC) == datetime(2026, 1, 1, tzinfo=UTC)
    clock.set(noon)
    assert datetime.fromtimestamp(clock(), UTC) == noon
    clock.set(1.5)
    assert clock() == 1.5
    with pytest.raises(TypeError, match="seconds"):
        clock.set(datetime(2026, 3, 1))  # noqa: DTZ001  # what is refused


def test_the_clock_is_advanced() -> None:
    """Time passes by seconds or by a timedelta, and never backwards; what is neither is refused in words."""
    clock = Clock()
    start = clock()

    clock.advance(timedelta(hours=1))
    clock.advance(0)

    assert clock() == start + 3600
    with pytest.raises(ValueError, match="0 seconds or more; to move the clock back, use set"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="0 seconds or more"):
        clock.advance(timedelta(seconds=-1))
    with pytest.raises(TypeError, match="takes seconds or a timedelta, not str"):
        clock.advance("1 hour")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeError, match="not None"):
        clock.set(None)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeError, match="not str"):
        clock.set("noon")  # type: ignore[arg-type]  # what is refused
    assert clock() == start + 3600


def test_an_outbox_is_a_list() -> None:
    """An outbox without messages is still a gateway."""
    outbox = Outbox()

    assert not outbox
    assert Notifier(outbox, {"news": "1/day"}).send("news", "ana").result is None
    assert len(outbox) == 1
