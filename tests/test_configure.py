from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from outcomes import AsyncUnreliable, Unreliable
from processes import unconfigured
from ratelimited_notify import (
    Limiter,
    NotifyError,
    RateLimitExceeded,
    Rule,
    RuleError,
    RuleSet,
    StorageError,
    configure,
    rate_limited,
)
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.pytest_plugin import Clock
from ratelimited_notify.storage import open_storage
from ratelimited_notify.storage.memory import AsyncMemoryStorage, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


def news(to: str) -> str:
    return "sent"


async def news_async(to: str) -> str:
    return "sent"


def sent(function: Callable[[str], Any], times: int, to: str = "ana") -> int:
    """How many of so many calls were not dropped; of coroutine functions too."""

    async def awaited(call: Any) -> Any:
        return await call

    results = []
    for _ in range(times):
        result = function(to)
        results.append(asyncio.run(awaited(result)) if asyncio.iscoroutine(result) else result)
    return results.count("sent")


@pytest.fixture
def send() -> Callable[[str], Any]:
    return rate_limited("news", on_limit="drop")(news)


@pytest.fixture
def send_async() -> Callable[[str], Any]:
    return rate_limited("news", on_limit="drop")(news_async)


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    """A file with a rule for news."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "2/day"\n')
    return path


NOTHING = (
    "Nothing limits news: call configure(rules=...) first, set RATELIMITED_NOTIFY_RULES, or write limit='1/day' on the "
    "decorator."
)


def test_nothing_configured_is_an_error(send: Any, send_async: Any) -> None:
    """A function that nobody said a limit for is an error at its first call, and at each, until somebody does."""
    for _ in range(2):
        with pytest.raises(NotifyError) as caught:
            send("ana")
        assert str(caught.value) == NOTHING
        with pytest.raises(NotifyError, match=r"^Nothing limits news_async: "):
            sent(send_async, 1)
    configure({"news": "1/day"})
    assert sent(send, 2) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nothing_configured_while_another_function_has_a_limit(
    asynchronous: bool, send: Any, rules_file: Path, monkeypatch: Any
) -> None:
    """A function with a limit of its own does not speak for others; what is said later is heard, and its hits stay."""
    status = rate_limited("status", "1/day", on_limit="drop")(news)
    status_async = rate_limited("status", "1/day", on_limit="drop")(news_async)
    assert sent(status, 2) == 1
    if asynchronous:
        assert sent(status_async, 2) == 0
    with pytest.raises(NotifyError, match=r"^Nothing limits news: "):
        send("ana")

    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(rules_file))
    assert sent(send, 3) == 2
    assert sent(status, 1) + sent(status_async, 1) == 0


def test_rules_from_the_environment(send: Any, send_async: Any, rules_file: Path, monkeypatch: Any) -> None:
    """`RATELIMITED_NOTIFY_RULES` names a rule file; sync and async functions go by it together."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(rules_file))

    assert sent(send_async, 1) == 1
    assert sent(send, 2) == 1
    assert sent(send_async, 1) == 0


def test_the_environment_is_read_at_the_first_call(send: Any, rules_file: Path, monkeypatch: Any) -> None:
    """The environment is looked up at the first call, and what it said then stays."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(rules_file))
    assert sent(send, 1) == 1
    monkeypatch.delenv("RATELIMITED_NOTIFY_RULES")
    rules_file.unlink()

    assert sent(rate_limited("news", on_limit="drop")(news), 2) == 1


def test_a_rule_file_that_is_not_there(send: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A rule file that cannot be read is an error that names it."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(tmp_path / "none.toml"))

    with pytest.raises(RuleError, match=r"none\.toml"):
        send("ana")


def test_storage_from_the_environment(send: Any, monkeypatch: Any) -> None:
    """`RATELIMITED_NOTIFY_STORAGE` names the storage where `configure` does not; one that is unknown is an error."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_STORAGE", "nosuch://user:secret@host")

    with pytest.raises(NotifyError, match=r"nosuch://") as caught:
        configure({"news": "1/day"})
    assert "secret" not in str(caught.value)
    with pytest.raises(NotifyError, match=r"nosuch://"):
        rate_limited("status", "1/day")(news)("ana")
    configure({"news": "1/day"}, "memory://")
    assert sent(send, 2) == 1


def test_the_storage_of_the_environment_is_used(send: Any, send_async: Any, monkeypatch: Any) -> None:
    """What the environment names as storage is opened, once for sync and async functions where it is memory."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_STORAGE", "memory://")
    configure({"news": "3/day"})

    assert sent(send, 2) + sent(send_async, 2) == 3
    assert isinstance(configuration.limiter().storage, MemoryStorage)


@pytest.mark.parametrize("configured", [False, True])
def test_disabled_by_the_environment(
    configured: bool, send: Any, send_async: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`RATELIMITED_NOTIFY_DISABLED` sends everything, configured or not, and says so in the log."""
    monkeypatch.setattr(switch, "_said", False)
    monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "1")
    if configured:
        configure({"news": "1/day"})

    with caplog.at_level(logging.WARNING):
        assert sent(send, 3) + sent(send_async, 3) == 6
    assert [record.message for record in caplog.records] == [
        "Rate limiting of notifications is switched off: everything is sent, nothing is counted."
    ]


def test_disabled_by_something_else(send: Any, monkeypatch: Any) -> None:
    """A value that is neither yes nor no is an error, not a guess."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "maybe")

    with pytest.raises(NotifyError, match=r"^RATELIMITED_NOTIFY_DISABLED has a value that means neither yes nor no"):
        send("ana")


def test_disabled_by_configure(send: Any, send_async: Any) -> None:
    """`configure(enabled=False)` sends everything; configured again, limits are in force."""
    configure({"news": "1/day"}, enabled=False)
    assert sent(send, 2) + sent(send_async, 2) == 4

    configure({"news": "1/day"})
    assert sent(send, 2) + sent(send_async, 2) == 1


def test_configure_without_rules(send: Any, rules_file: Path, monkeypatch: Any) -> None:
    """What `configure` is not given comes from the environment; with nothing there, limits are those of decorators."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(rules_file))
    configure(namespace="shop")
    assert sent(send, 3) == 2

    monkeypatch.delenv("RATELIMITED_NOTIFY_RULES")
    configure(namespace="shop")
    limited = rate_limited("status", "1/day", on_limit="drop")(news)
    assert sent(limited, 2) == 1
    assert sent(send, 5) == 5


def test_a_second_configure_replaces_the_first_for_everybody(send: Any, send_async: Any) -> None:
    """Functions that were called before go by the new rules at their next call, sync and async ones."""
    configure({"news": "1/day"})
    assert sent(send, 2) + sent(send_async, 2) == 1
    configure({"news": "3/day"}, clock=Clock())
    assert sent(send_async, 2) + sent(send, 2) == 3
    configure([Rule("news", None)])
    assert sent(send, 9) == 9


@pytest.mark.parametrize("uri", ["memory://", "MEMORY://", "notify+memory://", None])
def test_one_configure_serves_sync_and_async(uri: str | None, send: Any, send_async: Any) -> None:
    """In memory sync and async functions share one set of windows, whichever is called first."""
    configure({"news": "2/day"}, uri)
    assert [sent(send, 1), sent(send_async, 1), sent(send, 1), sent(send_async, 1)] == [1, 1, 0, 0]
    assert [sent(send_async, 1, "bo"), sent(send, 1, "bo"), sent(send_async, 1, "bo")] == [1, 1, 0]


def test_windows_in_memory_outlive_a_configuration(send: Any, send_async: Any) -> None:
    """Configured again, with other rules, nobody gets more than they say; a storage of its own begins afresh."""
    declared = rate_limited("status", "1/day", on_limit="drop")(news)
    assert sent(declared, 2) == 1
    configure({"news": "2/day"})
    assert sent(declared, 2) == 0
    assert sent(send, 1) + sent(send_async, 2) == 2
    configure({"news": "3/day"})
    assert sent(send, 2) + sent(send_async, 2) == 1
    configure({"news": "3/day"}, open_storage("memory://"))
    assert sent(send, 4) == 3


def test_the_switch_is_stronger_than_a_rules_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, send: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Switched off, everything is sent, although the rules cannot be read; the log says that they cannot."""
    monkeypatch.setenv("RATELIMITED_NOTIFY_DISABLED", "1")
    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(tmp_path / "nowhere.toml"))

    assert sent(send, 3) == 3
    configure()
    assert sent(send, 3) == 3
    assert Limiter(tmp_path / "nowhere.toml").hit("news", "ana")
    assert "nowhere.toml" in caplog.text


def test_a_limit_that_cannot_be_used_is_none() -> None:
    """A limit on a decorator that does not go with the rules in force is told by its place, and not remembered."""
    rules = [Rule("*", "1/day", name="promo", by="recipient")]
    configure(rules)

    with pytest.raises(RuleError, match=r"the limit of .*news cannot be combined with the rules in force"):
        rate_limited("promo", "1/day")(news)
    configure(rules)
    assert sent(rate_limited("promo", "1/hour", on_limit="drop")(news), 2) == 1


@pytest.mark.parametrize("server", ["valkey", "memcached"])
def test_one_configure_serves_sync_and_async_on_a_server(server: str, request: pytest.FixtureRequest) -> None:
    """On a server sync and async functions share one set of windows too: the same keys."""
    send = rate_limited("news", on_limit="drop")(news)
    send_async = rate_limited("news", on_limit="drop")(news_async)
    configure({"news": "3/day"}, request.getfixturevalue(server).url, namespace="both", timeout=5)

    async def main() -> list[Any]:
        results = [await send_async("ana"), send("ana"), await send_async("ana"), send("ana"), await send_async("ana")]
        await configuration.async_limiter().close()
        return results

    assert asyncio.run(main()) == ["sent", "sent", "sent", None, None]
    configuration.limiter().close()


def test_a_server_that_cannot_be_reached(send: Any) -> None:
    """A server that is not there is an error at the call, in this library's words, and without the password."""
    configure({"news": "1/day"}, "redis://:secret@localhost:1/0")

    with pytest.raises(StorageError) as caught:
        send("ana")
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    configuration.limiter().close()


@pytest.mark.parametrize("kind", [MemoryStorage, AsyncMemoryStorage])
def test_a_storage_in_memory_may_be_passed(kind: Any, send: Any, send_async: Any) -> None:
    """A storage object in memory serves both as well, the sync or the async one."""
    configure({"news": "2/day"}, kind())

    assert sent(send_async, 1) + sent(send, 2) + sent(send_async, 1) == 2


def test_rules_that_can_be_read_once(send: Any, send_async: Any, rules_file: Path) -> None:
    """An iterator, or a file that changes, gives sync and async functions the same rules."""
    configure(iter([Rule("news", "1/day")]))
    assert sent(send, 2) + sent(send_async, 2) == 1

    configure(rules_file, open_storage("memory://"))
    assert sent(send, 1) == 1
    rules_file.write_text("not TOML")
    assert sent(send_async, 2) == 1


def test_a_clock_for_everybody(send: Any, send_async: Any) -> None:
    """The options of a limiter are those of all decorated functions."""
    clock = Clock()
    configure({"news": "1/minute"}, clock=clock, normalize="email")
    assert sent(send, 1, "Ana@X.com") + sent(send_async, 1, "ana@x.com") == 1
    clock.advance(60)
    assert sent(send_async, 2, "ana@x.com") + sent(send, 1, "Ana@X.com") == 1


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        (({"news": "1/fortnight"},), {}, RuleError),
        (("no-such-file.toml",), {}, RuleError),
        (({"news": "9/day"}, "nosuch://host"), {}, NotifyError),
        (({"news": "9/day"}, 5), {}, NotifyError),
        (({"news": "9/day"},), {"namespace": "a b"}, NotifyError),
        (({"news": "9/day"},), {"timeout": -1}, NotifyError),
        (({"news": "9/day"},), {"no_such_option": 1}, TypeError),
    ],
)
def test_a_configure_that_fails_changes_nothing(
    arguments: Any, options: Any, kind: Any, send: Any, send_async: Any
) -> None:
    """What cannot be used is told by `configure` itself, and what was in force stays in force, with its counts."""
    configure({"news": "2/day"})
    assert sent(send, 1) == 1

    with pytest.raises(kind):
        configure(*arguments, **options)

    assert sent(send, 1) + sent(send_async, 1) == 1


def test_a_storage_of_the_wrong_kind(send: Any, send_async: Any) -> None:
    """A storage for asyncio alone serves async functions; a sync function says at its call what is wrong."""

    class OnlyAsync(AsyncUnreliable):
        pass

    storage: Any = OnlyAsync()
    storage.windows = Unreliable()
    configure({"news": "1/day"}, storage)
    assert sent(send_async, 2) == 1
    from limits.aio.storage import MemoryStorage as OfLimits

    configure({"news": "1/day"}, OfLimits())
    with pytest.raises(NotifyError, match=r"cannot be the storage of Limiter"):
        send("ana")


def test_a_rule_set_may_be_passed(send: Any) -> None:
    """A `RuleSet` with its own defaults is taken as it is."""
    configure(RuleSet(default="1/day"))
    assert sent(send, 2) == 1
    configure(RuleSet(unknown_type="raise"))
    with pytest.raises(NotifyError, match=r"^No rule matches notifications of type 'news'"):
        send("ana")


def test_the_first_calls_of_many_threads_make_one_limiter() -> None:
    """However many threads call first, sync and async functions get one limiter each, on one set of windows."""
    configure({"news": "1/day"})
    configuration.reset()
    rate_limited("news", "5/day")(news)
    barrier = threading.Barrier(8)
    made: list[object] = []

    def call(number: int) -> None:
        barrier.wait()
        made.append(configuration.limiter() if number % 2 else configuration.async_limiter())

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 2
    # What comes second, after having waited for the first.
    assert {configuration._make_limiter(), configuration._make_async_limiter()} == set(made)


def test_decorated_while_another_thread_configures() -> None:
    """A limit that is written down while another thread configures is not lost: it waits, and is in force afterwards."""
    functions: list[Callable[[str], str]] = []
    thread = threading.Thread(target=lambda: functions.append(rate_limited("news", "1/day")(news)))

    def rules() -> Iterator[Rule]:
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        yield Rule("status", "1/day")

    configure(rules())
    thread.join()

    (send,) = functions
    assert send("ana") == "sent"
    with pytest.raises(RateLimitExceeded):
        send("ana")


def test_a_hit_goes_back_where_it_came_from() -> None:
    """A call that began before `configure` gives its hit back to the storage that granted it."""
    before, after = Unreliable(), Unreliable()
    configure({"news": "1/day"}, before)
    first = configuration.limiter()

    @rate_limited("news")
    def send(to: str) -> None:
        configure({"news": "1/day"}, after)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        send("ana")
    assert first.test("news", "ana")
    assert configuration.limiter().test("news", "ana")


def test_an_override_gives_everything_back() -> None:
    """After a rehearsal, as tests have it, what was configured is in force again, counts and all; so are limits on decorators."""
    clock = Clock()
    send = rate_limited("news", on_limit="drop")(news)
    send_async = rate_limited("news", on_limit="drop")(news_async)
    configure({"news": "2/day"}, enabled=True)
    assert sent(send, 1) + sent(send_async, 1) == 2

    with configuration.overriding(clock):
        assert sent(send, 3) + sent(send_async, 3) == 2
        clock.advance(86_400)
        assert sent(send_async, 3) == 2
        configure({"news": "5/day"}, "nosuch://never.opened", enabled=False)
        assert sent(send, 9) == 3
        lasting = rate_limited("lasting", "1/day", on_limit="drop")(news)
        lasting_async = rate_limited("lasting", "1/day", on_limit="drop")(news_async)
        rate_limited("passing", "1/day")(lambda to: None)
        assert sent(lasting, 2) + sent(lasting_async, 2) == 1

    assert sent(send, 1) + sent(send_async, 1) == 0
    assert sent(lasting, 2) + sent(lasting_async, 2) == 1
    rate_limited("passing", "2/day")(lambda to: None)


def test_an_override_of_what_nobody_has_called() -> None:
    """Before the first call there is nothing to put back but that nothing was there."""
    with configuration.overriding(Clock()):
        assert sent(rate_limited("news", "1/day", on_limit="drop")(news), 2) == 1
        assert sent(rate_limited("local", "1/day", on_limit="drop")(lambda to: "sent"), 2) == 1

    assert not configuration.configured
    assert [rule.type for rule in configuration._declared.rules()] == ["news"]


def test_a_limit_that_a_test_wrote_first_lasts_where_a_module_has_it_too() -> None:
    """A limit that a local function wrote down before a module did is the module's from then on."""
    with configuration.overriding(Clock()):
        rate_limited("news", "1/day")(lambda to: None)
        rate_limited("news", "1/day")(news)

    with pytest.raises(NotifyError, match=r"test_configure\.news to 1 per day"):
        rate_limited("news", "2/day")(lambda to: None)
