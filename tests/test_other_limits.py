"""Overrides and tiers: other limits for some recipients, tenants and so on; the same on every storage and for every verb."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import partial, wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

from limiting import LIMITERS, Clock
from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    Rule,
    RuleError,
    RuleSet,
    Status,
    configure,
    rate_limited,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from backends import Backend
    from ratelimited_notify.windows.strategies import Shortcut

WHO = ("ana", "bo", 5)
TENANTS = ("acme", "globex", "initech", None)


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


@pytest.fixture(params=list(LIMITERS))
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Make a limiter, sync or async, in memory; it is closed when the test is over."""
    made: list[Any] = []

    def one(*arguments: Any, **options: Any) -> Any:
        made.append(LIMITERS[request.param](*arguments, **{"clock": Clock(), **options}))
        return made[-1]

    yield one
    for limiter in made:
        limiter.close()


def tier_of(recipient: object, fields: Mapping[str, object]) -> str | None:
    """Globex pays for everybody, bo for himself."""
    return "paid" if fields.get("tenant") == "globex" or recipient == "bo" else None


@dataclass(frozen=True)
class Drawn:
    """A rule as the reference knows it."""

    by: tuple[str, ...]
    limit: int
    overrides: dict[Any, int] = field(hash=False)
    tier: int | None

    def rule(self, number: int) -> Rule:
        return Rule(
            "sms",
            f"{self.limit}/day",
            by=self.by,
            name=f"rule {number}",
            overrides={value: f"{amount}/day" for value, amount in self.overrides.items()},
            tiers=None if self.tier is None else {"paid": f"{self.tier}/day"},
        )

    def amount(self, recipient: object, tenant: object) -> int:
        value = recipient if "recipient" in self.by else tenant
        if value in self.overrides:
            return self.overrides[value]
        return self.limit if self.tier is None or tier_of(recipient, {"tenant": tenant}) is None else self.tier


amounts = st.integers(0, 4)


def _drawn(by: tuple[str, ...]) -> st.SearchStrategy[Drawn]:
    values = WHO if "recipient" in by else TENANTS[:2]
    return st.builds(
        Drawn, st.just(by), amounts, st.dictionaries(st.sampled_from(values), amounts, max_size=2), st.none() | amounts
    )


rules = st.lists(
    st.sampled_from(
        [("type", "recipient"), ("recipient",), ("tenant",), ("type", "tenant"), ("tenant", "recipient")]
    ).flatmap(_drawn),
    min_size=1,
    max_size=3,
)
one = st.tuples(st.sampled_from(WHO), st.sampled_from(TENANTS))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hit"), one),
        st.tuples(st.just("look"), one),
        st.tuples(st.just("clear"), one),
        st.tuples(st.just("release"), st.integers(0, 5)),
        st.tuples(st.just("hit_many"), st.tuples(st.lists(st.sampled_from(WHO), max_size=5), st.sampled_from(TENANTS))),
        st.tuples(st.just("decide"), st.lists(one, max_size=5)),
    ),
    max_size=12,
)


class Reference:
    """Counts by hand: one number per rule and combination of what it counts by. No time passes."""

    def __init__(self, drawn: list[Drawn]) -> None:
        self.drawn = drawn
        self.counts: Counter[tuple[object, ...]] = Counter()

    def windows(self, recipient: object, tenant: object) -> list[tuple[tuple[object, ...], int, bool]]:
        """The windows of a notification: key, amount, and whether it is the recipient's own."""
        values = {"type": "sms", "recipient": recipient, "tenant": tenant}
        return [
            ((number, *(values[name] for name in each.by)), each.amount(recipient, tenant), "recipient" in each.by)
            for number, each in enumerate(self.drawn)
            if all(values[name] is not None for name in each.by)
        ]

    def remaining(self, recipient: object, tenant: object) -> list[int]:
        return [max(0, amount - self.counts[key]) for key, amount, _ in self.windows(recipient, tenant)]

    def hit(self, recipient: object, tenant: object) -> tuple[bool, list[int]]:
        windows = self.windows(recipient, tenant)
        allowed = all(self.counts[key] < amount for key, amount, _ in windows)
        if allowed:
            self.counts.update(key for key, _, _ in windows)
        return allowed, self.remaining(recipient, tenant)

    def release(self, recipient: object, tenant: object) -> None:
        self.counts.subtract(key for key, _, _ in self.windows(recipient, tenant))

    def clear(self, recipient: object, tenant: object) -> int:
        return sum(self.counts.pop(key, 0) > 0 for key, _, own in self.windows(recipient, tenant) if own)


def told(decision: Any) -> tuple[bool, list[int]]:
    return decision.allowed, [state.remaining for state in decision.windows]


def compare(limiter: Any, drawn: list[Drawn], doing: list[tuple[str, Any]]) -> None:
    """Do these things with a limiter and by hand."""
    reference = Reference(drawn)
    held: list[tuple[Any, object, object]] = []
    for verb, value in doing:
        answers: list[tuple[Any, object, object]] = []
        if verb == "hit":
            recipient, tenant = value
            answers = [(limiter.hit("sms", recipient, tenant=tenant), recipient, tenant)]
        elif verb == "hit_many":
            recipients, tenant = value
            decisions = limiter.hit_many("sms", recipients, tenant=tenant)
            answers = [(decision, recipient, tenant) for decision, recipient in zip(decisions, recipients, strict=True)]
        elif verb == "decide":
            batch = [Notification("sms", recipient, fields={"tenant": tenant}) for recipient, tenant in value]
            answers = [(decision, *each) for decision, each in zip(limiter.decide(batch), value, strict=True)]
        elif verb == "look":
            recipient, tenant = value
            left = reference.remaining(recipient, tenant)
            assert [state.remaining for state in limiter.windows("sms", recipient, tenant=tenant)] == left
            assert limiter.test("sms", recipient, tenant=tenant).allowed == all(left)
        elif verb == "clear":
            recipient, tenant = value
            assert limiter.clear("sms", recipient, tenant=tenant) == reference.clear(recipient, tenant)
            held = [each for each in held if each[1] != recipient]
        elif value < len(held):
            decision, recipient, tenant = held.pop(value)
            if decision.windows:
                assert limiter.release(decision)
                reference.release(recipient, tenant)
        for decision, recipient, tenant in answers:
            allowed, left = reference.hit(recipient, tenant)
            assert told(decision) == (allowed, left)
            if allowed:
                held.append((decision, recipient, tenant))


class OnLoop:
    """An `AsyncLimiter` on the event loop of its storage."""

    def __init__(self, limiter: AsyncLimiter, driven: Any) -> None:
        self._limiter = limiter
        self._run = driven.run

    def __getattr__(self, verb: str) -> Any:
        return lambda *arguments, **options: self._run(getattr(self._limiter, verb)(*arguments, **options))


@settings(max_examples=15)
@given(drawn=rules, doing=steps)
def test_overrides_and_tiers_hold_on_every_storage(backend: Backend, drawn: list[Drawn], doing: Any) -> None:
    """By recipient and by tenant, one at a time and in batches: each verb goes by the limit that is written down."""
    backend.flush()
    made = [each.rule(number) for number, each in enumerate(drawn)]
    kind = AsyncLimiter if backend.asynchronous else Limiter
    limiter: Any = kind(made, backend.bare, namespace=backend.namespace, tier_of=tier_of)

    compare(OnLoop(limiter, backend.storage) if backend.asynchronous else limiter, drawn, doing)


class Long:
    """Mixed into a limiter: it takes no shortcut."""

    def _shortcut_for(self, _plan: object) -> Shortcut | None:
        return None


@given(drawn=rules, doing=steps, plain=st.integers(0, 4))
def test_the_shortcut_changes_nothing(drawn: list[Drawn], doing: Any, plain: int) -> None:
    """With and without it decisions are the same, for types with other limits beside types that have none."""
    made = [*(each.rule(number) for number, each in enumerate(drawn)), Rule("plain", f"{plain}/day")]
    quick = Limiter(made, clock=Clock(), tier_of=tier_of)
    slow = type("SlowLimiter", (Long, Limiter), {})(made, clock=Clock(), tier_of=tier_of)
    for verb, value in doing:
        if verb in ("hit", "look"):
            recipient, tenant = value
            for limiter_type, fields in (("plain", {}), ("sms", {}), ("sms", {"tenant": tenant})):
                ask = "hit" if verb == "hit" else "test"
                one, other = (getattr(each, ask)(limiter_type, recipient, **fields) for each in (quick, slow))
                assert (told(one), one.remaining, one.retry_after) == (told(other), other.remaining, other.retry_after)
        elif verb == "hit_many":
            recipients, tenant = value
            for limiter_type in ("plain", "sms"):
                many = [each.hit_many(limiter_type, recipients, tenant=tenant) for each in (quick, slow)]
                assert list(map(told, many[0])) == list(map(told, many[1]))


# What works.


@pytest.mark.parametrize("by", ["tenant", ("tenant",), ("type", "tenant"), ["tenant", "type"]])
def test_overrides_are_for_the_one_field_that_a_rule_counts_by(make: Any, by: Any) -> None:
    """A tenant has its own limit, whoever it writes to; a recipient of that name has not."""
    limiter = make([Rule("sms", "1/day", by=by, overrides={"acme": "3/day", 5: "2/day"})], normalize="email")

    assert [limiter.hit("sms", "ana", tenant="acme").remaining for _ in range(3)] == [2, 1, 0]
    assert not limiter.hit("sms", "bo", tenant="acme")
    assert limiter.hit("sms", "acme", tenant="globex").remaining == 0
    assert limiter.hit("sms", "ana", tenant="5").remaining == 1
    assert limiter.hit("sms", "ana", tenant="ACME").remaining == 0, "only recipients are normalized"


@pytest.mark.parametrize("by", ["ip", ("type", "ip")])
def test_overrides_are_for_declared_fields_too(make: Any, by: Any) -> None:
    """Any field will do."""
    limiter = make(RuleSet([Rule("login", "1/day", by=by, overrides={"::1": "9/day"})], fields=["ip"]))

    assert limiter.hit("login", "ana", ip="::1").remaining == 8
    assert limiter.hit("login", "ana", ip="::2").remaining == 0


def test_a_rule_that_counts_by_recipient_has_overrides_for_recipients(make: Any) -> None:
    """Whatever else it counts by."""
    limiter = make([Rule("sms", "1/day", by=("tenant", "recipient"), overrides={"ana": "3/day"})])

    assert limiter.hit("sms", "ana", tenant="acme").remaining == 2
    assert limiter.hit("sms", "acme", tenant="ana").remaining == 0


def test_the_tier_of_a_tenant(make: Any) -> None:
    """What the issue's user meant: acme has 8, and whoever is not in a tier has 5."""
    rule = Rule("sms", "5/day", by="tenant", tiers={"paid": "8/day"})
    limiter = make([rule], tier_of=lambda recipient, fields: {"acme": "paid"}.get(fields["tenant"]))

    assert [limiter.hit("sms", number, tenant="acme").allowed for number in range(9)] == [True] * 8 + [False]
    assert [limiter.hit("sms", number, tenant="globex").allowed for number in range(6)] == [True] * 5 + [False]


def of_both(recipient: object, fields: Mapping[str, object]) -> str | None:
    asked.append((recipient, dict(fields)))
    with pytest.raises(TypeError):
        fields["tenant"] = "other"  # type: ignore[index]  # that this cannot be done is what is tested
    return None


asked: list[tuple[object, dict[str, object]]] = []


class Method:
    def of(self, recipient: object, *, fields: Mapping[str, object]) -> str | None:
        return of_both(recipient, fields)

    def __call__(self, recipient: object, fields: Mapping[str, object]) -> str | None:
        return of_both(recipient, fields)


def by_position(recipient: object, fields: Mapping[str, object], /) -> str | None:
    return of_both(recipient, fields)


def by_name(recipient: object, **fields: object) -> str | None:
    return of_both(recipient, MappingProxyType(fields))


@pytest.mark.parametrize(
    "asks",
    [
        of_both,
        Method().of,
        Method(),
        partial(of_both),
        lambda who, fields=None: of_both(who, fields),
        by_position,
        by_name,
    ],
)
def test_who_has_a_parameter_called_fields_gets_the_fields(make: Any, asks: Any) -> None:
    """As the caller passed them, with every verb, and read-only; a notification without fields has none."""
    limiter = make([Rule("sms", "5/day", tiers={"paid": "8/day"})], tier_of=asks)
    asked.clear()
    limiter.hit("sms", "ana")
    limiter.test("sms", 5, tenant=7, channel=None)
    limiter.windows("sms", "ana", tenant="acme")
    limiter.clear("sms", "ana", tenant="acme")
    limiter.hit_many("sms", ["ana", "bo"], tenant="acme")
    limiter.decide([Notification("sms", "ana", fields={"tenant": "acme"})])

    acme = {"tenant": "acme"}
    assert asked == [
        ("ana", {}), (5, {"tenant": 7, "channel": None}), ("ana", acme), ("ana", acme), ("ana", acme), ("bo", acme), ("ana", acme),
    ]  # fmt: skip


def several_at_once(recipient: object, *fields: object) -> str | None:
    assert fields == ()
    return None


def of_one(recipient: object, other: object = None) -> str | None:
    assert other is None
    return None


@pytest.mark.parametrize(
    "asks",
    [
        {}.get,
        of_one,
        lambda *recipient: None,
        several_at_once,
        str,
        lambda recipient, **other: None,
    ],
)
def test_nobody_else_gets_the_fields(make: Any, asks: Any) -> None:
    """The second argument of `dict.get` is something else."""
    limiter = make([Rule("sms", "5/day", tiers={"paid": "8/day"})], tier_of=asks)

    assert limiter.hit("sms", "ana", tenant="acme").remaining == 4


# What cannot work.

NEEDS_TIER_OF = "rules[1].tiers: need tier_of= on the limiter, a callable that returns the name of a recipient's tier."
NEEDS_FIELDS = (
    "rules[1].tiers: belong to a rule that counts by {}, but tier_of= only gets the recipient. "
    "Give it a second parameter called fields: def tier_of(recipient, fields)."
)


@pytest.mark.parametrize(
    ("by", "options", "said"),
    [
        ("recipient", {}, NEEDS_TIER_OF),
        ("tenant", {}, NEEDS_TIER_OF),
        ("tenant", {"tier_of": {}.get}, NEEDS_FIELDS.format("tenant")),
        (("tenant", "channel"), {"tier_of": of_one}, NEEDS_FIELDS.format("tenant and channel")),
        (("type", "tenant"), {"tier_of": lambda recipient: None}, NEEDS_FIELDS.format("type and tenant")),
    ],
)
def test_tiers_that_would_have_no_effect_are_an_error(make: Any, by: Any, options: Any, said: str) -> None:
    """When the limiter is made, when rules are exchanged, in each of its kinds: nobody finds out by counting."""
    rules = [Rule("news", "1/day"), Rule("sms", "5/day", by=by, tiers={"paid": "8/day"})]
    for attempt in (partial(make, rules), partial(configure, rules), partial(make, RuleSet(rules, default="5/hour"))):
        with pytest.raises(RuleError) as caught:
            attempt(**options)
        assert str(caught.value) == said

    limiter = make({"news": "1/day"}, **options)
    with pytest.raises(RuleError) as caught:
        limiter.rules = rules
    assert str(caught.value) == said
    assert limiter.rules == RuleSet({"news": "1/day"}), "the rules before stay in force"


def fields_first(fields: object) -> str | None:
    raise AssertionError(fields)


def wants_more(recipient: object, tenant: object) -> str | None:
    raise AssertionError(recipient, tenant)


@wraps(of_both)
def hides_fields(recipient: object) -> str | None:
    raise AssertionError(recipient)


@pytest.mark.parametrize(
    "asks", [fields_first, wants_more, hides_fields, lambda: None, lambda fields, /: None, partial(of_one, "ana", "bo")]
)
def test_a_tier_of_that_cannot_be_called_is_an_error(make: Any, asks: Any) -> None:
    """When the limiter is made, and not with each notification."""
    with pytest.raises(
        NotifyError, match=r"^tier_of= cannot be called with a recipient.* Write def tier_of\(recipient"
    ):
        make([Rule("sms", "5/day", tiers={"paid": "8/day"})], tier_of=asks)


@pytest.mark.parametrize("asks", [fields_first, wants_more, hides_fields])
def test_a_tier_of_is_checked_before_a_rule_has_tiers(make: Any, asks: Any) -> None:
    """The rules may get tiers while the program runs, and then it is too late."""
    with pytest.raises(NotifyError, match=r"^tier_of= cannot be called with a recipient"):
        make({"sms": "5/day"}, tier_of=asks)


@pytest.mark.parametrize(
    ("asks", "arguments"),
    [
        (wants_more, "a recipient"),
        (lambda: None, "a recipient"),
        (lambda *fields, tenant: None, "a recipient"),
        (hides_fields, "a recipient and fields"),
        (lambda fields, /: None, "a recipient and fields"),
        (lambda recipient, tenant, *, fields: None, "a recipient and fields"),
    ],
)
def test_the_error_about_a_tier_of_says_what_it_would_be_called_with(make: Any, asks: Any, arguments: str) -> None:
    """Fields are named where the callable has a parameter for them."""
    with pytest.raises(NotifyError, match=rf"^tier_of= cannot be called with {arguments}\. Write def tier_of\("):
        make({"sms": "5/day"}, tier_of=asks)


def test_a_decorated_tier_of_may_add_arguments(make: Any) -> None:
    """What counts is what the wrapper takes."""

    def of_one_in(database: object, recipient: object) -> str | None:
        return f"{database} {recipient}"

    @wraps(of_one_in)
    def asks(*args: object) -> str | None:
        return of_one_in("of", *args)

    limiter = make([Rule("sms", "5/day", tiers={"of ana": "8/day"})], tier_of=asks)

    assert limiter.hit("sms", "ana").remaining == 7


def test_tiers_are_told_of_together_with_what_else_is_wrong(make: Any) -> None:
    """One error has all that a limiter finds in its rules."""
    rules = [
        Rule("sms", "5/day", tiers={"paid": "8/day"}),
        Rule("news", "5/day", overrides={"ana@x.com": "9/day", "Ana@X.com": "8/day"}),
    ]
    with pytest.raises(RuleError) as caught:
        make(rules, normalize="email")

    assert [problem.place for problem in caught.value.problems] == ["rules[0].tiers", "rules[1].overrides[1]"]


def test_a_switch_that_is_off_needs_no_tiers(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Rules that cannot be used are logged and left out, as from a broken file: the switch must always work."""
    rules = [Rule("sms", "0/day", tiers={"paid": "8/day"})]

    assert make(rules, enabled=False).hit("sms", "ana")
    assert len([record for record in caplog.records if "need tier_of=" in record.getMessage()]) == 1


def test_decorated_functions_have_tiers_by_tenant() -> None:
    """What `configure` gets as `tier_of=` is asked with the fields of the decorator."""
    rule = Rule("sms", "1/day", by="tenant", tiers={"paid": "2/day"}, overrides={"acme": "3/day"})
    configure([rule], tier_of=tier_of)
    send = rate_limited("sms", fields={"tenant": "tenant"}, on_limit="drop")(lambda to, tenant: "sent")

    assert [send("ana", each) for each in ("globex", "globex", "globex", "initech", "initech")] == [
        "sent", "sent", None, "sent", None,
    ]  # fmt: skip
    assert [send("ana", "acme") for _ in range(4)] == ["sent", "sent", "sent", None]


# Fields that are required, and limits by tenant, everywhere.

MISSING = "A notification of type 'sms' has no tenant, but the rule 'sms by tenant' requires it."


def test_notifiers_go_by_the_tenant() -> None:
    """Bound, in batches of one tenant and of several: each has its limit, and a notification without tenant is an error."""
    rule = Rule("sms", "1/day", by="tenant", overrides={"acme": "3/day"}, tiers={"paid": "2/day"}, required="tenant")
    batch = [Notification("sms", "ana", fields={"tenant": tenant} if tenant else {}) for tenant in (*TENANTS, *TENANTS)]
    expected = [
        Status.SENT,
        Status.SENT,
        Status.SENT,
        Status.FAILED,
        Status.SENT,
        Status.SENT,
        Status.SUPPRESSED,
        Status.FAILED,
    ]

    notifier = Notifier(lambda to: to, [rule], tier_of=tier_of)
    deliveries = list(notifier.iter_many(batch))
    assert [each.status for each in deliveries] == expected
    assert MISSING in str(deliveries[3].error)
    many = notifier.bind(tenant="acme").send_many("sms", WHO)
    assert [each.status for each in many] == [Status.SENT, Status.SUPPRESSED, Status.SUPPRESSED]
    assert [each.status for each in notifier.send_many("sms", WHO)] == [Status.FAILED] * 3
    with pytest.raises(NotifyError, match=MISSING):
        notifier.send("sms", "ana")

    async def send(to: object) -> object:
        return to

    async def all_of_it() -> None:
        async_notifier = AsyncNotifier(send, [rule], tier_of=tier_of)
        assert [each.status async for each in async_notifier.iter_many(batch)] == expected
        with pytest.raises(NotifyError, match=MISSING):
            await async_notifier.send("sms", "ana")

    asyncio.run(all_of_it())


def test_a_decorated_function_without_the_required_field_is_an_error() -> None:
    """Whether the decorator says nothing of the field, or the argument that it names is None."""
    configure([Rule("sms", "1/day", by="tenant", required="tenant")])
    without = rate_limited("sms")(lambda to: "sent")
    with_tenant = rate_limited("sms", fields={"tenant": "tenant"})(lambda to, tenant: "sent")

    for attempt in (lambda: without("ana"), lambda: with_tenant("ana", None)):
        with pytest.raises(NotifyError, match=MISSING):
            attempt()
    assert with_tenant("ana", "acme") == "sent"
