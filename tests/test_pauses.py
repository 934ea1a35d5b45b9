"""`pause` and `resume`: a rule that refuses everything for a while, for all processes, on every storage."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest
from limits.storage import MemoryStorage as EngineStorage

from limiting import LIMITERS, SECOND, Clock
from ratelimited_notify import (
    AsyncLimiter,
    Limiter,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    RuleSet,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backends import Backend
    from servers import Memcached, Valkey

RULES = [
    Rule("*", "9/day", name="own", by="recipient"),
    Rule("*", "8/day; 5/minute", by="tenant", name="tenant", strategy="sliding-window-counter"),
    Rule("sms", "7/day", by=(), name="provider", strategy="fixed-window"),
    Rule("*", None, by="type", name="types"),
]


@pytest.fixture(params=LIMITERS)
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make_one(*arguments: Any, **options: Any) -> Any:
        made.append(LIMITERS[request.param](*arguments, **options))
        return made[-1]

    yield make_one
    for limiter in made:
        limiter.close()


@pytest.fixture
def on_backend(backend: Backend) -> Callable[..., Any]:
    """A limiter on each storage, with the clock of the backend."""
    backend.flush()

    def made(rules: Any, **options: Any) -> Any:
        kind = "async" if backend.asynchronous else "sync"
        limiter = LIMITERS[kind](rules, backend.bare, namespace=backend.namespace, **options)
        if backend.asynchronous:
            limiter.__dict__["runner"].close()
            limiter.__dict__["runner"] = backend.storage
        return limiter

    return made


def names(states: Any) -> list[tuple[str, int, bool]]:
    return [(state.rule, state.remaining, state.paused) for state in states]


def test_a_paused_rule_refuses_until_the_instant(backend: Backend, on_backend: Callable[..., Any]) -> None:
    """Everything that the rule applies to, with the time that is left; other types, and what is counted, stay."""
    limiter = on_backend(RULES)
    assert limiter.hit("sms", "ana")
    until = limiter.pause("provider", 30)
    backend.advance(10 * SECOND)

    assert until == datetime.fromtimestamp(backend.now() / SECOND + 20, UTC)
    refused = limiter.hit("sms", "bo")
    assert not refused
    assert (refused.retry_after, refused.retry_at, refused.remaining) == (20, until, 0)
    state = refused.blocked_by
    assert (state.rule, state.paused, state.remaining, state.retry_after, state.reset_at) == (
        "provider",
        True,
        0,
        20,
        until,
    )
    assert str(refused) == "'sms' refused by rule 'provider' (paused), try again in 20 s"
    assert limiter.test("sms", "bo").retry_after == 20
    assert [bool(one) for one in limiter.hit_many("sms", ["bo", "cy", "bo"])] == [False] * 3
    assert limiter.hit("mail", "bo")
    assert names(limiter.windows("sms", "bo")) == [("own", 8, False), ("provider", 6, False), ("provider", 0, True)]

    backend.advance(20 * SECOND - 1)
    assert not limiter.hit("sms", "bo")
    backend.advance(1)
    assert limiter.hit("sms", "bo")
    assert names(limiter.windows("sms", "bo")) == [("own", 7, False), ("provider", 5, False)]
    assert not limiter.resume("provider")


def test_a_longer_pause_stays(backend: Backend, on_backend: Callable[..., Any]) -> None:
    """A pause never shortens another one."""
    limiter = on_backend(RULES)
    first = limiter.pause("provider", 60)

    assert limiter.pause("provider", 30) == first
    assert limiter.hit("sms", "ana").retry_after == 60
    assert limiter.pause("provider", 90.5) == first + timedelta(seconds=30.5)
    assert limiter.hit("sms", "ana").retry_after == 90.5


def test_resume_and_clear_end_a_pause(on_backend: Callable[..., Any]) -> None:
    """`clear` ends it with the shared windows, and counts it as one."""
    limiter = on_backend(RULES)
    limiter.pause("provider", 60)

    assert limiter.resume("provider")
    assert not limiter.resume("provider")
    assert limiter.hit("sms", "ana")
    limiter.pause("provider", 60)
    assert limiter.clear("sms", "ana") == 1
    assert not limiter.hit("sms", "ana")
    assert limiter.clear("sms", "ana", shared=True) == 2
    assert limiter.hit("sms", "ana")


def test_a_pause_is_for_the_values_that_the_rule_counts_by(on_backend: Callable[..., Any]) -> None:
    """One tenant, or one type, is paused, with all limits of the rule; the others go on."""
    limiter = on_backend(RULES)
    limiter.pause("tenant", 30, tenant="acme")
    limiter.pause("types", 40, type="push")

    assert not limiter.hit("mail", "ana", tenant="acme")
    assert limiter.hit("mail", "ana", tenant="other")
    assert limiter.hit("mail", "ana")
    assert str(limiter.hit("push", "ana")) == "'push' refused by rule 'types' (paused), try again in 40 s"
    both = limiter.hit("push", "ana", tenant="acme")
    assert (both.blocked_by.rule, both.retry_after) == ("types", 40)
    assert names(limiter.windows("push", "ana", tenant="acme")) == [
        ("own", 7, False), ("tenant", 8, False), ("tenant", 5, False), ("tenant", 0, True), ("types", 0, True),
    ]  # fmt: skip
    assert limiter.resume("tenant", tenant="acme")
    assert limiter.resume("types", type="push")
    assert limiter.hit("push", "ana", tenant="acme")


def test_exempt_priorities_and_shadow_mode(on_backend: Callable[..., Any]) -> None:
    """A pause refuses nothing that the rule would never refuse, and says that it would."""
    limiter = on_backend(
        [
            Rule("sms", "5/day", by=(), name="exempt", exempt="critical"),
            Rule("mail", "5/day", by=(), name="shadow", enforce=False),
            Rule("mail", "9/day", by=(), name="enforced"),
        ]
    )
    limiter.pause("exempt", 30)
    limiter.pause("shadow", 30)

    assert not limiter.hit("sms", "ana")
    critical = limiter.hit("sms", "ana", priority="critical")
    assert critical
    assert [(state.paused, state.enforced) for state in critical.windows] == [(False, False), (True, False)]
    assert critical.windows[0].remaining == 4
    mail = limiter.hit("mail", "ana")
    assert (bool(mail), mail.remaining) == (True, 8)
    assert str(mail) == "'mail' allowed, 8 left; rule 'shadow' (paused) in shadow mode would refuse it"
    assert limiter.release(mail)


def test_the_pause_stays_when_the_rules_change(on_backend: Callable[..., Any]) -> None:
    """It belongs to the name of the rule, and not to its limits."""
    limiter = on_backend([Rule("sms", "5/day", by=(), name="provider")])
    limiter.pause("provider", 30)
    for limit in ("6/day; 7/hour", None):
        limiter.rules = [Rule("s*", limit, by=(), name="provider")]
        assert limiter.hit("sms", "ana").retry_after == 30
    limiter.rules = [Rule("sms", "5/day", by=(), name="other")]
    assert limiter.hit("sms", "ana")


def test_a_refusal_in_words_json_and_headers(make: Callable[..., Any]) -> None:
    """Nothing is left of the paused rule, and a client is told to come back after the pause."""
    limiter = make(
        [Rule("sms", "5/minute; 9/day", by=(), name="provider"), Rule("sms", "7/day", name="own")], clock=Clock()
    )
    limiter.hit("sms", "ana")
    limiter.pause("provider", 100)
    refused = limiter.hit("sms", "ana")
    body = refused.to_dict()

    assert (body["rule"], body["retry_after"], body["remaining"]) == ("provider", 100, 0)
    assert [window["limit"] for window in body["windows"]] == ["5 per minute", "9 per day", "paused", "7 per day"]
    assert body["windows"][2] == {
        "rule": "provider", "limit": "paused", "remaining": 0, "retry_after": 100, "reset_at": body["retry_at"],
    }  # fmt: skip
    assert refused.headers(ratelimit=True) == {
        "Retry-After": "100",
        "RateLimit-Policy": '"provider per minute";q=5;w=60, "provider per day";q=9;w=86400, "own";q=7;w=86400',
        "RateLimit": '"provider per minute";r=0;t=100, "provider per day";r=0;t=100, "own";r=6',
    }
    copied = pickle.loads(pickle.dumps(refused))
    assert copied.blocked_by == refused.blocked_by
    assert str(RateLimitExceeded(copied)) == "'sms' refused by rule 'provider' (paused), try again in 1 min 40 s"


def test_only_a_pause(make: Callable[..., Any]) -> None:
    """A rule without a limit can be paused. Otherwise its decisions say that nothing limits it."""
    limiter = make([Rule("sms", None, by=(), name="provider")], clock=Clock())
    free = limiter.hit("sms", "ana")
    assert (str(free), free.remaining, free.windows, free.reset_at) == (
        "'sms' allowed, no rule limits it",
        None,
        (),
        None,
    )
    assert free.headers(ratelimit=True) == {}
    limiter.pause("provider", 30)
    paused = limiter.hit("sms", "ana")

    assert (bool(paused), paused.remaining, paused.retry_after) == (False, 0, 30)
    assert paused.headers(ratelimit=True) == {"Retry-After": "30"}
    assert limiter.release(free) is False


FIELDS = RuleSet(
    [
        Rule("news", "1/day"),
        Rule("*", "9/day", by=("tenant", "channel"), name="pair"),
        Rule("p*", "9/day", by="type", name="types"),
        Rule("push", "9/day", by="type", name="push"),
        Rule("*", "9/day", by=(), name="twice"),
        Rule("*", "9/hour", by="tenant", name="twice"),
    ],
    default="7/day",
)


@pytest.mark.parametrize(
    ("rule", "fields", "said"),
    [
        ("nws", {}, "There is no rule called 'nws'. Rules that can be paused: 'pair', 'types', 'push', 'twice'."),
        ("ana@example.com", {}, "There is no rule called (not shown"),
        (
            "news",
            {},
            "The rule 'news' counts by recipient, so it cannot be paused: a pause is for everybody. Pause a rule",
        ),
        ("default", {}, "The rule 'default' counts by recipient"),
        ("pair", {}, "The rule 'pair' counts by tenant and channel, so a pause needs tenant= and channel=."),
        ("pair", {"tenant": "a", "channel": None}, "counts by tenant and channel, so a pause needs channel=."),
        (
            "pair",
            {"tenant": "a", "channel": "b", "recipient": "c"},
            "counts by tenant and channel. Leave out recipient.",
        ),
        (
            "pair",
            {"tenant": "a", "chanel": "b"},
            "counts by tenant and channel, so a pause needs channel=. Leave out chanel.",
        ),
        ("types", {"ana@example.com": "x"}, "The rule 'types' counts by type. Leave out a name that is not shown."),
        ("pair", {"tenant": "", "channel": "b"}, "The tenant is empty."),
        ("types", {}, "The rule 'types' counts by type, so a pause needs type=."),
        ("push", {"type": "sms"}, "The rule 'push' is for 'push', and not for 'sms'."),
        ("twice", {}, "Several rules are called 'twice', and count by different fields."),
    ],
)
def test_a_rule_that_cannot_be_paused(make: Callable[..., Any], rule: str, fields: dict[str, Any], said: str) -> None:
    """The error says what to do, and names nobody."""
    limiter = make(FIELDS)
    for call in (lambda: limiter.pause(rule, 30, **fields), lambda: limiter.resume(rule, **fields)):
        with pytest.raises(NotifyError) as caught:
            call()
        assert said in str(caught.value)
        assert "ana@example.com" not in str(caught.value)


def test_the_type_of_a_rule_for_one_type_goes_without_saying(make: Callable[..., Any]) -> None:
    """Its name is in the rule already."""
    limiter = make(FIELDS)
    limiter.pause("push", 30)

    assert not limiter.hit("push", "ana")
    assert limiter.resume("push", type="push")


def test_rules_of_one_name_are_paused_together(make: Callable[..., Any]) -> None:
    """They have different periods or types, and one pause."""
    limiter = make(
        [
            Rule("sms", "9/day", by=(), name="provider"),
            Rule("push", "9/hour", by=(), name="provider"),
            Rule("sms", "8/day", by="type", name="types"),
            Rule("mail*", "8/hour", by="type", name="types"),
        ]
    )
    limiter.pause("provider", 30)
    assert [bool(limiter.hit(type, "ana")) for type in ("sms", "push", "mail")] == [False, False, True]
    assert limiter.resume("provider")
    limiter.pause("types", 30, type="mail.a")
    assert [bool(limiter.hit(type, "ana")) for type in ("sms", "mail.a", "mail.b")] == [True, False, True]
    with pytest.raises(NotifyError, match="needs type="):
        limiter.pause("types", 30)
    with pytest.raises(NotifyError, match=r"is for 'mail\*' and 'sms', and not for 'push'"):
        limiter.pause("types", 30, type="push")


@pytest.mark.parametrize("seconds", [0, -1, inf, nan, 366 * 86400 + 1, -inf, 10**400])
def test_seconds_out_of_range(make: Callable[..., Any], seconds: float) -> None:
    """Most likely they are in another unit, or the end of a pause is meant."""
    with pytest.raises(NotifyError, match="must be above 0 and at most 31,622,400, which is 366 days"):
        make(RULES).pause("provider", seconds)


@pytest.mark.parametrize("seconds", [True, "30", None, timedelta(seconds=30)])
def test_seconds_that_are_no_number(make: Callable[..., Any], seconds: Any) -> None:
    """The error says how to write them."""
    with pytest.raises(TypeError, match="seconds of a pause must be a number"):
        make(RULES).pause("provider", seconds)


def test_arguments_of_wrong_types(make: Callable[..., Any]) -> None:
    """A rule is named, and values are what recipients are."""
    limiter = make(RULES)
    with pytest.raises(TypeError, match="by its name, which is a string"):
        limiter.pause(RULES[2], 30)
    with pytest.raises(TypeError, match="The tenant is a float"):
        limiter.pause("tenant", 30, tenant=1.5)


def test_the_least_and_the_most(make: Callable[..., Any]) -> None:
    """Less than a microsecond is one; a year is not forgotten."""
    clock = Clock()
    limiter = make(RULES, clock=clock)
    limiter.pause("provider", 1e-9)
    assert limiter.hit("sms", "ana").retry_after == 1e-6
    limiter.pause("provider", 366 * 86400)
    clock.advance(365 * 86400 * SECOND)
    assert limiter.hit("sms", "ana").retry_after == 86400


def test_where_limiting_is_off_nothing_is_paused(make: Callable[..., Any]) -> None:
    """Neither is the storage opened, nor the rule looked up."""
    limiter = make(RULES, "redis://localhost:1/0", enabled=False)

    assert limiter.pause("provider", 30) is None
    assert limiter.resume("provider") is False
    assert limiter.hit("sms", "ana")


def test_a_storage_of_limits_keeps_no_pauses() -> None:
    """It decides by the limits of the rule, as before."""
    limiter = Limiter([Rule("sms", "2/day", by=(), name="provider")], EngineStorage())  # type: ignore[arg-type]  # adopted
    with pytest.raises(NotifyError, match="keeps no pauses"):
        limiter.pause("provider", 30)

    assert limiter.resume("provider") is False
    assert [bool(limiter.hit("sms", "ana")) for _ in range(3)] == [True, True, False]
    assert [bool(each) for each in limiter.hit_many("sms", ["ana", "bo"])] == [False, False]
    assert names(limiter.windows("sms", "ana")) == [("provider", 0, False)]
    assert limiter.clear("sms", "ana", shared=True) == 1


def test_a_pause_comes_in_between_a_hit_and_its_release(on_backend: Callable[..., Any]) -> None:
    """The hit is given back all the same."""
    limiter = on_backend(RULES)
    hit = limiter.hit("sms", "ana")
    limiter.pause("provider", 30)

    assert limiter.release(hit)
    assert names(limiter.windows("sms", "ana")) == [("own", 9, False), ("provider", 7, False), ("provider", 0, True)]


def test_a_remembered_refusal_ends_with_the_pause() -> None:
    """`resume` in this process is seen at once, with `remember_refusals` too."""
    limiter = Limiter(RULES, remember_refusals=True, clock=Clock())
    limiter.pause("provider", 30)
    assert not limiter.hit("sms", "ana")
    assert not limiter.hit("sms", "ana")
    limiter.resume("provider")

    assert limiter.hit("sms", "ana")


def test_waiting_callers_are_woken_when_it_is_resumed() -> None:
    """They wait for the end of the pause, and ask at once when it is ended in this process."""
    sent: list[str] = []
    limiter = Limiter(RULES)
    notifier = Notifier(sent.append, limiter=limiter, on_limit="wait", max_wait=300)
    limiter.pause("provider", 200)
    threads = [threading.Thread(target=notifier.send, args=("sms", each)) for each in ("ana", "bo")]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    assert sent == []
    limiter.resume("provider")
    for thread in threads:
        thread.join(20)

    assert sorted(sent) == ["ana", "bo"]
    limiter.pause("provider", 301)
    with pytest.raises(RateLimitExceeded, match="paused"):
        notifier.send("sms", "ana")


def test_waiting_tasks_are_woken_when_it_is_resumed() -> None:
    """The same for asyncio."""
    from ratelimited_notify import AsyncNotifier

    async def run() -> list[str]:
        sent: list[str] = []

        async def gateway(recipient: str) -> None:
            sent.append(recipient)

        limiter = AsyncLimiter(RULES)
        notifier = AsyncNotifier(gateway, limiter=limiter, on_limit="wait", max_wait=300)
        await limiter.pause("provider", 200)
        tasks = [asyncio.create_task(notifier.send("sms", each)) for each in ("ana", "bo")]
        await asyncio.sleep(0.1)
        assert sent == []
        await limiter.resume("provider")
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)
        return sent

    assert sorted(asyncio.run(run())) == ["ana", "bo"]


def test_a_waiting_caller_goes_on_when_the_pause_is_over() -> None:
    """Without anybody's help."""
    limiter = Limiter(RULES)
    notifier = Notifier(lambda recipient: recipient, limiter=limiter, on_limit="wait", max_wait=20)
    limiter.pause("provider", 0.2)
    began = time.monotonic()

    assert notifier.send("sms", "ana").result == "ana"
    assert time.monotonic() - began >= 0.19


def test_a_reset_ends_pauses(backend: Backend, on_backend: Callable[..., Any]) -> None:
    """A pause is a window as the others."""
    limiter = on_backend(RULES)
    limiter.pause("provider", 30)
    limiter.hit("mail", "ana")
    try:
        assert backend.call(backend.bare.reset) >= 2
    except NotifyError:
        return  # memcached cannot list what it holds

    assert limiter.hit("sms", "ana")


def test_processes_with_other_clocks_agree(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Redis, the seconds count by the clock of the server, for threads and asyncio."""
    uri = f"redis://{valkey.address}/8"
    with (
        Limiter(RULES, uri, namespace="clocks", timeout=20) as one,
        Limiter(RULES, uri, namespace="clocks", timeout=20) as other,
    ):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: 1e9)
            patched.setattr(time, "time_ns", lambda: 10**18)
            until = one.pause("provider", 3000)

        assert until is not None
        assert 2900 < (until - datetime.now(UTC)).total_seconds() < 3100
        assert 2900 < other.hit("sms", "ana").retry_after <= 3000

        async def resume() -> bool:
            async with AsyncLimiter(RULES, uri, namespace="clocks", timeout=20) as limiter:
                assert not await limiter.hit("sms", "bo")
                return await limiter.resume("provider")

        assert asyncio.run(resume())
        assert other.hit("sms", "ana")


def test_the_key_of_a_pause_expires_with_it(valkey: Valkey) -> None:
    """Nothing is left behind on Redis, and the key lies in the slot of the rule's windows."""
    with (
        Limiter(RULES, f"redis://{valkey.address}/8", namespace="expiry", timeout=20) as limiter,
        valkey.client(db=8) as client,
    ):
        limiter.pause("tenant", 100, tenant="acme")
        limiter.hit("mail", "ana", tenant="other")
        (key,) = client.keys("expiry:*:p")

        assert key == b"expiry:{tenant%3Aacme}:tenant:1+tenant:acme:p"
        assert 100_000 - 20_000 < client.pttl(key) <= 102_000
        client.flushdb()


def test_another_value_under_the_key_of_a_pause(valkey: Valkey) -> None:
    """It is an error that names the rule, as for every window, and `resume` repairs it."""
    with (
        Limiter(RULES, f"redis://{valkey.address}/8", namespace="odd", timeout=20) as limiter,
        valkey.client(db=8) as client,
    ):
        key = "odd:{provider}:provider:1+:p"
        for write in (
            lambda: client.set(key, "soon"),
            lambda: client.set(key, 2**53 - 2**51 + 1),
            lambda: client.lpush(key, 1),
        ):
            client.delete(key)
            write()
            for call in (
                lambda: limiter.hit("sms", "ana"),
                lambda: limiter.hit_many("sms", ["ana", "bo"]),
                lambda: limiter.pause("provider", 30),
            ):
                with pytest.raises(StorageError, match="The window of rule 'provider' in Redis holds something"):
                    call()
            assert limiter.resume("provider")
            assert limiter.hit("sms", "ana")
        client.flushdb()


def test_rules_that_cannot_be_paused_ask_as_before() -> None:
    """No key, no argument and no line of a script more on Redis, and the shortcut in memory."""
    from msgspec.msgpack import decode

    from ratelimited_notify.storage.redis.scripts import Scripts

    rules = [Rule("news", "5/day"), Rule("*", "20/day", by=("recipient", "tenant"), strategy="fixed-window")]
    limiter, scripts = Limiter(rules), Scripts()
    query = limiter._query("news", "ana", 1, None, {"tenant": "acme"})
    day = 86_400 * SECOND

    assert [key[-1] for key in query.keys] == ["m", "f"]
    for call, plan in (
        (scripts.acquire(query.windows, 1), [2, 1, 0, 0, 5, day, 1, 0, 20, day]),
        (scripts.acquire_many([query.request()] * 2), [[[2, 1, 0, 0, 5, day, 1, 0, 20, day]], 2]),
        (scripts.forget(query.windows), [0, day, 1, day]),
    ):
        assert decode(call._argument.partition(b"\r\n")[2][:-2]) == plan
        assert b"pause" not in call.script.text
    limiter.hit("news", "ana")
    assert "news" in limiter.plans.shortcuts


def test_a_pause_is_read_with_the_windows_of_its_rule(valkey: Valkey, memcached: Memcached) -> None:
    """It costs no round trip: one more key on Redis, the same item on memcached."""
    from proxy import HOST, Proxy

    rules = [Rule("sms", "5/day", by=(), name="provider")]
    for uri, port, allowed, refused in (
        ("redis://{}:{}/8", valkey.port, 1, 1),
        ("memcached://{}:{}", memcached.port, 2, 1),
    ):
        with (
            Proxy(port) as proxy,
            Limiter(rules, uri.format(HOST, proxy.port), namespace="trips", timeout=20) as limiter,
        ):
            limiter.hit("sms", "before")
            proxied, proxy.requests = proxy, 0
            assert limiter.hit("sms", "ana")
            assert proxied.requests == allowed
            limiter.pause("provider", 30)
            proxy.requests = 0
            assert not limiter.hit("sms", "ana")
            assert proxied.requests == refused
            limiter.clear("sms", "ana", shared=True)


@pytest.mark.parametrize("where", ["memory", "redis", "memcached", "sqlite"])
def test_the_longest_of_many_at_once_wins(request: pytest.FixtureRequest, where: str) -> None:
    """Whoever comes last, and whoever decides meanwhile."""
    if where in ("memory", "sqlite"):
        uri = "memory://" if where == "memory" else f"sqlite:///{request.getfixturevalue('tmp_path')}/windows.db"
    else:
        uri = request.getfixturevalue({"redis": "valkey"}.get(where, where)).url
    with Limiter(RULES, uri, namespace="race", timeout=20) as limiter:
        threads = [
            threading.Thread(
                target=lambda seconds=seconds: (limiter.hit("sms", "ana"), limiter.pause("provider", seconds))
            )
            for seconds in (100, 700, 300, 800, 200, 600, 400, 500)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

        (paused,) = (state for state in limiter.windows("sms", "ana") if state.paused)
        assert 700 < paused.retry_after <= 800
        assert limiter.clear("sms", "ana", shared=True) >= 1
