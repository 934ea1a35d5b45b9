"""How a limiter is made: its options, its storage, its off switch, and rules that are exchanged while it runs."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from limits.aio.storage import MemoryStorage as AsyncEngineStorage
from limits.storage import SCHEMES, MemoryStorage as EngineStorage

from limiting import LIMITERS, SECOND, Clock, DrivenLimiter
from outcomes import CANARY
from ratelimited_notify import (
    AsyncLimiter,
    Limiter,
    Notification,
    NotifyError,
    Rule,
    RuleError,
    RuleSet,
    StorageError,
    rate_limited,
)
from ratelimited_notify.limiter.switch import VARIABLE, switch
from ratelimited_notify.sources import FunctionRules
from ratelimited_notify.storage import open_async_storage, open_storage
from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHO = "ana@example.com"
STRATEGIES = ("moving-window", "fixed-window", "sliding-window-counter")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=list(LIMITERS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(kind: str) -> Iterator[Callable[..., Any]]:
    """Make a limiter, sync or async; it is closed when the test is over."""
    made: list[Any] = []

    def one(*arguments: Any, **options: Any) -> Any:
        made.append(LIMITERS[kind](*arguments, **options))
        return made[-1]

    yield one
    for limiter in made:
        limiter.close()


@pytest.fixture(autouse=True)
def _fresh_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(switch, "_said", False)
    monkeypatch.setattr(switch, "off", False)


def keys(limiter: Any) -> list[str]:
    """The keys of what is stored."""
    return list(getattr(limiter.storage, "windows", limiter.storage).shards)


# What cannot be used.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"namespace": ""}, "namespace= must be 1 to 32 letters, digits"),
        ({"namespace": "a b"}, "namespace= must be"),
        ({"namespace": "a:b"}, "namespace= must be"),
        ({"namespace": "x" * 33}, "namespace= must be"),
        ({"namespace": None}, "namespace= must be"),
        ({"on_storage_error": "ignore"}, "on_storage_error='ignore' is unknown; use 'raise', 'allow' or 'deny'"),
        ({"on_storage_error": "memory"}, "use 'raise', 'allow' or 'deny', or another storage, such as 'memory://'"),
        ({"on_storage_error": None}, "on_storage_error=<NoneType> is unknown"),
        ({"on_storage_error": "no://where"}, "limits cannot open no://"),
        ({"on_storage_error": "memory://", "insurance_share": 0}, "insurance_share= must be the number of processes"),
        (
            {"on_storage_error": "memory://", "insurance_share": True},
            "insurance_share= must be the number of processes",
        ),
        ({"on_storage_error": "memory://", "insurance_share": 2.0}, "insurance_share= must be the number of processes"),
        ({"on_storage_error": "deny", "insurance_share": 2}, "insurance_share= divides the amounts of an insurance"),
        ({"timeout": 0}, "timeout= must be a number of seconds above 0 and below 3600"),
        ({"timeout": -1}, "timeout= must be"),
        ({"timeout": 3600}, "timeout= must be"),
        ({"timeout": float("nan")}, "timeout= must be"),
        ({"timeout": float("inf")}, "timeout= must be"),
        ({"timeout": True}, "timeout= must be"),
        ({"timeout": "0.5"}, "timeout= must be"),
        ({"timeout": None}, "timeout= must be"),
        ({"clock": 5}, "clock= must be a callable or None, not a int"),
        ({"tier_of": "gold"}, "tier_of= must be a callable or None, not a str"),
        ({"normalize": "e-mail"}, "normalize='e-mail' is not known"),
        ({"pseudonymize": "secret"}, "pseudonymize= must be a secret of 1 to 64 bytes"),
        ({"enabled": None}, "enabled= must be True or False, not a NoneType"),
        ({"enabled": "no"}, "enabled= must be True or False, not a str"),
    ],
)
def test_an_option_that_cannot_be_used_is_an_error(make: Any, options: dict[str, Any], said: str) -> None:
    """At construction, with what can be used instead."""
    with pytest.raises(NotifyError) as caught:
        make({"news": "1/day"}, **options)

    assert said in str(caught.value)


def test_rules_that_cannot_be_used_are_an_error(make: Any) -> None:
    """At construction, each problem with its place."""
    with pytest.raises(RuleError, match=r"rules\['news'\]\.limit: 'often' is not a limit"):
        make({"news": "often"})
    with pytest.raises(
        RuleError, match=r"rules\[0\]\.overrides\[1\]: is a second override for the same recipient, after normalization"
    ):
        make([Rule("news", "1/day", overrides={"a@x.com": "2/day", "A@x.com": "3/day"})], normalize="email")


# Namespace, recipients.


def test_a_namespace_begins_every_key(make: Any) -> None:
    """Applications that share a server do not share windows."""
    one, other = make({"news": "1/day"}), make({"news": "1/day"}, namespace="shop.eu-1")
    one.hit("news", WHO)
    other.hit("news", WHO)

    assert keys(one) == ["notify:{ana@example.com}:news:86400:news:m"]
    assert keys(other) == ["shop.eu-1:{ana@example.com}:news:86400:news:m"]
    sharing = make({"news": "1/day"}, other.storage)
    assert sharing.hit("news", WHO)


def test_normalize_makes_spellings_one(make: Any) -> None:
    """The decision keeps what the caller gave: the gateway is to get that."""
    limiter = make({"news": "1/day"}, normalize="email")

    assert limiter.hit("news", "Ana@Example.com ").recipient == "Ana@Example.com "
    assert not limiter.hit("news", WHO)
    assert make({"news": "1/day"}).hit("news", WHO.upper())


def test_normalize_may_be_a_callable(make: Any) -> None:
    """Any function from text to text."""
    limiter = make({"sms": "1/day"}, normalize=lambda number: number.removeprefix("00").removeprefix("+"))

    assert limiter.hit("sms", "+49 170")
    assert not limiter.hit("sms", "0049 170")


def test_pseudonyms_keep_addresses_out_of_the_storage(make: Any) -> None:
    """No key holds an address, whatever a rule counts by, and everything that depends on the recipient still works."""
    rules = [
        Rule("news", "1/hour; 5/day", overrides={"VIP@example.com": "50/day"}, tiers={"gold": "20/day"}),
        Rule("*", "9/day", by="recipient", strategy="fixed-window", exempt="critical"),
        Rule("*", "99/day", by=("recipient", "tenant"), strategy="sliding-window-counter"),
        Rule("*", "99/day", by=()),
    ]
    limiter = make(
        rules, normalize="email", pseudonymize=b"secret", tier_of=lambda one: "gold" if "gold" in str(one) else None
    )

    for recipient in (WHO, "vip@example.com", "gold@example.com", 5):
        limiter.hit("news", recipient, tenant="acme", priority="critical")
    stored = " ".join(keys(limiter))

    assert not [name for name in ("ana", "vip", "gold", "example", "{5}", "@") if name in stored]
    first = [
        limiter.windows("news", one)[0].remaining for one in ("ANA@example.com", "vip@example.com", "gold@example.com")
    ]
    assert first == [0, 49, 19]
    assert limiter.clear("news", WHO) == 3


def test_pseudonyms_depend_on_the_secret(make: Any) -> None:
    """Who does not know the secret cannot look an address up."""
    stored = []
    for secret in (b"secret", b"another", b"secret"):
        limiter = make({"news": "1/day"}, pseudonymize=secret)
        limiter.hit("news", WHO)
        stored += keys(limiter)

    assert stored[0] == stored[2] != stored[1]


def test_the_windows_of_a_pseudonym_can_be_asked_by_limits(make: Any) -> None:
    """The identifiers of a window are what it is counted by, not the address."""
    limiter = make({"news": "1/day"}, pseudonymize=b"secret")
    state = limiter.hit("news", WHO).windows[0]

    assert WHO not in state.identifiers
    assert state.item.key_for(*state.identifiers) == keys(limiter)[0]


# The off switch.


def test_enabled_false_sends_everything(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is checked, opened or counted, and the log says so, once."""
    limiter = make({"news": "0/day"}, "redis://nowhere.invalid:1", enabled=False)

    assert limiter.hit("news", WHO)
    assert limiter.hit("news", WHO, cost=5, priority="x", tenant="y").windows == ()
    assert limiter.test("news", WHO)
    assert [bool(one) for one in limiter.hit_many("news", ["a", "b"])] == [True, True]
    assert limiter.windows("news", WHO) == ()
    assert limiter.clear("news", WHO) == 0
    assert limiter.release(limiter.hit("news", WHO)) is False
    from ratelimited_notify import Notification

    assert [bool(one) for one in limiter.decide([Notification("news", WHO), Notification("news", None)])] == [
        True,
        True,
    ]
    with limiter.reserve("news", WHO) as decision:
        assert decision
    assert limiter._storage is None
    assert [record.getMessage() for record in caplog.records] == [
        "Rate limiting of notifications is switched off: everything is sent, nothing is counted."
    ]


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_the_environment_switches_off(make: Any, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As enabled=False does, for every limiter that is made."""
    monkeypatch.setenv(VARIABLE, value)
    limiter = make({"news": "0/day"}, "redis://nowhere.invalid:1")

    assert limiter.hit("news", WHO)
    assert limiter._storage is None


@pytest.mark.parametrize("value", ["", "0", "false", "No", "off "])
def test_the_environment_may_say_no(make: Any, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set to no, or to nothing, it changes nothing."""
    monkeypatch.setenv(VARIABLE, value)

    assert not make({"news": "0/day"}).hit("news", WHO)


@pytest.mark.parametrize("value", ["2", "disabled", "nope"])
def test_the_environment_must_say_yes_or_no(make: Any, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo would otherwise switch limiting off, or on, unnoticed."""
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(NotifyError) as caught:
        make({"news": "1/day"})

    assert str(caught.value) == f"{VARIABLE} has a value that means neither yes nor no; use 1 or 0."


def test_the_switch_of_the_process_goes_before_every_limiter(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is off, everything is sent; then the windows are as they were."""
    limiter = make({"news": "1/day"})
    limiter.hit("news", WHO)

    monkeypatch.setattr(switch, "off", True)
    assert all(limiter.hit("news", WHO) for _ in range(5))
    monkeypatch.setattr(switch, "off", False)
    assert not limiter.hit("news", WHO)


def test_switched_off_rules_are_not_refreshed() -> None:
    """Nobody is asked for rules that nobody goes by."""
    asked: list[str | None] = []
    limiter = AsyncLimiter(FunctionRules(asked.append), enabled=False)

    assert asyncio.run(limiter.refresh_rules()) is False
    assert asked == []


def test_a_storage_is_opened_when_it_is_asked_for_all_the_same(make: Any) -> None:
    """With the switch off it can still be looked at."""
    limiter = make({"news": "1/day"}, enabled=False)

    assert limiter.storage is limiter.storage


# Types that no rule is for.


ALONE = "so they are sent without a limit of their own. Add a rule or a default."


@pytest.mark.parametrize(
    ("rules", "asked", "said"),
    [
        ([Rule("news", "1/day")], {}, f"No rule matches notifications of type 'other', {ALONE}"),
        ([], {}, f"No rule matches notifications of type 'other', {ALONE}"),
        (
            [Rule("*", "3/day", by="recipient"), Rule("*", "9/day; 5/hour", by=(), name="all")],
            {},
            f"Only caps over all types ('* by recipient', 'all') match notifications of type 'other', {ALONE}",
        ),
        (
            [Rule("*", "3/day", by="tenant"), Rule("*", "9/day", by=(), name="all")],
            {},
            f"Only caps over all types ('all') match notifications of type 'other', {ALONE}",
        ),
        (
            [Rule("*", "3/day", by="tenant")],
            {"tenant": "acme"},
            f"Only caps over all types ('* by tenant') match notifications of type 'other', {ALONE}",
        ),
        ([Rule("*", "3/day", by="tenant")], {}, f"No rule matches notifications of type 'other', {ALONE}"),
        ([Rule("*", "3/day", by=(), enforce=False)], {}, f"No rule matches notifications of type 'other', {ALONE}"),
        ([Rule("*", None, by="recipient")], {}, f"No rule matches notifications of type 'other', {ALONE}"),
        ([Rule("*", "3/day")], {}, None),
        ([Rule("*", None)], {}, None),
        ([Rule("**", "3/day", by="recipient")], {}, None),
        ([Rule("o*", "3/day", by="recipient")], {}, None),
    ],
)  # fmt: skip
def test_what_is_logged_of_an_unknown_type_is_true(
    make: Any, caplog: pytest.LogCaptureFixture, rules: Any, asked: dict[str, str], said: str | None
) -> None:
    """It names the caps that limit this notification, if there are any; a rule for every type leaves nothing to say."""
    limiter = make(rules)
    limiter.hit("other", WHO, **asked)

    assert [record.getMessage() for record in caplog.records] == ([] if said is None else [said])


def test_unknown_types_are_sent_and_logged_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One line a type, with the frequency cap in force."""
    limiter = make([Rule("news", "1/day"), Rule("*", "3/day", by="recipient")])

    assert [bool(limiter.hit(type, WHO)) for type in ("other", "other", "more", "news")] == [True, True, True, False]
    assert [record.getMessage() for record in caplog.records] == [
        f"Only caps over all types ('* by recipient') match notifications of type 'other', {ALONE}",
        f"Only caps over all types ('* by recipient') match notifications of type 'more', {ALONE}",
    ]
    assert [(record.name, record.levelno) for record in caplog.records] == [("ratelimited_notify", logging.WARNING)] * 2


@pytest.mark.parametrize("rules", [[], [Rule("*", "99/day", by="recipient")]], ids=["no rule", "a cap"])
def test_an_unknown_type_is_logged_once_whichever_way_it_takes(
    make: Any, rules: list[Rule], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where no shortcut is taken: with a cost, a priority or a field, by id, in a test, in batches, for windows."""
    from ratelimited_notify import Notification

    for number, ask in enumerate(
        [
            lambda limiter: limiter.hit("other", WHO, cost=2),
            lambda limiter: limiter.hit("other", WHO, priority="high"),
            lambda limiter: limiter.hit("other", WHO, tenant="acme"),
            lambda limiter: limiter.hit("other", 5),
            lambda limiter: limiter.test("other", WHO),
            lambda limiter: limiter.hit_many("other", [WHO, "bo", "cy"]),
            lambda limiter: limiter.decide([Notification("other", WHO), Notification("other", "bo", cost=2)]),
            lambda limiter: limiter.windows("other", WHO),
        ]
    ):
        limiter = make(rules)
        caplog.clear()
        for _ in range(3):
            ask(limiter)

        assert [str(record.args[-1]) for record in caplog.records] == [repr("other")], number


def test_a_rule_for_every_type_knows_every_type(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each type has a window of its own, and nothing is unknown: neither in the log nor as an error."""
    limiter = make(RuleSet([Rule("*", "1/day")], unknown_type="raise"))

    assert [bool(limiter.hit(type, WHO)) for type in ("other", "other", "more")] == [True, False, True]
    assert caplog.records == []


# Fields that a rule requires.

MISSING = (
    "A notification of type 'sms' has no tenant, but the rule 'sms by tenant' requires it. "
    "Set this field on every notification of this type: "
    "write notifier.bind(tenant=...).send(...), limiter.hit(..., tenant=...), or fields={'tenant': ...} on a decorator."
)


@pytest.mark.parametrize("fields", [{}, {"tenant": None}, {"channel": "x"}])
def test_a_required_field_that_is_missing_is_an_error(make: Any, fields: dict[str, Any]) -> None:
    """With every verb, in batches and alone, absent or None: nothing is unlimited because of it, and nothing is counted."""
    limiter = make(
        [Rule("sms", "2/day", by="tenant", required="tenant"), Rule("*", "9/day", by="recipient", name="cap")]
    )
    for attempt in (
        lambda: limiter.hit("sms", WHO, **fields),
        lambda: limiter.hit("sms", WHO, priority="critical", cost=2, **fields),
        lambda: limiter.test("sms", WHO, **fields),
        lambda: limiter.hit_many("sms", [WHO, "bo"], **fields),
        lambda: limiter.windows("sms", WHO, **fields),
        lambda: limiter.clear("sms", WHO, **fields),
    ):
        with pytest.raises(NotifyError) as caught:
            attempt()
        assert str(caught.value) == MISSING
    decided = limiter.decide([Notification("sms", WHO, fields=fields), Notification("sms", "bo", fields=fields)])
    assert list(map(str, decided)) == [MISSING, MISSING]
    mixed = limiter.decide([Notification("sms", WHO), Notification("sms", WHO, fields={"tenant": "acme"})])
    assert (str(mixed[0]), bool(mixed[1])) == (MISSING, True)

    assert [bool(limiter.hit("sms", WHO, tenant="acme")) for _ in range(2)] == [True, False]
    assert limiter.windows("news", WHO)[0].remaining == 7
    assert limiter.hit("news", WHO)


@pytest.mark.parametrize(
    "rule", [Rule("sms", "2/day", required="tenant"), Rule("*", None, required=["type", "tenant", "recipient"])]
)
def test_a_field_can_be_required_that_a_rule_does_not_count_by(make: Any, rule: Rule) -> None:
    """The same error where the windows depend on nothing but type and recipient, again and again: no shortcut passes it by."""
    limiter = make([rule, Rule("sms", "5/hour", name="other")])
    for _ in range(3):
        with pytest.raises(
            NotifyError, match=r"^A notification of type 'sms' has no tenant, but the rule '.*' requires it\."
        ):
            limiter.hit("sms", WHO)
    assert limiter.hit("sms", WHO, tenant="acme")


def test_a_required_field_in_shadow_mode_is_only_logged(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The rule refuses nothing yet, and says once what it would refuse."""
    limiter = make([Rule("sms", "2/day", by="tenant", required="tenant", enforce=False)])

    assert [bool(limiter.hit("sms", WHO)) for _ in range(3)] == [True] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "A notification of type 'sms' has no tenant. The rule 'sms by tenant' requires it, but is in shadow mode."
    ]


@pytest.mark.parametrize("on_storage_error", ["raise", "allow", "deny"])
def test_a_required_field_is_checked_before_the_storage_is_asked(make: Any, on_storage_error: Any) -> None:
    """A broken storage makes no difference; with limiting off nothing is checked."""
    rules = [Rule("sms", "2/day", required="tenant")]
    with pytest.raises(NotifyError) as caught:
        make(rules, "redis://127.0.0.1:1", clock=None, on_storage_error=on_storage_error).hit("sms", WHO)
    assert "has no tenant" in str(caught.value)

    assert make(rules, enabled=False).hit("sms", WHO)


def test_unknown_types_are_logged_within_bounds(
    make: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types that come from outside fill neither the log nor the memory."""
    monkeypatch.setattr("ratelimited_notify.limiter.lookup._MOST_LOGGED", 10)
    limiter = make({"news": "1/day"})
    for number in range(30):
        limiter.hit(f"type {number}", WHO)

    assert len(caplog.records) == 10
    assert len(limiter._logged) == 10


def test_unknown_types_may_be_limited_or_refused(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By a default, each by itself, without a word in the log; or by an error."""
    limiter = make(RuleSet({"news": "1/day"}, default="1/hour"))
    assert [bool(limiter.hit(type, WHO)) for type in ("other", "other", "more")] == [True, False, True]
    assert caplog.records == []

    with pytest.raises(NotifyError, match="No rule matches notifications of type 'other'"):
        make(RuleSet({"news": "1/day"}, unknown_type="raise")).hit("other", WHO)


# Rules that are exchanged.


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_raising_a_limit_in_mid_window_allows_exactly_what_it_adds(make: Any, strategy: Any, clock: Clock) -> None:
    """2/minute to 3/minute: one more; lowered and raised again forgets nothing."""
    limiter = make([Rule("status", "2/minute", strategy=strategy)], clock=clock)

    def sent() -> int:
        return sum(bool(limiter.hit("status", WHO)) for _ in range(9))

    assert sent() == 2
    clock.advance(10 * SECOND)
    limiter.rules = [Rule("status", "3/minute", strategy=strategy)]
    assert sent() == 1
    limiter.rules = [Rule("status", "1/minute", strategy=strategy)]
    assert sent() == 0
    assert limiter.windows("status", WHO)[0].remaining == 0
    limiter.rules = [Rule("status", "3/minute", strategy=strategy)]
    assert sent() == 0
    limiter.rules = {"other": "1/day"}
    limiter.rules = [Rule("status", "4/minute", strategy=strategy)]
    assert sent() == 1


def test_a_lowered_moving_window_waits_for_the_lowered_limit(make: Any, clock: Clock) -> None:
    """Lowering recalls nothing: what is over the new limit goes out of the window as its hits do."""
    limiter = make({"news": "3/hour"}, clock=clock)
    for _ in range(3):
        limiter.hit("news", WHO)
        clock.advance(60 * SECOND)
    limiter.rules = {"news": "1/hour"}
    decision = limiter.hit("news", WHO)

    assert decision.retry_after == 3600 - 60
    clock.advance((3600 - 60) * SECOND - 1)
    assert not limiter.hit("news", WHO)
    clock.advance(1)
    assert limiter.hit("news", WHO)


def test_rules_that_cannot_be_used_leave_the_old_ones_in_force(make: Any) -> None:
    """A bad edit is an error for who made it, and changes nothing for those who send."""
    limiter = make({"news": "1/day"}, normalize="email")
    before = limiter.rules
    limiter.hit("news", WHO)

    for bad in (
        {"news": "often"},
        5,
        "/nowhere/rules.toml",
        [Rule("news", "9/day", overrides={"a@x.com": "2/day", "A@x.com": "3/day"})],
    ):
        with pytest.raises(RuleError):
            limiter.rules = bad
        assert limiter.rules is before
        assert not limiter.hit("news", WHO)


def test_new_rules_hold_from_the_next_decision(make: Any) -> None:
    """Rules, fields and defaults, all of them; None is no rules."""
    limiter = make({"news": "1/day"})
    limiter.hit("news", WHO)
    limiter.rules = RuleSet([Rule("news", "1/day", by="ip")], fields=["ip"], default="1/day")

    assert limiter.hit("news", WHO, ip="::1").windows[0].rule == "news by ip"
    assert limiter.hit("other", WHO).windows[0].rule == "default"
    limiter.rules = None
    assert limiter.rules == RuleSet()
    assert limiter.hit("news", WHO).windows == ()


def test_a_changed_strategy_counts_anew(make: Any) -> None:
    """The old counters are of another kind; they are not read as what they are not."""
    limiter = make({"news": "1/day"})
    limiter.hit("news", WHO)
    for strategy in STRATEGIES[1:]:
        limiter.rules = [Rule("news", "1/day", strategy=strategy)]
        assert limiter.hit("news", WHO)
        assert not limiter.hit("news", WHO)


def test_a_worn_rule_stands_in_where_no_rule_is_for_its_type(make: Any) -> None:
    """The limit on a decorator holds until a configured rule is for the type, and again when that one goes."""
    limiter = make([Rule("*", "9/day", by="recipient")])
    limiter.declare(Rule("news", "1/day"))

    def limits() -> list[str]:
        return [str(state.item) for state in limiter.windows("news", WHO)]

    assert limits() == ["9 per 1 day", "1 per 1 day"]
    limiter.declare(Rule("news", "2/day"))
    assert limits() == ["9 per 1 day", "2 per 1 day"]
    limiter.rules = {"news": "5/day"}
    assert limits() == ["5 per 1 day"]
    limiter.rules = RuleSet(default="7/day")
    assert limits() == ["2 per 1 day"]
    assert limiter.rules == RuleSet(default="7/day"), "what is worn is not configured"


def test_a_worn_rule_that_does_not_fit_changes_nothing(make: Any) -> None:
    """Its window is another rule's; the error names both, and what was in force stays."""
    limiter = make([Rule("status", "1/day", name="news")])
    with pytest.raises(
        RuleError, match=r"rules\[1\]: has the same name \('news'\) and period \(86400 seconds\) as rules\[0\]"
    ):
        limiter.declare(Rule("news", "2/day"))

    assert limiter.windows("news", WHO) == ()
    limiter.rules = {"other": "1/day"}
    assert limiter.windows("news", WHO) == ()


def test_rules_that_do_not_fit_a_worn_one_change_nothing(make: Any) -> None:
    """The other way round."""
    limiter = make()
    limiter.declare(Rule("news", "2/day"))
    with pytest.raises(RuleError):
        limiter.rules = [Rule("status", "1/day", name="news")]

    assert limiter.rules == RuleSet()
    assert [str(state.item) for state in limiter.windows("news", WHO)] == ["2 per 1 day"]


def test_rules_are_exchanged_under_threads(make: Any) -> None:
    """Decorators in many threads and an editor lose nothing of each other's, and who decides sees one set or the other."""
    limiter = make({"live": "5/day"})
    start = threading.Barrier(5)
    seen: set[str] = set()

    def declare(thread: int) -> None:
        start.wait()
        for number in range(30):
            limiter.declare(Rule(f"worn {thread} {number}", "1/day"))

    def edit() -> None:
        start.wait()
        for number in range(60):
            limiter.rules = {"live": f"{6 + number % 2}/day"}
            seen.update(str(state.item) for state in limiter.windows("live", WHO))

    threads = [threading.Thread(target=declare, args=[thread]) for thread in range(4)] + [threading.Thread(target=edit)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == {"6 per 1 day", "7 per 1 day"}
    assert [len(limiter.windows(f"worn {thread} {number}", WHO)) for thread in range(4) for number in range(30)] == [
        1
    ] * 120


# Storages.


def test_each_limiter_on_memory_has_its_own(make: Any) -> None:
    """Two limiters by URI share nothing."""
    one, other = make({"news": "1/day"}), make({"news": "1/day"}, "memory://")
    one.hit("news", WHO)

    assert other.hit("news", WHO)


def test_limiters_share_a_storage_that_is_passed(make: Any) -> None:
    """Of either kind on one memory: there is one set of windows."""
    first = make({"news": "2/day"})
    sync, awaited = Limiter({"news": "2/day"}, first.storage), DrivenLimiter({"news": "2/day"}, first.storage)

    assert sync.hit("news", WHO)
    assert awaited.hit("news", WHO)
    assert not first.hit("news", WHO)
    sync.close()
    awaited.close()
    assert not first.hit("news", WHO), "a storage is closed by who opened it"


@pytest.mark.parametrize(
    ("limiter", "storage", "said"),
    [
        (Limiter, AsyncEngineStorage(), "A MemoryStorage cannot be the storage of Limiter; pass a URI, a storage of limits or"),
        (AsyncLimiter, EngineStorage(), "A MemoryStorage cannot be the storage of AsyncLimiter; pass a URI, a storage of limits.aio"),
        (Limiter, None, "A NoneType cannot be the storage of Limiter"),
        (AsyncLimiter, 5, "A int cannot be the storage of AsyncLimiter"),
        (Limiter, threading.Lock(), "A lock cannot be the storage of Limiter"),
        (Limiter, Limiter(), "A Limiter cannot be the storage of Limiter"),
    ],
)  # fmt: skip
def test_a_storage_of_the_wrong_kind_is_refused(limiter: Any, storage: Any, said: str) -> None:
    """At construction, with what can be passed instead."""
    with pytest.raises(NotifyError) as caught:
        limiter({"news": "1/day"}, storage)

    assert said in str(caught.value)


def test_a_stock_storage_goes_behind_the_adapter() -> None:
    """It limits, with a weaker promise that can be read off, and is not closed by the limiter."""
    limiter, awaited = (
        Limiter({"news": "1/day"}, EngineStorage()),
        DrivenLimiter({"news": "1/day"}, AsyncEngineStorage()),
    )

    for one in (limiter, awaited):
        assert one.storage.exact is False
        decision = one.hit("news", WHO)
        assert decision
        assert not one.hit("news", WHO)
        assert one.release(decision) is False
        one.close()
    assert Limiter({"news": "1/day"}).storage.exact is True


class FromElsewhere(EngineStorage):
    """A storage that somebody else registered with `limits`."""

    STORAGE_SCHEME = ["elsewhere"]

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        if uri is not None and "broken" in uri:
            raise OSError(f"cannot reach {uri}")
        super().__init__(uri, **options)


@pytest.fixture
def _registered() -> Iterator[None]:
    SCHEMES["elsewhere"] = FromElsewhere
    yield
    del SCHEMES["elsewhere"]


@pytest.mark.usefixtures("_registered")
def test_any_scheme_of_limits_can_be_opened() -> None:
    """What `limits` has a storage for is used through the adapter."""
    limiter = Limiter({"news": "1/day"}, "elsewhere://user:secret@host")

    assert limiter.storage.exact is False
    assert limiter.hit("news", WHO)


@pytest.mark.usefixtures("_registered")
def test_what_a_storage_of_others_raises_is_not_shown() -> None:
    """Its words may quote the URI, with a password in it."""
    with pytest.raises(NotifyError, match=r"limits cannot open elsewhere:// \(OSError\)") as caught:
        Limiter({"news": "1/day"}, "elsewhere://user:secret@broken")

    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "A string without '://' is not a storage URI; write 'memory://', 'sqlite:///windows.db', 'redis:"),
        ("user:secret@localhost", "A string without '://' is not a storage URI"),
        ("nowhere://user:secret@host", "limits cannot open nowhere:// (ConfigurationError): the scheme is unknown"),
        ("redis+cluster://user:secret@host", "each server needs a host and a port. Write redis+cluster://host:7000"),
        ("Valkey+Cluster://user:secret@host:port", "each server needs a host and a port. Write redis+cluster://"),
        ("redis+sentinel://user:secret@host/name", "each server needs a host and a port. Write redis+sentinel://"),
        ("valkey+sentinel://user:secret@host:1", "does not name the master"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_an_error_that_hides_it(make: Any, uri: str, said: str) -> None:
    """The scheme is named, what to write instead, and nothing of the rest."""
    with pytest.raises(NotifyError) as caught:
        make({"news": "1/day"}, uri)

    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_uri_for_asyncio_is_not_for_threads() -> None:
    """`limits` would open a storage that has to be awaited; an AsyncLimiter takes both spellings."""
    with pytest.raises(NotifyError, match=r"async\+memory:// is for an AsyncLimiter"):
        Limiter({"news": "1/day"}, "async+memory://")

    for uri in ("async+memory://", "memory://"):
        assert isinstance(AsyncLimiter({"news": "1/day"}, uri).storage, AsyncMemoryStorage)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("memory://", "MemoryStorage"),
        ("MEMORY://", "MemoryStorage"),
        ("redis://localhost:1", "RedisStorage"),
        ("Valkey://localhost:1", "RedisStorage"),
        ("redis+cluster://localhost:1,localhost:2", "RedisClusterStorage"),
        ("Valkey+Cluster://localhost:1", "RedisClusterStorage"),
        ("rediss+cluster://localhost:1", "RedisClusterStorage"),
        ("redis+sentinel://localhost:1,localhost:2/notices", "RedisSentinelStorage"),
        ("Valkey+Sentinel://localhost:1/notices", "RedisSentinelStorage"),
        ("valkeys+sentinel://localhost:1/notices", "RedisSentinelStorage"),
        ("memcached://localhost:1", "MemcachedStorage"),
        ("Memcached://localhost:1,localhost:2", "MemcachedStorage"),
    ],
)
def test_the_schemes_of_limits_open_exact_storages(uri: str, name: str) -> None:
    """In whichever case they are written: behind the adapter the promise would be weaker."""
    sync, awaited = open_storage(uri), open_async_storage(uri)
    spelt_out = open_async_storage(f"async+{uri}")

    assert type(spelt_out) is type(awaited)
    assert (type(sync).__name__, type(awaited).__name__) == (name, f"Async{name}")
    assert sync.exact is awaited.exact is True
    sync.close()
    asyncio.run(awaited.close())
    asyncio.run(spelt_out.close())


def test_the_projects_own_scheme_is_exact_too() -> None:
    """A storage that `limits` opens by the scheme it is registered under is not put behind the adapter."""
    assert isinstance(open_storage("notify+memory://"), MemoryStorage)
    assert isinstance(open_async_storage("notify+memory://"), AsyncMemoryStorage)


def test_a_clock_goes_with_the_storage_that_it_moves(clock: Clock) -> None:
    """A clock for a server that has its own would do nothing; for a storage that is passed it comes too late."""
    with pytest.raises(NotifyError, match=r"redis:// has a clock of its own"):
        Limiter({"news": "1/day"}, "redis://localhost:1", clock=clock)
    for limiter, storage in ((Limiter, MemoryStorage()), (AsyncLimiter, AsyncMemoryStorage())):
        with pytest.raises(NotifyError, match="Pass the clock to the storage instead"):
            limiter({"news": "1/day"}, storage, clock=clock)

    shared = Limiter({"news": "1/day"}, clock=clock).storage
    assert Limiter({"news": "1/day"}, shared, clock=clock).hit("news", WHO)


def test_a_clock_may_be_a_method(make: Any, clock: Clock) -> None:
    """A method is another object each time that it is looked up, and the same clock."""
    shared = make({"news": "1/day"}, clock=clock.__call__).storage

    assert make({"news": "1/day"}, shared, clock=clock.__call__).hit("news", WHO)
    with pytest.raises(NotifyError, match="Pass the clock to the storage instead"):
        make({"news": "1/day"}, shared, clock=Clock().__call__)


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("scheme", ["redis", "memcached"])
def test_a_server_that_is_not_there(make: Any, scheme: str) -> None:
    """Making the limiter asks nobody; the first decision is an error without the address's password, or what was chosen."""
    uri = (
        f"{scheme}://127.0.0.1:{_unused_port()}"
        if scheme == "memcached"
        else f"redis://user:secret@127.0.0.1:{_unused_port()}/0"
    )

    with pytest.raises(StorageError) as caught:
        make({"news": "1/day"}, uri).hit("news", WHO)
    assert not [text for text in ("secret", WHO) if text in str(caught.value)]
    allowing, denying = (make({"news": "1/day"}, uri, on_storage_error=choice) for choice in ("allow", "deny"))
    assert allowing.hit("news", WHO).allowed is True
    assert denying.hit("news", WHO).allowed is False
    assert [bool(one) for one in denying.hit_many("news", ["a", "b"])] == [False, False]


def test_the_default_clock_is_near_the_wall_time(make: Any) -> None:
    """Instants of a decision can be shown to people."""
    from datetime import UTC, datetime, timedelta

    reset_at = make({"news": "1/day"}).hit("news", WHO).reset_at

    assert abs(reset_at - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)


# What a repr shows.


@dataclass
class _Secretive:
    """A storage that somebody else wrote, whose repr shows its password."""

    exact = True
    password: str = CANARY

    def acquire(self, windows: Any, keys: Any, cost: Any) -> Any: ...
    def acquire_many(self, requests: Any) -> Any: ...
    def peek(self, windows: Any, keys: Any, cost: Any) -> Any: ...
    def release(self, windows: Any, keys: Any, cost: Any, tokens: Any) -> Any: ...
    def forget(self, windows: Any, keys: Any) -> Any: ...
    def pause(self, window: Any, key: Any, duration: Any) -> Any: ...
    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("memory://", "<{}MemoryStorage>"),
        ("redis://user:s3cret@localhost:6390/1", "<{}RedisStorage at localhost:6390>"),
        ("redis+cluster://user:s3cret@one:7000,two:7001", "<{}RedisClusterStorage at one:7000, two:7001>"),
        (
            "redis+sentinel://:s3cret@one:26379/main",
            "<{}RedisSentinelStorage at 'main' of the Sentinels one:26379>",
        ),
        ("memcached://one:11211,two", "<{}MemcachedStorage at one:11211, two:11211>"),
    ],
)
@pytest.mark.parametrize("limiter", [Limiter, AsyncLimiter])
def test_a_repr_shows_rules_and_storage(limiter: Any, storage: str, shown: str) -> None:
    """The repr of a limiter says how many rules it has and where its windows are, and shows no password."""
    kind = "Async" if limiter is AsyncLimiter else ""
    rules = {"news": "1/day", "status": "2/minute"}

    assert repr(limiter(rules, storage)) == f"<{kind}Limiter: 2 rules on {shown.format(kind)}>"


def test_a_repr_of_other_limiters() -> None:
    """The default limit, limits on decorators, other storages and the off switch are shown; what others wrote is not."""
    declared = Limiter()
    rate_limited("news", "1/day", limiter=declared)(lambda to: None)

    assert repr(declared) == "<Limiter: 1 rule on <MemoryStorage>>"
    assert repr(Limiter(RuleSet(default="5/hour"))) == "<Limiter: 0 rules and a default on <MemoryStorage>>"
    assert repr(Limiter({}, _Secretive())) == "<Limiter: 0 rules on <_Secretive>>"
    assert repr(Limiter({}, EngineStorage())) == "<Limiter: 0 rules on <Adapter of MemoryStorage>>"
    assert repr(Limiter({"news": "1/day"}, "redis://nowhere", enabled=False)) == "<Limiter: 1 rule, switched off>"

    switch.off = True
    later = Limiter({"news": "1/day"}, "redis://nowhere")
    switch.off = False
    assert repr(later) == "<Limiter: 1 rule on a storage that is not open yet>"
