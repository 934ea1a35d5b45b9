"""Rules that change while the program runs: sources, the live rules that are made of them, and the thread that keeps them up to date."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from offering import SOON, WITHIN, Offered, amount, limits, threads, until
from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    Limiter,
    Notifier,
    NotifyError,
    Rule,
    RuleError,
    RuleSet,
    configure,
    rate_limited,
)
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.sources import FileRules, FunctionRules, Loaded, RuleSource
from ratelimited_notify.sources.refreshing import pause
from ratelimited_notify.sources.stop_signal import StopSignal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured."""
    with unconfigured(monkeypatch):
        yield


# --- A change is obeyed ----------------------------------------------------------------------------------------------


def test_a_change_is_obeyed_and_the_counts_are_kept() -> None:
    """Without a call of the user, by a limiter that is in use."""
    source = Offered(limits(news="2/day"))
    with Limiter(source) as limiter:
        assert [limiter.hit("news", "ana").allowed for _ in range(3)] == [True, True, False]
        source.say(limits(news="3/day"))
        until(lambda: amount(limiter) == 3)
        assert [limiter.hit("news", "ana").allowed for _ in range(2)] == [True, False]
        source.say(limits(news="1/day"))
        until(lambda: amount(limiter) == 1)

        assert not limiter.hit("news", "ana")
        assert limiter.hit("news", "bo")


def test_all_limiters_of_a_source_go_by_the_same_rules() -> None:
    """One thread, one load, sync and asyncio."""
    source = Offered(limits(news="2/day"))
    first, second, third = Limiter(source), AsyncLimiter(source), Notifier(lambda recipient: None, source)
    assert first.source is second.source is third.limiter.source
    assert source.loads == [None]
    first.hit("news", "ana")
    source.say(limits(news="9/day"))
    until(lambda: [each.rules for each in (first, second, third)] == [RuleSet({"news": "9/day"})] * 3)

    assert threads() == 1
    first.close()
    asyncio.run(second.close())
    assert source.closed == 0
    third.close()
    assert source.closed == 1
    until(lambda: threads() == 0)


def test_what_has_changed_is_told_in_words() -> None:
    """To whoever asks, as long as they ask; and one that raises harms nobody."""
    source = Offered(limits(news="1/day", status="2/minute", sms="5/hour"))
    limiter = Limiter(source)
    seen: list[Any] = []
    limiter.source.on_change(lambda *_: 1 / 0)
    end = limiter.source.on_change(lambda *given: seen.append(given))
    source.say(limits(news="2/day", status="2/hour", mail="1/day"))
    assert limiter.source.refresh() is True
    assert limiter.source.refresh() is False
    end()
    source.say(limits(news="3/day"))
    limiter.source.refresh()

    ((before, after, changes),) = seen
    assert (before, after) == (
        RuleSet({"news": "1/day", "status": "2/minute", "sms": "5/hour"}),
        RuleSet({"news": "2/day", "status": "2/hour", "mail": "1/day"}),
    )
    assert changes == (
        "news: 1 per day -> 2 per day, counts kept",
        "status: 2 per minute -> 2 per hour, counting starts anew",
        "sms: removed (5 per hour)",
        "mail: added (1 per day)",
    )
    limiter.close()


@pytest.mark.parametrize("limited", [Limiter, AsyncLimiter])
def test_rules_of_a_source_are_not_assigned(limited: Any) -> None:
    """They would be lost with the next change."""
    limiter = limited(Offered(limits(news="2/day")))

    with pytest.raises(NotifyError, match=r"The rules come from <Offered>, which would replace what you assign"):
        limiter.rules = {"news": "1/day"}


def test_a_limiter_without_a_source_has_none() -> None:
    """It says what a source is."""
    with pytest.raises(AttributeError, match="do not come from a source, such as FileRules"):
        _ = Limiter({"news": "1/day"}).source


def test_asyncio_refreshes_beside_the_loop() -> None:
    """Other tasks run while the source is slow."""

    async def main() -> int:
        source = Offered(limits(news="2/day"))
        limiter = AsyncLimiter(source)
        ticks = 0

        def slow() -> Any:
            time.sleep(0.2)
            return "slow", limits(news="3/day")

        source.offer = slow
        refreshing = asyncio.create_task(limiter.refresh_rules())
        while not refreshing.done():
            ticks += 1
            await asyncio.sleep(0.005)
        assert await refreshing
        await limiter.close()
        return ticks

    assert asyncio.run(main()) > 5


@pytest.mark.parametrize("given", ["configure", "text", "variable", "variable later"])
def test_decorated_functions_go_by_a_source(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sync and async ones by one, from an argument, a text or the environment."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(2))
    text = f"file:{path}?interval=0.05"

    @rate_limited("news", on_limit="drop")
    def send(recipient: str) -> str:
        return "sent"

    @rate_limited("news", on_limit="drop")
    async def send_async(recipient: str) -> str:
        return "sent"

    if given == "variable later":
        rate_limited("status", "1/day")(lambda recipient: None)("ana")
    if given.startswith("variable"):
        monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", text)
    if given == "configure":
        configure(FileRules(path, interval=0.05))
    elif given != "variable later":
        configure(text if given == "text" else None)
    assert [send("ana"), asyncio.run(send_async("ana")), send("ana")] == ["sent", "sent", None]
    path.write_text(toml(3))
    until(
        lambda: (
            {
                each.rules == RuleSet({"news": "3/day"})
                for each in (configuration.limiter(), configuration.async_limiter())
            }
            == {True}
        )
    )

    assert [asyncio.run(send_async("ana")), send("ana")] == ["sent", None]
    assert threads() == 1
    configuration.limiter().close()
    asyncio.run(configuration.async_limiter().close())
    until(lambda: threads() == 0)


# --- What cannot be used, or cannot be loaded ------------------------------------------------------------------------

WRONG: list[Any] = [
    {"rules": [{"type": "news", "limit": "nonsense"}]},
    {"rules": "nonsense"},
    {"rules": [{"type": "news", "limit": "1/day"}] * 2},
    {"rules": [{"type": "news", "limit": "1/day", "tiers": {"gold": "2/day"}}]},
    {"other": 1},
    OSError("secret"),
    RuntimeError("secret"),
    KeyboardInterrupt,
    lambda: ("1", None),
    lambda: (1, {}),
    lambda: "nonsense",
    lambda: ("1",),
    lambda: Loaded("1", []),  # type: ignore[arg-type]  # what is wrong
]


@pytest.mark.parametrize(
    "wrong", [each for each in WRONG if each is not KeyboardInterrupt], ids=lambda wrong: type(wrong).__name__
)
def test_the_last_good_rules_stay(wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a source offers or raises: sends go on, the status says what is wrong, the log once, and a good set ends it."""
    source = Offered(limits(news="2/day"))
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    source.say(wrong)
    until(lambda: limiter.source.status.failures >= 1 and caplog.text)
    status = limiter.source.status
    assert amount(limiter) == 2
    assert status.error is not None
    assert "secret" not in status.error + caplog.text
    assert status.version == "0"
    source.say(wrong)
    with pytest.raises(RuleError) as caught:
        limiter.source.refresh()
    assert "secret" not in str(caught.value)
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 1
    source.say(limits(news="4/day"))
    assert limiter.source.refresh()

    assert (limiter.source.status.error, limiter.source.status.failures, limiter.source.status.problems) == (
        None,
        0,
        (),
    )
    assert amount(limiter) == 4
    assert len(caplog.records) == 2
    limiter.close()


def test_a_wrong_document_is_loaded_once_and_tried_at_the_usual_pace() -> None:
    """The version that cannot be used is the one that is known, until there is another."""
    source = Offered(limits(news="2/day"))
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    source.say(limits(news="nonsense"))
    until(lambda: len(source.loads) > 10)
    assert set(source.loads[5:]) == {"1"}
    assert limiter.source.status.problems[0].place == "rules[0].limit"
    assert limiter.source.unreached == 0
    source.say(limits(news="2/day"))
    until(lambda: limiter.source.status.error is None)

    assert limiter.source.status.version == "2"
    limiter.close()


def test_rules_that_cannot_be_used_are_said_again_after_the_source_was_not_reached() -> None:
    """The status says what is wrong today; and who asks by hand is told each time."""
    source = Offered(limits(news="2/day"), interval=3600)
    limiter = Limiter(source)
    source.say(limits(news="nonsense"))
    for _ in range(2):
        with pytest.raises(RuleError, match=r"rules\[0\]\.limit"):
            limiter.source.refresh()
    wrong, source.offer = source.offer, OSError()
    with pytest.raises(RuleError, match="failed with OSError"):
        limiter.source.refresh()
    source.offer = wrong
    limiter.source.attempt(StopSignal())

    assert source.loads[-1] == "1"
    assert limiter.source.status.problems[0].place == "rules[0].limit"
    assert "nonsense" in (limiter.source.status.error or "")


def test_a_refused_set_comes_into_force_when_the_limiter_that_refused_it_is_closed() -> None:
    """The thread asks for it again: nobody else would."""
    source = Offered(limits(news="2/day"))
    limiter, refusing = Limiter(source), Limiter(source)
    notifier = Notifier(print, limiter=refusing)
    waiting = limits(news="9/day")
    waiting["rules"][0]["on_limit"] = "wait"
    source.say(waiting)
    limiter.hit("news", "ana")
    until(lambda: limiter.source.status.error)
    refusing.close()

    until(lambda: limiter.source.status.error is None)
    assert limiter.rules.rules[0].on_limit == "wait"
    assert notifier.limiter is refusing
    limiter.close()


def test_a_source_that_cannot_be_reached_is_asked_less_and_less_often() -> None:
    """Up to once a minute, and a fleet not all at once; a reached one at its interval."""
    assert [pause(5, 0) for _ in range(3)] == [5, 5, 5]
    for failures, longest in ((1, 10), (2, 20), (3, 40), (4, 60), (1000, 60)):
        pauses = {pause(5, failures) for _ in range(20)}
        assert len(pauses) > 1
        assert all(longest * 0.8 <= each <= longest for each in pauses)
    assert 240 <= pause(300, 5) <= 300


def test_an_empty_answer_keeps_the_last_rules() -> None:
    """A truncated table must not lift all limits, unless that is what is wanted."""
    for allowed in (False, True):
        source = Offered({**limits(news="2/day"), "default": "5/day"}, allow_empty=allowed)
        limiter = Limiter(source)
        source.say({})
        if allowed:
            assert limiter.source.refresh()
            assert limiter.rules == RuleSet()
        else:
            with pytest.raises(
                RuleError, match=r"has no rules any more, so the last ones stay in force.*allow_empty=True"
            ):
                limiter.source.refresh()
            assert limiter.rules.default is not None


def test_the_first_load_must_succeed_or_there_is_another_way() -> None:
    """A fallback, or to start without rules."""
    with pytest.raises(RuleError, match=r"<Offered> failed with OSError"):
        Limiter(Offered(OSError()))
    with pytest.raises(RuleError, match=r"rules\[0\]\.limit"):
        Limiter(Offered(limits(news="x")))
    spare = Limiter(Offered(OSError(), fallback={"news": "7/day"}))
    assert (amount(spare), spare.source.status.version, spare.source.status.age) == (7, None, float("inf"))
    waiting = Limiter(Offered(OSError(), wait=False))
    assert waiting.hit("news", "ana").remaining is None
    for limiter in (spare, waiting):
        source: Any = limiter.source.source
        source.say(limits(news="3/day"))
        assert limiter.source.refresh()
        assert amount(limiter) == 3
        limiter.close()
    with pytest.raises(RuleError, match="is not a limit"):
        Limiter(Offered(OSError(), fallback={"news": "x"}))
    with pytest.raises(NotifyError, match="not another source"):
        Limiter(Offered(OSError(), fallback=Offered({})))


@pytest.mark.parametrize(
    "options",
    [{"interval": 0}, {"interval": "5"}, {"interval": True}, {"interval": 10**6}, {"wait": 1}, {"allow_empty": None}],
)
def test_options_of_a_source_are_checked(options: dict[str, Any]) -> None:
    """When it is made."""
    with pytest.raises(NotifyError, match=f"{next(iter(options))}= must be"):
        Offered({}, **options)


def test_a_source_of_ones_own_needs_no_constructor() -> None:
    """A class with `load` is enough."""

    class Mine(RuleSource):
        def load(self, known: str | None) -> tuple[str, Mapping[str, object]] | None:
            return None if known == "1" else ("1", limits(news="2/day"))

    limiter = Limiter(Mine())

    assert amount(limiter) == 2
    limiter.close()


@pytest.mark.parametrize("wrong", [None, 5, lambda known: None])
def test_a_function_as_a_source(wrong: Any) -> None:
    """It gets the version that is known, and returns another one, or None."""
    known: list[Any] = []

    def fetch(version: str | None) -> Any:
        known.append(version)
        return ("a", limits(news="2/day")) if version is None else None

    limiter = Limiter(FunctionRules(fetch))
    assert limiter.source.refresh() is False
    assert known == [None, "a"]
    assert "fetch" in repr(limiter.source)
    if wrong is None or wrong == 5:
        with pytest.raises(NotifyError, match="needs a callable that takes a version"):
            FunctionRules(wrong)
    else:
        with pytest.raises(RuleError):
            Limiter(FunctionRules(lambda known: ["a", {}]))  # type: ignore[arg-type, return-value]  # what is wrong

    async def later(_known: str | None) -> None: ...

    with pytest.raises(NotifyError, match="coroutine function"):
        FunctionRules(later)  # type: ignore[arg-type]  # what is wrong


@pytest.mark.parametrize("fetch", [lambda: None, lambda known, more: None, lambda *, known: None])
def test_a_function_that_cannot_be_called_with_a_version_is_told_at_once(fetch: Any) -> None:
    """And how to write it; what takes one argument of any kind will do."""
    with pytest.raises(NotifyError, match=r"with one argument, the version .*; write def fetch\(known_version\)"):
        FunctionRules(fetch)
    for usable in (lambda known: None, lambda *given: None, lambda known, more=1: None, dict, Offered().load):
        FunctionRules(usable)  # type: ignore[arg-type]  # what it returns plays no part


def test_a_function_that_cannot_be_told_about_changes_is_refused_at_once() -> None:
    """Not by a line in the log after the first change."""
    with Limiter(Offered(limits(news="2/day"))) as limiter:

        async def later(before: RuleSet, after: RuleSet, changes: tuple[str, ...]) -> None: ...

        for wrong in (5, lambda: None, lambda changes: None, later):
            with pytest.raises(NotifyError, match="The function that is told about changes"):
                limiter.source.on_change(wrong)  # type: ignore[arg-type]  # what is wrong
        limiter.source.on_change(print)()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file://rules.toml", r"two slashes.*file:rules\.toml for a path, file:///etc"),
        ("file://host/etc/rules.toml", "two slashes"),
        ("file:rules.toml?intervall=1", "Is it meant to be interval"),
        ("sqlite:rules.db", "not the URL of a database.*'sqlite:///rules.db'"),
        ("sqlite://rules.db", "three slashes"),
        ("sqlite:///rules.db?intervall=1", "Is it meant to be interval"),
        ("sqlite:///rules.db?allowempty=true", "Is it meant to be allow_empty"),
        ("sqlite:///rules.db?cahce=shared", r"Is it meant to be cache\? SQLite has cache, .*has interval,"),
        ("postgresql://127.0.0.1:1/app?Interval=1", "Is it meant to be interval"),
        ("redis://127.0.0.1:1/0?key=a&intervall=1", "Is it meant to be interval"),
    ],
)
def test_a_text_that_is_misspelt_is_told(text: str, said: str) -> None:
    """With what is meant, instead of a file that is not there, or an option that does nothing."""
    with pytest.raises(RuleError, match=said):
        Limiter(text)


def test_a_file_may_be_named_by_a_whole_uri(tmp_path: Path) -> None:
    """With no host, or this one."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(2))
    for text in (f"file:{path}", f"file://{path}", f"file://localhost{path}"):
        assert Limiter(text).rules == RuleSet({"news": "2/day"})


def test_a_record_is_one_line(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Several problems too; and no type, path or text of somebody else can look like another record."""
    forged = "x\n1999 CRITICAL all is lost\x1b[2J\u2028"
    source = Offered({"rules": [{"type": "news", "limit": "1/day"}]}, interval=3600)
    limiter = Limiter(source)
    source.place = f"a{forged}"
    wrong = {
        "type": forged,
        "limit": forged,
        "tiers": {forged: forged},
        "overrides": {forged: forged},
        "by": forged,
        "name": forged,
    }
    source.say({"rules": [wrong, {**wrong, "name": 5}, 7], "unknown_type": forged})
    with pytest.raises(RuleError):
        limiter.source.refresh()
    limiter.hit(forged, "ana")
    source.say(NotifyError(forged))
    with pytest.raises(NotifyError):
        limiter.source.refresh()
    limiter.close()
    Limiter(f"file:{tmp_path}/missing{forged}", enabled=False)
    Limiter({forged: forged}, enabled=False)
    Limiter([Rule(f"[b-a]{forged}", "1/day")])

    assert len(caplog.records) >= 4
    assert any("rules[1].name: is a number." in record.getMessage() for record in caplog.records)
    for record in caplog.records:
        assert record.getMessage().isprintable(), record


# --- What others need of the rules -----------------------------------------------------------------------------------


def test_rules_that_somebody_cannot_go_by_are_refused_as_a_whole() -> None:
    """A notifier without max_wait, or a function whose field is no longer declared; and it is said who that is."""
    source = Offered({**limits(news="2/day"), "fields": ["ip"]})
    limiter, other = Limiter(source), Limiter(source)
    notifier = Notifier(print, limiter=limiter)

    @rate_limited("news", fields={"ip": "address"}, limiter=limiter)
    def send_news(recipient: str, address: str) -> None: ...

    send_news("ana", "::1")
    waiting = {**limits(news="9/day"), "fields": ["ip"]}
    waiting["rules"][0]["on_limit"] = "wait"
    for document, said in (
        (waiting, r"The notifier of .*print.* cannot go by these rules: Rule 'news' has on_limit='wait'"),
        (limits(news="9/day"), r"send_news cannot go by these rules: 'ip' is not a field"),
    ):
        source.say(document)
        with pytest.raises(NotifyError, match=said):
            limiter.source.refresh()
        assert amount(limiter) == amount(other) == 2
    del notifier, send_news
    gc.collect()

    # Those that could not go by it are gone. The thread may have been quicker.
    limiter.source.refresh()
    assert amount(limiter) == amount(other) == 9


def test_assigned_rules_are_checked_by_notifiers_and_functions_too() -> None:
    """`limiter.rules = ...` is the same door."""
    limiter = Limiter(RuleSet({"news": "2/day"}, fields=["ip"]))
    copies = [Notifier(print, limiter=limiter).bind(tenant="acme")]
    send = rate_limited("news", fields={"ip": "address"}, limiter=limiter)(lambda recipient, address: None)
    gc.collect()

    with pytest.raises(NotifyError, match=r"The notifier of .* cannot go by these rules"):
        limiter.rules = RuleSet([Rule("news", "1/day", on_limit="wait")], fields=["ip"])
    with pytest.raises(NotifyError, match="cannot go by these rules: 'ip' is not a field"):
        limiter.rules = {"news": "1/day"}
    assert limiter.rules == RuleSet({"news": "2/day"}, fields=["ip"])
    del copies, send
    gc.collect()
    limiter.rules = {"news": "1/day"}


# --- The thread ------------------------------------------------------------------------------------------------------


def test_the_thread_starts_with_the_first_decision_and_ends_with_close() -> None:
    """No earlier, and once; a decision after that starts it again, with the rules of that time."""
    source = Offered(limits(news="5/day"))
    limiter = Limiter(source)
    assert (threads(), limiter.source.running) == (0, False)
    for _ in range(3):
        limiter.hit("news", "ana")
    assert (threads(), list(limiter.plans.shortcuts)) == (1, ["news"])
    limiter.close()
    until(lambda: threads() == 0)
    assert list(limiter.plans.shortcuts) == []
    source.say(limits(news="6/day"))
    other = Limiter(source)
    other.source.refresh()
    other.close()
    limiter.hit("news", "ana")

    until(lambda: amount(limiter) == 6)
    assert threads() == 1
    limiter.close()
    until(lambda: threads() == 0)


def test_a_hundred_limiters_leave_nothing_behind(tmp_path: Path) -> None:
    """Closed or forgotten: no threads, no files."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\n')
    files = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(100):
        limiter = Limiter(FileRules(path, interval=SOON))
        limiter.hit("news", "ana")
        if number % 2:
            limiter.close()
        del limiter
    gc.collect()

    until(lambda: threads() == 0)
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


def test_nothing_ends_the_thread() -> None:
    """Neither what a source raises, nor the log."""
    source = Offered(limits(news="2/day"))
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    noisy = logging.getLogger("ratelimited_notify")

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise MemoryError

    handler = Raising()
    noisy.addHandler(handler)
    try:
        for wrong in (OSError(), limits(news="x"), ValueError()):
            source.say(wrong)
            loads = len(source.loads)
            until(lambda loads=loads: len(source.loads) > loads)  # type: ignore[misc]  # mypy cannot infer it
    finally:
        noisy.removeHandler(handler)
    source.say(limits(news="3/day"))
    until(lambda: amount(limiter) == 3)

    limiter.close()


def test_a_source_that_is_told_about_changes_is_not_waited_for() -> None:
    """`wait` ends the pause, and what it raises does not."""

    class Told(Offered):
        changed = threading.Event()
        raises = False

        def wait(self, timeout: float) -> bool:
            assert timeout <= 1
            if self.raises:
                raise OSError
            return self.changed.wait(timeout)

    source = Told(limits(news="2/day"), interval=3600)
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    source.say(limits(news="3/day"))
    source.changed.set()
    until(lambda: amount(limiter) == 3)
    source.raises = True
    time.sleep(0.05)

    assert threads() == 1
    limiter.close()
    until(lambda: threads() == 0)


def test_a_child_starts_a_thread_of_its_own() -> None:
    """As under gunicorn --preload: the parent has decided before the fork."""
    source = Offered(limits(news="1000/day"))
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # No assertion may leave the child.
        said = b"failed"
        try:
            before = (threads(), limiter.source.running)
            source.say(limits(news="7/day"))
            limiter.hit("news", "ana")
            deadline = time.monotonic() + WITHIN
            while amount(limiter) != 7 and time.monotonic() < deadline:
                time.sleep(0.01)
            said = json.dumps([before, threads(), amount(limiter)]).encode()
        finally:
            os.write(write, said)
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)

    assert json.loads(said) == [[0, False], 1, 7]
    assert (threads(), amount(limiter)) == (1, 1000)
    limiter.close()


def test_it_keeps_no_process_from_exiting(tmp_path: Path) -> None:
    """A program that ends without closing anything ends."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\n')
    program = (
        "from ratelimited_notify import Limiter\n"
        f"limiter = Limiter('file:{path}?interval=0.01')\n"
        "print(limiter.hit('news', 'ana').allowed)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_switched_off_nothing_is_loaded() -> None:
    """Nor is a thread started."""
    source = Offered(OSError())
    limiter = Limiter(source, enabled=False)

    assert limiter.hit("news", "ana")
    assert (source.loads, threads()) == ([], 0)


# --- Files -----------------------------------------------------------------------------------------------------------


def toml(amount: int) -> str:
    return f'[[rules]]\ntype = "news"\nlimit = "{amount}/day"\n'


def test_an_unchanged_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at, which takes microseconds; what is wrong in it is parsed once."""
    from ratelimited_notify.sources import file as files

    path = tmp_path / "rules.toml"
    path.write_text(toml(1))
    monkeypatch.setattr(files, "_FRESH", 0)
    source = FileRules(path)
    limiter = Limiter(source)
    limiter.source.refresh()
    read: list[Path] = []
    parsed: list[bytes] = []
    content_of, document_in = files.content_of, files.document_in
    monkeypatch.setattr(files, "content_of", lambda path: read.append(path) or content_of(path))
    monkeypatch.setattr(
        files, "document_in", lambda content, ending: parsed.append(content) or document_in(content, ending)
    )
    for _ in range(5):
        assert not limiter.source.refresh()
    assert (read, parsed) == ([], [])
    path.write_text("[[")
    for _ in range(5):
        with pytest.raises(RuleError, match=rf"The rules in {path} cannot be used"):
            limiter.source.refresh()
    assert len(parsed) == 1
    path.write_text(toml(2))

    assert limiter.source.refresh()
    assert amount(limiter) == 2


def test_one_failed_read_is_not_worth_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Editors and deployments replace a file in several steps. A second one is."""
    path = tmp_path / "rules.toml"
    path.write_text(toml(1))
    limiter = Limiter(FileRules(path))
    path.unlink()
    for lines in (0, 1, 1):
        limiter.source.attempt(StopSignal())
        assert len(caplog.records) == lines
    path.write_text(toml(1))
    limiter.source.attempt(StopSignal())

    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith(
        f"The rules in force stay, because new ones cannot be used or loaded: The rules in {path} cannot be"
    )
    assert first.endswith("The file cannot be read: No such file or directory.")
    assert last == f"The rules are loaded from <FileRules of {path}> again."


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["1/day", "news", "wait", "tenant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "limit", "by", "rules", "name", "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.lists(documents, min_size=1, max_size=5))
def test_no_document_replaces_a_good_set_unless_it_is_one(offers: list[Any]) -> None:
    """Nor does it raise into a decision, or end the thread."""
    source = Offered(limits(news="1000000/day"), interval=3600)
    limiter = Limiter(source)
    for offer in offers:
        source.say(offer)
        before = limiter.rules
        limiter.source.attempt(StopSignal())
        status = limiter.source.status
        assert (limiter.rules is before) is (
            status.error is not None or status.version != str(source.version) or limiter.rules == before
        )
        limiter.hit("news", "ana")
    source.say(limits(news="5/day"))

    assert limiter.source.refresh()
    limiter.close()


# --- What a new user met ---------------------------------------------------------------------------------------------


def test_a_mistake_in_a_file_is_logged_though_one_failed_read_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Text that cannot be parsed, a rule that cannot be used, an empty file, and rules that a notifier refuses: once each."""
    path = tmp_path / "rules.toml"
    good = '[[rules]]\ntype = "news"\nlimit = "2/day"\n'
    for wrong in ('[[rules]]\ntype = "news"\nlimit = "2/dya"\n', "", "[[rules", good + 'on_limit = "wait"\n'):
        path.write_text(good)
        notifier = Notifier(lambda to: None, FileRules(path, interval=0.02))
        notifier.send("news", "ana")
        caplog.clear()
        path.write_text(wrong)
        until(lambda: "new ones cannot be used" in caplog.text)
        until(lambda notifier=notifier: notifier.limiter.source.status.failures >= 4)
        assert caplog.text.count("new ones cannot be used") == 1
        path.write_text(good + "#")
        until(lambda: "again" in caplog.text)
        notifier.close()


def test_refused_rules_are_an_error_each_time() -> None:
    """Whoever noticed them first: a view that saves rules and refreshes must not show a success."""
    source = Offered(limits(news="2/day"), interval=0.02)
    limiter = Limiter(source)
    limiter.hit("news", "ana")
    source.say({"rules": [{"type": "news", "limit": "nonsense"}]})
    until(lambda: limiter.source.status.failures >= 2)
    for _ in range(3):
        with pytest.raises(RuleError, match="nonsense"):
            limiter.source.refresh()
    source.say(limits(news="3/day"))
    until(lambda: limiter.rules == RuleSet({"news": "3/day"}))
    assert limiter.source.refresh() is False
    limiter.close()


@pytest.mark.parametrize("fallback", [None, {"*": "1/day"}])
def test_an_empty_first_answer(fallback: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The fallback holds, since a truncated table must not lift all limits; without one, the log says that nothing is limited."""
    limiter = Limiter(FunctionRules(lambda known: ("1", {"rules": []}), fallback=fallback))

    assert limiter.rules == RuleSet(fallback or {})
    assert "has no rules" in caplog.text
    assert (limiter.source.status.error is None) is (fallback is None)
    limiter.close()


def test_an_empty_first_answer_that_is_meant(caplog: pytest.LogCaptureFixture) -> None:
    """`allow_empty` says so."""
    limiter = Limiter(FunctionRules(lambda known: ("1", {"rules": []}), fallback={"*": "1/day"}, allow_empty=True))

    assert (limiter.rules, caplog.text) == (RuleSet(), "")
    limiter.close()


def test_rules_that_are_gone_are_missed_though_there_is_a_default() -> None:
    """A truncated table of rules must not leave only the default, which is kept elsewhere."""
    source = Offered({**limits(news="2/day"), "default": "50/day"})
    limiter = Limiter(source)
    source.say({"rules": [], "default": "50/day"})
    with pytest.raises(RuleError, match="no rules any more"):
        limiter.source.refresh()

    assert len(limiter.rules) == 1
    limiter.close()


def test_a_function_that_knows_of_no_change_at_first() -> None:
    """None says that nothing has changed since the version that is known, and nothing is."""
    with pytest.raises(RuleError, match="nothing is known yet"):
        Limiter(FunctionRules(lambda known: None))
