"""What tests of users' programs stand on without pytest: isolated limits, no limits, a mixin for unittest."""

from __future__ import annotations

import asyncio
import os
import unittest
from typing import TYPE_CHECKING, Any

import pytest

from processes import unconfigured
from ratelimited_notify import (
    AsyncNotifier,
    Limiter,
    Notifier,
    RateLimitExceeded,
    configure,
    pytest_plugin,
    rate_limited,
    testing,
)
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.testing import Clock, NotifyTestMixin, Outbox, disabled_limits, isolated_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DISABLED = "RATELIMITED_NOTIFY_DISABLED"


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


@pytest.fixture
def news() -> Callable[[int], int]:
    """Sends so many news, sync and async in turn, and says how many were sent; the limit is 2."""
    configure({"news": "2/day"})

    @rate_limited("news", on_limit="drop")
    def send(to: str) -> bool:
        return True

    @rate_limited("news", on_limit="drop")
    async def send_async(to: str) -> bool:
        return True

    def times(count: int) -> int:
        results = [asyncio.run(send_async("ana")) if number % 2 else send("ana") for number in range(count)]
        return results.count(True)

    return times


def test_isolated_limits_are_fresh(news: Callable[[int], int]) -> None:
    """In the block nothing is counted yet; after it everything is as before, whatever the block did."""
    assert news(1) == 1
    for _ in range(2):
        with isolated_limits():
            assert news(5) == 2

    def fail() -> None:
        with isolated_limits():
            configure({"news": "9/day"})
            assert news(20) == 9
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert news(5) == 1


def test_isolated_limits_inside_each_other(news: Callable[[int], int]) -> None:
    """A block in a block is as fresh, and the outer one goes on afterwards."""
    with isolated_limits() as outer:
        assert news(1) == 1
        with isolated_limits() as inner:
            assert news(5) == 2
            inner.clock.advance(86_400)
            assert news(5) == 2
        assert news(5) == 1
        assert outer.clock() != inner.clock()


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), float("-inf")])
def test_a_clock_that_cannot_be_moved_there_says_why(seconds: float) -> None:
    """`retry_after` is infinite if a notification will never be allowed, and such a wait has no end."""
    clock = Clock()
    before = clock()

    for move, said in (
        (clock.advance, r"^advance\(\) takes a finite number of seconds; retry_after is inf if a notification is never allowed\.$"),
        (clock.sleep, r"^advance\(\) takes a finite number of seconds"),
        (clock.set, r"^set\(\) takes an aware datetime or a finite number of seconds since 1970\.$"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            move(seconds)
    assert clock() == before


def test_the_clock_of_isolated_limits(news: Callable[[int], int]) -> None:
    """Time passes when the test says so; a wait moves the clock and takes no time."""
    clock = Clock()
    with isolated_limits(clock) as limits:
        assert limits.clock is clock
        assert news(5) == 2
        clock.advance(86_400)
        assert news(5) == 2
        send = rate_limited("news", on_limit="wait", max_wait=86_400)(lambda to: clock())
        assert send("ana") == clock() == Clock()() + 2 * 86_400


def test_the_limiters_of_isolated_limits(news: Callable[[int], int]) -> None:
    """The limiters are those of the decorated functions, on the same windows."""
    with isolated_limits() as limits:
        assert news(1) == 1
        assert limits.limiter is configuration.limiter()
        assert limits.limiter.test("news", "ana").remaining == 1
        assert asyncio.run(limits.async_limiter.test("news", "ana")).remaining == 1
        limits.limiter.clear("news", "ana")
        assert news(5) == 2


@pytest.mark.parametrize("value", [None, "1", "0", ""])
def test_isolated_limits_are_on(news: Callable[[int], int], value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limiting is on in the block, and the variable of the environment is as before after it, an error or not."""
    if value is not None:
        monkeypatch.setenv(DISABLED, value)

    def fail() -> None:
        with isolated_limits():
            assert DISABLED not in os.environ
            assert news(5) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.environ.get(DISABLED) == value


def test_isolated_limits_in_a_coroutine(news: Callable[[int], int]) -> None:
    """The block works in a coroutine too."""

    @rate_limited("news")
    async def send(to: str) -> bool:
        return True

    async def main() -> None:
        with isolated_limits() as limits:
            assert await send("ana")
            assert await send("ana")
            with pytest.raises(RateLimitExceeded) as caught:
                await send("ana")
            assert caught.value.decision.retry_at is not None
            limits.clock.set(caught.value.decision.retry_at)
            assert await send("ana")

    asyncio.run(main())


def test_disabled_limits(news: Callable[[int], int]) -> None:
    """In the block everything is sent and nothing is counted, by limiters of their own too; after it limits are on."""
    limiter = Limiter({"news": "1/day"})

    def fail() -> None:
        with disabled_limits():
            with disabled_limits():
                pass
            assert news(5) == 5
            assert all(limiter.hit("news", "ana") for _ in range(3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert news(5) == 2
    assert [bool(limiter.hit("news", "ana")) for _ in range(2)] == [True, False]


# unittest.


def outcome(case: type[unittest.TestCase]) -> tuple[int, list[str]]:
    """How many tests of a test case ran, and what went wrong in them."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result.testsRun, [text for _, text in result.errors + result.failures]


def test_a_test_case(news: Callable[[int], int]) -> None:
    """Each test of a test case has fresh limits, a clock and outboxes, from `setUp` to the last cleanup."""
    assert news(1) == 1
    cleaned: list[int] = []

    class Tests(NotifyTestMixin, unittest.TestCase):
        def setUp(self) -> None:
            self.addCleanup(lambda: cleaned.append(news(5)))
            assert news(1) == 1

        def tearDown(self) -> None:
            self.notify_clock.advance(86_400)

        def test_fresh(self) -> None:
            """The limits are fresh."""
            assert news(5) == 1
            assert self.notify_limits.clock is self.notify_clock
            assert self.notify_limits.limiter.test("news", "ana").remaining == 0

        def test_fresh_again(self) -> None:
            """They are fresh in the next test too."""
            for _ in range(2):
                with self.subTest():
                    news(1)

        def test_outboxes(self) -> None:
            """The outboxes are gateways."""
            assert Notifier(self.notify_outbox, {"news": "1/day"}).send("news", "ana", "Hi")
            assert self.notify_outbox.recipients == ["ana"]
            assert self.notify_async_outbox == []

    assert outcome(Tests) == (3, [])
    assert cleaned == [2] * 3
    Tests("test_fresh").debug()
    assert news(5) == 1


def test_an_async_test_case(news: Callable[[int], int]) -> None:
    """Test cases of coroutines have the same."""

    @rate_limited("news", on_limit="drop")
    async def send(to: str) -> bool:
        return True

    class Tests(NotifyTestMixin, unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            assert await send("ana")

        async def test_fresh(self) -> None:
            """The limits are fresh."""
            assert [await send("ana") for _ in range(2)] == [True, None]
            self.notify_clock.advance(86_400)
            assert await send("ana")

        async def test_outboxes(self) -> None:
            """The outboxes are gateways."""
            assert await AsyncNotifier(self.notify_async_outbox, {"news": "1/day"}).send("news", "ana")
            assert self.notify_async_outbox.recipients == ["ana"]

    assert outcome(Tests) == (2, [])
    assert news(5) == 2


def test_a_test_case_that_fails(news: Callable[[int], int]) -> None:
    """A failure is told as without the mixin, and the next test is fresh all the same."""

    class Tests(NotifyTestMixin, unittest.TestCase):
        def test_a(self) -> None:
            """It fails."""
            assert news(5) == 3

        def test_b(self) -> None:
            """It passes."""
            assert news(5) == 2

    ran, wrong = outcome(Tests)
    assert ran == 2
    assert len(wrong) == 1
    assert "2 == 3" in wrong[0]


@pytest.mark.parametrize("case", [unittest.TestCase, unittest.IsolatedAsyncioTestCase])
def test_the_mixin_comes_first(case: Any) -> None:
    """After the test case the mixin could do nothing, so that is an error; a mixin made of it may come in between."""
    with pytest.raises(
        TypeError, match=rf"^Write NotifyTestMixin first: class Tests\(NotifyTestMixin, {case.__name__}\)"
    ):
        type("Tests", (case, NotifyTestMixin), {})
    base = type("Mixin", (NotifyTestMixin,), {"run": NotifyTestMixin.run})
    assert type("Tests", (base, case), {})


def test_in_a_run_of_pytest(pytester: pytest.Pytester) -> None:
    """pytest runs such test cases too."""
    pytester.makepyfile(
        """
        import unittest
        from ratelimited_notify import rate_limited
        from ratelimited_notify.testing import NotifyTestMixin

        @rate_limited("testing", "1/day", on_limit="drop")
        def send(to):
            return "sent"

        class Tests(NotifyTestMixin, unittest.TestCase):
            def test_a(self):
                assert [send("ana"), send("ana")] == ["sent", None]

            def test_b(self):
                self.test_a()
                self.notify_clock.advance(86_400)
                self.test_a()
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


pytest_plugins = ["pytester"]


def test_the_plugin_hands_out_the_same_names() -> None:
    """What was imported from the plugin is what `ratelimited_notify.testing` has; what is not there is an error."""
    for name in ("AsyncOutbox", "Clock", "Limits", "Outbox", "Sent"):
        assert getattr(pytest_plugin, name) is getattr(testing, name)
    with pytest.raises(AttributeError, match=r"^module 'ratelimited_notify\.pytest_plugin' has no attribute 'Inbox'$"):
        pytest_plugin.Inbox  # type: ignore[attr-defined]  # noqa: B018  # that is the point
    assert Outbox() == []
