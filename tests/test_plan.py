"""From rules to windows: which of them a notification falls into, in which mode, and under which keys."""

from __future__ import annotations

import pickle
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st
from limits import RateLimitItemPerDay

from ratelimited_notify import NotifyError, Rule, RuleError, RuleSet
from ratelimited_notify.notification.recipient import counting_as, text_of
from ratelimited_notify.rules import plans as planning
from ratelimited_notify.rules.counter import counted_by, keyed_item
from ratelimited_notify.rules.doubt import wrong_override, wrong_type
from ratelimited_notify.rules.plan import Subject
from ratelimited_notify.rules.plans import Plans
from ratelimited_notify.windows.strategies import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratelimited_notify.rules.counter import Counter


class Kind(str, Enum):  # noqa: UP042  # what StrEnum replaced: its str() is "Kind.NEWS"
    NEWS = "news"


def plans(*rules: Rule, counted_as: Callable[[Any], str] = text_of, **options: Any) -> Plans:
    """The plans of these rules."""
    return Plans(RuleSet(rules, **options), {}, "notify", counted_as)


def windows(
    made: Plans,
    type: str = "news",
    recipient: str = "ana",
    *,
    priority: str | None = None,
    tier: str | None = None,
    **fields: str,
) -> tuple[tuple[Counter, ...], list[str]]:
    """The windows and keys of one notification, without those of pauses."""
    found, keys = made.of(type).windows(Subject(type, recipient, fields), priority, tier)
    counting = [number for number, window in enumerate(found) if window.strategy != "pause"]
    return tuple(found[number] for number in counting), [keys[number] for number in counting]


def shown(found: tuple[tuple[Counter, ...], list[str]]) -> list[tuple[str, int, Mode]]:
    return [(window.rule, window.amount, window.mode) for window in found[0]]


ENFORCE, FORCE, SHADOW = Mode.ENFORCE, Mode.FORCE, Mode.SHADOW


def test_all_matching_rules_apply_in_their_order() -> None:
    """Each limit of each rule is a window."""
    made = plans(
        Rule("*", "20/day", by="recipient"), Rule("news", "1/hour; 5/day"), Rule("status", "2/minute"), Rule("n*", None)
    )

    assert shown(windows(made)) == [("* by recipient", 20, ENFORCE), ("news", 1, ENFORCE), ("news", 5, ENFORCE)]


def test_a_key_says_what_is_counted() -> None:
    """Namespace, recipient, rule, period and the rest of what the rule counts by; the amount is not in it."""
    made = plans(
        Rule("news", "1/day"),
        Rule("n*", "3/hour", by="recipient", strategy="fixed-window"),
        Rule("*", "14/second", by=(), strategy="sliding-window-counter"),
        Rule("*", "5/minute", by="type", name="per type"),
    )

    _, keys = windows(made)

    assert keys == [
        "notify:{ana}:news:86400:news:m",
        "notify:{ana}:n%2A%20by%20recipient:3600+recipient:f",
        "notify:{%2A%20by%20all}:%2A%20by%20all:1+:s",
        "notify:{per%20type%3Anews}:per%20type:60+type:news:m",
    ]


def test_an_item_says_what_its_windows_count_by() -> None:
    """An item of somebody else counts by nothing that is known."""
    (window, *_), _ = windows(plans(Rule("sms", "5/day", by=("recipient", "tenant"))), "sms", tenant="acme")

    assert counted_by(window.item) == ("recipient", "tenant")
    assert counted_by(RateLimitItemPerDay(1)) == ()


def test_windows_that_all_share_are_marked() -> None:
    """A storage may have to ask elsewhere for those that are not counted by recipient."""
    made = plans(Rule("news", "1/day"), Rule("news", "5/day", by=()), Rule("news", "6/day", by=("type", "tenant")))

    assert [window.shared for window in windows(made, tenant="acme")[0]] == [False, True, True]


def test_a_rule_that_can_be_paused_has_a_window_for_it() -> None:
    """It lies beside the rule's others, under their tag. A rule that counts by recipient has none."""
    made = plans(
        Rule("news", "1/day", exempt="low"),
        Rule("news", "5/day; 2/hour", by=(), exempt="low"),
        Rule("news", None, by=("type", "tenant"), name="tenants", enforce=False),
        Rule("news", "6/day", by=("type", "channel")),
    )
    found, keys = made.of("news").windows(Subject("news", "ana", {"tenant": "acme"}), "low", None)

    assert [(window.strategy, window.mode, window.shared) for window in found] == [
        ("moving-window", FORCE, False),
        ("moving-window", FORCE, True),
        ("moving-window", FORCE, True),
        ("pause", FORCE, True),
        ("pause", SHADOW, True),
    ]
    assert keys[1:] == [
        "notify:{news%20by%20all}:news%20by%20all:86400+:m",
        "notify:{news%20by%20all}:news%20by%20all:3600+:m",
        "notify:{news%20by%20all}:news%20by%20all:1+:p",
        "notify:{tenants%3Aacme%3Anews}:tenants:1+tenant+type:acme:news:p",
    ]
    assert [window.item.amount for window in found] == [1, 5, 2, 0, 0]


def test_a_rule_does_not_apply_without_its_fields() -> None:
    """What counts by a field is for notifications that have it."""
    made = plans(Rule("news", "1/day"), Rule("news", "5/day", by=("recipient", "tenant")))

    assert shown(windows(made)) == [("news", 1, ENFORCE)]
    assert len(windows(made, tenant="acme")[0]) == 2


@pytest.mark.parametrize(
    ("options", "asked", "expected"),
    [
        ({}, {}, [(5, ENFORCE)]),
        ({"enforce": False}, {}, [(5, SHADOW)]),
        ({"exempt": "critical"}, {}, [(5, ENFORCE)]),
        ({"exempt": "critical"}, {"priority": "low"}, [(5, ENFORCE)]),
        ({"exempt": "critical"}, {"priority": "critical"}, [(5, FORCE)]),
        ({"exempt": ("urgent", "critical")}, {"priority": "critical"}, [(5, FORCE)]),
        ({"exempt": "critical", "enforce": False}, {"priority": "critical"}, [(5, FORCE)]),
        ({"exempt": "critical", "count_exempt": False}, {"priority": "critical"}, []),
        ({"exempt": "critical", "count_exempt": False}, {}, [(5, ENFORCE)]),
        ({"overrides": {"ana": "50/day"}}, {}, [(50, ENFORCE)]),
        ({"overrides": {"bo": "50/day"}}, {}, [(5, ENFORCE)]),
        ({"overrides": {"ana": None}}, {}, []),
        ({"overrides": {"ana": "0/day"}}, {}, [(0, ENFORCE)]),
        ({"overrides": {"ana": "50/day; 9/hour"}}, {}, [(50, ENFORCE), (9, ENFORCE)]),
        ({"overrides": {"ana": "50/day"}, "enforce": False}, {}, [(50, SHADOW)]),
        ({"overrides": {"ana": "50/day"}, "exempt": "critical"}, {"priority": "critical"}, [(50, FORCE)]),
        ({"tiers": {"gold": "20/day"}}, {"tier": "gold"}, [(20, ENFORCE)]),
        ({"tiers": {"gold": "20/day"}}, {"tier": "silver"}, [(5, ENFORCE)]),
        ({"tiers": {"gold": "20/day"}}, {}, [(5, ENFORCE)]),
        ({"tiers": {"gold": None}}, {"tier": "gold"}, []),
        ({"tiers": {"gold": "20/day"}, "overrides": {"ana": "50/day"}}, {"tier": "gold"}, [(50, ENFORCE)]),
        ({"tiers": {"gold": "20/day"}, "by": "tenant"}, {"tier": "gold", "tenant": "acme"}, [(20, ENFORCE)]),
        ({"overrides": {"acme": "50/day"}, "by": "tenant"}, {"tenant": "acme"}, [(50, ENFORCE)]),
        ({"overrides": {"ana": "50/day"}, "by": "tenant"}, {"tenant": "acme"}, [(5, ENFORCE)]),
        ({"overrides": {"acme": "50/day"}, "by": ("type", "tenant")}, {"tenant": "acme"}, [(50, ENFORCE)]),
        ({"overrides": {"acme": "50/day"}, "by": "tenant"}, {}, []),
    ],
)
def test_what_a_rule_makes_of_a_notification(
    options: dict[str, Any], asked: dict[str, Any], expected: list[tuple[int, Mode]]
) -> None:
    """An override is before a tier, a tier before the rule's own limit, and a priority decides whether it can refuse."""
    made = plans(Rule("news", "5/day", **options))

    assert [shown_one[1:] for shown_one in shown(windows(made, **asked))] == expected


def test_an_override_keeps_the_key() -> None:
    """Raising somebody's limit forgets nothing of theirs."""
    plain, raised = plans(Rule("news", "5/day")), plans(Rule("news", "5/day", overrides={"ana": "50/day"}))

    assert windows(plain)[1] == windows(raised)[1]


def test_overrides_are_looked_up_as_recipients_are_counted() -> None:
    """Written in one spelling, they are for all spellings; under pseudonyms too."""
    counted_as = counting_as("email", b"secret")
    made = plans(Rule("news", "5/day", overrides={"Ana@Example.com": "50/day"}), counted_as=counted_as)

    assert shown(windows(made, recipient=counted_as("ana@example.com"))) == [("news", 50, ENFORCE)]
    assert shown(windows(made, recipient=counted_as("bo@example.com"))) == [("news", 5, ENFORCE)]


def test_two_overrides_for_one_recipient_are_an_error_with_its_place() -> None:
    """Which of the two counted would be chance, so they are told apart before anything is sent."""
    rules = [
        Rule("status", "1/day"),
        Rule(
            "news",
            "5/day",
            overrides={"ana@x.com": "9/day", "Ana@X.com": "8/day", "bo@x.com": "1/day", "ANA@x.com": None},
        ),
        Rule("mail", "5/day", overrides={" ": "9/day"}),
    ]

    with pytest.raises(RuleError) as caught:
        plans(*rules, counted_as=counting_as("email", None))

    assert [str(problem) for problem in caught.value.problems] == [
        "rules[1].overrides[1]: is a second override for the same recipient, after normalization.",
        "rules[1].overrides[3]: is a second override for the same recipient, after normalization.",
        "rules[2].overrides[0]: normalize= returned an empty string; it must return a string that identifies the recipient.",
    ]


def test_what_normalize_raises_at_an_override_is_named_without_the_address() -> None:
    """The user's function may quote the address; the error tells its kind, and the place."""
    counted_as = counting_as(lambda text: text[text.index("@") :], None)

    with pytest.raises(RuleError) as caught:
        plans(Rule("news", "5/day", overrides={"ana": "9/day"}), counted_as=counted_as)

    assert str(caught.value) == "rules[0].overrides[0]: normalize= raised ValueError."


def test_equal_limits_of_many_overrides_are_kept_once() -> None:
    """Ten thousand recipients with one limit cost ten thousand names, not ten thousand windows."""
    made = plans(Rule("news", "5/day", overrides={f"{number}@x.com": "50/day" for number in range(1000)}))

    assert len({id(windows(made, recipient=f"{number}@x.com")[0][0]) for number in range(1000)}) == 1


def test_the_quick_way_and_the_long_way_are_one() -> None:
    """What is worked out beforehand gives the windows and keys that the rules give step by step."""
    rules = [
        Rule("news", "1/hour; 5/day", exempt="critical"),
        Rule("*", "20/day", by="recipient", strategy="fixed-window"),
        Rule("n*", "9/minute", by=(), strategy="sliding-window-counter"),
        Rule("n*", "8/month", by="type", name="{recipient}"),
        Rule("n*", "8/year", by=("recipient", "type"), name="x" * 200),
    ]
    quick = plans(*rules)
    # A rule that has a tier and never applies: with it, nothing is constant.
    long = plans(*rules, Rule("news", None, by="channel", tiers={"gold": None}))

    for recipient in ("ana", "{recipient}", "a b:{c}/d\n", "x" * 10_000, "\ud800", "{", "}"):
        assert (
            quick.of("news").windows(Subject("news", recipient, {}), None, None)[1]
            == (long.of("news").windows(Subject("news", recipient, {}), None, None)[1])
        )
        assert len(windows(quick, recipient=recipient, priority="critical")[0]) == 6


def test_plans_are_made_once_per_type() -> None:
    """A type that was met before costs a look."""
    made = plans(Rule("news", "1/day"))

    assert made.of("news") is made.of("news")


def test_a_type_of_another_class_is_the_text_that_it_holds() -> None:
    """A member of a str enumeration and its value are one type in every process, whichever came first."""
    first, second = plans(Rule("n*", "1/day")), plans(Rule("n*", "1/day"))

    assert first.of(Kind.NEWS) is first.of("news")
    assert second.of("news") is second.of(Kind.NEWS)
    assert type(first.of(Kind.NEWS).type) is str
    assert windows(first)[1] == windows(second)[1]


def test_plans_do_not_grow_with_types_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types that come from outside cannot fill the memory."""
    monkeypatch.setattr(planning, "MOST_TYPES", 10)
    made = plans(Rule("*", "1/day"))
    for number in range(100):
        made.of(f"type {number}")

    assert len(made._plans) <= 10


@pytest.mark.parametrize("type", [None, 5, b"news", ["news"], {}])
def test_a_type_is_a_text(type: Any) -> None:
    """Another thing is a TypeError that says what a type is, hashable or not."""
    with pytest.raises(TypeError, match=r"The type of a notification must be a string such as 'news', not "):
        plans(Rule("*", "1/day")).of(type)


def test_an_empty_type_is_refused() -> None:
    """It is a mistake, though a glob would match it."""
    with pytest.raises(NotifyError, match="The type of a notification is empty"):
        plans(Rule("*", "1/day")).of("")


def test_unknown_types_can_be_an_error() -> None:
    """A cap does not make a type known; any other match does."""
    made = plans(Rule("news", "1/day"), Rule("*", "20/day", by="recipient"), unknown_type="raise")

    assert made.of("news").known
    with pytest.raises(
        NotifyError,
        match=r"^Only caps over all types \('\* by recipient'\) match notifications of type 'other'.*Add a rule or a default",
    ):
        made.of("other")
    with pytest.raises(NotifyError, match=r"^No rule matches notifications of type 'other'.*Add a rule or a default"):
        plans(Rule("news", "1/day"), unknown_type="raise").of("other")
    assert plans(Rule("*", "5/day"), unknown_type="raise").of("other").known


def test_unknown_types_can_have_a_default() -> None:
    """Each of them gets a window of its own, beside the rules for `*`."""
    made = plans(Rule("*", "20/day", by="recipient"), default="5/hour")

    assert made.of("other").known
    assert shown(windows(made, "other")) == [("* by recipient", 20, ENFORCE), ("default", 5, ENFORCE)]
    assert windows(made, "other")[1] != windows(made, "another")[1]
    assert not plans(Rule("*", "20/day", by="recipient")).of("other").known


def test_fields_are_checked_and_read_as_text() -> None:
    """What is None is not set; numbers and UUIDs are taken as recipients are."""
    made = plans(Rule("login", "5/hour", by="ip"), fields=["ip"])

    assert made.fields({"tenant": 5, "ip": "::1", "channel": None}) == {"tenant": "5", "ip": "::1"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ip", ""),
        ("type", ""),
        ("recipient", ""),
        ("Tenant", " Is it meant to be tenant?"),
        ("tennant", " Is it meant to be tenant?"),
        ("dedup_key", " Is it meant to be dedupe_key?"),
    ],
)
def test_an_undeclared_field_of_a_call_is_an_error(name: str, meant: str) -> None:
    """A misspelt field would count in no window: the message names those that there are, and how to declare it."""
    with pytest.raises(NotifyError) as caught:
        plans(Rule("news", "1/day")).fields({name: "x"})

    assert str(caught.value) == (
        f"'{name}' is not a field of a notification; use channel, dedupe_key, tenant, "
        f'or declare it: fields = ["{name}"] in the rules file, or RuleSet(rules, fields=["{name}"]).{meant}'
    )


def test_a_field_that_is_no_name_is_not_shown() -> None:
    """Mixed up with its value it may be an address."""
    with pytest.raises(NotifyError) as caught:
        plans(Rule("news", "1/day")).fields({"ana@example.com": "x"})

    assert str(caught.value) == (
        "The name of a field cannot be declared; use channel, dedupe_key, tenant, or a name that is valid as a Python argument."
    )


def test_an_undeclared_field_is_an_error_even_when_it_is_none() -> None:
    """The misspelling is there whether or not it has a value today."""
    with pytest.raises(NotifyError, match="is not a field"):
        plans(Rule("news", "1/day")).fields({"tennant": None})


def test_a_field_that_is_no_text_is_a_type_error() -> None:
    """The message names the field."""
    with pytest.raises(TypeError, match="The tenant is a float"):
        plans(Rule("news", "1/day")).fields({"tenant": 1.5})


def test_an_item_knows_its_key() -> None:
    """The identifiers are the values of `by`, in its order; bytes and numbers are taken as `limits` does."""
    item = keyed_item(RateLimitItemPerDay(5), "notify", "news", ("tenant", "recipient"), "fixed-window")

    assert item.key_for("acme", "ana") == "notify:{ana}:news:86400+recipient+tenant:acme:f"
    assert item.key_for(b"acme", 5) == "notify:{5}:news:86400+recipient+tenant:acme:f"
    assert item == RateLimitItemPerDay(5)
    assert str(item) == "5 per 1 day"


def test_an_item_survives_pickling() -> None:
    """It goes with a decision to other processes, key and all."""
    item = keyed_item(RateLimitItemPerDay(5, 2), "notify", "news", ("recipient",), "moving-window")
    copy = pickle.loads(pickle.dumps(item))

    assert (copy, hash(copy), copy.key_for("ana")) == (item, hash(item), item.key_for("ana"))


names = st.text(st.characters(), min_size=1, max_size=20).filter(
    lambda name: wrong_type(name) is None and not wrong_override(name)
)
limits = st.sampled_from([None, "0/day", "1/day", "3/hour; 10/day", "1 per 3 months"])
fields = st.lists(st.sampled_from(["type", "recipient", "channel", "tenant", "dedupe_key", "ip"]), unique=True)
any_rules = st.builds(
    Rule,
    type=st.one_of(names, st.sampled_from(["*", "n*", "news", "[a-"])),
    limit=limits,
    by=fields.map(lambda by: ["recipient", *[field for field in by if field != "recipient"]]),
    strategy=st.sampled_from(["moving-window", "fixed-window", "sliding-window-counter"]),
    overrides=st.dictionaries(names, limits, max_size=2),
    tiers=st.dictionaries(names, limits, max_size=2),
    exempt=st.lists(names, max_size=2),
    count_exempt=st.booleans(),
    enforce=st.booleans(),
    required=fields,
) | st.builds(Rule, type=names, limit=limits, by=fields)


@given(
    st.lists(any_rules, max_size=4),
    st.sampled_from([None, "5/hour"]),
    names,
    names,
    st.one_of(st.none(), names),
    st.dictionaries(st.sampled_from(["channel", "tenant", "dedupe_key", "ip"]), names),
)
def test_every_rule_set_that_is_accepted_makes_windows_of_any_notification(
    rules: list[Rule], default: str | None, type: str, recipient: str, name: str | None, given_fields: dict[str, str]
) -> None:
    """No set of rules fails later, at a type or a recipient that nobody thought of; and no two windows have one key."""
    try:
        accepted = RuleSet(rules, fields=["ip"], default=default)
    except RuleError:
        return
    made = Plans(accepted, {}, "notify", text_of)

    found, keys = made.of(type).windows(Subject(type, recipient, made.fields(given_fields)), name, name)

    # Rules with one name and the same fields have one pause.
    counting = [key for window, key in zip(found, keys, strict=True) if window.strategy != "pause"]
    assert len(counting) == len(set(counting))
    assert all(len(key) <= 200 and key.isascii() and key.isprintable() and " " not in key for key in keys)
