"""The verbs of both limiters: hit, test, hit_many, decide, release, reserve, windows, clear."""

from __future__ import annotations

import asyncio
import threading
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from limiting import LIMITERS, SECOND, Clock
from ratelimited_notify import AsyncLimiter, Decision, Limiter, Notification, NotifyError, Rule, RuleSet, StorageError
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.notification.cost import LARGEST_AMOUNT
from ratelimited_notify.storage.memory.packed import unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHO = "ana@example.com"


class Kind(str, Enum):  # noqa: UP042  # what StrEnum replaced: its str() is "Kind.NEWS"
    NEWS = "news"


class Weight(IntEnum):
    DOUBLE = 2


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=list(LIMITERS))
def make(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Callable[..., Any]]:
    """Make a limiter, sync or async, on the test's clock; it is closed when the test is over."""
    made: list[Any] = []

    def one(*arguments: Any, **options: Any) -> Any:
        made.append(LIMITERS[request.param](*arguments, **{"clock": clock, **options}))
        return made[-1]

    yield one
    for limiter in made:
        limiter.close()


def verdicts(decisions: list[Decision]) -> list[bool]:
    return [decision.allowed for decision in decisions]


# Hit and test.


def test_a_limit_holds_per_type_and_recipient(make: Any) -> None:
    """Each type and each recipient has a window of its own."""
    limiter = make({"news": "1/day", "status": "2/minute"})

    assert limiter.hit("news", WHO)
    assert not limiter.hit("news", WHO)
    assert limiter.hit("news", "bo@example.com")
    assert limiter.hit("status", WHO)


def test_a_window_ends_a_period_after_its_hits(make: Any, clock: Clock) -> None:
    """Refused at every moment before, allowed at the instant."""
    limiter = make({"news": "1/day"})
    limiter.hit("news", WHO)
    clock.advance(86_400 * SECOND - 1)
    assert not limiter.hit("news", WHO)
    clock.advance(1)
    assert limiter.hit("news", WHO)


def test_a_refusal_takes_nothing(make: Any) -> None:
    """10/hour and 1/minute, five attempts: one is sent, and nine are left."""
    limiter = make({"news": "10/hour; 1/minute"})

    assert [bool(limiter.hit("news", WHO)) for _ in range(5)] == [True, False, False, False, False]
    assert [state.remaining for state in limiter.windows("news", WHO)] == [9, 0]


def test_test_takes_nothing(make: Any) -> None:
    """It says what hit would, as often as it is asked."""
    limiter = make({"news": "1/day"})

    assert all(limiter.test("news", WHO) for _ in range(5))
    assert limiter.test("news", WHO).remaining == 1
    assert limiter.release(limiter.test("news", WHO)) is False
    limiter.hit("news", WHO)
    assert not limiter.test("news", WHO)


def test_a_cost_counts_for_so_many(make: Any) -> None:
    """A message of three parts takes three."""
    limiter = make({"news": "5/day"})

    assert limiter.hit("news", WHO, cost=3).remaining == 2
    assert not limiter.hit("news", WHO, cost=3)
    assert limiter.hit("news", WHO, cost=2)
    assert not limiter.test("news", WHO, cost=1)


def test_a_cost_may_be_of_an_int_class(make: Any) -> None:
    """A member of an int enumeration is a number, and stays none."""
    decision = make({"news": "5/day"}).hit("news", WHO, cost=Weight.DOUBLE)

    assert (decision.cost, type(decision.cost), decision.remaining) == (2, int, 3)


@pytest.mark.parametrize("cost", [0, -1, LARGEST_AMOUNT + 1])
def test_a_cost_is_within_bounds(make: Any, cost: int) -> None:
    """A cost of nothing would pass every limit."""
    with pytest.raises(NotifyError, match=f"The cost of a notification is {cost}; it must be 1 to 1,000,000,000"):
        make({"news": "5/day"}).hit("news", WHO, cost=cost)


@pytest.mark.parametrize(("cost", "said"), [(True, "bool"), (1.0, "float"), ("1", "str"), (None, "NoneType")])
def test_a_cost_is_a_whole_number(make: Any, cost: Any, said: str) -> None:
    """Another thing is a TypeError that names its kind."""
    with pytest.raises(TypeError, match=f"must be a whole number, not {said}"):
        make({"news": "5/day"}).test("news", WHO, cost=cost)


@pytest.mark.parametrize("priority", [5, ["critical"], b"critical"])
def test_a_priority_is_a_text(make: Any, priority: Any) -> None:
    """One that no rule could name is a mistake."""
    with pytest.raises(TypeError, match="The priority of a notification must be a string or None"):
        make({"news": "5/day"}).hit("news", WHO, priority=priority)


def test_kinds_of_recipients(make: Any) -> None:
    """A number and its digits are one recipient; the decision keeps what the caller gave."""
    limiter = make({"news": "1/day"})
    some_id = UUID(int=5)

    decision = limiter.hit("news", 5)
    assert decision
    assert decision.recipient == 5
    assert not limiter.hit("news", "5")
    assert limiter.hit("news", some_id).recipient is some_id
    assert not limiter.hit("news", str(some_id))


@pytest.mark.parametrize("recipient", [True, None, b"ana", 5.0])
def test_other_recipients_are_a_type_error(make: Any, recipient: Any) -> None:
    """Each verb says the same, and says what to pass."""
    limiter = make({"news": "1/day"})

    for ask in (
        limiter.hit,
        limiter.test,
        limiter.windows,
        limiter.clear,
        lambda type, one: limiter.hit_many(type, [one]),
    ):
        with pytest.raises(TypeError, match=r"Pass a value that identifies it, such as user\.id or user\.email"):
            ask("news", recipient)


def test_an_empty_recipient_is_refused(make: Any) -> None:
    """All that have no address would share a window."""
    with pytest.raises(NotifyError, match="The recipient is empty"):
        make({"news": "1/day"}).hit("news", "")


def test_a_type_of_another_class_is_the_text_that_it_holds(make: Any) -> None:
    """A member of a str enumeration and its value share their windows, in whichever process they are asked about."""
    rules = [Rule("n*", "1/day"), Rule("news", "9/day", by=("type", "tenant"))]
    one, other = make(rules), make(rules)

    assert one.hit(Kind.NEWS, WHO, tenant=Kind.NEWS).type == "news"
    assert not one.hit("news", WHO)
    other.hit("news", WHO, tenant="news")
    assert list(_memory(one).shards) == list(_memory(other).shards)


def _memory(limiter: Any) -> Any:
    return getattr(limiter.storage, "windows", limiter.storage)


def test_fields_select_windows(make: Any) -> None:
    """A rule counts by what the notification has; where that is missing it does not apply."""
    limiter = make([Rule("alert", "1/hour", by=("recipient", "dedupe_key"))])

    assert limiter.hit("alert", WHO, dedupe_key="disk")
    assert not limiter.hit("alert", WHO, dedupe_key="disk")
    assert limiter.hit("alert", WHO, dedupe_key="cpu")
    assert limiter.hit("alert", WHO).windows == ()
    assert limiter.hit("alert", WHO, dedupe_key=None).windows == ()


def test_an_undeclared_field_is_an_error(make: Any) -> None:
    """In every verb: a misspelt field would select no window."""
    limiter = make({"news": "1/day"})

    for ask in (limiter.hit, limiter.test, limiter.windows, limiter.clear):
        with pytest.raises(NotifyError, match="'ip' is not a field of a notification"):
            ask("news", WHO, ip="::1")
    assert make(RuleSet([Rule("news", "1/day", by="ip")], fields=["ip"])).hit("news", WHO, ip="::1").remaining == 0


def test_exempt_priorities_pass_and_count(make: Any) -> None:
    """They are counted up to twice the amount, so that others still wait, and not for ever."""
    limiter = make([Rule("*", "2/day", by="recipient", exempt="critical")])

    assert all(limiter.hit("alert", WHO, priority="critical") for _ in range(9))
    assert not limiter.hit("alert", WHO)
    assert not limiter.hit("alert", WHO, priority="low")
    kept = _memory(limiter).shards.get("notify:{ana@example.com}:%2A%20by%20recipient:86400+recipient:m")
    assert len(unpacked(kept, "moving-window").stored()) == 4


def test_exempt_priorities_need_not_count(make: Any) -> None:
    """With count_exempt=False they leave no trace."""
    limiter = make([Rule("*", "2/day", by="recipient", exempt="critical", count_exempt=False)])

    assert limiter.hit("alert", WHO, priority="critical").windows == ()
    assert limiter.hit("alert", WHO).remaining == 1


def test_shadow_mode_tells_what_enforcing_would_refuse(make: Any) -> None:
    """It counts what would have been sent, and no more: the same attempts are over the limit as under an enforced rule."""
    shadow, enforced = make([Rule("news", "2/hour", enforce=False)]), make({"news": "2/hour"})

    over = [shadow.hit("news", WHO).windows[0].retry_after > 0 for _ in range(5)]
    assert over == [not enforced.hit("news", WHO) for _ in range(5)]
    assert over == [False, False, True, True, True]


def test_a_shadow_rule_takes_nothing_where_another_rule_refuses(make: Any) -> None:
    """What was not sent does not count in any window."""
    limiter = make([Rule("news", "9/hour", enforce=False, name="trial"), Rule("news", "1/day")])
    limiter.hit("news", WHO)
    limiter.hit("news", WHO)

    assert [state.remaining for state in limiter.windows("news", WHO)] == [8, 0]


def test_overrides_and_tiers(make: Any) -> None:
    """A recipient's own limit, then its tier's, then the rule's; the tier is asked for with the recipient as it was passed."""
    asked: list[object] = []

    def tier_of(recipient: object) -> str | None:
        asked.append(recipient)
        return {"Bo@Example.com": "gold", 5: "platinum"}.get(recipient)

    rules = [
        Rule("sms", "1/day", overrides={"VIP@Example.com": "50/day"}, tiers={"gold": "20/day"}),
        Rule("news", "1/day"),
    ]
    limiter = make(rules, normalize="email", tier_of=tier_of)

    remaining = [limiter.hit("sms", one).remaining for one in ("vip@example.com", "Bo@Example.com", WHO, 5)]
    assert remaining == [49, 19, 0, 0]
    assert asked == ["vip@example.com", "Bo@Example.com", WHO, 5]
    limiter.hit("news", WHO)
    assert len(asked) == 4, "a type without tiers asks for none"


@pytest.mark.parametrize("tier", [5, ["gold"], b"gold"])
def test_a_tier_is_a_text(make: Any, tier: Any) -> None:
    """Another thing would be in no tier, unnoticed."""
    limiter = make([Rule("sms", "1/day", tiers={"gold": "20/day"})], tier_of=lambda recipient: tier)
    with pytest.raises(TypeError, match=r"tier_of= returned a \w+; it must return the name of a tier, or None"):
        limiter.hit("sms", WHO)


# Many.


def test_hit_many_keeps_the_order_and_counts_each(make: Any) -> None:
    """The same recipient twice counts twice, in its own window and in the shared one."""
    limiter = make([Rule("news", "1/day"), Rule("*", "3/second", by=())])

    decisions = limiter.hit_many("news", ["a", "b", "a", "c", "d", "a"])

    assert verdicts(decisions) == [True, True, False, True, False, False]
    assert [decision.recipient for decision in decisions] == ["a", "b", "a", "c", "d", "a"]
    assert [state.remaining for state in limiter.windows("news", "e")] == [1, 0]


def test_hit_many_counts_long_recipients_where_hit_does(make: Any) -> None:
    """A batch of plain recipients of mixed length lets nobody through who was sent to one by one, nor the other way round."""
    people = ["a" * length for length in (1, 63, 64, 65, 200)]
    limiter = make({"news": "1/day", "status": "1/day"})
    assert all(limiter.hit("news", each) for each in people)
    assert all(limiter.hit_many("status", people))

    assert not any(limiter.hit_many("news", people))
    assert not any(limiter.hit("status", each) for each in people)


def test_hit_many_takes_any_iterable_and_all_options(make: Any) -> None:
    """Cost, priority and fields are those of hit."""
    limiter = make([Rule("news", "3/day", by=("recipient", "tenant"), exempt="critical")])

    assert limiter.hit_many("news", iter(["a"]), cost=2, tenant="x")[0].remaining == 1
    assert verdicts(limiter.hit_many("news", ("a", "b"), cost=2, tenant="x")) == [False, True]
    assert verdicts(limiter.hit_many("news", ("a", "b"), cost=2, tenant="x", priority="critical")) == [True, True]
    assert limiter.hit_many("news", []) == []


def test_hit_many_without_a_rule_asks_no_storage(make: Any) -> None:
    """What no rule is for is allowed, among the others in its place."""
    limiter = make([Rule("news", "1/day", overrides={"b": None})])

    decisions = limiter.hit_many("news", ["a", "b", "b", "a"])

    assert verdicts(decisions) == [True, True, True, False]
    assert [len(decision.windows) for decision in decisions] == [1, 0, 0, 1]
    assert verdicts(limiter.hit_many("other", ["a", "a"])) == [True, True]


def test_hit_many_counts_nothing_when_one_cannot_be_asked_about(make: Any) -> None:
    """The error comes before the first hit."""
    limiter = make({"news": "1/day"})
    with pytest.raises(TypeError):
        limiter.hit_many("news", ["a", None])

    assert limiter.test("news", "a").remaining == 1


def test_hit_many_refuses_a_single_text(make: Any) -> None:
    """It would be taken letter by letter, and every letter would be a recipient."""
    with pytest.raises(TypeError, match="The recipients are a single string; pass a list"):
        make({"news": "1/day"}).hit_many("news", WHO)


def test_decisions_of_hit_many_can_be_released(make: Any) -> None:
    """Each by itself."""
    limiter = make({"news": "1/day"})
    first, second = limiter.hit_many("news", ["a", "b"])

    assert limiter.release(second) is True
    assert [limiter.test("news", one).allowed for one in ("a", "b")] == [False, True]
    assert limiter.release(first) is True


def test_decide_answers_each_notification(make: Any) -> None:
    """A decision, or the error that hit would have raised, in the order given."""
    limiter = make([Rule("news", "1/day", exempt="critical"), Rule("sms", "3/day", by=("recipient", "tenant"))])

    answers = limiter.decide(
        iter(
            [
                Notification("news", "a"),
                Notification("news", None),
                Notification("other", "a"),
                Notification("news", "a"),
                Notification("news", "a", priority="critical"),
                Notification("sms", "a", cost=2, fields={"tenant": "x"}),
                Notification("sms", "a", fields={"ip": "x"}),
                Notification("sms", "a", cost=2, fields={"tenant": "x"}),
                Notification("news", "b", cost=0),
            ]
        )
    )

    assert [type(one).__name__ if isinstance(one, Exception) else one.allowed for one in answers] == [
        True, "TypeError", True, False, True, True, "NotifyError", False, "NotifyError",
    ]  # fmt: skip
    assert limiter.decide([]) == []


def test_decide_keeps_what_the_users_functions_raise(make: Any) -> None:
    """An error in normalize= is that notification's, not the batch's."""
    limiter = make({"news": "1/day"}, normalize=lambda text: text[text.index("@") :])

    first, second = limiter.decide([Notification("news", "ana"), Notification("news", WHO)])

    assert isinstance(first, ValueError)
    assert second.allowed


# Release and reserve.


def fail_inside(
    limiter: Any, error: BaseException, *, expected: bool = True, meanwhile: Callable[[], object] = list, **fields: str
) -> None:
    """A reservation whose body raises."""
    with limiter.reserve("news", WHO, **fields) as decision:
        assert decision.allowed is expected
        meanwhile()
        raise error


def test_release_gives_back_once(make: Any) -> None:
    """In all windows, and only the first time."""
    limiter = make({"news": "1/day; 5/year"})
    decision = limiter.hit("news", WHO)

    assert limiter.release(decision) is True
    assert limiter.release(decision) is False
    assert [state.remaining for state in limiter.windows("news", WHO)] == [1, 5]


def test_release_of_what_took_nothing(make: Any) -> None:
    """A refusal and an unlimited decision have nothing to give back: no storage is asked, and others keep theirs."""
    limiter = make({"news": "1/day"}, timeout=0.01)
    limiter.hit("news", WHO)
    took_nothing = [limiter.hit("news", WHO), limiter.test("news", "bo"), limiter.hit("other", WHO)]

    with _memory(limiter).guard.lock:
        assert [limiter.release(decision) for decision in took_nothing] == [False, False, False]
    assert not limiter.test("news", WHO)


def test_release_after_the_window_is_over(make: Any, clock: Clock) -> None:
    """A later window owes nothing to an earlier one."""
    limiter = make([Rule("news", "1/minute", strategy="fixed-window")])
    old = limiter.hit("news", WHO)
    clock.advance(60 * SECOND)
    limiter.hit("news", WHO)

    assert limiter.release(old) is False
    assert not limiter.test("news", WHO)


@pytest.mark.parametrize(
    ("strategy", "periods"), [("moving-window", 1), ("fixed-window", 1), ("sliding-window-counter", 2)]
)
def test_release_gives_back_until_the_hit_no_longer_counts(
    make: Any, clock: Clock, strategy: Any, periods: int
) -> None:
    """To the microsecond, though nobody has looked at the window since."""
    limiter = make([Rule("news", "1/minute", strategy=strategy)])
    decisions = [limiter.hit("news", one) for one in ("ana", "bo")]
    clock.advance(periods * 60 * SECOND - 1)
    assert limiter.release(decisions[0]) is True
    clock.advance(1)
    assert limiter.release(decisions[1]) is False


def test_release_by_a_limiter_with_another_storage_is_refused(make: Any) -> None:
    """It would ask the wrong server; and the decision can still be released by the right one."""
    limiter, other = make({"news": "1/day"}), make({"news": "1/day"})
    decision = limiter.hit("news", WHO)

    with pytest.raises(NotifyError, match="made by a limiter with another storage"):
        other.release(decision)
    assert limiter.release(decision) is True


def test_threads_release_a_decision_once() -> None:
    """Whoever comes first gives back; a second time would make room that nobody took."""
    limiter = Limiter([Rule("news", "1000/day", strategy="fixed-window")])
    given: list[bool] = []
    decisions = [limiter.hit("news", WHO) for _ in range(200)]
    start = threading.Barrier(4)

    def release_all() -> None:
        start.wait()
        given.extend(limiter.release(decision) for decision in decisions)

    threads = [threading.Thread(target=release_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert given.count(True) == 200
    assert limiter.windows("news", WHO)[0].remaining == 1000


@pytest.mark.parametrize(
    ("raised", "left"),
    [
        (ValueError("bad address"), 1),
        (ConnectionRefusedError(), 1),
        (NotifyError("a refusal of the body's own"), 1),
        (TimeoutError(), 0),
        (ConnectionResetError(), 0),
        (KeyboardInterrupt(), 0),
        (asyncio.CancelledError(), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reserve_gives_back_what_was_surely_not_sent(make: Any, raised: BaseException, left: int) -> None:
    """An error of the body's goes on as it is; the hit is kept where the message may have gone out."""
    limiter = make({"news": "1/day"})

    with pytest.raises(type(raised)) as caught:
        fail_inside(limiter, raised)

    assert caught.value is raised
    assert limiter.test("news", WHO).remaining == left


def test_reserve_keeps_what_was_sent(make: Any) -> None:
    """A body that ends well keeps the hit; a refused one is told so and has nothing to give back."""
    limiter = make([Rule("news", "1/day", by=("recipient", "tenant"), exempt="critical")])
    with limiter.reserve("news", WHO, cost=1, tenant="x") as decision:
        assert decision

    with pytest.raises(ValueError, match="anything"):
        fail_inside(limiter, ValueError("anything"), expected=False, tenant="x")
    assert not limiter.test("news", WHO, tenant="x")
    with limiter.reserve("news", WHO, tenant="x", priority="critical") as exempt:
        assert exempt


def test_reserve_raises_the_bodys_error_when_the_storage_fails(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What went wrong in the body is what the caller must see; that the hit stays counted goes to the log."""
    limiter = make({"news": "1/day"}, timeout=0.01)
    lock = _memory(limiter).guard.lock

    with pytest.raises(ValueError, match="bad address"):
        fail_inside(limiter, ValueError("bad address"), meanwhile=lock.acquire)
    lock.release()

    assert [record.getMessage()[:47] for record in caplog.records] == [
        "A hit could not be given back and stays counted"
    ]
    assert not limiter.test("news", WHO)


# Windows and clear.


def test_windows_shows_what_is_there(make: Any, clock: Clock) -> None:
    """Each window as it stands, for a hit of one; nothing is counted by looking."""
    limiter = make([Rule("news", "2/hour"), Rule("*", "9/day", by=(), strategy="fixed-window")])
    limiter.hit("news", "bo")
    limiter.hit("news", WHO)

    first, second = limiter.windows("news", WHO)

    assert (first.rule, first.strategy, first.remaining, first.identifiers) == (
        "news",
        "moving-window",
        1,
        ("news", WHO),
    )
    assert (second.rule, second.strategy, second.remaining, second.identifiers) == ("* by all", "fixed-window", 7, ())
    assert (first.retry_after, first.enforced, str(first.item)) == (0.0, True, "2 per 1 hour")
    assert limiter.windows("news", WHO) == (first, second)
    assert make({"news": "1/day"}).windows("other", WHO) == make({"news": "1/day"}).test("other", WHO).windows == ()


@pytest.mark.parametrize("name", ["cost", "priority"])
def test_windows_and_clear_take_fields_alone(make: Any, name: str) -> None:
    """A window has neither cost nor priority."""
    limiter = make({"news": "1/day"})

    for ask in (limiter.windows, limiter.clear):
        with pytest.raises(NotifyError, match=f"'{name}' is not a field"):
            ask("news", WHO, **{name: 1})


def test_clear_empties_the_recipients_own_windows(make: Any) -> None:
    """Never those that others share; it tells how many held anything."""
    limiter = make(
        [
            Rule("news", "1/hour; 5/day"),
            Rule("*", "9/day", by=()),
            Rule("*", "8/day", by="recipient", strategy="fixed-window"),
        ]
    )
    limiter.hit("news", WHO)
    limiter.hit("news", "bo")

    assert limiter.clear("news", WHO) == 3
    assert limiter.clear("news", WHO) == 0
    assert [state.remaining for state in limiter.windows("news", WHO)] == [1, 5, 7, 8]
    assert [state.remaining for state in limiter.windows("news", "bo")] == [0, 4, 7, 7]
    assert limiter.clear("other", WHO) == 0
    assert make([Rule("news", "1/day", by=())]).clear("news", WHO) == 0


def test_clear_takes_fields(make: Any) -> None:
    """The windows of these values, and no others."""
    limiter = make([Rule("news", "1/day", by=("recipient", "tenant"))])
    limiter.hit("news", WHO, tenant="x")
    limiter.hit("news", WHO, tenant="y")

    assert limiter.clear("news", WHO, tenant="x") == 1
    assert limiter.test("news", WHO, tenant="x")
    assert not limiter.test("news", WHO, tenant="y")


def test_a_cleared_hit_is_not_given_back(make: Any) -> None:
    """What is gone from the window cannot make more room."""
    limiter = make({"news": "2/day"})
    decision = limiter.hit("news", WHO)
    limiter.clear("news", WHO)
    limiter.hit("news", WHO)

    assert limiter.release(decision) is False
    assert limiter.test("news", WHO).remaining == 1


# Waiting and closing.


def test_wait_is_by_the_limiters_clock(make: Any) -> None:
    """A clock with a `sleep` of its own is moved by it: tests do not sleep."""

    class Moving(Clock):
        def sleep(self, seconds: float) -> None:
            self.advance(round(seconds * SECOND))

    moving = Moving()
    limiter = make({"news": "1/day"}, clock=moving)
    limiter.hit("news", WHO)
    limiter.wait(86_400.0)

    assert limiter.hit("news", WHO)


def test_wait_sleeps_without_such_a_clock(make: Any) -> None:
    """By default the time that passes is real; so short a one is not felt."""
    make({"news": "1/day"}).wait(0.0)


def test_a_limiter_closes_what_it_opened() -> None:
    """As a context manager or by close; a storage that was passed is left to others."""
    with Limiter({"news": "1/day"}) as limiter:
        limiter.hit("news", WHO)
        sharing = Limiter({"news": "1/day"}, limiter.storage)
        with sharing:
            assert not sharing.hit("news", WHO)
        assert len(limiter.storage) == 1
    assert len(limiter.storage) == 0


def test_an_async_limiter_closes_what_it_opened() -> None:
    """The same, awaited."""

    async def run() -> None:
        async with AsyncLimiter({"news": "1/day"}) as limiter:
            await limiter.hit("news", WHO)
            async with AsyncLimiter({"news": "1/day"}, limiter.storage) as sharing:
                assert not await sharing.hit("news", WHO)
            assert len(limiter.storage.windows) == 1
        assert len(limiter.storage.windows) == 0

    asyncio.run(run())


def test_one_async_limiter_serves_several_event_loops() -> None:
    """One after another, and at once in threads."""
    limiter = AsyncLimiter({"news": "100/day"})

    async def some() -> int:
        return sum([bool(await limiter.hit("news", WHO)) for _ in range(30)])

    admitted = [asyncio.run(some())]
    threads = [threading.Thread(target=lambda: admitted.append(asyncio.run(some()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(admitted) == 100


def test_a_thousand_tasks_are_admitted_exactly() -> None:
    """Tasks that ask at once get the limit, no more and no less."""

    async def run() -> int:
        limiter = AsyncLimiter({"news": "37/day"})
        return sum(map(bool, await asyncio.gather(*(limiter.hit("news", WHO) for _ in range(1000)))))

    assert asyncio.run(run()) == 37


@pytest.mark.parametrize("strategy", ["moving-window", "fixed-window", "sliding-window-counter"])
def test_what_is_left_is_never_below_none(make: Any, strategy: str) -> None:
    """After exempt hits a window holds more than its amount: then nothing is left, in any decision and any window."""
    limiter = make([Rule("news", "2/day", exempt="critical", strategy=strategy), Rule("*", "9/day", by="recipient")])
    for _ in range(4):
        assert limiter.hit("news", WHO, priority="critical")
    several = limiter.hit_many("news", [WHO] * 2)
    answers = [
        limiter.hit("news", WHO),
        limiter.test("news", WHO),
        *several,
        *limiter.decide([Notification("news", WHO)]),
    ]
    exempt = limiter.hit("news", WHO, priority="critical")

    assert [(bool(each), each.remaining, each.windows[0].remaining) for each in answers] == [(False, 0, 0)] * 5
    assert [state.remaining for state in limiter.windows("news", WHO)] == [0, 4]
    assert [state.remaining for state in exempt.windows] == [0, 4]


# What a decision is about.


@pytest.mark.parametrize(
    "state", ["counted", "refused", "off", "switched off", "allow", "deny", "unlimited", "unknown"]
)
def test_a_decision_is_about_what_was_asked(make: Any, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type, recipient and cost are the caller's own, however it was decided, also where nothing was."""
    options: dict[str, Any] = {"on_storage_error": state, "timeout": 0.001} if state in ("allow", "deny") else {}
    limit = {"refused": "0/day", "unlimited": None}.get(state, "99/day")
    limiter = make({} if state == "unknown" else {"news": limit}, enabled=state != "off", **options)
    monkeypatch.setattr(switch, "off", state == "switched off")
    people: list[Any] = ["ana@example.com", 5, UUID(int=7), "bo@example.com"]

    def ask() -> list[Any]:
        asked: list[Any] = []
        for who in people:
            asked += [
                (who, 1, limiter.hit("news", who)),
                (who, 1, limiter.hit("news", who)),
                (who, 1, limiter.test("news", who)),
            ]
            asked += [(who, 3, limiter.hit("news", who, cost=3)), (who, 2, limiter.test("news", who, cost=2))]
            with limiter.reserve("news", who, cost=4) as decision:
                asked.append((who, 4, decision))
        asked += zip(people, [1] * 4, limiter.hit_many("news", people), strict=True)
        asked += zip(people, [2] * 4, limiter.hit_many("news", people, cost=2), strict=True)
        for costs in ([1] * 4, [3] * 4, [1, 2, 3, 4]):
            batch = [Notification("news", who, cost=cost) for who, cost in zip(people, costs, strict=True)]
            asked += zip(people, costs, limiter.decide(batch), strict=True)
        return asked

    if options:
        with _memory(limiter).guard.lock:
            asked = ask()
    else:
        asked = ask()
    for who, cost, decision in asked:
        assert (decision.type, decision.recipient, decision.cost) == ("news", who, cost)
        assert type(decision.recipient) is type(who)
        assert bool(decision) == (state not in ("refused", "deny"))
        assert "example" not in str(decision) + repr(decision)


# When the storage fails.


def test_a_storage_that_fails_is_an_error_by_default(make: Any) -> None:
    """Every verb raises, and shows nobody's address."""
    limiter = make({"news": "1/day"}, timeout=0.01)
    decision = limiter.hit("news", "bo")
    asking = [
        lambda: limiter.hit("news", WHO),
        lambda: limiter.test("news", WHO),
        lambda: limiter.hit_many("news", [WHO]),
        lambda: limiter.windows("news", WHO),
        lambda: limiter.clear("news", WHO),
        lambda: limiter.release(decision),
        lambda: limiter.reserve("news", WHO).__enter__(),
    ]
    with _memory(limiter).guard.lock:
        for ask in asking:
            with pytest.raises(StorageError, match="stayed locked") as caught:
                ask()
            assert "@" not in str(caught.value)
    assert limiter.release(decision) is False, "whether it was given back was unknown, so it is not tried again"


@pytest.mark.parametrize("choice", ["allow", "deny"])
def test_the_user_may_choose_what_a_failure_decides(
    make: Any, choice: str, caplog: pytest.LogCaptureFixture, log_clock: Any
) -> None:
    """What is decided without the storage has nothing to give back. The log gives the number, once in ten seconds.

    What is only tested is not in it: nothing was to be sent.
    """
    limiter = make([Rule("news", "1/day", overrides={"b": None})], timeout=0.01, on_storage_error=choice)
    expected = choice == "allow"
    assert limiter.raises is False
    with _memory(limiter).guard.lock:
        decisions = [limiter.hit("news", WHO), limiter.test("news", WHO), *limiter.hit_many("news", [WHO, "b", "c"])]
        log_clock.advance(10)
        answers = limiter.decide([Notification("news", WHO), Notification("news", None), Notification("news", "b")])

    assert verdicts(decisions) == [expected, expected, expected, True, expected]
    assert [decision.error is None for decision in decisions] == [False, False, False, True, False]
    assert [type(one).__name__ if isinstance(one, Exception) else one.allowed for one in answers] == [
        expected, "TypeError", True,
    ]  # fmt: skip
    assert [limiter.release(decision) for decision in decisions] == [False] * 5
    messages = [record.getMessage() for record in caplog.records]
    said = "allowed" if expected else "refused"
    assert [message.split(":")[0] for message in messages] == [
        f"Notifications were {said} without being counted (1), because the storage failed",
        f"Notifications were {said} without being counted (3 more), because the storage failed",
    ]
    assert "@" not in "".join(messages)


def test_decide_gives_the_storages_error_to_those_it_concerns(make: Any) -> None:
    """Those that no rule is for, and those that could not be asked about, are answered as always."""
    limiter = make({"news": "1/day"}, timeout=0.01)
    assert limiter.raises is True
    with _memory(limiter).guard.lock:
        answers = limiter.decide([Notification("news", WHO), Notification("other", WHO), Notification("news", None)])

    assert [type(one) for one in answers] == [StorageError, Decision, TypeError]
    assert limiter.hit("news", WHO)
