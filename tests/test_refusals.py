"""The memory of refusals: who was refused a moment ago is refused without a round trip, and nobody for too long."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from limiting import DAY, HOUR, LIMITERS, MINUTE, SECOND, Clock
from ratelimited_notify import Limiter, NotifyError, Rule, RuleSet, rate_limited
from ratelimited_notify.limiter.refusals import LONGEST, MOST_EACH, MOST_RECIPIENTS, RefusalCache
from ratelimited_notify.storage.memory import MemoryStorage
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Reading, Verdict, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from servers import Valkey

WHO = "ana@example.com"


@pytest.fixture
def database(valkey: Valkey) -> Iterator[str]:
    """The URL of an empty database that nobody else uses."""
    client = valkey.client(db=8)
    yield f"redis://{valkey.address}/8"
    client.flushdb()
    client.close()


@pytest.fixture(params=list(LIMITERS))
def make(request: pytest.FixtureRequest, database: str) -> Iterator[Callable[..., Any]]:
    """Makes limiters of either kind, on the server, that remember."""
    made: list[Any] = []

    def one(rules: Any, **options: Any) -> Any:
        made.append(LIMITERS[request.param](rules, database, remember_refusals=True, timeout=20, **options))
        return made[-1]

    yield one
    for limiter in made:
        limiter.close()


def scripts(valkey: Valkey) -> int:
    """How many scripts the server has run so far."""
    with valkey.client() as client:
        told = client.info("commandstats")
    return sum(told.get(name, {"calls": 0})["calls"] for name in ("cmdstat_eval", "cmdstat_evalsha"))


def asked(valkey: Valkey, act: Callable[[], object]) -> int:
    """How many scripts that took."""
    before = scripts(valkey)
    act()
    return scripts(valkey) - before


def test_a_refused_recipient_costs_no_round_trip(make: Callable[..., Any], valkey: Valkey) -> None:
    """Subject again and again, the server is not: the answer is the same one, and the time goes on."""
    limiter = make([Rule("news", "2/day"), Rule("*", "5/day", by="recipient")])
    assert [bool(limiter.hit("news", WHO)) for _ in range(3)] == [True, True, False]
    first = limiter.hit("news", WHO)
    decisions: list[Any] = []

    assert asked(valkey, lambda: decisions.extend(limiter.hit("news", WHO) for _ in range(50))) == 0
    assert {str(one) for one in decisions} == {str(first)}
    assert {(one.allowed, one.remaining, one.blocked_by.rule, one.retry_at) for one in decisions} == {
        (False, 0, first.blocked_by.rule, first.retry_at)
    }
    waits = [one.retry_after for one in (first, *decisions)]
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] < waits[0] <= DAY / SECOND


def test_others_are_asked_about(make: Callable[..., Any], valkey: Valkey) -> None:
    """Another recipient, another type, another cost or priority, a test and a batch: each is the server's to say."""
    limiter = make([Rule("news", "1/day"), Rule("status", "1/day"), Rule("alert", "1/day", exempt="critical")])
    for kind in ("news", "alert"):
        limiter.hit(kind, WHO)
        limiter.hit(kind, WHO)
    # The server learns the scripts.
    limiter.test("news", "first@example.com")
    limiter.hit_many("news", ["first@example.com"])

    for ask, expected in (
        (lambda: limiter.hit("news", "bo@example.com"), True),
        (lambda: limiter.hit("status", WHO), True),
        (lambda: limiter.hit("news", WHO, cost=2), False),
        (lambda: limiter.hit("alert", WHO, priority="critical"), True),
        (lambda: limiter.test("news", WHO), False),
        (lambda: limiter.hit_many("news", [WHO])[0], False),
    ):
        verdicts: list[bool] = []
        assert asked(valkey, lambda ask=ask, verdicts=verdicts: verdicts.append(bool(ask()))) == 1
        assert verdicts == [expected]
    assert asked(valkey, lambda: limiter.hit("alert", WHO)) == 0


@pytest.mark.parametrize(
    "rule",
    [Rule("*", "1/day", by="recipient", enforce=False), Rule("*", "1/day", by="recipient", exempt="low")],
    ids=["shadow", "exempt"],
)
def test_shadow_and_exempt_hits_are_never_remembered(make: Callable[..., Any], valkey: Valkey, rule: Rule) -> None:
    """What such a hit does to its windows is not to be passed over."""
    limiter = make([Rule("news", "1/day"), rule])
    for _ in range(2):
        limiter.hit("news", WHO, priority="low")

    assert asked(valkey, lambda: [limiter.hit("news", WHO, priority="low") for _ in range(5)]) == 5


def test_a_release_is_seen_at_once(make: Callable[..., Any]) -> None:
    """What this process gives back can be had again, also from a window that many share."""
    limiter = make([Rule("news", "1/day"), Rule("*", "2/day", by=())])
    mine, other = limiter.hit("news", WHO), limiter.hit("news", "bo@example.com")
    assert not limiter.hit("news", WHO)
    assert not limiter.hit("news", "cy@example.com")

    assert limiter.release(other)
    assert limiter.hit("news", "cy@example.com")
    assert not limiter.hit("news", WHO)
    assert limiter.release(mine)
    assert limiter.hit("news", WHO)


def test_a_clear_is_seen_at_once(make: Callable[..., Any], valkey: Valkey) -> None:
    """Who is cleared is asked about again; of others the refusal stays."""
    limiter = make({"news": "1/day"})
    for recipient in (WHO, "bo@example.com"):
        limiter.hit("news", recipient)
        limiter.hit("news", recipient)

    limiter.clear("news", WHO)
    assert limiter.hit("news", WHO)
    assert asked(valkey, lambda: limiter.hit("news", "bo@example.com")) == 0


def test_new_rules_are_seen_at_once(make: Callable[..., Any]) -> None:
    """A refusal belongs to the rules by which it was given."""
    limiter = make({"news": "1/day"})
    limiter.hit("news", WHO)
    assert not limiter.hit("news", WHO)

    limiter.rules = {"news": "2/day"}
    assert limiter.hit("news", WHO)


def test_a_decorated_function_remembers(database: str, valkey: Valkey) -> None:
    """Dropped or raised, the call costs no round trip; a failed send in between is seen."""
    with Limiter({"news": "1/day"}, database, remember_refusals=True, timeout=20) as limiter:
        failing = [False]

        @rate_limited("news", limiter=limiter, on_limit="drop")
        def send(recipient: str) -> str:
            if failing[0]:
                raise ZeroDivisionError
            return "sent"

        assert [send(WHO), send(WHO)] == ["sent", None]
        assert asked(valkey, lambda: [send(WHO) for _ in range(20)]) == 0
        failing[0] = True
        with pytest.raises(ZeroDivisionError):
            send("bo@example.com")
        failing[0] = False
        assert send("bo@example.com") == "sent"


def test_it_is_off_by_default_and_wants_a_bool(database: str, valkey: Valkey) -> None:
    """Without the option each question goes to the server; with something else in it, the error says what to write."""
    with Limiter({"news": "1/day"}, database, timeout=20) as limiter:
        limiter.hit("news", WHO)
        assert asked(valkey, lambda: [limiter.hit("news", WHO) for _ in range(5)]) == 5

    with pytest.raises(NotifyError, match="remember_refusals= must be True or False, not a int"):
        Limiter({"news": "1/day"}, remember_refusals=1)


class Plain(MemoryStorage):
    """Windows without a shortcut, as those on a server."""


@given(
    amounts=st.tuples(st.integers(0, 3), st.integers(1, 5)),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("hit"), st.sampled_from(["ana", "bo", "ü"]), st.integers(1, 2)),
            st.tuples(
                st.just("pass"),
                st.sampled_from([1, SECOND, 4 * SECOND, 5 * SECOND - 1, 5 * SECOND, MINUTE]),
                st.just(0),
            ),
            st.tuples(st.just("back"), st.sampled_from([1, SECOND, MINUTE]), st.just(0)),
            st.tuples(st.just("release"), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("clear"), st.sampled_from(["ana", "bo"]), st.just(0)),
            st.tuples(st.just("rules"), st.integers(0, 3), st.just(0)),
        ),
        max_size=50,
    ),
)
def test_alone_it_changes_no_verdict(amounts: tuple[int, int], steps: list[tuple[str, Any, int]]) -> None:
    """While nobody else takes, gives back or edits, a limiter that remembers says what one says that does not."""
    clock, monotonic, back = Clock(), Monotonic(), False

    def rules(first: int) -> RuleSet:
        return RuleSet(
            [
                Rule("news", f"{first}/minute"),
                Rule("*", f"{amounts[1]} per 10 second", by="recipient", strategy="fixed-window"),
            ]
        )

    remembering = Limiter(rules(amounts[0]), Plain(clock=clock), clock=clock, remember_refusals=True)
    remembering._refusals = RefusalCache(monotonic)
    other = Limiter(rules(amounts[0]), Plain(clock=clock), clock=clock)
    taken: list[tuple[Any, Any]] = []
    for step, value, cost in steps:
        if step == "hit":
            pair = remembering.hit("news", value, cost=cost), other.hit("news", value, cost=cost)
            assert pair[0].allowed == pair[1].allowed
            # What is remembered is as of a time that never runs backwards.
            if not back:
                assert [(one.retry_at, one.retry_after, str(one)) for one in pair[:1]] == [
                    (one.retry_at, one.retry_after, str(one)) for one in pair[1:]
                ]
            if pair[0]:
                taken.append(pair)
        elif step == "pass":
            clock.advance(value)
            monotonic.now += value * 1000
        elif step == "back":
            clock.advance(-value)
            back = True
        elif step == "release" and value < len(taken):
            assert remembering.release(taken[value][0]) == other.release(taken[value][1])
        elif step == "clear":
            assert remembering.clear("news", value) == other.clear("news", value)
        elif step == "rules":
            remembering.rules = other.rules = rules(value)


ONE = Window("moving-window", 1, HOUR, rule="one")


def refused(retry_at: int = HOUR) -> Verdict:
    """A refusal at instant 0, until this instant."""
    return Verdict(False, 0, [Reading(1, retry_at, HOUR, None)])


class Monotonic:
    """Nanoseconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.mark.parametrize(
    ("retry_at", "lasts"),
    [(SECOND, SECOND * 1000), (HOUR, LONGEST), (NEVER, LONGEST), (5 * SECOND + 1, LONGEST)],
)
def test_how_long_it_remembers(retry_at: int, lasts: int) -> None:
    """Until the time that the storage said, counted from before it was asked, and five seconds at the most."""
    clock = Monotonic()
    refusals = RefusalCache(clock)
    asked_at = refusals.asked_at()
    clock.now += 700
    refusals.remember([ONE], ["n:{ana}:one:m"], 1, refused(retry_at), asked_at)
    found = []
    for instant in (lasts - 1, lasts):
        clock.now = instant
        found.append(refusals.find([ONE], ["n:{ana}:one:m"], 1))

    assert found == [Verdict(False, (lasts - 1) // 1000, refused(retry_at).readings), None]


@pytest.mark.parametrize(
    "retries", [(SECOND, 3 * SECOND), (3 * SECOND, SECOND), (FITS, 3 * SECOND), (3 * SECOND, FITS)]
)
def test_of_several_windows_the_one_that_refuses_for_longest_counts(retries: tuple[int, int]) -> None:
    """It is remembered until all of them have room again."""
    clock = Monotonic()
    refusals = RefusalCache(clock)
    keys = ["n:{ana}:one:m", "n:{ana}:two:m"]
    verdict = Verdict(False, 0, [Reading(1, retry_at, HOUR, None) for retry_at in retries])
    refusals.remember([ONE, ONE], keys, 1, verdict, refusals.asked_at())
    found = []
    for instant in (3 * SECOND * 1000 - 1, 3 * SECOND * 1000):
        clock.now = instant
        found.append(refusals.find([ONE, ONE], keys, 1) is not None)

    assert found == [True, False]


def test_what_was_asked_before_a_release_is_not_remembered() -> None:
    """A refusal on its way while something is given back may be of before."""
    refusals = RefusalCache(Monotonic())
    asked_at = refusals.asked_at()
    refusals.drop([ONE], ["n:{bo}:one:m"])
    refusals.remember([ONE], ["n:{ana}:one:m"], 1, refused(), asked_at)

    assert refusals.find([ONE], ["n:{ana}:one:m"], 1) is None


def test_what_is_allowed_or_not_enforced_is_not_remembered() -> None:
    """Only refusals by enforced windows are."""
    refusals = RefusalCache(Monotonic())
    key = "n:{ana}:one:m"
    allowed = Verdict(True, 0, [Reading(1, FITS, HOUR, (1, 1))])
    refusals.remember([ONE], [key], 1, allowed, refusals.asked_at())
    for mode in (Mode.SHADOW, Mode.FORCE):
        other = Window("moving-window", 1, HOUR, mode)
        verdict = Verdict(False, 0, [*refused().readings, *refused().readings])
        refusals.remember([ONE, other], [key, key], 1, verdict, refusals.asked_at())

    assert len(refusals) == 0


def test_it_is_bounded() -> None:
    """So many recipients, and so many questions of one, are remembered, and what is over goes by itself."""
    clock = Monotonic()
    refusals = RefusalCache(clock)
    for number in range(MOST_RECIPIENTS + 50):
        refusals.remember([ONE], [f"n:{{{number}}}:one:m"], 1, refused(), refusals.asked_at())
    assert len(refusals) == MOST_RECIPIENTS
    for cost in range(1, MOST_EACH + 3):
        refusals.remember([ONE], ["n:{ana}:one:m"], cost, refused(), refusals.asked_at())
    assert [refusals.find([ONE], ["n:{ana}:one:m"], cost) is None for cost in (1, MOST_EACH + 2)] == [True, False]

    clock.now += LONGEST
    for number in range(MOST_RECIPIENTS):
        refusals.remember([ONE], [f"n:{{late.{number}}}:one:m"], 1, refused(HOUR), refusals.asked_at())
        if number % 2:
            clock.now += LONGEST
    assert len(refusals) < 10


def test_threads_that_note_and_drop() -> None:
    """However they meet, nothing breaks, and what was dropped last is not there."""
    refusals = RefusalCache()
    stop = threading.Event()
    failures: list[BaseException] = []

    def busy(act: Callable[[int], None]) -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                act(number % 50)
        except BaseException as error:
            failures.append(error)
            raise

    def remember(number: int) -> None:
        refusals.remember([ONE], [f"n:{{{number}}}:one:m"], 1, refused(), refusals.asked_at())

    acts: Sequence[Callable[[int], None]] = (
        remember,
        remember,
        lambda number: refusals.drop([ONE], [f"n:{{{number}}}:one:m"]),
        lambda number: (refusals.find([ONE], [f"n:{{{number}}}:one:m"], 1), None)[1],
    )
    threads = [threading.Thread(target=busy, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    stop.wait(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    shared = Window("moving-window", 1, HOUR, shared=True)
    refusals.drop([shared], ["n:{one}:one:m"])

    assert (failures, len(refusals)) == ([], 0)


def test_windows_that_all_share() -> None:
    """A rule over everybody is remembered too, under what it is counted by."""
    refusals = RefusalCache(Monotonic())
    shared = Window("moving-window", 1, HOUR, shared=True)
    refusals.remember([shared], ["n:{cap}:cap:m"], 1, refused(), refusals.asked_at())

    assert refusals.find([shared], ["n:{cap}:cap:m"], 1) == refused()
    refusals.drop([shared], ["n:{cap}:cap:m"])
    assert refusals.find([shared], ["n:{cap}:cap:m"], 1) is None


def test_other_costs_are_remembered_too(make: Callable[..., Any], valkey: Valkey) -> None:
    """What no shortcut leads to is remembered all the same, each cost by itself."""
    limiter = make({"news": "2/day"})
    assert limiter.hit("news", WHO)
    assert not limiter.hit("news", WHO, cost=2)

    assert asked(valkey, lambda: [limiter.hit("news", WHO, cost=2) for _ in range(5)]) == 0
    assert limiter.hit("news", WHO)


def test_nobody_is_taken_for_another_whose_key_is_written_like_that(make: Callable[..., Any]) -> None:
    """A recipient with a % is not the one in whose key a blank is written with it."""
    limiter = make({"news": "1/day"})

    assert [bool(limiter.hit("news", "a b")) for _ in range(2)] == [True, False]
    assert limiter.hit("news", "a%20b")
