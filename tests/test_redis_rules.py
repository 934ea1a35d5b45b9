"""Rules in Redis: obeyed when they are written, and kept whatever happens to the server."""

from __future__ import annotations

import gc
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from offering import amount, threads, until
from proxy import Proxy
from ratelimited_notify import Limiter, NotifyError, RuleError, RuleSet
from ratelimited_notify.sources import RedisRules
from ratelimited_notify.sources.load import source_of
from ratelimited_notify.sources.writing import VersionConflict, WritableSource
from servers import HOST
from test_redis_access import Front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Valkey

SOON = 0.1
NEVER = 3600.0
"""An interval that no test waits for: only the subscription can tell."""
KEY = "notify:rules"


def news(amount: int) -> dict[str, Any]:
    """A document."""
    return {"rules": [{"type": "news", "limit": f"{amount}/day"}]}


def files() -> int:
    """How many descriptors are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def subscribers(server: Valkey) -> int:
    """How many connections have subscribed."""
    with server.client() as client:
        ((_, number),) = client.pubsub_numsub(KEY)
    return int(number)


@pytest.fixture
def server(valkey: Valkey) -> Valkey:
    """The server of this test run, without rules."""
    with valkey.client() as client:
        client.delete(KEY)
    return valkey


@pytest.fixture
def own(start_valkey: Callable[..., Valkey]) -> Valkey:
    """A server that the test may stop."""
    return start_valkey()


_made: list[Limiter] = []


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    """What a failed test leaves behind must not count in the next."""
    yield
    while _made:
        _made.pop().close()
    gc.collect()
    until(lambda: threads() == 0)


def rules(server: Valkey | Proxy, interval: float = SOON, **options: Any) -> RedisRules:
    return RedisRules(server.url, key=KEY, interval=interval, **{"timeout": 0.5, **options})


def following(server: Valkey | Proxy, interval: float = SOON, **options: Any) -> Limiter:
    """A limiter that has decided, and goes by 1 a day."""
    rules(server).write(news(1))
    limiter = Limiter(rules(server, interval, **options))
    limiter.hit("news", "ana")
    _made.append(limiter)
    return limiter


def written_elsewhere(server: Valkey, document: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    """Another process writes the rules."""
    program = (
        "import sys, json\n"
        "from ratelimited_notify.sources import RedisRules\n"
        "print(RedisRules(sys.argv[1], key=sys.argv[2]).write(json.loads(sys.argv[3])))"
    )
    command = [sys.executable, "-c", program, server.url, KEY, json.dumps(document)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


# --- Obeyed ----------------------------------------------------------------------------------------------------------


def test_another_process_writes_and_this_one_obeys(server: Valkey) -> None:
    """The subscription tells, long before the interval is over."""
    limiter = following(server, NEVER)
    until(lambda: subscribers(server) == 1)
    for number in (2, 3, 4):
        written_elsewhere(server, news(number))
        until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it
    status = limiter.source.status

    assert (status.error, status.failures) == (None, 0)
    assert status.version is not None
    assert status.version.startswith("4-")
    limiter.close()
    until(lambda: threads() == 0 and subscribers(server) == 0)


def test_what_is_written_before_it_has_subscribed_is_obeyed(server: Valkey) -> None:
    """It subscribes, then reads again, then waits: nothing falls between."""
    rules(server).write(news(1))
    limiter = Limiter(rules(server, NEVER))
    rules(server).write(news(2))
    assert amount(limiter) == 1
    limiter.hit("news", "ana")

    until(lambda: amount(limiter) == 2)
    limiter.close()


def test_without_a_message_the_interval_tells(server: Valkey) -> None:
    """Somebody wrote the hash with a client of theirs, and published nothing."""
    limiter = following(server)
    with server.client() as client:
        client.hset(KEY, mapping={"version": "by hand", "document": json.dumps(news(7))})

        until(lambda: amount(limiter) == 7)
        assert limiter.source.status.version == "by hand"
        rules(server).write(news(8))
        assert client.hget(KEY, "version").startswith(b"1-")
    limiter.close()


def test_the_document_is_read_only_when_the_version_has_changed(server: Valkey) -> None:
    """One field per interval."""
    rules(server).write(news(1))
    source = rules(server)
    first = source.load(None)
    assert first is not None
    with server.client() as client:
        client.config_resetstat()
        assert source.load(first.version) is None
        asked = client.info("commandstats")

    assert asked["cmdstat_hget"]["calls"] == 1
    assert "cmdstat_hmget" not in asked


def test_a_burst_of_messages_is_one(server: Valkey) -> None:
    """Whoever publishes a thousand messages a second does not make every process load as often."""
    limiter = following(server, NEVER)
    until(lambda: subscribers(server) == 1)
    with server.client() as client:
        client.config_resetstat()
        for number in range(2000):
            client.publish(KEY, number)
        rules(server).write(news(2))
        until(lambda: amount(limiter) == 2)

        assert client.info("commandstats")["cmdstat_hget"]["calls"] < 400
    limiter.close()


# --- Written ---------------------------------------------------------------------------------------------------------


def test_versions_count_up_and_never_stand_for_two_documents(server: Valkey) -> None:
    """Also if the database was emptied between two looks."""
    source = rules(server)
    versions = [source.write(news(number)) for number in (1, 2)]
    with server.client() as client:
        client.delete(KEY)
    versions += [source.write(news(number)) for number in (3, 4)]

    assert [version.partition("-")[0] for version in versions] == ["1", "2", "1", "2"]
    assert len(set(versions)) == 4
    assert isinstance(source, WritableSource)


def test_only_the_version_that_was_meant_is_replaced(server: Valkey) -> None:
    """By its number, or exactly; and 0 is none."""
    source = rules(server)
    first = source.write(news(1), if_version="0")
    second = source.write(news(2), if_version="1")
    third = source.write(news(3), if_version=second)
    for other in ("0", "1", first, second, "3-", "", "4"):
        with pytest.raises(VersionConflict, match=rf"have version {third}, not {other}"):
            source.write(news(4), if_version=other)

    loaded = source.load(None)
    assert loaded is not None
    assert loaded.document == news(3)


def test_of_two_who_write_at_once_one_wins(server: Valkey) -> None:
    """Each time; and without a version both are written, one after the other."""
    for _ in range(10):
        with server.client() as client:
            client.delete(KEY)
        rules(server).write(news(1))
        together = threading.Barrier(4)
        said: list[str] = []

        def write(number: int, together: threading.Barrier = together, said: list[str] = said) -> None:
            source = rules(server)
            together.wait()
            try:
                said.append(source.write(news(number), if_version="1"))
            except VersionConflict:
                said.append("")

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for each in writers:
            each.start()
        for each in writers:
            each.join()
        (version,) = filter(None, said)
        loaded = rules(server).load(None)
        assert loaded is not None
        assert loaded.version == version
    writers = [threading.Thread(target=rules(server).write, args=(news(number),)) for number in range(8)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()

    loaded = rules(server).load(None)
    assert loaded is not None
    assert loaded.version.startswith("10-")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"rules": [{"type": "news", "limit": "often"}, {"type": "x"}]}, r"rules\[0\].limit: .*\nrules\[1\].limit: is missing"),
        ({"rules": []}, "There are no rules in it"),
        ({"rules": [{"type": "a\ud800", "limit": "1/day"}]}, "JSON cannot express"),
        ({"rules": [{"type": "a", "limit": "1/day", "by": "recipient", "overrides": {str(n) + "x" * 1000: "1/day" for n in range(17000)}}]}, "larger than 16 MiB"),
    ],
    ids=["wrong", "empty", "surrogate", "large"],
)  # fmt: skip
def test_what_cannot_be_used_is_not_written(server: Valkey, document: dict[str, Any], said: str) -> None:
    """All problems at once, before anything is sent."""
    with pytest.raises(RuleError, match=said):
        rules(server).write(document)

    with server.client() as client:
        assert not client.exists(KEY)


# --- What is there cannot be used ------------------------------------------------------------------------------------


def hash_with(**fields: object) -> Callable[[Any], None]:
    def write(client: Any) -> None:
        client.delete(KEY)
        if fields:
            client.hset(KEY, mapping=fields)

    return write


WRONG: list[tuple[str, Callable[[Any], object], str]] = [
    ("gone", hash_with(), "Nothing is there"),
    ("flushed", lambda client: client.flushall(), "Nothing is there"),
    ("no version", hash_with(document="{}"), "Nothing is there"),
    ("no document", hash_with(version="x"), "no field document"),
    ("no JSON", hash_with(version="x", document='{"rules": ['), "The document is not valid JSON"),
    ("no UTF-8", hash_with(version="x", document=b"\xff"), "The document is not valid JSON: it is not UTF-8"),
    ("no object", hash_with(version="x", document="[]"), "The document must contain an object"),
    ("deep", hash_with(version="x", document="[" * 100_000), "nested too deeply"),
    ("wrong rules", hash_with(version="x", document='{"rules": [{"type": "news"}]}'), r"rules\[0\].limit: is missing"),
    ("empty", hash_with(version="x", document="{}"), "has no rules any more"),
    ("empty version", hash_with(version="", document="{}"), "The version is empty"),
    ("long version", hash_with(version="9" * 201, document="{}"), "more than 200 bytes"),
    ("odd version", hash_with(version="a\x1b[2J", document="{}"), "a character that cannot be printed"),
    ("large", hash_with(version="x", document="x" * (16 * 2**20 + 1)), "The document is larger than 16 MiB"),
    ("a string", lambda client: client.set(KEY, "{}"), "The key holds a value of another type"),
]


@pytest.mark.parametrize(("wrong", "said"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_the_last_good_rules_stay(
    wrong: Callable[[Any], object], said: str, server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Sends go on, the status and one line say what is wrong, and the next good rules are obeyed."""
    limiter = following(server, 0.02)
    with server.client() as client:
        wrong(client)
        until(lambda: limiter.source.status.error is not None)
        time.sleep(0.1)
        assert amount(limiter) == 1
        assert limiter.hit("news", "bo")
        assert limiter.source.unreached == 0
        assert said.replace("\\", "") in (limiter.source.status.error or "")
        client.delete(KEY)
    rules(server).write(news(5))

    until(lambda: amount(limiter) == 5 and limiter.source.status.error is None)
    # Once for each cause: that, the key that is missing, and a time-out where the machine is busy.
    assert len([each for each in caplog.records if "stay" in each.getMessage()]) <= 3
    assert threads() == 1
    limiter.close()


def test_a_document_that_is_no_json_is_parsed_once(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until there is another version."""
    from ratelimited_notify.sources.redis import source as module

    limiter = Limiter(following(server, NEVER).source.source)
    parsed: list[str] = []
    read_json = module.read_json
    monkeypatch.setattr(module, "read_json", lambda text, what: parsed.append(text) or read_json(text, what))
    with server.client() as client:
        client.hset(KEY, mapping={"version": "x", "document": "[["})
        for _ in range(3):
            with pytest.raises(RuleError, match="not valid JSON"):
                limiter.source.refresh()
        assert parsed == ["[["]
        client.hset(KEY, mapping={"version": "y", "document": json.dumps(news(3))})

    assert limiter.source.refresh()
    limiter.close()


# --- The server ------------------------------------------------------------------------------------------------------


def test_a_killed_subscription_is_made_again_at_once(server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """No change waits for the interval, and nothing is logged."""
    limiter = following(server, 1.0)
    until(lambda: subscribers(server) == 1)
    with server.client() as client:
        for number in range(2, 5):
            # It has lasted for an interval.
            time.sleep(1.1)
            client.client_kill_filter(_type="pubsub")
            until(lambda: subscribers(server) == 1)
            rules(server).write(news(number))
            until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it

    assert caplog.records == []
    limiter.close()


def test_a_subscription_that_never_lasts_is_given_up_for_the_interval(
    server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, one that it is over, however often it was tried in between."""
    limiter = following(server, 0.3)
    until(lambda: subscribers(server) == 1)
    with server.client() as client:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            client.client_kill_filter(_type="pubsub")
            time.sleep(0.01)
        rules(server).write(news(2))
        until(lambda: amount(limiter) == 2)
    until(lambda: "noticed at once again" in caplog.text)

    first, second = (record.getMessage() for record in caplog.records)
    assert "are noticed only every 0.3 seconds, because the subscription failed: " in first
    assert second.startswith(f"Changes of the rules in {server.url}?key={KEY} are noticed at once again")
    limiter.close()


def stopped(server: Valkey) -> Callable[[], None]:
    server.stop()
    return server.start


def hanging(server: Valkey) -> Callable[[], None]:
    server.pause()
    return server.resume


@pytest.mark.parametrize("fails", [stopped, hanging])
def test_sends_go_on_without_the_server(
    fails: Callable[[Valkey], Callable[[], None]], own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """By the last good rules, with one line; and when it is back, by its rules, told at once."""
    limiter = following(own, timeout=0.2)
    until(lambda: subscribers(own) == 1)
    begin_again = fails(own)
    until(lambda: limiter.source.status.failures >= 2)
    assert limiter.hit("news", "bo")
    assert amount(limiter) == 1
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("The rules in force stay, because new ones cannot be used or loaded: Redis ")
    caplog.clear()
    begin_again()
    until(lambda: subscribers(own) >= 1, 60)
    rules(own).write(news(6))

    until(lambda: amount(limiter) == 6, 60)
    until(lambda: limiter.source.status.error is None)
    # A server that was stopped has lost them.
    assert len(caplog.records) <= 2
    assert caplog.records[-1].getMessage().startswith("The rules are loaded from ")
    limiter.close()
    until(lambda: threads() == 0)


def test_a_proxy_that_swallows_everything_is_noticed(server: Valkey) -> None:
    """The subscription has to answer PINGs; until it does again, the net is the interval."""
    with Proxy(server.port) as proxy:
        limiter = following(proxy, timeout=0.2)
        until(lambda: subscribers(server) == 1)
        # Only the subscription: a load opens a connection of its own, in which nothing says SUBSCRIBE.
        proxy.since = b"SUBSCRIBE"
        subscription = proxy.requests
        proxy.silent = True
        until(lambda: limiter.source.status.failures or proxy.requests > subscription + 10)
        rules(server).write(news(2))
        until(lambda: amount(limiter) == 2)
        assert limiter.source.status.error is None
        proxy.silent = False
        proxy.cut()
        until(lambda: subscribers(server) >= 1)
        rules(server).write(news(3))
        until(lambda: amount(limiter) == 3)
        limiter.close()


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n", b"*3\r\n:1\r\n$-1\r\n*0\r\n", b"$5\r\nab"]
)
def test_another_server_in_its_place_changes_nothing(garbage: bytes, server: Valkey) -> None:
    """Whatever it answers is no rules."""
    with Proxy(server.port) as proxy:
        limiter = following(proxy, 0.05, timeout=0.2)
        proxy.garbage = garbage
        proxy.cut()
        until(lambda: limiter.source.status.failures >= 2)
        assert amount(limiter) == 1
        assert limiter.hit("news", "bo")
        proxy.garbage = None
        rules(server).write(news(2))

        until(lambda: amount(limiter) == 2)
        limiter.close()


def test_a_slow_reply_is_read_to_its_end(server: Valkey) -> None:
    """Each part of it has the time-out, not the whole."""
    rules(server).write(news(2))
    with Proxy(server.port) as proxy:
        proxy.drip = 0.01
        loaded = rules(proxy, timeout=0.3).load(None)

    assert loaded is not None
    assert loaded.document == news(2)


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ("+hget +hmget +hstrlen +ping", "The Redis user may not run SUBSCRIBE."),
        ("+@all resetchannels", "The Redis user may not use this channel."),
    ],
)
def test_a_user_that_may_not_subscribe_has_the_interval(
    access: str, said: str, own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says what the ACL lacks."""
    rules(own).write(news(1))
    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">s3cret", f"~{KEY}", "-@all", *access.split())
    limiter = Limiter(RedisRules(f"redis://reader:s3cret@{own.address}", key=KEY, interval=0.05))
    limiter.hit("news", "ana")
    for number in (2, 3):
        rules(own).write(news(number))
        until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it

    (line,) = (record.getMessage() for record in caplog.records)
    assert said in line
    assert "reader" not in line
    limiter.close()


def test_an_acl_needs_what_the_guide_says(own: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """For a user who reads and one who writes."""
    guide = (Path(__file__).parent.parent / "docs/how-to/redis.md").read_text("utf-8")
    with own.client() as client:
        for line in guide.replace("guide:rules", KEY).splitlines():
            if line.startswith(("ACL SETUSER reads", "ACL SETUSER writes")):
                client.execute_command(*line.split())
    writer = RedisRules(f"redis://writes:password@{own.address}", key=KEY)
    writer.write(news(1))
    limiter = Limiter(RedisRules(f"redis://reads:password@{own.address}", key=KEY, interval=0.3))
    _made.append(limiter)
    limiter.hit("news", "ana")
    until(lambda: subscribers(own) == 1)
    # The server has answered a PING by then.
    time.sleep(1)
    writer.write(news(2), if_version="1")
    until(lambda: amount(limiter) == 2)

    assert subscribers(own) == 1
    assert caplog.records == []
    with pytest.raises(RuleError, match="may not run WATCH"):
        limiter.source.source.write(news(3))  # type: ignore[attr-defined]  # it is a RedisRules


@pytest.mark.parametrize(
    ("login", "key", "said"),
    [
        ("reader:s3cret@", KEY, "The Redis user may not run HGET."),
        ("reader:wrong@", KEY, "Redis refused the user or password"),
        (":s3cret@", KEY, "Redis has no password for this user, and the URI has one."),
        ("other:s3cret@", KEY, "The Redis user may not use this key."),
    ],
)
def test_a_refused_user_is_told_and_no_message_has_the_password(login: str, key: str, said: str, own: Valkey) -> None:
    """At the first load, with what to do."""
    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "-@all", "+ping")
        client.execute_command("ACL", "SETUSER", "other", "on", ">s3cret", "~x", "+@all")
    source = RedisRules(f"redis://{login}{own.address}", key=key)
    with pytest.raises(RuleError, match=r"^The rules in redis://127") as caught:
        Limiter(source)

    assert said in str(caught.value)
    for text in (str(caught.value), repr(source), repr(source.__dict__["_address"]), source.place):
        assert "s3cret" not in text
        assert "wrong" not in text


def test_a_server_of_a_cluster_is_refused(start_valkey: Callable[..., Valkey]) -> None:
    """Its keys move."""
    server = start_valkey("--cluster-enabled", "yes")

    with pytest.raises(RuleError, match="This server is part of a cluster"):
        rules(server).load(None)


def test_a_socket_and_a_database(start_valkey: Callable[..., Valkey], tmp_path: Path) -> None:
    """By its path, and by its number."""
    path = tmp_path / "redis.sock"
    server = start_valkey("--unixsocket", str(path))
    RedisRules(f"redis+unix://{path}?db=3", key=KEY).write(news(2))
    other = RedisRules(f"valkey://{server.address}/3", key=KEY).load(None)

    assert other is not None
    assert other.document == news(2)
    with pytest.raises(RuleError, match="does not have the database"):
        RedisRules(f"redis://{server.address}/999", key=KEY).load(None)
    with pytest.raises(NotifyError, match="Redis cannot be reached"):
        RedisRules("redis+unix:///nowhere/at/all", key=KEY).load(None)


def test_tls(server: Valkey, tmp_path: Path) -> None:
    """Both connections, with an authority of one's own; and what is said where TLS is missing, or nobody is trusted."""
    authority = trustme.CA()
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    rules(server).write(news(1))
    with Front(server, context) as front:
        uri = f"rediss://{HOST}:{front.port}/0?key={KEY}&interval=3600&timeout=5"
        limiter = Limiter(f"{uri}&ssl_ca_certs={path}")
        _made.append(limiter)
        limiter.hit("news", "ana")
        until(lambda: subscribers(server) == 1)
        rules(server).write(news(2))
        until(lambda: amount(limiter) == 2)
        limiter.close()
        until(lambda: threads() == 0 and subscribers(server) == 0)
        with pytest.raises(NotifyError, match="certificate verify failed"):
            Limiter(uri)
        with pytest.raises(NotifyError, match="Redis"):
            RedisRules(f"redis://{HOST}:{front.port}", key=KEY, timeout=0.3).load(None)
    with pytest.raises(NotifyError, match="Redis"):
        RedisRules(f"rediss://{server.address}", key=KEY, timeout=0.3).load(None)


# --- Processes, threads, descriptors ---------------------------------------------------------------------------------


def test_nothing_is_left_after_close(server: Valkey) -> None:
    """No thread, no descriptor, no connection; closed or forgotten, and at any moment."""
    following(server).close()
    until(lambda: threads() == 0)
    gc.collect()
    before = files()
    for number in range(40):
        limiter = following(server, NEVER if number % 4 else 0.001)
        _made.clear()
        time.sleep(0.002 * (number % 10))
        if number % 3:
            limiter.close()
        del limiter
    gc.collect()

    until(lambda: threads() == 0)
    until(lambda: files() <= before)
    until(lambda: subscribers(server) == 0)


def test_a_closed_source_can_be_used_again(server: Valkey) -> None:
    """As after a fork, or by a second limiter."""
    limiter = following(server, NEVER)
    for number in (2, 3):
        until(lambda: subscribers(server) == 1)
        limiter.close()
        until(lambda: subscribers(server) == 0)
        limiter.hit("news", "ana")
        until(lambda: subscribers(server) == 1)
        rules(server).write(news(number))
        until(lambda number=number: amount(limiter) == number)  # type: ignore[misc]  # mypy cannot infer it
    limiter.close()


def test_who_waits_without_a_thread_can_close(server: Valkey) -> None:
    """As a program of one's own that calls `wait`."""
    rules(server).write(news(1))
    source = rules(server)
    assert source.wait(1)
    assert not source.wait(0.01)
    before = files()
    source.close()

    assert files() == before - 1
    until(lambda: subscribers(server) == 0)


def test_a_child_has_connections_of_its_own(server: Valkey) -> None:
    """It subscribes itself, and what it closes is not the parent's."""
    limiter = following(server, NEVER)
    until(lambda: subscribers(server) == 1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # No assertion may leave the child.
        said = b"failed"
        try:
            limiter.hit("news", "bo")
            until(lambda: subscribers(server) == 2)
            rules(server).write(news(2))
            until(lambda: amount(limiter) == 2)
            limiter.close()
            until(lambda: subscribers(server) == 1)
            said = b"obeyed"
        finally:
            os.write(write, said)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said == b"obeyed"
    until(lambda: amount(limiter) == 2)
    rules(server).write(news(3))

    until(lambda: amount(limiter) == 3)
    limiter.close()


# --- Texts -----------------------------------------------------------------------------------------------------------


def test_a_text_is_a_source(server: Valkey) -> None:
    """With options of its own and of the connection."""
    rules(server).write(news(2))
    limiter = Limiter(f"{server.url}?key=notify%3Arules&interval=7&timeout=1.5&wait=false&allow_empty=true")
    source = limiter.source.source

    assert isinstance(source, RedisRules)
    assert limiter.rules == RuleSet({"news": "2/day"})
    assert (source.options.interval, source.options.wait, source.options.allow_empty) == (7, False, True)
    assert repr(source) == f"<RedisRules of {server.url}?key=notify:rules>"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("redis://?key=a", "redis://localhost:6379/0?key=a"),
        ("rediss://u:p@Host:7000/2?key=a%20b&ssl_cert_reqs=none&max_connections=5", "rediss://host:7000/2?key=a%20b"),
        ("valkey://[::1]:7000/?key=a&db=4", "redis://[::1]:7000/4?key=a"),
        ("valkeys://h?key=a", "rediss://h:6379/0?key=a"),
        ("redis+unix:///run/redis.sock?key=a&db=1", "redis+unix:///run/redis.sock?db=1&key=a"),
        ("redis://h?key=a&username=u&password=s3cret", "redis://h:6379/0?key=a"),
    ],
)
def test_a_text_says_where(text: str, place: str) -> None:
    """What is shown has no user and no password."""
    source = source_of(text)

    assert source is not None
    assert source.place == place


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("redis://s3cret@h", "needs one key"),
        ("redis://s3cret@h?key=", "needs one key"),
        ("redis://h/s3cret?key=a", "must be a number, such as /0"),
        ("redis://h:s3cret?key=a", "a host and a port"),
        ("redis://h:70000?key=a", "from 1 to 65535"),
        ("redis://u:s3#cret@h?key=a", "contains a #"),
        ("redis://u:s3/cret@h?key=a", "an @ follows a /"),
        ("redis://u:s3 cret@h?key=a", "a space"),
        ("redis://h,i?key=a", "several servers"),
        ("redis://h?key=a&s3cret=1", "an option in it is unknown; it may have client_name, db, password, ssl_"),
        ("redis://h?key=a&db=x", "its option db has a value that is not allowed"),
        ("redis://h?key=a&timeout=0", "its option timeout has a value"),
        ("redis://h?key=a&db=1&db=2", "the option db twice"),
        ("redis://h?key=a&interval=0", "interval= must be a number of seconds"),
        ("redis://h?key=a&interval=x", "interval= in a source must be"),
        ("redis+cluster://h:1?key=a", "neither from a cluster nor by Sentinels"),
        ("redis+other://h:1?key=a", "its scheme is none of redis,"),
        ("redis+unix://host?key=a", "the path of a socket"),
        ("rediss://h?key=a&ssl_cert_reqs=s3cret", "redis-py refuses the options"),
        ("redis://h?key=a%0Ab", "key= must be the name of a key"),
    ],
)  # fmt: skip
def test_a_text_that_is_not_understood(text: str, said: str) -> None:
    """It says what to write, and quotes nothing."""
    with pytest.raises(RuleError, match=r"redis|Redis|source|interval|key") as caught:
        source_of(text)

    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "cret" not in str(caught.value).replace("secret", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": "1"},
        {"timeout": True},
        {"timeout": float("nan")},
        {"key": ""},
        {"key": 1},
        {"interval": -1},
    ],
)
def test_an_argument_that_cannot_be_used(wrong: dict[str, Any]) -> None:
    """It is told at construction."""
    with pytest.raises(NotifyError, match="must be"):
        RedisRules("redis://localhost", **{"key": KEY, **wrong})
    with pytest.raises(NotifyError, match="must be a string"):
        RedisRules(None, key=KEY)  # type: ignore[arg-type]  # what is wrong


def test_without_redis_it_says_what_to_install() -> None:
    """Not before it is used."""
    program = """
import sys
sys.modules["redis"] = None
from ratelimited_notify import Limiter, MissingExtra
from ratelimited_notify.sources import FileRules
try:
    Limiter("redis://localhost/0?key=x")
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert "pip install 'ratelimited-notify[redis]'" in done.stdout
    assert done.stderr == ""


def test_it_keeps_no_process_from_exiting(server: Valkey) -> None:
    """A program that ends without closing anything ends, and its connections with it."""
    rules(server).write(news(2))
    program = (
        "from ratelimited_notify import Limiter\n"
        f"limiter = Limiter('{server.url}?key={KEY}')\n"
        "print(limiter.hit('news', 'ana').allowed)\n"
        "import time; time.sleep(0.2)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert (done.stdout, done.stderr) == ("True\n", "")
    with suppress(AssertionError):
        until(lambda: subscribers(server) == 0, 2)
    assert subscribers(server) == 0
