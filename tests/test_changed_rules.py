"""What happens to counters when rules change: held against the plain reference of `model.py`, over random edits."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backends import BACKENDS
from model import Model
from ratelimited_notify import AsyncLimiter, AsyncNotifier, Limiter, Notifier, Rule, RuleSet, rate_limited
from ratelimited_notify.rules.difference import differences
from ratelimited_notify.sources import FunctionRules
from ratelimited_notify.windows.strategies import FITS, NEVER, Mode, Window

if TYPE_CHECKING:
    from pathlib import Path

    from backends import Backend
    from model import Ticket, Verdict
    from ratelimited_notify import Decision
    from servers import Valkey

SECOND = 1_000_000
PERIODS = {"minute": 60 * SECOND, "2 minutes": 120 * SECOND, "hour": 3600 * SECOND}
STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")
PATTERNS = {"sms": lambda type: type == "sms", "s*": lambda type: type.startswith("s"), "*": lambda type: True}
# Values that are types, recipients, tenants and channels: windows must be told apart by what the values are of.
TYPES = ("sms", "acme")
WHO = ("ana", "sms", "acme")
BYS = (
    ("type", "recipient"),
    ("recipient", "type"),
    ("recipient",),
    ("channel", "recipient"),
    ("tenant", "recipient"),
    ("recipient", "tenant", "channel"),
    ("channel", "recipient", "tenant"),
    ("tenant",),
    ("channel",),
    ("type",),
    (),
)
GOLD = "acme"

Limits = dict[str, int]
"""Amounts by period."""

limits = st.dictionaries(st.sampled_from(list(PERIODS)), st.integers(0, 5), min_size=1, max_size=2)
others = st.none() | limits
names = st.sampled_from([None, "a", "b"])
sides = st.sampled_from(["0", "1", "01", "01", ""])
"""Who takes an edit at once."""


@dataclass(frozen=True)
class Written:
    """A rule as the reference knows it."""

    name: str | None
    pattern: str
    limits: Limits
    by: tuple[str, ...]
    strategy: Any
    override: Limits | None
    tier: Limits | None
    enforce: bool

    @property
    def identity(self) -> object:
        """What its counters belong to."""
        return self.name or (self.pattern, self.by)

    @property
    def own(self) -> str | None:
        """The field that other limits are for."""
        if "recipient" in self.by:
            return "recipient"
        return next((name for name in self.by if name != "type"), None)

    def table(self) -> dict[str, object]:
        """The rule as a document has it."""
        table: dict[str, object] = {
            "type": self.pattern,
            "limit": text(self.limits),
            "by": list(self.by),
            "strategy": self.strategy,
            "enforce": self.enforce,
        }
        if self.name:
            table["name"] = self.name
        if self.override is not None and self.own:
            table["overrides"] = {"sms": text(self.override)}
        if self.tier is not None and self.own:
            table["tiers"] = {"gold": text(self.tier)}
        return table

    def limits_of(self, recipient: str, values: dict[str, str]) -> Limits:
        """The limits that hold for these values."""
        if self.override is not None and self.own and values[self.own] == "sms":
            return self.override
        if self.tier is not None and self.own and recipient == GOLD:
            return self.tier
        return self.limits


def text(limits: Limits) -> str:
    return "; ".join(f"{amount} per {period}" for period, amount in limits.items())


def tier_of(recipient: object, fields: object) -> str | None:
    return "gold" if recipient == GOLD else None


EDITS: dict[str, st.SearchStrategy[Any]] = {
    "limits": limits,
    "name": names,
    "pattern": st.sampled_from(["*", *PATTERNS]),
    "by": st.sampled_from(BYS),
    "strategy": st.sampled_from(STRATEGIES),
    "override": others,
    "tier": others,
    "enforce": st.sampled_from([True, True, False]),
}
written = st.builds(Written, **EDITS)
fields = st.fixed_dictionaries(
    {}, optional={"tenant": st.sampled_from(["sms", "sms", "acme"]), "channel": st.sampled_from(["sms", "sms", "acme"])}
)
notifications = st.tuples(st.sampled_from(TYPES), st.sampled_from(WHO), st.sampled_from([1, 1, 2]), fields)


def distinct(rules: list[Written]) -> list[Written]:
    """Those of the rules that one rule set can have: no two of one name."""
    return list({one.identity: one for one in rules}.values())


class Changes(RuleBasedStateMachine):
    """Two limiters that go by two versions of rules that somebody edits, on one storage."""

    backend: ClassVar[Backend]

    def __init__(self) -> None:
        super().__init__()
        self.backend.flush()
        self.model = Model()
        self.held: list[tuple[Decision, list[Window], list[str], list[Ticket | None]]] = []
        self.removed: list[Written] = []
        self.rules: list[Written] = []
        self.version = 0
        self.limiters: list[Any] = []
        self.in_force: list[list[Written]] = [[], []]
        self.looked = 0

    @initialize(rules=st.lists(written, min_size=1, max_size=4))
    def begin(self, rules: list[Written]) -> None:
        self.rules = distinct(rules)
        made: Any = AsyncLimiter if self.backend.asynchronous else Limiter
        options: Any = {"namespace": self.backend.namespace, "tier_of": tier_of}
        source = FunctionRules(self.fetch, interval=86_400, allow_empty=True)
        self.limiters = [made(given, self.backend.bare, **options) for given in (source, self.tables())]
        self.in_force = [list(self.rules), list(self.rules)]

    def teardown(self) -> None:
        for limiter in self.limiters:
            self.call(limiter.close)

    def call(self, verb: Any, *arguments: Any, **options: Any) -> Any:
        return self.backend.call(verb, *arguments, **options)

    def tables(self) -> list[dict[str, object]]:
        return [one.table() for one in self.rules]

    def fetch(self, known: str | None) -> tuple[str, dict[str, object]] | None:
        # As it would come from elsewhere, so that nothing is the same object.
        version = str(self.version)
        return None if known == version else (version, json.loads(json.dumps({"rules": self.tables()})))

    # The reference.

    def windows_of(self, side: int, type: str, recipient: str, given: dict[str, str]) -> tuple[list[Window], list[str]]:
        """The windows of a notification, by the rules that a limiter goes by."""
        self.model.now = self.backend.now()
        values = {"type": type, "recipient": recipient, **given}
        windows, keys = [], []
        for one in self.in_force[side]:
            if not PATTERNS[one.pattern](type) or not values.keys() >= set(one.by):
                continue
            for period, amount in one.limits_of(recipient, values).items():
                mode = Mode.ENFORCE if one.enforce else Mode.SHADOW
                windows.append(Window(one.strategy, amount, PERIODS[period], mode, rule="rule"))
                counted = sorted((name, values[name]) for name in one.by)
                keys.append(repr((one.identity, one.strategy, period, counted)))
        return windows, keys

    def compare(self, windows: list[Window], expected: Verdict, got: Decision) -> None:
        """Everything that a decision says about its windows."""
        now = self.backend.now()
        assert got.allowed == expected.granted
        assert [(state.remaining, state.retry_after) for state in got.windows] == [
            (
                max(0, window.amount - said.count),
                {FITS: 0.0, NEVER: math.inf}.get(said.retry_at, (said.retry_at - now) / SECOND),
            )
            for window, said in zip(windows, expected.said, strict=True)
        ]

    # What is done.

    @rule(side=st.integers(0, 1), notifications=st.lists(notifications, min_size=1, max_size=8))
    def hits(self, side: int, notifications: list[tuple[str, str, int, dict[str, str]]]) -> None:
        for type, who, cost, given in notifications:
            windows, keys = self.windows_of(side, type, who, given)
            expected = self.model.acquire(windows, keys, cost)
            got = self.call(self.limiters[side].hit, type, who, cost=cost, **given)
            self.compare(windows, expected, got)
            if expected.granted and windows:
                self.held.append((got, windows, keys, [said.ticket for said in expected.said]))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), side=st.integers(0, 1))
    def release(self, data: st.DataObject, side: int) -> None:
        """A hit that was decided under any rules is given back, by either limiter, under whatever rules hold now."""
        decision, windows, keys, tickets = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.model.now = self.backend.now()
        expected = self.model.release(windows, keys, decision.cost, tickets)
        assert self.call(self.limiters[side].release, decision) == expected
        assert self.call(self.limiters[side].release, decision) is False
        self.backend.advance(1)

    @rule(passed=st.one_of(st.integers(1, 2), st.integers(1, 150 * SECOND), st.integers(1, 2 * 3600 * SECOND)))
    def time_passes(self, passed: int) -> None:
        self.backend.advance(passed)

    @precondition(lambda self: self.rules)
    @rule(data=st.data(), what=st.sampled_from(["limits", "limits", "by", *EDITS]), sides=sides)
    def edit(self, data: st.DataObject, what: str, sides: str) -> None:
        number = data.draw(st.integers(0, len(self.rules) - 1))
        edited = replace(self.rules[number], **{what: data.draw(EDITS[what])})
        self.publish([*self.rules[:number], edited, *self.rules[number + 1 :]], sides)

    @precondition(lambda self: self.rules)
    @rule(data=st.data(), sides=sides)
    def remove(self, data: st.DataObject, sides: str) -> None:
        number = data.draw(st.integers(0, len(self.rules) - 1))
        self.removed.append(self.rules[number])
        self.publish([*self.rules[:number], *self.rules[number + 1 :]], sides)

    @precondition(lambda self: self.removed)
    @rule(data=st.data(), amounts=others, sides=sides)
    def bring_back(self, data: st.DataObject, amounts: Limits | None, sides: str) -> None:
        one = self.removed.pop(data.draw(st.integers(0, len(self.removed) - 1)))
        self.publish([*self.rules, one if amounts is None else replace(one, limits=amounts)], sides)

    @rule(data=st.data(), sides=sides)
    def reorder(self, data: st.DataObject, sides: str) -> None:
        self.publish(data.draw(st.permutations(self.rules)), sides)

    def publish(self, rules: list[Written], sides: str) -> None:
        """Others than these go by the rules before, until they take them, too."""
        self.rules = distinct(rules)
        self.version += 1
        if "0" in sides:
            self.the_first_takes_them()
        if "1" in sides:
            self.the_second_takes_them()

    @rule()
    def the_first_takes_them(self) -> None:
        before = self.limiters[0].rules
        changed = self.limiters[0].source.refresh()
        self.in_force[0] = list(self.rules)
        assert changed == (self.limiters[0].rules != before)

    @rule()
    def the_second_takes_them(self) -> None:
        self.limiters[1].rules = self.tables()
        self.in_force[1] = list(self.rules)

    @invariant()
    def all_windows_are_as_the_reference_has_them(self) -> None:
        if not self.limiters:
            return
        side = self.looked = 1 - self.looked
        for type in TYPES:
            for who in WHO:
                windows, keys = self.windows_of(side, type, who, {"tenant": "sms", "channel": "sms"})
                expected = self.model.peek(windows, keys, 1)
                self.compare(
                    windows, expected, self.call(self.limiters[side].test, type, who, tenant="sms", channel="sms")
                )


@pytest.mark.parametrize("name", ["memory", "async-memory", "redis", "async-redis"])
def test_counters_do_what_the_reference_does_while_rules_change(name: str, request: pytest.FixtureRequest) -> None:
    """Amounts keep their history; another period, strategy, name or set of fields starts anew; what is removed stops at once
    and finds its counts when it returns; two versions count into one; and every hit can be given back.
    """
    backend = BACKENDS[name](request)
    try:
        # In memory more of them are as quick.
        more = settings.default.max_examples * (4 if name == "memory" else 1)
        run_state_machine_as_test(
            type("Machine", (Changes,), {"backend": backend}), settings=settings(max_examples=more)
        )
    finally:
        backend.close()


# --- One change at a time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "other", "kept"),
    [
        (("type", "recipient"), ("channel", "recipient"), False),
        (("tenant", "recipient"), ("channel", "recipient"), False),
        (("recipient",), ("type", "recipient"), False),
        (("tenant",), ("channel",), False),
        (("recipient",), ("tenant",), False),
        (("type",), (), False),
        (("type", "recipient"), ("recipient", "type"), True),
        (("tenant", "channel"), ("channel", "tenant"), True),
    ],
)
def test_another_set_of_fields_starts_anew(by: tuple[str, ...], other: tuple[str, ...], kept: bool) -> None:
    """Also under one name, and where the values of both are equal; another order of the same fields is no other set."""
    limiter = Limiter([Rule("sms", "5/day", by=by, name="one")])
    given = {"tenant": "sms", "channel": "acme" if kept else "sms"}
    limiter.hit("sms", "sms", **given)
    edited = [Rule("sms", "5/day", by=other, name="one")]
    changes = list(differences(limiter.rules, RuleSet(edited)))
    limiter.rules = edited

    (window,) = limiter.windows("sms", "sms", **given)
    assert window.remaining == (4 if kept else 5)
    assert [change.endswith("counting starts anew") for change in changes] == ([] if kept else [True])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_amount_keeps_its_history_up_and_down(strategy: Any) -> None:
    """Two of three are used. Of five, three are left; of one, none, and when the next fits is said by the hits there were."""
    limiter = Limiter([Rule("news", "3/hour", strategy=strategy)])
    for _ in range(2):
        limiter.hit("news", "ana")
    left = []
    for limit in ("5/hour", "1/hour", "none", "2/hour", "3/hour"):
        limiter.rules = [Rule("news", None if limit == "none" else limit, strategy=strategy)]
        left.append(limiter.test("news", "ana").remaining)

    assert left == [3, 0, None, 0, 1]


@pytest.mark.parametrize("name", ["memory", "async-memory", "redis", "async-redis"])
@pytest.mark.parametrize(
    "then", [[], [Rule("news", "9/day")], [Rule("news", "1/hour")], [Rule("news", "2/day", name="x")]]
)
def test_a_send_that_fails_after_a_swap_gives_its_hit_back(
    name: str, then: list[Rule], request: pytest.FixtureRequest
) -> None:
    """Rules that change while the gateway sends: the hit goes back to the rule that counted it, also if that is gone."""
    backend = BACKENDS[name](request)
    rules = [Rule("news", "2/day"), Rule("*", "5/hour", by="recipient")]

    def send(recipient: str) -> None:
        limiter.rules = then
        raise ConnectionRefusedError

    try:
        if backend.asynchronous:

            async def send_later(recipient: str) -> None:
                send(recipient)

            limiter: Any = AsyncLimiter(rules, backend.bare, namespace=backend.namespace)
            sent = AsyncNotifier(send_later, limiter=limiter).send
            decorated = rate_limited("news", limiter=limiter)(send_later)
        else:
            limiter = Limiter(rules, backend.bare, namespace=backend.namespace)
            sent, decorated = Notifier(send, limiter=limiter).send, rate_limited("news", limiter=limiter)(send)
        for call in (lambda: backend.call(sent, "news", "ana"), lambda: backend.call(decorated, "ana")):
            limiter.rules = rules
            with pytest.raises(ConnectionRefusedError):
                call()
        limiter.rules = rules

        assert [window.remaining for window in backend.call(limiter.windows, "news", "ana")] == [2, 5]
    finally:
        backend.close()


PROGRAM = """
import sys
from ratelimited_notify import Limiter, Rule
limiter = Limiter("other.toml", sys.argv[1], namespace="versions")
print([limiter.hit("news", "ana").allowed for _ in range(4)])
"""


def test_two_processes_with_two_versions_count_into_one(valkey: Valkey, tmp_path: Path) -> None:
    """Each obeys its own rules, and sees the hits of the other."""
    url = f"redis://{valkey.address}/13"
    with valkey.client(db=13) as client:
        client.flushdb()
    limiter = Limiter({"news": "2/day"}, url, namespace="versions")
    (tmp_path / "other.toml").write_text('[[rules]]\ntype = "news"\nlimit = "5/day"\n')
    before = [limiter.hit("news", "ana").allowed for _ in range(3)]
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=True
    )

    assert (before, other.stdout) == ([True, True, False], "[True, True, True, False]\n")
    limiter.rules = {"news": "6/day"}
    assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, False]
    limiter.close()
