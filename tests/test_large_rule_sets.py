"""Rule sets with thousands of rules and overrides: what is looked up, remembered and taken over, and that it changes no decision.

The times are in the benchmarks. Here is the mechanism behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import pickle
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st
from limits.storage import MemoryStorage as StockMemoryStorage

from ratelimited_notify import AsyncLimiter, Limiter, NotifyError, Rule, RuleError, RuleSet, disposal, rate_limited
from ratelimited_notify.rules import index as indexing, plan as planning, plans as books
from ratelimited_notify.rules.glob import Glob
from ratelimited_notify.rules.index import TypeIndex
from ratelimited_notify.storage.memory import shortcut as shortcuts
from ratelimited_notify.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Generator

PATTERNS = st.text("ab.*?[]!-^\n", min_size=1, max_size=12)
TYPES = st.text("ab.*?[]!-^\n", max_size=12)


@contextlib.contextmanager
def switching_often() -> Generator[None]:
    """Threads are switched as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


# --- Which rules are for a type --------------------------------------------------------------------------------------


@given(PATTERNS, TYPES)
@settings(max_examples=1000)
def test_a_glob_matches_what_fnmatch_matches(pattern: str, type: str) -> None:
    """Sets, ranges, brackets that are never closed, line breaks: whatever the pattern is."""
    assert Glob(pattern).matches(type) == fnmatchcase(type, pattern)


@given(st.lists(PATTERNS, max_size=30), st.lists(TYPES, min_size=1, max_size=5))
def test_the_index_finds_what_asking_each_rule_finds(patterns: list[str], types: list[str]) -> None:
    """In the order of the rules, each once; a pattern is always for itself."""
    index = TypeIndex(patterns)

    for type in types + patterns:
        expected = [at for at, pattern in enumerate(patterns) if pattern == type or fnmatchcase(type, pattern)]
        assert index.find(type) == expected


@pytest.mark.parametrize("many", [0, 1, 9, 40])
def test_the_index_finds_globs_that_have_much_in_common(many: int) -> None:
    """Common beginnings and endings make it look at what is in between; nothing in common at all, at each of them."""
    patterns = [
        *(f"shop.*.{number}" for number in range(many)),
        *(f"*{number}*" for number in range(many)),
        *(f"shop*{number:03}*sent" for number in range(many)),
        *(f"{'long' * 20}{number}*" for number in range(many)),
        *("?" * number for number in range(1, many)),
        *("*" * number for number in range(1, many)),
    ]
    index = TypeIndex(patterns)

    for type in ["shop.x.7", "shop007sent", "shop.017.sent", "long" * 20 + "39", "7", "", "shop", "x" * 39]:
        assert index.find(type) == [at for at, pattern in enumerate(patterns) if fnmatchcase(type, pattern)]


def test_few_globs_are_asked_about_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 globs of every kind, those that can match, and a few more."""
    kinds = ["shop{}.*", "*.{}x", "*.a{}b.*", "shop.*.{}", "{}*sent", "shop.*{}*.sent", "a[bc]{}*", "?{}*"]
    patterns = [kind.format(f"{number:04}") for number in range(1250) for kind in kinds]
    index = TypeIndex([*patterns, "*"])
    asked: list[str] = []
    matches = Glob.matches
    monkeypatch.setattr(Glob, "matches", lambda glob, type: asked.append(glob.pattern) or matches(glob, type))

    for type in [
        "shop0007.signup",
        "mail.0007x",
        "mail.a0007b.x",
        "shop.mail.0007",
        "0007.sent",
        "shop.0007.sent",
        "ab0007",
    ]:
        found = index.find(type)
        assert 2 <= len(found) < 6
        assert len(asked) <= 40, "so few are compared of 10,000"
        asked.clear()


def test_no_glob_takes_exponential_time() -> None:
    """Patterns by which regular expressions take for ever, against texts that almost match."""
    began = time.process_time()
    for pattern in [
        "*a" * 30 + "b",
        "a*" * 200 + "b",
        "*?" * 100 + "b",
        "*[a]" * 100 + "b",
        "*" * 10_000 + "b",
        "[" * 10_000,
    ]:
        for type in ["a" * 2000, "a" * 2000 + "c"]:
            assert not Rule(pattern, "1/day").matches(type)
            assert RuleSet([Rule(pattern, "1/day")]).matching(type) == ()

    # It takes a tenth of a second. Twenty `*a` alone would take years.
    assert time.process_time() - began < 30


# --- What is worked out once -----------------------------------------------------------------------------------------


def test_a_limit_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rules and overrides have it, in whichever way they are written."""
    from ratelimited_notify.rules import limit as limits

    read: list[Any] = []
    parse = limits._read_several
    monkeypatch.setattr(limits, "_read_several", lambda text, show: read.append(text) or parse(text, show))
    limits._remembered.cache_clear()
    one, other = "71/hour; 72/day", "73/day"
    overrides = {f"user{number}": (one, other)[number % 2] for number in range(1000)}
    rules = [
        *(Rule(f"a{number}", one, overrides=overrides, tiers={"gold": other}) for number in range(10)),
        *({"type": f"b{number}", "limit": one, "overrides": overrides} for number in range(10)),
        Rule("c", one, overrides={**overrides, 5: other}),
    ]
    made = RuleSet(rules)

    assert read == [one, other]
    assert made.rules[0].overrides["user0"] is made.rules[1].overrides["user2"] is made.rules[19].limits


def test_a_limit_that_cannot_be_parsed_is_told_each_time() -> None:
    """Errors are not remembered: one may quote the text, another must not."""
    for _ in range(2):
        with pytest.raises(RuleError, match=r"'ana@example\.com' is not a limit"):
            Rule("news", "ana@example.com")
        with pytest.raises(RuleError) as caught:
            Rule("news", "1/day", overrides={"1/day": "ana@example.com"})
        assert "ana" not in str(caught.value)


def test_code_is_made_once_for_windows_of_one_kind() -> None:
    """A thousand types with other limits: the same code, with other values."""
    shortcuts._code.cache_clear()
    limiter = Limiter({f"type {number}": f"{number + 1}/day; {number + 2} per 2 days" for number in range(1000)})
    for number in range(1000):
        assert limiter.hit(f"type {number}", "ana").remaining == number

    assert len(limiter.plans.shortcuts) == 1000
    assert shortcuts._code.cache_info().misses == 1


def test_the_oldest_plan_is_dropped_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types without end cost those that are in use nothing but their turn."""
    monkeypatch.setattr(books, "MOST_TYPES", 10)
    limiter = Limiter({"*": "5/day"})
    for number in range(25):
        limiter.hit(f"type {number}", "ana")

    assert list(limiter.plans._plans) == [f"type {number}" for number in range(15, 25)]
    assert list(limiter.plans.shortcuts) == [f"type {number}" for number in range(15, 25)]
    assert len(limiter.plans._order) == 10


def test_plans_are_dropped_while_threads_make_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised, nothing is counted twice, and no more is kept than may be."""
    monkeypatch.setattr(books, "MOST_TYPES", 5)
    limiter = Limiter({"*": "3/day"})

    def send(number: int) -> int:
        allowed = 0
        for at in range(300):
            allowed += limiter.hit(f"type {(at * number) % 20}", "ana").allowed
            if at % 50 == 0:
                limiter.plans.forget()
        return allowed

    with switching_often(), ThreadPoolExecutor(4) as threads:
        allowed = list(threads.map(send, (1, 3, 7, 9)))

    assert sum(allowed) == 20 * 3
    assert len(limiter.plans._plans) <= 5 + 4


def test_what_other_threads_do_while_plans_are_dropped_or_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """One forgets all of them, step by step; one adds some while they are listed."""
    monkeypatch.setattr(books, "MOST_TYPES", 3)
    limiter = Limiter({"*": "5/day"})
    for number in range(3):
        limiter.hit(f"type {number}", "ana")
    limiter.plans._order.clear()
    assert limiter.hit("another type", "ana").remaining == 4
    changed: list[object] = [None, None]

    class Changing(dict[str, Any]):
        def items(self) -> Any:
            if changed:
                changed.pop()
                raise RuntimeError("dictionary changed size during iteration")
            return super().items()

    limiter.plans._plans = Changing(limiter.plans._plans)
    limiter.rules = {"*": "9/day"}

    assert changed == []
    assert "another type" in limiter.plans._plans
    assert limiter.hit("another type", "ana").remaining == 7


def test_overrides_are_a_mapping_that_nobody_can_change() -> None:
    """As it was written: with the limits of each recipient, equal to others with the same limits, and without a recipient in its repr."""
    rule = Rule("news", "1/day", overrides={"ana": "2/day", "bo": None, "cy": "2 per day", 5: ["3/day", "4/week"]})
    same = Rule("news", "1/day", overrides={"5": "3/day; 4/week", "bo": None, "cy": "2/day", "ana": "2 per day"})
    limits = dict(rule.overrides)

    assert limits == {
        "ana": Rule("x", "2/day").limits,
        "bo": (),
        "cy": Rule("x", "2/day").limits,
        "5": Rule("x", "3/day; 4/week").limits,
    }
    assert rule.overrides == limits == same.overrides == pickle.loads(pickle.dumps(rule)).overrides
    assert rule == same == pickle.loads(pickle.dumps(rule))
    assert rule.overrides != {**limits, "bo": limits["ana"]} != same.overrides
    assert rule != Rule("news", "1/day", overrides={"ana": "2/day"})
    assert (len(rule.overrides), "ana" in rule.overrides, rule.overrides.get("dee"), next(iter(rule.overrides))) == (
        4,
        True,
        None,
        "ana",
    )
    assert repr(rule.overrides) == "<4 overrides>"
    with pytest.raises(TypeError):
        rule.overrides["bo"] = ()  # type: ignore[index]  # what must not work


def test_all_of_many_overrides_are_kept() -> None:
    """A rule takes thousands of them at a time, and each recipient has the limit that was written."""
    written = {f"user{number}": f"{number % 7}/day" for number in range(25_000)}
    kept = Rule("news", "9/day", overrides=written).overrides

    assert len(kept) == 25_000
    assert [kept[f"user{number}"] for number in (0, 9_999, 10_000, 24_999)] == [
        Rule("x", f"{number % 7}/day").limits for number in (0, 9_999, 10_000, 24_999)
    ]


def test_the_collector_has_little_to_look_at() -> None:
    """It holds up all threads, the longer the more objects there are: overrides and the index have next to none."""
    gc.collect()
    before = len(gc.get_objects())
    rules = RuleSet(
        [
            Rule(
                f"{('type {}', 'shop {}.*', '*.late {}')[number % 3].format(number)}",
                "1/day",
                overrides={f"user{number}.{each}": "2/day" for each in range(10)},
            )
            for number in range(1000)
        ]
    )
    rules.index.find("type 0")
    gc.collect()

    # A rule and its overrides; a dict of texts and numbers too where Python follows all of them.
    assert len(gc.get_objects()) - before < (2100 if sys.version_info < (3, 14) else 3100)
    assert len(rules) == 1000


# --- Overrides and tiers by the shortcut -----------------------------------------------------------------------------

NAMES = ["ana", "bo", "cy", "Dee", "e%f", "gus"]
LIMITS = [None, "1/day", "2/day", "3/hour; 4/day", "0/day"]


def tier_of(recipient: Any) -> str | None:
    """The tier of those whose names begin late in the alphabet."""
    return {"c": "gold", "d": "silver", "e": "gold"}.get(str(recipient).lower()[0])


@st.composite
def rules_of_one_type(draw: st.DrawFn) -> list[Rule]:
    """One to three rules that are for the type news, with overrides, tiers, caps, and what keeps them from the shortcut."""
    limit = st.sampled_from(LIMITS)
    rules: list[Rule] = []
    for number in range(draw(st.integers(1, 3))):
        by = draw(st.sampled_from([("type", "recipient"), ("recipient",), ("recipient", "tenant"), ("type",)]))
        own = "recipient" in by
        rules.append(
            Rule(
                draw(st.sampled_from(["news", "n*", "*"])),
                draw(st.sampled_from(["2/day", "3/day", "2/hour; 3/day", None])),
                by=by,
                name=f"rule {number}",
                strategy=draw(
                    st.sampled_from(["moving-window", "moving-window", "fixed-window", "sliding-window-counter"])
                ),
                overrides=draw(st.dictionaries(st.sampled_from([name.lower() for name in NAMES]), limit, max_size=4))
                if own
                else None,
                tiers=draw(st.dictionaries(st.sampled_from(["gold", "silver"]), limit, max_size=2)) if own else None,
                enforce=draw(st.integers(0, 5)) > 0,
                exempt=draw(st.sampled_from([(), (), "critical"])),
            )
        )
    return rules


@given(
    rules_of_one_type(),
    st.sampled_from([None, "email"]),
    st.lists(
        st.tuples(
            st.sampled_from(NAMES), st.sampled_from(["hit", "hit", "hit", "release", "critical", "tenant", "tick"])
        ),
        min_size=3,
        max_size=25,
    ),
)
def test_shortcuts_decide_as_the_long_way(
    rules: list[Rule], normalize: str | None, steps: list[tuple[str, str]]
) -> None:
    """For recipients with overrides, tiers, both or neither, by several rules, normalized or not: the same answers and windows."""
    clock = Clock()
    quick = Limiter(rules, clock=clock, tier_of=tier_of, normalize=normalize)
    long = Limiter(rules, clock=clock, tier_of=tier_of, normalize=normalize)
    # Otherwise its first decision would take the shortcut that is made for it.
    with contextlib.suppress(NotifyError):
        long.plans.of("news")
    given_back: list[Any] = []
    for name, step in steps:
        if step == "tick":
            clock.advance(1800)
            continue
        options: dict[str, Any] = (
            {"priority": "critical"} if step == "critical" else {"tenant": "acme"} if step == "tenant" else {}
        )
        one = quick.hit("news", name, **options)
        long.plans.shortcuts.clear()
        other = long.hit("news", name, **options)
        for decision in (one, other):
            # Whatever is read first.
            assert decision.recipient == name
        assert [one.allowed, one.remaining, one.retry_after, one.blocked_by, one.windows, str(one)] == [
            other.allowed, other.remaining, other.retry_after, other.blocked_by, other.windows, str(other),
        ]  # fmt: skip
        given_back.append((one, other))
        if step == "release":
            one, other = given_back[len(given_back) // 2]
            assert quick.release(one) == long.release(other)
        assert quick.windows("news", name) == long.windows("news", name)


@pytest.mark.parametrize("way", ["hit", "asyncio"])
def test_the_first_decision_about_a_type_takes_the_shortcut(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With overrides or tiers, for a name, a glob or the default. The long way takes longer than to find the rules."""
    options: dict[str, Any] = {"tier_of": {"gil": "gold"}.get}
    rules = RuleSet(
        [
            Rule("news", "1/day", overrides={"vip": "2/day"}),
            Rule("shop.*", "1/day; 5 per 7 days", tiers={"gold": "2/day"}),
            Rule("*", "100/day", by="recipient"),
        ],
        default="1/day",
    )
    limiter: Any = AsyncLimiter(rules, **options) if way == "asyncio" else Limiter(rules, **options)
    monkeypatch.setattr(type(limiter.storage), "acquire", None)
    for kind, name, amount in (("news", "vip", 2), ("shop.one", "gil", 2), ("shop.two", "ana", 1), ("other", "ana", 1)):
        decisions = [limiter.hit(kind, name) for _ in range(amount + 1)]
        if way == "asyncio":
            decisions = [asyncio.run(decision) for decision in decisions]
        assert [decision.allowed for decision in decisions] == [True] * amount + [False]


def test_the_first_decision_about_an_unknown_type_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Also where a cap has a shortcut, which does not log."""
    limiter = Limiter([Rule("*", "5/day", by="recipient")])
    for _ in range(2):
        assert limiter.hit("news", "ana")

    assert len(caplog.records) == 1
    assert "news" in limiter.plans.shortcuts


def test_one_shortcut_serves_all_who_have_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 overrides with three limits are three shortcuts, beside the one for everybody else."""
    made: list[Any] = []
    compiled = shortcuts._compiled
    monkeypatch.setattr(shortcuts, "_compiled", lambda *given: made.append(given) or compiled(*given))
    overrides = {f"user{number}": f"{number % 3 + 2}/day" for number in range(10_000)}
    limiter = Limiter([Rule("news", "1/day", overrides=overrides), Rule("*", "20/day", by="recipient")])
    for _ in range(2):
        for number in range(300):
            assert limiter.hit("news", f"user{number}").allowed
            limiter.hit("news", f"guest{number}")

    assert len(made) == 4
    assert [limiter.hit("news", name).allowed for name in ("user0", "user1", "user2", "guest1")] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("tiers", [None, {"gold": "9/day"}])
def test_limits_without_end_are_not_kept_without_end(tiers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If everybody has other limits, some are put together anew for each notification. They are right all the same."""
    from ratelimited_notify.limiter import shortcuts as choosing

    for module in (planning, choosing):
        monkeypatch.setattr(module, "MOST_VARIANTS", 10)
    overrides = {f"user{number}": f"{number + 1}/day" for number in range(50)}
    limiter = Limiter([Rule("news", "1/day", overrides=overrides, tiers=tiers)], tier_of=lambda _: None)
    for _ in range(2):
        remaining = [limiter.hit("news", f"user{number}").remaining for number in range(50)]

    assert remaining == [max(0, number - 1) for number in range(50)]
    assert len(limiter.plans.of("news")._variants) == 10
    shortcut: Any = limiter.plans.shortcuts["news"]
    assert len(shortcut._by_variant) <= 10
    assert len(getattr(shortcut, "_by_number", ())) <= 10


def test_rules_for_other_fields_leave_the_shortcut_alone() -> None:
    """A notification without a tenant is counted by the other rules alone, by the shortcut; one with a tenant by all."""
    limiter = Limiter([Rule("news", "5/day"), Rule("news", "1/day", by="tenant")])

    assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, True]
    assert list(limiter.plans.shortcuts) == ["news"]
    assert [limiter.hit("news", "ana", tenant="acme").allowed for _ in range(2)] == [True, False]
    decisions = limiter.hit_many("news", ["ana", "bo"], tenant="other")
    assert [decision.allowed for decision in decisions] == [True, False]
    assert [len(decision.windows) for decision in (*decisions, *limiter.hit_many("news", ["bo", "cy"]))] == [2, 2, 1, 1]


def test_a_refusal_by_an_override_does_what_its_own_rules_say() -> None:
    """`on_limit` counts for the windows that decided, not for those that others have."""
    rules = [
        Rule("news", "1/day", name="strict", on_limit="raise", overrides={"vip": None}),
        Rule("news", "1/day", name="mild", by="recipient"),
    ]
    limiter = Limiter(rules)
    send = rate_limited("news", on_limit="drop", limiter=limiter)(lambda to: "sent")
    assert [send("vip"), send("vip"), send("ana")] == ["sent", None, "sent"]

    with pytest.raises(NotifyError, match="refused by rule 'strict'"):
        send("ana")


def test_remembered_refusals_know_overrides_and_tiers(valkey: Any) -> None:
    """A recipient with an override or in a tier is refused without a round trip, too, and others are not."""
    rule = Rule("news", "1/day", overrides={"vip": "2/day"}, tiers={"gold": "3/day"})
    limiter = Limiter(
        [rule], valkey.url, remember_refusals=True, timeout=5, namespace="overrides",
        tier_of=lambda who: "gold" if who == "gus" else None,
    )  # fmt: skip
    with limiter:
        seen = [[limiter.hit("news", who).allowed for _ in range(5)] for who in ("ana", "vip", "gus")]
        asked: list[Any] = []
        acquire = limiter.storage.acquire
        limiter.storage.acquire = lambda *given: asked.append(given) or acquire(*given)  # type: ignore[method-assign]
        again = [limiter.hit("news", who) for who in ("ana", "vip", "gus")]

    assert [sum(each) for each in seen] == [1, 2, 3]
    assert [decision.allowed for decision in again] == [False] * 3
    assert [decision.windows[0].item.amount for decision in again] == [1, 2, 3]
    assert asked == []


@pytest.mark.parametrize("normalize", [None, str.strip])
def test_the_tier_of_an_empty_recipient_is_not_asked(normalize: Any) -> None:
    """The shortcut checks in the same order as the long way, so `tier_of=` never sees what is no recipient."""
    asked: list[Any] = []
    limiter = Limiter([Rule("news", "1/day", tiers={"gold": "2/day"})], tier_of=asked.append, normalize=normalize)
    limiter.hit("news", "ana")
    for recipient in ["", " "] if normalize else [""]:
        with pytest.raises(NotifyError, match="empty"):
            limiter.hit("news", recipient)

    assert asked == ["ana"]


def test_remembered_refusals_do_not_ask_for_a_tier_twice() -> None:
    """`tier_of=` may ask a database. Most hits are not refused, so a look at the refusals first would double that."""
    asked: list[Any] = []
    storage: Any = StockMemoryStorage()
    limiter = Limiter(
        [Rule("news", "2/day", tiers={"gold": "3/day"})],
        storage,
        tier_of=asked.append,
        remember_refusals=True,
    )
    assert [limiter.hit("news", "ana").allowed for _ in range(4)] == [True, True, False, False]

    assert len(asked) == 4


@pytest.mark.parametrize("way", ["hit", "decorated", "asyncio"])
def test_the_tier_is_asked_for_once(way: str) -> None:
    """Whoever the recipient is, and whatever limit the tier has: `tier_of=` may take long, or count its calls."""
    asked: list[Any] = []
    tiers = {"a": "gold", "b": "none", "c": "nothing"}

    def tier_of(recipient: Any) -> str | None:
        asked.append(recipient)
        return tiers.get(recipient[:1])

    rules: list[Rule] = [
        Rule("news", "99/day", tiers={"gold": "88/day"}, overrides={"vip": "77/day", "none": None}),
        Rule("none", "99/day", tiers={"gold": "88/day", "none": None}),
        Rule("nothing", "99/day", tiers={"gold": "88/day", "nothing": "0/day"}),
        Rule("*", "1000/day", by="recipient"),
    ]
    people = ["ana", "bo", "cy", "dee", "vip", "none", "a%b", "a b", "é", "x" * 100]
    limiter: Any = AsyncLimiter(rules, tier_of=tier_of) if way == "asyncio" else Limiter(rules, tier_of=tier_of)
    for type in ("news", "none", "nothing"):
        send = rate_limited(type, limiter=limiter, on_limit="drop")(lambda to: "sent") if way == "decorated" else None
        for name in people * 3:
            asked.clear()
            if send is not None:
                send(name)
            elif way == "hit":
                limiter.hit(type, name)
            else:
                asyncio.run(limiter.hit(type, name))
            assert asked == [name]
    assert "news" in limiter.plans.shortcuts


@pytest.mark.parametrize("normalize", [None, "email"])
def test_overrides_beside_tiers_take_the_shortcut(normalize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rule they are of: the storage is only asked about recipients that need the long way for their names."""
    rules = [
        Rule("news", "1/day", name="one", overrides={"vip": "5/day", "ana": "7/day"}, tiers={"gold": "2/day"}),
        Rule("news", "10/week", name="two", overrides={"ana": "3/week"}, tiers={"gold": "4/week", "silver": "1/week"}),
    ]
    tiers = {"gus": "gold", "gina": "gold", "sam": "silver"}
    limiter = Limiter(
        rules,
        tier_of=lambda recipient: "gold" if recipient == "vip" else tiers.get(str(recipient)),
        normalize=normalize,
    )
    limiter.hit("news", "first")
    monkeypatch.setattr(limiter.storage, "acquire", lambda *_: pytest.fail("the storage is asked"))

    assert [
        sum(limiter.hit("news", who).allowed for _ in range(9)) for who in ("vip", "ana", "gus", "gina", "sam", "bo")
    ] == [4, 3, 2, 2, 1, 1]


def test_what_is_no_tier_is_an_error_by_the_shortcut_too() -> None:
    """Not a silent lack of a limit; and nothing is counted."""
    found: list[Any] = [None, 5]
    limiter = Limiter([Rule("news", "2/day", tiers={"gold": "3/day"})], tier_of=lambda _: found.pop())
    with pytest.raises(TypeError, match="tier_of= returned a int"):
        limiter.hit("news", "ana")
    assert limiter.hit("news", "ana").remaining == 1
    found[:] = ["gold", 5]
    with pytest.raises(TypeError, match="tier_of= returned a int"):
        limiter.hit("news", "ana")

    assert limiter.hit("news", "ana").remaining == 1


@pytest.mark.parametrize(("number", "shortcuts"), [(64, ["news"]), (65, [])])
def test_tiers_without_end_make_no_shortcuts_without_end(number: int, shortcuts: list[str]) -> None:
    """The first decision must not wait for thousands of them. Each tier has its limit all the same."""
    tiers = {f"tier {each}": f"{each + 2}/day" for each in range(number)}
    limiter = Limiter([Rule("news", "1/day", tiers=tiers)], tier_of=lambda recipient: f"tier {recipient}")

    assert [limiter.hit("news", str(each)).remaining for each in range(number + 1)] == [*range(1, number + 1), 0]
    assert list(limiter.plans.shortcuts) == shortcuts


def test_a_change_of_the_rules_forgets_remembered_refusals(valkey: Any) -> None:
    """Also those of rules that stay: another one may refuse now."""
    rule = Rule("news", "1/day")
    with Limiter([rule], valkey.url, remember_refusals=True, timeout=5, namespace="forgotten") as limiter:
        assert [limiter.hit("news", "ana").allowed for _ in range(3)] == [True, False, False]
        assert len(limiter._refusals or ()) == 1
        limiter.rules = [rule, Rule("other", "1/day")]

        assert len(limiter._refusals or ()) == 0
        assert not limiter.hit("news", "ana")


# --- Rules that change -----------------------------------------------------------------------------------------------


def test_what_is_unchanged_is_taken_over() -> None:
    """Plans and shortcuts stay, of rules that are equal too, and of types whose other rules did not change."""

    def rules(amount: int, *more: Rule) -> list[Rule]:
        return [
            Rule("same", "3/day", overrides={"vip": "5/day"}, tiers={"gold": "9/day"}),
            Rule("changed", f"{amount}/day"),
            Rule("s*", "7/day", name="all with s"),
            *more,
        ]

    limiter = Limiter(rules(1), tier_of=lambda _: None)
    for type in ("same", "changed", "sent"):
        limiter.hit(type, "ana")
    before, shortcuts = (
        {type: limiter.plans.of(type) for type in ("same", "changed", "sent")},
        dict(limiter.plans.shortcuts),
    )
    limiter.rules = rules(2)

    assert limiter.plans._plans["same"] is before["same"]
    assert limiter.plans._plans["sent"] is before["sent"]
    assert limiter.plans._plans["changed"] is not before["changed"]
    assert {type for type in before if limiter.plans.shortcuts[type] is shortcuts[type]} == {"same", "sent"}
    limiter.rules = rules(2, Rule("se*", "2/day"))
    assert limiter.plans._plans["sent"] is not before["sent"]
    assert limiter.plans._plans["same"] is before["same"]
    assert limiter.hit("changed", "ana").allowed
    assert not limiter.hit("changed", "ana").allowed


def test_the_plans_of_types_in_use_are_made_before_the_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No decision after it has to make one."""
    limiter = Limiter({f"type {number}": "9/day" for number in range(50)})
    for number in range(50):
        limiter.hit(f"type {number}", "ana")
    limiter.rules = {"*": "5/day"}
    monkeypatch.setattr(books.Plans, "_make", lambda *_: pytest.fail("a plan is made"))

    assert all(limiter.hit(f"type {number}", "bo").remaining == 4 for number in range(50))


def test_a_type_that_becomes_unknown_is_an_error_from_then_on() -> None:
    """Its plan is not taken over where unknown types are an error, and it is where they are not."""
    limiter = Limiter({"news": "1/day", "status": "1/day"})
    limiter.hit("status", "ana")
    limiter.rules = RuleSet({"news": "1/day"}, unknown_type="raise")
    with pytest.raises(NotifyError, match="No rule matches"):
        limiter.hit("status", "ana")
    limiter.rules = RuleSet({"news": "1/day"}, default="2/day")

    assert limiter.hit("status", "bo").remaining == 1


@pytest.mark.parametrize("named", [True, False])
def test_a_type_that_only_caps_are_left_for_is_logged(named: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the first decision after the change; also if the type was unknown before, but never got to the log."""
    cap = Rule("*", "9/day", by="recipient")
    limiter = Limiter([Rule("news" if named else "status", "5/day"), cap])
    with contextlib.suppress(NotifyError):
        limiter.hit("news", "ana" if named else "")
    limiter.rules = [cap]
    assert "Only caps" not in caplog.text
    for _ in range(2):
        limiter.hit("news", "ana")

    assert caplog.text.count("Only caps over all types ('* by recipient') match notifications of type 'news'") == 1


def test_plans_that_two_threads_made_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a type is twice in the order in which plans are dropped, and must not leave room for one more."""
    monkeypatch.setattr(books, "MOST_TYPES", 5)
    limiter = Limiter({"*": "5/day"})
    for number in range(100):
        limiter.hit(f"type {number}", "ana")
        for _ in range(10 if number < 4 else 0):
            limiter.plans._keep(limiter.plans.of(f"type {number}"))

    assert len(limiter.plans._plans) == len(limiter.plans._order) == 5
    assert limiter.plans.shortcuts.keys() <= limiter.plans._plans.keys()


def test_replaced_rules_do_not_wait_for_the_collector() -> None:
    """Thousands of overrides are too much memory for that: nothing of the old rules refers to itself."""
    limiter = Limiter(
        [Rule("news", "1/day", overrides={"vip": "2/day"}, tiers={"gold": "3/day"})], tier_of=lambda _: None
    )
    limiter.hit("news", "vip")
    gc.collect()
    gc.disable()
    try:
        old = [weakref.ref(limiter.plans.shortcuts["news"])]
        limiter.rules = [Rule("news", "1/day", overrides={"vip": "3/day"})]
        limiter.hit("news", "vip")
        old.append(weakref.ref(limiter.plans.shortcuts["news"]))
        limiter.rules = {"news": "1/day"}
        assert [each() for each in old] == [None, None]
    finally:
        gc.enable()


def test_overrides_are_normalized_again_only_if_they_changed() -> None:
    """`normalize` is the user's code, and there may be 100,000 of them."""
    asked: list[str] = []

    def normalize(text: str) -> str:
        asked.append(text)
        return text.lower()

    def rules(amount: int) -> list[Rule]:
        overrides = {f"User{number}": "5/day" for number in range(100)}
        return [Rule("same", "1/day", overrides=overrides), Rule("other", "1/day", overrides={"Vip": f"{amount}/day"})]

    limiter = Limiter(rules(2), normalize=normalize)
    assert len(asked) == 101
    limiter.hit("same", "ana")
    limiter.rules = rules(3)

    assert asked[101:] == ["ana", "Vip"]
    assert limiter.hit("other", "VIP").remaining == 2


@pytest.mark.parametrize("limited", [Limiter, AsyncLimiter])
def test_a_decorator_that_declares_a_limit_checks_nothing_else(limited: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is made once, and neither rules nor limits of other decorators are looked at again."""
    limiter = limited(RuleSet([Rule(f"type {number}", "1/day", overrides={"vip": "2/day"}) for number in range(100)]))
    made: list[Any] = []
    init = indexing.TypeIndex.__init__
    monkeypatch.setattr(
        indexing.TypeIndex, "__init__", lambda index, patterns: made.append(patterns) or init(index, patterns)
    )
    named: list[str] = []
    names = RuleSet.names
    monkeypatch.setattr(RuleSet, "names", lambda rules, type: named.append(type) or names(rules, type))
    monkeypatch.setattr(RuleSet, "__init__", lambda *_, **__: pytest.fail("a rule set is made"))

    for number in range(30):
        limiter.declare(Rule(f"declared {number}", "1/day"))

    assert made == []
    assert named == [f"declared {number}" for number in range(30)]
    assert len(limiter.plans.of("declared 7").common.windows) == 1
    assert limiter.plans.number == 130


def test_a_decorator_that_declares_a_limit_leaves_other_types_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of types may be in use: their plans and shortcuts are taken over as they are."""
    limiter = Limiter({"*": "5/day"})
    for number in range(20):
        limiter.hit(f"type {number}", "ana")
    before, shortcuts = dict(limiter.plans._plans), dict(limiter.plans.shortcuts)
    missing = limiter.plans.shortcuts.pop("type 9")
    asked: list[str] = []
    find = indexing.TypeIndex.find
    monkeypatch.setattr(indexing.TypeIndex, "find", lambda index, type: asked.append(type) or find(index, type))
    limiter.declare(Rule("type 3", "1/day"))

    assert set(asked) == {"type 3"}
    assert {type for type, plan in limiter.plans._plans.items() if plan is not before[type]} == {"type 3"}
    assert {type for type, each in limiter.plans.shortcuts.items() if each is not shortcuts[type]} == {
        "type 3",
        "type 9",
    }
    assert limiter.plans.shortcuts["type 9"] is not missing
    assert sorted(limiter.plans._order) == sorted(before)
    assert [limiter.hit("type 3", "ana").allowed for _ in range(2)] == [True, False]


def test_old_rules_are_freed_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that other threads can run meanwhile. Nothing but the list has what is freed."""
    from ratelimited_notify.limiter import lookup

    class Part:
        pass

    parts: list[Any] = [Part() for _ in range(1200)]
    references = [weakref.ref(part) for part in parts]
    left: list[int] = []
    monkeypatch.setattr(disposal.time, "sleep", lambda _: left.append(sum(each() is not None for each in references)))
    disposal.let_go(parts)
    assert left == [700, 200, 0]

    monkeypatch.undo()
    limiter = Limiter([Rule("news", "1/day", overrides={"vip": "2/day"}), Rule("unused", "1/day")])
    limiter.hit("news", "ana")
    plan = weakref.ref(limiter.plans.shortcuts["news"])
    kept: list[Any] = []
    monkeypatch.setattr(lookup, "let_go", lambda parts: kept.append((parts, sys.getrefcount(parts[1]))))
    limiter.rules = {"news": "5/day"}

    # The list, and the argument.
    assert kept[0][1] <= 2
    assert plan() is not None
    kept.clear()
    assert plan() is None


def test_limits_of_decorators_and_rules_that_change() -> None:
    """A rule that names the type wins as long as it is there; a limit that cannot be combined keeps the old rules."""
    limiter = Limiter({"*": "9/day"})
    limiter.declare(Rule("news", "1/day"))
    assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, False]
    limiter.rules = {"n*": "3/day"}
    assert [limiter.hit("news", "ana").allowed for _ in range(4)] == [True, True, True, False]
    with pytest.raises(RuleError, match="has the same name"):
        limiter.rules = [Rule("other", "5/day", name="news")]
    assert limiter.hit("news", "bo").remaining == 2
    limiter.rules = {"other": "5/day"}
    assert not limiter.hit("news", "ana").allowed, "the window of the decorator is still there"
    limiter.declare(Rule("news", "5/day"))

    assert limiter.hit("news", "ana").remaining == 3


@pytest.mark.parametrize("changing", ["rules", "declare"])
def test_decisions_go_on_while_rules_change(changing: str) -> None:
    """Each obeys one set of rules or the other, whole; nothing is raised, and the counts are one."""
    rounds = itertools.count()
    limiter = Limiter({"news": "1000000/day", "status": "1000000/day"})
    sets = [[Rule("news", f"{amount}/day"), Rule("status", f"{amount}/day")] for amount in (10**6, 10**6 + 1)]
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            number = next(rounds)
            if changing == "rules":
                limiter.rules = sets[number % 2]
            else:
                limiter.declare(Rule(f"type {number % 7}", f"{number + 1}/day"))

    def send(_number: int) -> int:
        for number in range(2000):
            for type in ("news", "status"):
                decision = limiter.hit(type, "ana")
                assert decision.allowed
                assert len(decision.windows) == 1
                assert decision.windows[0].item.amount in (10**6, 10**6 + 1)
            if number % 10 == 0:
                limiter.hit(f"type {number % 70 // 10}", "ana")
        return 2000

    with switching_often(), ThreadPoolExecutor(4) as threads:
        swapping = threads.submit(swap)
        try:
            counted = sum(threads.map(send, range(3)))
        finally:
            stop.set()
        swapping.result()
        limiter.rules = sets[0]

    assert next(rounds) > 5
    assert counted == 10**6 - limiter.windows("news", "ana")[0].remaining == 6000
