"""Properties of the insurance: it changes no decision of the storage, lets nothing through that is too much, loses no hit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from hypothesis import given, strategies as st

from limiting import MINUTE, Clock
from ratelimited_notify import Limiter, Rule, StorageError
from ratelimited_notify.limiter.debts import Debts, Due
from ratelimited_notify.storage.memory import MemoryStorage
from ratelimited_notify.windows.strategies import Mode, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Request, Token, Verdict

State = Literal["works", "refused", "lost"]
PEOPLE = ["ana", "bo"]


class Unsteady:
    """Windows in memory behind a connection that fails: before the request arrives, or on the way back."""

    exact = True

    def __init__(self, clock: Clock) -> None:
        self.kept = MemoryStorage(clock=clock)
        self.clock = clock
        self.state: State = "works"

    def _over_the_wire(self, ask: Callable[[], Any]) -> Any:
        if self.state == "refused":
            raise StorageError("No connection.", nothing_counted=True)
        answer = ask()
        if self.state == "lost":
            raise StorageError("No answer.")
        return answer

    def acquire(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        answer: Verdict = self._over_the_wire(lambda: self.kept.acquire(windows, keys, cost))
        return answer

    def acquire_many(self, requests: Sequence[Request]) -> list[Verdict]:
        answer: list[Verdict] = self._over_the_wire(lambda: self.kept.acquire_many(requests))
        return answer

    def peek(self, windows: Sequence[Window], keys: Sequence[str], cost: int) -> Verdict:
        answer: Verdict = self._over_the_wire(lambda: self.kept.peek(windows, keys, cost))
        return answer

    def release(
        self, windows: Sequence[Window], keys: Sequence[str], cost: int, tokens: Sequence[Token | None]
    ) -> bool:
        return bool(self._over_the_wire(lambda: self.kept.release(windows, keys, cost, tokens)))

    def forget(self, windows: Sequence[Window], keys: Sequence[str]) -> int:
        return int(self._over_the_wire(lambda: self.kept.forget(windows, keys)))

    def pause(self, window: Window, key: str, duration: int) -> int:
        return int(self._over_the_wire(lambda: self.kept.pause(window, key, duration)))

    def close(self) -> None:
        self.kept.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hit", "hit", "hit", "batch", "release", "wait", "state"]),
        st.sampled_from(PEOPLE),
        st.integers(1, 3),
        st.sampled_from(["works", "works", "refused", "lost"]),
        st.integers(0, 3 * MINUTE // 2),
    ),
    max_size=40,
)
LIMITS = st.sampled_from(["3/minute", "2/minute; 4/hour", "5/hour"])


def limiter_on(storage: Unsteady, clock: Clock, rules: list[Rule], **options: Any) -> Limiter:
    return Limiter(rules, storage, on_storage_error=MemoryStorage(clock=clock), **options)


@given(STEPS, LIMITS, st.sampled_from(["moving-window", "fixed-window", "sliding-window-counter"]))
def test_as_long_as_the_storage_works_it_decides_alone(steps: Any, limit: str, strategy: Any) -> None:
    """With and without an insurance: the same verdicts, readings and counts."""
    clock = Clock()
    rules = [Rule("news", limit, strategy=strategy), Rule("*", "6/minute", by=(), name="cap")]
    insured, plain = Unsteady(clock), Unsteady(clock)
    pair = limiter_on(insured, clock, rules), Limiter(rules, plain)
    made: list[Any] = []
    for step, who, cost, _, pause in steps:
        if step == "wait":
            clock.advance(pause)
        elif step == "batch":
            one, other = (limiter.hit_many("news", [who, "ana", who], cost=cost) for limiter in pair)
            assert list(map(str, one)) == list(map(str, other))
        elif step == "release" and made:
            one, other = made.pop()
            assert pair[0].release(one) == pair[1].release(other)
        else:
            made.append([limiter.hit("news", who, cost=cost) for limiter in pair])
            one, other = made[-1]
            assert (str(one), one.windows) == (str(other), other.windows)


@given(STEPS, LIMITS)
def test_one_process_never_exceeds_a_limit(steps: Any, limit: str) -> None:
    """Whenever the storage fails and in whatever way, if it loses no data: by a log of all hits, in every true period."""
    clock = Clock()
    storage = Unsteady(clock)
    limiter = limiter_on(storage, clock, [Rule("news", limit)])
    log: list[tuple[int, str, int]] = []
    for step, who, cost, state, pause in steps:
        if step == "state":
            storage.state = state
        elif step == "wait":
            clock.advance(pause)
        elif step == "batch":
            decisions = limiter.hit_many("news", [who, "ana", who], cost=cost)
            log += [(clock.now, str(each.recipient), cost) for each in decisions if each]
        elif limiter.hit("news", who, cost=cost):
            log.append((clock.now, who, cost))

    for amount, period in ((int(part.split("/")[0]), part.split("/")[1]) for part in limit.split("; ")):
        lasting = MINUTE * (1 if period == "minute" else 60)
        for began, who, _ in log:
            within = (cost for at, one, cost in log if one == who and began <= at < began + lasting)
            assert sum(within) <= amount


@given(STEPS, st.integers(1, 3))
def test_no_hit_is_lost_or_counted_twice(steps: Any, share: int) -> None:
    """While no window ends: when the storage is back, it has counted what was allowed and not given back, exactly once."""
    clock = Clock()
    storage = Unsteady(clock)
    limiter = limiter_on(
        storage, clock, [Rule("news", "12/hour"), Rule("news", "99/day", name="d")], insurance_share=share
    )
    counted = dict.fromkeys(PEOPLE, 0)
    made: list[Any] = []
    added: set[int] = set()
    for step, who, cost, state, _ in steps:
        if step == "state":
            # Answers that are lost leave hits in doubt.
            storage.state = "works" if state == "lost" else state
        elif step == "batch":
            made += (decisions := limiter.hit_many("news", [who, "ana", who], cost=cost))
            for each in decisions:
                counted[str(each.recipient)] += cost if each else 0
        elif step == "release" and made:
            decision = made.pop()
            if storage.state == "works" and decision.degraded:
                # It may have been added by now, and then stays.
                continue
            if storage.state == "works" or decision.degraded:
                counted[decision.recipient] -= (
                    decision.cost if limiter.release(decision) and id(decision) not in added else 0
                )
        else:
            made.append(limiter.hit("news", who, cost=cost))
            counted[who] += cost if made[-1] else 0
        if storage.state == "works":
            # What was added now is not taken back.
            made = [each for each in made if not each.degraded]

    storage.state = "works"
    for who in PEOPLE:
        last = limiter.hit("news", who)
        expected = counted[who] + bool(last)
        for state, amount in zip(limiter.windows("news", who), (12, 99), strict=True):
            assert state.remaining == max(0, amount - expected)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(1, 200), st.integers(0, 60), st.booleans())
    )
)
def test_debts_are_a_sum_over_what_has_not_ended(hits: list[tuple[str, int, int, int, bool]]) -> None:
    """By a list of all hits. Hits that end at about the same time may be kept as one, for a 256th of the period longer."""
    now = 0
    debts = Debts(lambda: now)
    window = Window("moving-window", 10**6, 200, Mode.FORCE)
    model: list[tuple[str, int, int]] = []
    for key, cost, lasting, pause, cancelled in hits:
        now += pause
        debt = debts.add([window], [key], cost, [lasting])
        if cancelled:
            debts.cancel(debt)
        else:
            model.append((key, cost, now + lasting))
    for key in "abc":
        due = Due()
        debts.take([window], [key], due)
        assert sum(request.cost for request in due.requests) == sum(
            cost for one, cost, until in model if one == key and until > now
        )
        again = Due()
        debts.take([window], [key], again)
        assert not again.requests
        debts.put_back(due)
        debts.take([window], [key], again)
        assert [request.cost for request in again.requests] == [request.cost for request in due.requests]
