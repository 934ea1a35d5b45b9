"""Events: everything that is decided is told, in one word, with the rule that says so first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from limiting import HOUR, LIMITERS, Clock
from outcomes import AsyncUnreliable, Unreliable
from ratelimited_notify import Limiter, Notification, Rule, RuleSet, StorageError
from ratelimited_notify.instrumentation import Decided, Released, RulesChanged, StorageFailed, UnknownType, watch
from ratelimited_notify.storage.memory import MemoryStorage
from watching import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cluster_servers import Cluster, Watched
    from servers import Memcached, Valkey

ANA, BEN = "ana@example.com", "ben@example.com"


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Threads or asyncio."""
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Iterator[Callable[..., tuple[Any, Told]]]:
    """Makes a limiter of this kind, and what those who watch it are told."""
    made: list[Any] = []

    def one(*arguments: Any, recipients: bool = False, **options: Any) -> tuple[Any, Told]:
        limiter, told = LIMITERS[kind](*arguments, **options), Told()
        limiter.watch(told, recipients=recipients)
        made.append(limiter)
        return limiter, told

    yield one
    for limiter in made:
        limiter.close()


def test_a_hit_is_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """Type, verdict, rule, cost, backend; no recipient; and no seconds in memory."""
    limiter, told = make({"news": "1/day"})
    limiter.hit("news", ANA)
    limiter.hit("news", ANA)
    limiter.hit("news", ANA, cost=2)

    assert told == [
        Decided("news", "allowed", backend="memory"),
        Decided("news", "refused", "news", backend="memory"),
        Decided("news", "refused", "news", cost=2, backend="memory"),
    ]


def test_who_asks_for_recipients_is_told_the_same_with_them(make: Callable[..., tuple[Any, Told]]) -> None:
    """One by one, in batches, and about exempt priorities."""
    limiter, told = make([Rule("news", "2/day", exempt="high", count_exempt=False)], recipients=True)
    limiter.hit("news", ANA, cost=2)
    limiter.hit_many("news", [ANA, BEN])
    limiter.hit("news", BEN, priority="high")

    assert told == [
        Decided("news", "allowed", cost=2, backend="memory", recipient=ANA),
        Decided("news", "refused", "news", backend="memory", recipient=ANA),
        Decided("news", "allowed", backend="memory", recipient=BEN),
        Decided("news", "exempt", backend="memory", recipient=BEN),
    ]


def test_a_test_is_not_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """Nothing is decided by `test`, `windows`, `clear` and `pause`."""
    limiter, told = make([Rule("news", "1/day"), Rule("*", "5/day", by=(), name="cap")])
    limiter.test("news", ANA)
    limiter.windows("news", ANA)
    limiter.pause("cap", 10)
    limiter.test("news", ANA)
    limiter.resume("cap")
    limiter.clear("news", ANA)

    assert told == []


def test_each_of_a_batch_is_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """In the order of the batch, whether its windows are alike or not."""
    for rules in ([Rule("news", "1/day")], [Rule("news", "1/day", overrides={BEN: "2/day"})]):
        limiter, told = make(rules)
        decisions = limiter.hit_many("news", [ANA, ANA, BEN, BEN])

        assert told.verdicts == ["allowed" if decision else "refused" for decision in decisions]
        assert told.rules == [None if decision else "news" for decision in decisions]


def test_a_batch_without_windows_is_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """Notifications that nothing limits are `unlimited`, one by one."""
    limiter, told = make([Rule("news", None)])
    limiter.hit_many("news", [ANA, BEN])
    limiter.hit("news", ANA)

    assert told.verdicts == ["unlimited"] * 3


def test_what_a_notifier_decides_at_once_is_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """`decide` tells each decision once; an error is none."""
    limiter, told = make([Rule("news", "1/day", exempt="high", count_exempt=False), Rule("free", None)])
    answers = limiter.decide(
        [
            Notification("news", ANA),
            Notification("news", ANA),
            Notification("news", ANA, priority="high"),
            Notification("free", ANA),
            Notification("news", ""),
        ]
    )

    # What needs no storage may be told in another place.
    assert told.verdicts == ["allowed", "refused", "exempt", "unlimited"]
    assert isinstance(answers[-1], Exception)


def test_a_release_is_told_once(make: Callable[..., tuple[Any, Told]]) -> None:
    """`release` and `reserve` tell what was given back; what was not is not told."""
    limiter, told = make({"news": "3/day"})
    decision = limiter.hit("news", ANA, cost=3)
    assert limiter.release(decision)
    assert not limiter.release(decision)
    assert not limiter.release(limiter.hit("news", ANA, cost=4))
    with pytest.raises(ValueError, match="no"), limiter.reserve("news", ANA):
        raise ValueError("no")
    with pytest.raises(TimeoutError), limiter.reserve("news", ANA):
        raise TimeoutError

    assert told.of(Released) == [Released("news", 3, "memory"), Released("news", 1, "memory")]


@pytest.mark.parametrize("count_exempt", [True, False])
def test_the_precedence_of_verdicts(make: Callable[..., tuple[Any, Told]], count_exempt: bool) -> None:
    """Refused before would_refuse before exempt before allowed."""
    limiter, told = make(
        [
            Rule("news", "1/day", exempt=("high", "highest"), count_exempt=count_exempt, name="own"),
            Rule("news", "3/day", enforce=False, name="trial"),
            Rule("*", "4/day", by="recipient", exempt="highest", name="cap"),
        ]
    )
    for priority in (None, None, "high", "high", "high", None, "high", "highest"):
        limiter.hit("news", ANA, priority=priority)

    assert [(event.verdict, event.rule) for event in told] == [
        ("allowed", None),
        ("refused", "own"),
        ("exempt", None),
        ("exempt", None),
        ("would_refuse", "trial"),
        ("refused", "own"),
        ("refused", "cap"),
        ("would_refuse", "trial"),
    ]


def test_exempt_without_a_window(make: Callable[..., tuple[Any, Told]]) -> None:
    """A priority that passes its only rule uncounted is exempt, not unlimited. A rule that does not apply exempts nobody."""
    limiter, told = make(
        [
            Rule("news", "1/day", exempt="high", count_exempt=False),
            Rule("sms", "1/day", by=("tenant", "recipient"), exempt="high", count_exempt=False),
        ]
    )
    limiter.hit("news", ANA, priority="high")
    limiter.hit("sms", ANA, priority="high")
    limiter.hit("sms", ANA, priority="high", tenant="acme")
    limiter.hit("sms", ANA, priority="low", tenant="acme")
    limiter.hit_many("news", [ANA, BEN], priority="high")

    assert told.verdicts == ["exempt", "unlimited", "exempt", "allowed", "exempt", "exempt"]


def test_the_first_refusing_rule_is_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """It is the first in the order of the rules; `blocked_by` is the one that holds longest."""
    limiter, told = make([Rule("news", "1/minute", name="first"), Rule("new*", "1/day", name="second")])
    limiter.hit("news", ANA)
    decision = limiter.hit("news", ANA)

    assert decision.blocked_by.rule == "second"
    assert told.rules == [None, "first"]


def test_shadow_rules_are_no_refusals(make: Callable[..., tuple[Any, Told]]) -> None:
    """A rule in shadow mode is named only if no rule refuses."""
    limiter, told = make(
        [Rule("news", "1/day", enforce=False, name="trial"), Rule("news", "2/day", strategy="fixed-window", name="own")]
    )
    for _ in range(3):
        limiter.hit("news", ANA)

    assert [(event.verdict, event.rule) for event in told] == [
        ("allowed", None),
        ("would_refuse", "trial"),
        ("refused", "own"),
    ]


def test_pauses_are_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """A paused rule refuses, in shadow mode would refuse, and passes those that it exempts."""
    limiter, told = make(
        [
            Rule("sms", None, by=(), name="provider", exempt="high"),
            Rule("push", None, by=(), enforce=False, name="trial"),
            Rule("news", "5/day", by=(), name="news"),
        ]
    )
    every = (("sms", None), ("sms", "high"), ("push", None), ("news", None))
    for type, priority in every:
        limiter.hit(type, ANA, priority=priority)
    assert told.verdicts == ["unlimited", "unlimited", "unlimited", "allowed"]
    told.clear()
    for rule in ("provider", "trial", "news"):
        limiter.pause(rule, 60)
    for type, priority in every:
        limiter.hit(type, ANA, priority=priority)

    assert [(event.verdict, event.rule) for event in told] == [
        ("refused", "provider"),
        ("exempt", None),
        ("would_refuse", "trial"),
        ("refused", "news"),
    ]


def test_the_off_switches_are_told(make: Callable[..., tuple[Any, Told]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not limited because limiting is off is `unlimited`: by `enabled=False` and by the environment."""
    limiter, told = make({"news": "1/day"}, enabled=False)
    monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "1")
    by_environment, also_told = make({"news": "1/day"})
    for each in (limiter, by_environment):
        each.hit("news", ANA)
        each.hit_many("news", [ANA, BEN])
        each.decide([Notification("news", ANA), Notification("news", ANA)])
        each.test("news", ANA)

    assert told == also_told == [Decided("news", "unlimited", backend="")] * 5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": "email"},
        {"pseudonymize": b"secret"},
        {"overrides": {BEN: "2/day"}},
        {"overrides": {BEN: None}},
        {"tiers": {"gold": "2/day"}},
        {"tiers": {"gold": None}, "overrides": {"x": "1/day"}, "normalize": "email"},
    ],
    ids=str,
)
def test_shortcuts_tell_what_they_decide(make: Callable[..., tuple[Any, Told]], options: dict[str, Any]) -> None:
    """With overrides, tiers, normalized and pseudonymized recipients: exactly one event for each decision."""
    of_rule = {name: options[name] for name in ("overrides", "tiers") if name in options}
    of_limiter = {name: options[name] for name in ("normalize", "pseudonymize") if name in options}
    if "tiers" in options:
        of_limiter["tier_of"] = lambda recipient: "gold" if recipient == BEN else None
    limiter, told = make([Rule("news", "1/day", **of_rule)], **of_limiter)
    decisions = [limiter.hit("news", recipient) for recipient in (ANA, BEN, ANA, BEN, BEN, "a%b", "ü", "ü")]

    assert limiter.plans.shortcuts or None in options.get("tiers", {}).values()
    assert told.verdicts == [
        ("allowed" if decision.windows else "unlimited") if decision else "refused" for decision in decisions
    ]


def test_remembered_refusals_are_told(make: Callable[..., tuple[Any, Told]], kind: str, valkey: Valkey) -> None:
    """A refusal that the storage was not asked about has no seconds; the others have."""
    limiter, told = make(
        [Rule("news", "1/day"), Rule("*", "5/day", by=(), name="cap")],
        valkey.url,
        namespace=kind,
        remember_refusals=True,
    )
    for _ in range(3):
        limiter.hit("news", ANA)
    limiter.hit("news", ANA, cost=1, priority="low")

    assert told.verdicts == ["allowed", "refused", "refused", "refused"]
    assert [event.seconds is None for event in told] == [False, False, True, True]
    assert told.rules == [None, "news", "news", "news"]


@pytest.mark.parametrize(("policy", "verdict"), [("allow", "failed_open"), ("deny", "failed_closed")])
def test_a_failed_storage_is_told(make: Callable[..., tuple[Any, Told]], kind: str, policy: str, verdict: str) -> None:
    """What `on_storage_error` decides, one by one and in batches, and that the storage failed."""
    storage = Unreliable() if kind == "sync" else AsyncUnreliable()
    storage.failing = ("acquire", "acquire_many")
    limiter, told = make([Rule("news", "1/day", enforce=False), Rule("free", None)], storage, on_storage_error=policy)
    limiter.hit("news", ANA)
    limiter.hit_many("news", [ANA, BEN])
    limiter.decide([Notification("news", ANA), Notification("free", ANA)])

    assert told.verdicts == [verdict] * 4 + ["unlimited"]
    assert told.rules == [None] * 5
    assert [(event.policy, event.error, event.number) for event in told.of(StorageFailed)] == [
        (policy, "StorageError", 1),
        (policy, "StorageError", 2),
        (policy, "StorageError", 1),
    ]


def test_a_storage_that_raises_is_told(make: Callable[..., tuple[Any, Told]], kind: str) -> None:
    """Nothing is decided; what raises in any case says so."""
    storage = Unreliable() if kind == "sync" else AsyncUnreliable()
    limiter, told = make([Rule("news", "5/day", enforce=False)], storage, on_storage_error="raise")
    decision = limiter.hit("news", ANA)
    told.clear()
    storage.failing = ("acquire", "acquire_many", "release")
    for call in (
        lambda: limiter.hit("news", ANA),
        lambda: limiter.hit_many("news", [ANA, BEN]),
        lambda: limiter.release(decision),
    ):
        with pytest.raises(StorageError):
            call()

    assert [(event.policy, event.number) for event in told] == [("raise", 1), ("raise", 2), ("raise", 1)]


def test_a_failure_is_about_what_the_storage_was_asked(make: Callable[..., tuple[Any, Told]], kind: str) -> None:
    """Not about what no rule limits, which is told as decided."""
    storage = Unreliable() if kind == "sync" else AsyncUnreliable()
    storage.failing = ("acquire", "acquire_many")
    limiter, told = make([Rule("news", "5/day"), Rule("free", None)], storage, on_storage_error="raise")
    types = ("news", "free", "news", "free", "free", "news")
    results = limiter.decide([Notification(type, ANA) for type in types])

    assert [isinstance(each, StorageError) for each in results] == [type == "news" for type in types]
    assert [(event.policy, event.number) for event in told.of(StorageFailed)] == [("raise", 3)]
    assert told.verdicts == ["unlimited"] * 3


def test_what_always_raises_is_told_with_that_policy(
    make: Callable[..., tuple[Any, Told]], kind: str, start_valkey: Callable[..., Valkey]
) -> None:
    """`windows`, `clear`, `pause`, `resume` and `release` raise whatever `on_storage_error` says, and say that."""
    server = start_valkey()
    limiter, told = make(
        [Rule("news", "5/day", by=("recipient",)), Rule("*", None, by=(), name="all")],
        server.url,
        on_storage_error="allow",
        circuit=None,
    )
    decision = limiter.hit("news", ANA)
    server.stop()
    told.clear()
    for call in (
        lambda: limiter.windows("news", ANA),
        lambda: limiter.clear("news", ANA),
        lambda: limiter.pause("all", 10),
        lambda: limiter.resume("all"),
        lambda: limiter.release(decision),
    ):
        with pytest.raises(StorageError):
            call()
    assert [(event.backend, event.policy) for event in told] == [("redis", "raise")] * 5
    told.clear()
    assert limiter.hit("news", ANA)
    limiter.test("news", ANA)

    assert [event.policy for event in told.of(StorageFailed)] == ["allow", "allow"]
    assert told.verdicts == ["failed_open"]


def test_backends_are_named(
    valkey: Valkey, memcached: Memcached, cluster: Cluster, watched: Watched, kind: str, tmp_path: Any
) -> None:
    """By the scheme that opens them, the same for threads and asyncio; others by their class."""
    storages = {
        "memory://": "memory",
        valkey.url: "redis",
        cluster.url: "redis+cluster",
        watched.url: "redis+sentinel",
        memcached.url: "memcached",
        f"sqlite:///{tmp_path}/windows.db": "sqlite",
    }
    for uri, name in storages.items():
        limiter, told = LIMITERS[kind]({"news": "1/day"}, uri, timeout=5, namespace=f"named-{kind}"), Told()
        limiter.watch(told)
        limiter.hit("news", ANA)
        limiter.hit("news", ANA)
        limiter.close()

        assert [(event.backend, event.verdict) for event in told] == [(name, "allowed"), (name, "refused")], uri
        assert all((event.seconds is None) is (name == "memory") for event in told), uri


def test_other_storages_are_named_by_their_class() -> None:
    """Storages of one's own, and those of `limits` behind the adapter."""
    from limits.storage import MemoryStorage as Plain

    class Mine(MemoryStorage):
        STORAGE_SCHEME = None

    told = Told()
    for storage in (Mine(), Plain()):
        limiter = Limiter({"news": "1/day"}, storage)  # type: ignore[arg-type]  # any storage of `limits`
        limiter.watch(told)
        limiter.hit("news", ANA)

    assert [event.backend for event in told] == ["Mine", "memory"]


def test_an_unknown_type_is_told_once(make: Callable[..., tuple[Any, Told]]) -> None:
    """The first time that a limiter meets it, before the decision."""
    limiter, told = make([Rule("*", "100/day", by="recipient", name="cap")])
    for _ in range(2):
        for type in ("news", "sms"):
            limiter.hit(type, ANA)
            limiter.hit_many(type, [ANA])

    assert told.of(UnknownType) == [UnknownType("news"), UnknownType("sms")]
    assert told[0] == UnknownType("news")


def test_swapped_arguments_show_no_recipient(make: Callable[..., tuple[Any, Told]]) -> None:
    """A type that looks like an address is not shown, in no event, and not to those who want recipients either."""
    limiter, told = make([Rule("*", "3/day")], recipients=True)
    limiter.hit(ANA, "news")
    limiter.hit(ANA, "news")
    limiter.release(limiter.hit(ANA, "news"))
    limiter.hit(ANA, "news")
    limiter.hit(ANA, "news")
    limiter.hit_many(ANA, ["news"])

    assert told.verdicts == ["allowed", "allowed", "allowed", "allowed", "refused", "refused"]
    assert "example.com" not in repr(
        [
            [getattr(event, name) for name in event.__struct_fields__ if name not in ("recipient", "rule")]
            for event in told
        ]
    )


def test_assigned_rules_are_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """With their names in order. Rules that cannot be used change nothing."""
    limiter, told = make({"news": "1/day"})
    limiter.rules = {"sms": "1/day", "news": "2/day"}
    with pytest.raises(Exception, match="limit"):
        limiter.rules = {"news": "often"}

    assert told == [RulesChanged(("sms", "news"))]
    limiter.hit("news", ANA)
    limiter.hit("news", ANA)
    assert told.verdicts == ["allowed", "allowed"]


def test_both_limiters_on_one_memory_are_told_apart() -> None:
    """`limiter.watch` is told about its limiter alone, `watch` about all, also about those made later."""
    storage, rules = MemoryStorage(), RuleSet({"news": "1/day"})
    first, second = Limiter(rules, storage), Limiter(rules, storage)
    one, all_of_them = Told(), Told()
    with first.watch(one), watch(all_of_them):
        first.hit("news", ANA)
        second.hit("news", ANA)
        Limiter(rules, storage).hit("news", BEN)
    first.hit("news", ANA)

    assert one.verdicts == ["allowed"]
    assert all_of_them.verdicts == ["allowed", "refused", "allowed"]


def test_a_window_that_ends_is_told(make: Callable[..., tuple[Any, Told]]) -> None:
    """By the clock of the limiter."""
    clock = Clock()
    limiter, told = make({"news": "1/hour"}, clock=clock)
    for _ in range(2):
        limiter.hit("news", ANA)
        limiter.hit("news", ANA)
        clock.advance(HOUR + 1)

    assert told.verdicts == ["allowed", "refused"] * 2
