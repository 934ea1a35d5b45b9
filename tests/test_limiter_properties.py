"""What limiters promise, held against a plain reference: many rules at once, whatever callers do, in any order.

The reference works out by itself which windows a notification falls into, and counts in lists of hits (`model.py`); and
beside it every hit that was granted is written down, so that what was let through in a true period can be added up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import example, given, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from limiting import DAY, HOUR, LIMITERS, MINUTE, SECOND, Clock
from model import Model
from ratelimited_notify import Limiter, Rule, RuleSet
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model import Ticket, Verdict
    from ratelimited_notify import Decision, WindowState

STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
PERIODS = {"minute": MINUTE, "2 minutes": 2 * MINUTE, "hour": HOUR, "day": DAY}
PATTERNS = {
    "news": lambda type: type == "news",
    "n*": lambda type: type.startswith("n"),
    "status": lambda type: type == "status",
    "*": lambda type: True,
}
TYPES = ("news", "status", "nothing", "other")
WHO = ("ana@example.com", 5, "5", "bo {x}:\n/%")
TIERS = {"bo {x}:\n/%": "gold"}
GOLDEN_TENANT = "b"
OVERRIDDEN = ("5", "a")
"""A recipient and a tenant."""
BYS = (
    ("type", "recipient"),
    ("recipient",),
    (),
    ("type",),
    ("recipient", "tenant"),
    ("tenant",),
    ("type", "tenant"),
    ("dedupe_key", "type", "recipient"),
)

Limits = dict[str, int]
"""Amounts by period."""

limits = st.dictionaries(st.sampled_from(list(PERIODS)), st.integers(0, 6), max_size=2)


@dataclass(frozen=True)
class Drawn:
    """A rule as the reference knows it."""

    pattern: str
    limits: Limits
    by: tuple[str, ...]
    strategy: Any
    exempt: bool
    count_exempt: bool
    enforce: bool
    override: Limits | None
    tier: Limits | None

    def rule(self, name: str) -> Rule:
        return Rule(
            self.pattern,
            _written(self.limits),
            by=self.by,
            strategy=self.strategy,
            name=name,
            exempt="critical" if self.exempt else (),
            count_exempt=self.count_exempt,
            enforce=self.enforce,
            overrides=dict.fromkeys(OVERRIDDEN, _written(self.override))
            if self.override is not None and self.own
            else None,
            tiers={"gold": _written(self.tier)} if self.tier is not None and self.own else None,
        )

    @property
    def own(self) -> str | None:
        """The field that other limits are for."""
        return next((name for name in ("recipient", "tenant") if name in self.by), None)

    def limits_of(self, recipient: object, values: dict[str, Any]) -> Limits:
        if self.override is not None and self.own and values[self.own] in OVERRIDDEN:
            return self.override
        if self.tier is not None and self.own and tier_of(recipient, values) is not None:
            return self.tier
        return self.limits


def tier_of(recipient: object, fields: Mapping[str, object]) -> str | None:
    return "gold" if fields.get("tenant") == GOLDEN_TENANT else TIERS.get(str(recipient))


def _written(limits: Limits) -> str | None:
    return "; ".join(f"{amount} per {period}" for period, amount in limits.items()) or None


drawn_rules = st.lists(
    st.builds(
        Drawn,
        pattern=st.sampled_from(list(PATTERNS)),
        limits=limits,
        by=st.sampled_from(BYS),
        strategy=st.sampled_from(("moving-window", *STRATEGIES)),
        exempt=st.booleans(),
        count_exempt=st.booleans(),
        enforce=st.sampled_from([True, True, False]),
        override=st.none() | limits,
        tier=st.none() | limits,
    ),
    min_size=1,
    max_size=5,
)
whom = st.sampled_from(WHO)
types = st.sampled_from(TYPES)
costs = st.sampled_from([1, 1, 1, 2, 3, 7])
priorities = st.sampled_from([None, None, "critical"])
fields = st.fixed_dictionaries(
    {}, optional={"tenant": st.sampled_from(["a", "b"]), "dedupe_key": st.sampled_from(["x", None])}
)


@dataclass
class Sent:
    """One hit that was granted: which windows counted it, and whether it was exempt there."""

    at: int
    cost: int
    exempt: dict[str, bool] = field(default_factory=dict)


class Limiters(RuleBasedStateMachine):
    """Anything that callers may do to a limiter, done to the reference too."""

    kind: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.model = Model()
        self.drawn: list[Drawn] = []
        self.held: list[tuple[Decision, list[Window], list[str], list[Ticket | None], Sent]] = []
        self.sent: list[Sent] = []
        self.ran_out = 0
        self.limiter: Any = LIMITERS[self.kind](clock=self.clock, tier_of=tier_of)

    def teardown(self) -> None:
        self.limiter.close()

    @initialize(drawn=drawn_rules)
    def rules_to_go_by(self, drawn: list[Drawn]) -> None:
        self.drawn = drawn
        self.swap()

    def swap(self) -> None:
        self.limiter.rules = [one.rule(f"rule {number}") for number, one in enumerate(self.drawn)]

    # The reference.

    def windows_of(
        self, type: str, recipient: object, priority: str | None, given_fields: dict[str, Any]
    ) -> tuple[list[Window], list[str]]:
        """The windows of a notification, by the rules as they are written down here."""
        self.model.now = self.clock.now
        values = {"type": type, "recipient": str(recipient), **given_fields}
        windows, keys = [], []
        for number, one in enumerate(self.drawn):
            if not PATTERNS[one.pattern](type) or any(values.get(name) is None for name in one.by):
                continue
            exempt = one.exempt and priority == "critical"
            if exempt and not one.count_exempt:
                continue
            mode = Mode.FORCE if exempt else Mode.ENFORCE if one.enforce else Mode.SHADOW
            for period, amount in one.limits_of(recipient, values).items():
                shared = "recipient" not in one.by
                windows.append(
                    Window(one.strategy, amount, PERIODS[period], mode, rule=f"rule {number}", shared=shared)
                )
                keys.append(repr((number, one.strategy, period, [values[name] for name in one.by])))
        return windows, keys

    def compare(self, windows: list[Window], expected: Verdict, got: Decision) -> None:
        """Everything that a decision says."""
        assert got.allowed == expected.granted
        enforced = [
            (window, said) for window, said in zip(windows, expected.said, strict=True) if window.mode is Mode.ENFORCE
        ]
        assert got.remaining == min((max(0, window.amount - said.count) for window, said in enforced), default=None)
        instants = [said.retry_at for _, said in enforced]
        if expected.granted:
            assert got.retry_after == 0.0
            assert got.blocked_by is None
        else:
            latest = math.inf if NEVER in instants else (max(instants) - self.clock.now) / SECOND
            assert got.retry_after == latest
            assert got.blocked_by is not None
            assert got.blocked_by.retry_after == latest
        assert len(got.windows) == len(windows)
        for window, said, state in zip(windows, expected.said, got.windows, strict=True):
            self.compare_window(window, said, state)

    def compare_window(self, window: Window, said: Any, state: WindowState) -> None:
        waiting = {FITS: 0.0, NEVER: math.inf}.get(said.retry_at, (said.retry_at - self.clock.now) / SECOND)
        assert (state.rule, state.strategy, state.enforced) == (
            window.rule,
            window.strategy,
            window.mode is Mode.ENFORCE,
        )
        assert (state.remaining, state.retry_after) == (max(0, window.amount - said.count), waiting)
        assert round(state.reset_at.timestamp() * SECOND) == said.reset_at

    def granted(self, windows: list[Window], keys: list[str], cost: int, verdict: Verdict, got: Decision) -> None:
        """Write a granted hit down, and hold what was let through against each rule, by addition."""
        if not verdict.granted:
            return
        exempt = {
            key: window.mode is Mode.FORCE
            for window, key, said in zip(windows, keys, verdict.said, strict=True)
            if said.ticket is not None
        }
        one = Sent(self.clock.now, cost, exempt)
        self.sent.append(one)
        self.held.append((got, windows, keys, [said.ticket for said in verdict.said], one))
        for window, key in zip(windows, keys, strict=True):
            if window.mode is Mode.ENFORCE and window.strategy == "moving-window":
                within = [
                    sent.cost
                    for sent in self.sent
                    if sent.at > self.clock.now - window.period and sent.exempt.get(key) is False
                ]
                assert sum(within) <= window.amount

    # What callers do.

    @rule(type=types, recipient=whom, cost=costs, priority=priorities, given_fields=fields)
    def hit(self, type: str, recipient: Any, cost: int, priority: str | None, given_fields: dict[str, Any]) -> None:
        windows, keys = self.windows_of(type, recipient, priority, given_fields)
        expected = self.model.acquire(windows, keys, cost)
        got = self.limiter.hit(type, recipient, cost=cost, priority=priority, **given_fields)
        self.compare(windows, expected, got)
        self.granted(windows, keys, cost, expected, got)

    @rule(type=types, recipient=whom, cost=costs, priority=priorities, given_fields=fields)
    def test(self, type: str, recipient: Any, cost: int, priority: str | None, given_fields: dict[str, Any]) -> None:
        windows, keys = self.windows_of(type, recipient, priority, given_fields)
        got = self.limiter.test(type, recipient, cost=cost, priority=priority, **given_fields)
        self.compare(windows, self.model.peek(windows, keys, cost), got)

    @rule(type=types, recipients=st.lists(whom, max_size=5), cost=costs, given_fields=fields)
    def hit_many(self, type: str, recipients: list[Any], cost: int, given_fields: dict[str, Any]) -> None:
        decisions = self.limiter.hit_many(type, recipients, cost=cost, **given_fields)
        assert len(decisions) == len(recipients)
        for recipient, got in zip(recipients, decisions, strict=True):
            windows, keys = self.windows_of(type, recipient, None, given_fields)
            expected = self.model.acquire(windows, keys, cost)
            self.compare(windows, expected, got)
            self.granted(windows, keys, cost, expected, got)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        decision, windows, keys, tickets, one = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.model.now = self.clock.now
        cost = decision.cost
        assert self.limiter.release(decision) == self.model.release(windows, keys, cost, tickets)
        assert self.limiter.release(decision) is False
        self.sent = [sent for sent in self.sent if sent is not one]

    @rule(type=types, recipient=whom, given_fields=fields)
    def clear(self, type: str, recipient: Any, given_fields: dict[str, Any]) -> None:
        windows, keys = self.windows_of(type, recipient, None, given_fields)
        own = [(window, key) for window, key in zip(windows, keys, strict=True) if not window.shared]
        expected = self.model.forget([window for window, _ in own], [key for _, key in own])
        assert self.limiter.clear(type, recipient, **given_fields) == expected
        for sent in self.sent:
            for _, key in own:
                sent.exempt.pop(key, None)

    @rule(passed=st.one_of(st.integers(0, 2), st.integers(0, 2 * MINUTE), st.integers(0, 2 * DAY)))
    def time_passes(self, passed: int) -> None:
        self.move(passed)

    @rule(passed=st.one_of(st.integers(1, 3), st.integers(1, 2 * MINUTE)))
    def time_runs_backwards(self, passed: int) -> None:
        """No further than to the last hit that ran out, which the storage may have dropped."""
        self.move(-passed)

    def move(self, passed: int) -> None:
        self.model.now = before = self.clock.now
        target = before + passed
        self.ran_out = max(self.ran_out, self.model.last_end(self.model.windows, max(before, target)))
        self.clock.now = max(target, self.ran_out) if passed < 0 else target

    @rule(type=types, recipient=whom, cost=costs, given_fields=fields)
    def wait_until_it_fits(self, type: str, recipient: Any, cost: int, given_fields: dict[str, Any]) -> None:
        """Refused until a microsecond before the instant that a refusal names, allowed at it."""
        refused = self.limiter.test(type, recipient, cost=cost, **given_fields)
        if refused or refused.retry_after == math.inf:
            return
        self.move(round(refused.retry_after * SECOND) - 1)
        assert not self.limiter.test(type, recipient, cost=cost, **given_fields)
        self.move(1)
        assert self.limiter.test(type, recipient, cost=cost, **given_fields)

    @rule(data=st.data(), amounts=limits)
    def edit(self, data: st.DataObject, amounts: Limits) -> None:
        """Somebody edits the rules: amounts, and periods with them."""
        number = data.draw(st.integers(0, len(self.drawn) - 1))
        self.drawn[number] = replace(self.drawn[number], limits=amounts)
        self.swap()

    @rule(data=st.data(), enforce=st.booleans(), exempt=st.booleans(), strategy=st.sampled_from(STRATEGIES))
    def edit_how(self, data: st.DataObject, enforce: bool, exempt: bool, strategy: Any) -> None:
        """Or whether it refuses, who is exempt, and how it counts."""
        number = data.draw(st.integers(0, len(self.drawn) - 1))
        self.drawn[number] = replace(self.drawn[number], enforce=enforce, exempt=exempt, strategy=strategy)
        self.swap()

    @invariant()
    def nothing_else_has_changed(self) -> None:
        """All or none: what a refusal touched, or a hit of another's, would show in some window."""
        for type in TYPES[:2]:
            for recipient in WHO[1:]:
                windows, keys = self.windows_of(type, recipient, None, {"tenant": "a"})
                seen = self.model.peek(windows, keys, 1)
                states = self.limiter.windows(type, recipient, tenant="a")
                for window, said, state in zip(windows, seen.said, states, strict=True):
                    self.compare_window(window, said, state)


@pytest.mark.parametrize("limiter", list(LIMITERS))
def test_a_limiter_does_what_the_reference_does(limiter: str) -> None:
    """Never over the limit in any true period, all or none, and an exact word about when: in every state there is."""
    run_state_machine_as_test(type("Machine", (Limiters,), {"kind": limiter}))


pairs = st.tuples(
    *(
        st.tuples(
            st.sampled_from(STRATEGIES), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["second", "minute"])
        )
        for _ in range(2)
    )
)


@given(pairs, st.lists(st.tuples(st.integers(1, 3), st.integers(0, 90 * SECOND)), max_size=12), st.integers(1, 3))
def test_a_refusal_of_two_rules_tells_the_very_instant(
    drawn: tuple[tuple[Any, int, int, str], ...], hits: list[tuple[int, int]], cost: int
) -> None:
    """Refused a microsecond before it and allowed at it, for every strategy and cost, and for both rules together."""
    clock = Clock()
    rules = [
        Rule("news", f"{amount} per {multiples} {period}", strategy=strategy, name=f"rule {number}")
        for number, (strategy, amount, multiples, period) in enumerate(drawn)
    ]
    limiter = Limiter(rules, clock=clock)
    for taken, passed in hits:
        limiter.hit("news", "ana", cost=taken)
        clock.advance(passed)

    decision = limiter.hit("news", "ana", cost=cost)

    if decision or decision.retry_after == math.inf:
        assert decision.allowed or cost > min(amount for _, amount, _, _ in drawn)
        return
    assert decision.retry_after > 0
    assert decision.retry_at is not None
    assert round(decision.retry_at.timestamp() * SECOND) == clock.now + round(decision.retry_after * SECOND)
    start = clock.now
    for share in (3, 2):
        clock.now = start + round(decision.retry_after * SECOND) // share
        if clock.now < start + round(decision.retry_after * SECOND):
            assert not limiter.test("news", "ana", cost=cost)
    clock.now = start + round(decision.retry_after * SECOND) - 1
    assert not limiter.test("news", "ana", cost=cost)
    clock.now += 1
    assert limiter.hit("news", "ana", cost=cost)


any_text = st.one_of(
    st.text(st.characters(), min_size=1, max_size=30),
    st.text(st.sampled_from(":{}/%#@ \n\0aA\ud800\U0001f600"), min_size=1, max_size=8),
    st.builds(
        lambda text, times: (text * times)[:10_000],
        st.text(st.characters(), min_size=1, max_size=30),
        st.integers(1, 10_000),
    ),
)


@st.composite
def likenesses(draw: st.DrawFn) -> tuple[tuple[str, str], tuple[str, str]]:
    """Two pairs of texts that are apt to be taken for each other: one text cut at two places, or texts that differ at the end."""
    if draw(st.booleans()):
        text = draw(st.text(st.characters(), min_size=3, max_size=30))
        separator = draw(st.sampled_from(["", ":", "/", "}:", "%", "#"]))
        first, second = draw(st.integers(1, len(text) - 1)), draw(st.integers(1, len(text) - 1))
        return (
            (text[:first] + separator, text[first:]),
            (text[:second], separator + text[second:]),
        )
    type, recipient = draw(any_text), draw(any_text)
    end = draw(st.sampled_from(["", " ", "\0", "x", "\ud800"]))
    return (type, recipient), (draw(st.sampled_from([type, type + end, recipient])), recipient + end)


@given(likenesses() | st.tuples(st.tuples(any_text, any_text), st.tuples(any_text, any_text)))
@example((("a:b", "c"), ("a", "b:c")))
@example((("a", "x" * 9_999 + "y"), ("a", "x" * 9_999 + "z")))
@example((("a", "%7B"), ("a", "{")))
@example((("a", "#" + "0" * 32), ("a", "0" * 32)))
@example((("a", "\ud800"), ("a", "\udc00")))
def test_no_two_recipients_share_a_window(pairs: tuple[tuple[str, str], tuple[str, str]]) -> None:
    """Whatever texts types and recipients are, up to 10 kB; and the keys stay short, plain and printable."""
    one, other = pairs
    for strategy in STRATEGIES:
        limiter = Limiter([Rule("*", "1/day", strategy=strategy)])

        assert limiter.hit(*one)
        assert bool(limiter.hit(*other)) == (one != other)
        stored = list(limiter.storage.shards)
        assert len(stored) == len({one, other})
        assert all(len(key) <= 200 and key.isascii() and key.isprintable() and " " not in key for key in stored)


@given(any_text, any_text)
def test_no_two_rules_share_a_window(name: str, other: str) -> None:
    """Nor do two rules, whatever they are called, for one recipient or for all."""
    rules = [Rule("*", "1/day", name=label, by=by) for label in {name, other} for by in (("type", "recipient"),)] + [
        Rule("*", "1/hour", name=label, by=()) for label in {name, other}
    ]
    limiter = Limiter(RuleSet(rules))

    assert limiter.hit("news", "ana")
    assert len(limiter.storage.shards) == len(rules)
