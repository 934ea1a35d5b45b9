"""What the library logs: it never re-enters itself through its own log calls, and one outage is a few lines."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest
from limits.storage import MemoryStorage

import ratelimited_notify
from limiting import LIMITERS
from outcomes import AsyncUnreliable, Unreliable
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    StorageError,
    configure,
    log,
    rate_limited,
)
from ratelimited_notify.decorator.configuration import configuration
from ratelimited_notify.limiter import failures
from ratelimited_notify.limiter.refund import refunding
from ratelimited_notify.limiter.switch import VARIABLE, switch
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ratelimited_notify.pytest_plugin import Clock
    from servers import Valkey

OURS = "ratelimited_notify"
MANY = {"*": "100000/day", "news": "100000/day", "log": "100000/day"}
CHOICES = ["allow", "deny", "raise"]


def down(scheme: str = "redis") -> str:
    """The URI of a server that is not running."""
    return f"{scheme}://127.0.0.1:{free_port()}"


class Recorder(logging.Handler):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def ours(self) -> list[str]:
        """The messages of the library."""
        return [record.getMessage() for record in self.records if record.name == OURS]


class Asker(logging.Handler):
    """A handler that asks the library about each record, and "mails" those that it allows. It has a lock, as handlers do."""

    def __init__(self, allows: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self.allows = allows
        self.asked = 0
        self.mailed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.asked += 1
        if self.allows(record):
            self.mailed.append(record.name)


class AskingFilter(logging.Filter):
    """The same as a filter."""

    def __init__(self, asker: Asker) -> None:
        super().__init__()
        self.asker = asker

    def filter(self, record: logging.LogRecord) -> bool:
        self.asker.emit(record)
        return True


@contextmanager
def _added(owner: Any, add: str, remove: str, thing: object) -> Iterator[None]:
    getattr(owner, add)(thing)
    try:
        yield
    finally:
        getattr(owner, remove)(thing)


def _as_handler(asker: Asker, opened: ExitStack) -> None:
    opened.enter_context(_added(logging.getLogger(), "addHandler", "removeHandler", asker))


def _as_filter(asker: Asker, opened: ExitStack) -> None:
    recorder = Recorder()
    recorder.addFilter(AskingFilter(asker))
    opened.enter_context(_added(logging.getLogger(), "addHandler", "removeHandler", recorder))


def _as_filter_of_our_logger(asker: Asker, opened: ExitStack) -> None:
    for name in (OURS, "shop"):
        opened.enter_context(_added(logging.getLogger(name), "addFilter", "removeFilter", AskingFilter(asker)))


def _as_last_resort(asker: Asker, opened: ExitStack) -> None:
    root, before = logging.getLogger(), logging.lastResort
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        opened.callback(root.addHandler, handler)
    logging.lastResort = asker
    opened.callback(setattr, logging, "lastResort", before)


def _as_record_factory(asker: Asker, opened: ExitStack) -> None:
    before = logging.getLogRecordFactory()

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        asker.emit(record)
        return record

    logging.setLogRecordFactory(made)
    opened.callback(logging.setLogRecordFactory, before)


def _without_raising(allows: Callable[[logging.LogRecord], object]) -> Callable[[logging.LogRecord], object]:
    """Nobody could catch what is raised in the other thread."""

    def asked(record: logging.LogRecord) -> object:
        with suppress(NotifyError, ConnectionRefusedError):
            return allows(record)
        return False

    return asked


def _until(reached: Callable[[], bool]) -> None:
    for _ in range(2000):
        if reached():
            return
        time.sleep(0.01)


def _behind_a_queue(asker: Asker, opened: ExitStack) -> None:
    queue: SimpleQueue[Any] = SimpleQueue()
    asker.allows = _without_raising(asker.allows)
    listener = QueueListener(queue, asker)
    listener.start()
    opened.callback(listener.stop)
    opened.enter_context(_added(logging.getLogger(), "addHandler", "removeHandler", QueueHandler(queue)))
    # Its thread logs a line itself, which must come before the end.
    opened.callback(_until, queue.empty)


def _in_a_thread(asker: Asker, opened: ExitStack) -> None:
    allows = _without_raising(asker.allows)

    def asked(record: logging.LogRecord) -> object:
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(allows(record)))
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "the other thread waits for a lock that the log call holds"
        return answers and answers[0]

    asker.allows = asked
    # A filter has no lock. A handler must not wait for a thread that logs, whatever library does that.
    _as_filter(asker, opened)


WAYS = {
    each.__name__.strip("_"): each
    for each in (
        _as_handler,
        _as_filter,
        _as_filter_of_our_logger,
        _as_last_resort,
        _as_record_factory,
        _behind_a_queue,
        _in_a_thread,
    )
}
"""How a handler or a filter is called with the records of the library."""


def _asking_a_limiter(choice: Any, storage: Any) -> Callable[[logging.LogRecord], object]:
    limiter = Limiter(MANY, storage, on_storage_error=choice)
    return lambda record: limiter.hit("log", "admin@example.com")


def _asking_a_notifier(choice: Any, storage: Any) -> Callable[[logging.LogRecord], object]:
    notifier = Notifier(lambda to, text: None, MANY, storage, on_storage_error=choice)
    return lambda record: notifier.send("log", "admin@example.com", record.getMessage())


def _asking_a_decorated_function(choice: Any, storage: Any) -> Callable[[logging.LogRecord], object]:
    @rate_limited("log", limiter=Limiter(MANY, storage, on_storage_error=choice))
    def mail(to: str) -> bool:
        return True

    def asked(record: logging.LogRecord) -> bool:
        try:
            return mail("admin@example.com")
        except RateLimitExceeded:
            return False

    return asked


def _failing_and_refunding(choice: Any, storage: Any) -> Callable[[logging.LogRecord], object]:
    def send(to: str) -> None:
        raise ConnectionRefusedError

    def refund(error: BaseException) -> bool:
        raise LookupError

    notifier = Notifier(send, MANY, storage, on_storage_error=choice, refund=refund)

    def asked(record: logging.LogRecord) -> bool:
        try:
            return bool(notifier.send("log", "admin@example.com"))
        except ConnectionRefusedError:
            return False

    return asked


ASKING = {
    each.__name__.strip("_"): each
    for each in (_asking_a_limiter, _asking_a_notifier, _asking_a_decorated_function, _failing_and_refunding)
}
"""What the handler does with a record."""


def _outcome(call: Callable[[], object]) -> str:
    """What the caller of the library gets, to be compared."""
    try:
        return str(call())
    except Exception as error:  # noqa: BLE001  # compared
        return type(error).__name__


def _gateway_fails(to: str) -> None:
    raise ConnectionRefusedError


def _refund_raises(error: BaseException) -> bool:
    raise LookupError


def _unreleasing() -> Limiter:
    storage = Unreliable()
    storage.failing = ("release",)
    return Limiter(MANY, storage)


def _triggers(choice: Any, storage: Any) -> dict[str, Callable[[], object]]:
    """Everything that makes the library log, sync and async, each with what the caller gets."""

    def limiter() -> Limiter:
        return Limiter(MANY, storage, on_storage_error=choice, circuit=None)

    def async_limiter() -> AsyncLimiter:
        return AsyncLimiter(MANY, storage, on_storage_error=choice, circuit=None)

    async def send_async(to: str) -> None:
        return None

    async def fail_async(to: str) -> None:
        raise ConnectionRefusedError

    async def unreleased() -> object:
        kept = AsyncUnreliable()
        kept.failing = ("release",)
        return await AsyncNotifier(fail_async, MANY, kept).send("news", "ana")

    @rate_limited("news", limiter=limiter())
    def decorated(to: str) -> None:
        return None

    @rate_limited("news", limiter=_unreleasing())
    def failing(to: str) -> None:
        raise ConnectionRefusedError

    @rate_limited("news", limiter=async_limiter())
    async def decorated_async(to: str) -> None:
        return None

    return {
        "a hit": lambda: limiter().hit("news", "ana").allowed,
        "a batch of hits": lambda: [one.allowed for one in limiter().hit_many("news", ["ana", "bob"])],
        "a notifier": lambda: Notifier(print, limiter=limiter()).send("news", "ana").status,
        "a batch": lambda: [one.status for one in Notifier(print, limiter=limiter()).send_many("news", ["ana", "bob"])],
        "a decorated function": lambda: decorated("ana"),
        "refund=": lambda: Notifier(_gateway_fails, MANY, refund=_refund_raises).send("news", "ana"),
        "a release": lambda: Notifier(_gateway_fails, limiter=_unreleasing()).send("news", "ana"),
        "a release of a decorated function": lambda: failing("ana"),
        "a type without a rule": lambda: Limiter({"news": "1/day"}).hit("other", "ana").allowed,
        "limiting is off": lambda: Limiter(MANY, enabled=False).hit("news", "ana").allowed,
        "rules that are ignored": lambda: Limiter("nowhere.toml", enabled=False),
        "an async hit": lambda: asyncio.run(async_limiter().hit("news", "ana")).allowed,
        "an async batch of hits": lambda: [one.allowed for one in asyncio.run(async_limiter().hit_many("news", ["a"]))],
        "an async notifier": lambda: (
            asyncio.run(AsyncNotifier(send_async, limiter=async_limiter()).send("news", "ana")).status
        ),
        "an async decorated function": lambda: asyncio.run(decorated_async("ana")),
        "an async release": lambda: asyncio.run(unreleased()),
    }


STORAGE_RAISES = {
    "a hit",
    "a batch of hits",
    "a notifier",
    "a batch",
    "a decorated function",
    "an async hit",
    "an async batch of hits",
    "an async notifier",
    "an async decorated function",
}
"""Those that log nothing with "raise", because the caller gets the error."""


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    failures._known.clear()
    monkeypatch.setattr(switch, "_said", False)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Gets every record that the logger of the library gets."""
    recorder = Recorder()
    with _added(logging.getLogger(OURS), "addHandler", "removeHandler", recorder):
        yield recorder


@pytest.fixture(autouse=True)
def _uncaught() -> Iterator[None]:
    """pytest's own handlers raise what goes wrong in them, and count as handlers: they are not what is tested here."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = []
    yield
    root.handlers[:] = before


# 6. No log call leads to another.


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    ("way", "asking"),
    [
        *((way, asking) for way in WAYS for asking in ("asking_a_limiter", "failing_and_refunding")),
        *(("as_handler", asking) for asking in ("asking_a_notifier", "asking_a_decorated_function")),
    ],
)
def test_no_log_call_leads_to_another(
    way: str, asking: str, choice: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever makes the library log, and however a handler asks it about the line: the line comes once, the handler is
    called once for it, and the caller gets what he would get without the handler.
    """
    storage = down()
    for name in _triggers(choice, storage):
        _forget(monkeypatch)
        recorder.records = []
        expected = _outcome(_triggers(choice, storage)[name])
        lines = recorder.ours
        assert len(lines) == (0 if choice == "raise" and name in STORAGE_RAISES else 1), name
        _forget(monkeypatch)
        recorder.records = []
        trigger = _triggers(choice, storage)[name]
        asker = Asker(ASKING[asking](choice, down("memcached")))
        with ExitStack() as opened:
            WAYS[way](asker, opened)
            if way == "as_last_resort":
                logging.getLogger(OURS).removeHandler(recorder)
                opened.callback(logging.getLogger(OURS).addHandler, recorder)
            assert _outcome(trigger) == expected, name
        if way in ("behind_a_queue", "in_a_thread"):
            # In another thread what goes wrong for the asker itself is logged once, too, and the handler gets that line.
            assert recorder.ours[: len(lines)] == lines, name
            assert len(recorder.ours) <= len(lines) + 2, (name, recorder.ours)
            assert asker.asked <= len(lines) + 2, (name, asker.asked)
            continue
        if way == "as_last_resort":
            assert asker.asked == len(lines), name
        elif choice != "raise":
            assert recorder.ours == lines, name
        assert asker.asked == len(lines), name
        if choice == "allow" and asking != "failing_and_refunding":
            assert asker.mailed == [OURS] * len(lines), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheme", ["redis", "memcached"])
@pytest.mark.parametrize(("choice", "mails"), [("allow", [OURS, "shop"]), ("deny", [])])
def test_one_record_of_the_application_is_one_mail(choice: str, mails: list[str], scheme: str, way: str) -> None:
    """Where a handler asks a limiter whose server is down, that is one mail, and one about the outage; not 81."""
    asker = Asker(_asking_a_limiter(choice, down(scheme)))
    with ExitStack() as opened:
        WAYS[way](asker, opened)
        for _ in range(100):
            logging.getLogger("shop").error("The order could not be saved")

    assert asker.asked == 101
    assert sorted(asker.mailed) == sorted([*mails, *mails[1:] * 99])


@pytest.mark.parametrize("way", ["as_handler", "as_filter"])
def test_what_a_filter_raises_does_not_replace_the_gateways_error(way: str) -> None:
    """With "raise" a filter that asks the limiter raises. So does the application's log call, but not a send that fails."""
    asker = Asker(_asking_a_limiter("raise", down()))
    with ExitStack() as opened:
        WAYS[way](asker, opened)
        with pytest.raises(ConnectionRefusedError) as caught:
            Notifier(_gateway_fails, limiter=_unreleasing()).send("news", "ana")
        assert caught.value.__context__ is None
        with pytest.raises(StorageError):
            logging.getLogger("shop").error("The order could not be saved")
    assert asker.asked == 2


def test_what_else_a_handler_raises_reaches_the_caller() -> None:
    """An interrupt, or a mistake in a handler, is not hidden, and leaves nothing behind: the next line is logged."""

    def fail(record: logging.LogRecord) -> bool:
        raise KeyboardInterrupt if asker.asked == 1 else ZeroDivisionError

    asker = Asker(fail)
    limiter = Limiter({"news": "1/day"})
    with ExitStack() as opened:
        _as_handler(asker, opened)
        with pytest.raises(KeyboardInterrupt):
            limiter.hit("one", "ana")
        with pytest.raises(ZeroDivisionError):
            limiter.hit("two", "ana")
        assert log.is_logging() is False


def test_a_decision_in_a_handler_is_made_as_always(recorder: Recorder) -> None:
    """A handler that asks about a line of the library gets a decision that counts, although nothing about it is logged."""
    limiter = Limiter({"log": "2/day"})
    asker = Asker(lambda record: limiter.hit("log", "admin") and limiter.hit("other", "admin"))
    with ExitStack() as opened:
        _as_handler(asker, opened)
        for number in range(4):
            Limiter({"news": "1/day"}).hit(f"type {number}", "ana")
        assert len(asker.mailed) == 2
        assert len(recorder.ours) == 4
        limiter.hit("other", "admin")

    assert len(recorder.ours) == 5, "what was not logged in the handler is logged when it happens outside"


@pytest.mark.parametrize("choice", ["allow", "deny"])
def test_tasks_that_a_handler_starts_log_nothing(choice: Any, recorder: Recorder, log_clock: Clock) -> None:
    """Nor do the threads that they use; other tasks do, and so does such a task a minute later."""
    other = AsyncLimiter(MANY, down("memcached"), on_storage_error=choice)
    tasks: list[asyncio.Task[None]] = []
    go_on = asyncio.Event()

    async def mail() -> None:
        await other.hit("log", "admin")
        await asyncio.to_thread(Limiter({"news": "1/day"}).hit, "a type of a task", "ana")
        await go_on.wait()
        await other.hit("log", "admin")

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def start(record: logging.LogRecord) -> None:
            if threading.current_thread() is threading.main_thread():
                tasks.append(loop.create_task(mail()))

        asker = Asker(start)
        limiter = AsyncLimiter(MANY, down(), on_storage_error=choice)
        with ExitStack() as opened:
            _as_handler(asker, opened)
            await asyncio.gather(*(limiter.hit("news", "ana") for _ in range(20)))
            await asyncio.sleep(0.1)
            assert [asker.asked, len(recorder.ours)] == [1, 1]
            await asyncio.create_task(asyncio.to_thread(Limiter({"news": "1/day"}).hit, "another type", "ana"))
            assert [asker.asked, len(recorder.ours)] == [2, 2], "this task was not started by a log call"
        log_clock.advance(60)
        go_on.set()
        await asyncio.gather(*tasks)
        assert len(recorder.ours) == 3
        assert "(2)" in recorder.ours[-1], "one of a minute ago was not logged"

    asyncio.run(main())


def test_other_threads_log_meanwhile(recorder: Recorder) -> None:
    """The line of one thread does not silence another one."""
    inside, leave = threading.Event(), threading.Event()

    def wait(record: logging.LogRecord) -> bool:
        if "slow" in record.getMessage():
            inside.set()
            leave.wait(20)
        return True

    limiter = Limiter({"news": "1/day"})
    with ExitStack() as opened, ThreadPoolExecutor() as pool:
        _as_filter_of_our_logger(Asker(wait), opened)
        slow = pool.submit(limiter.hit, "slow", "ana")
        assert inside.wait(20)
        limiter.hit("quick", "ana")
        assert len(recorder.ours) == 1
        leave.set()
        slow.result()
    assert len(recorder.ours) == 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_lock_is_held_where_something_is_logged(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A handler may call decorated functions, and configure, in other threads, and wait for them."""
    configuration.reset()
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setenv("RATELIMITED_NOTIFY_RULES", str(tmp_path / "nowhere.toml"))
    monkeypatch.setattr(switch, "_said", False)
    sent: list[str] = []

    @rate_limited("news", "1/day")
    def send(to: str) -> None:
        sent.append(to)

    @rate_limited("news", "1/day")
    async def send_async(to: str) -> None:
        sent.append(to)

    def asked(record: logging.LogRecord) -> None:
        configure({"news": "2/day"}, storage="memory://")
        send("in the handler")
        asyncio.run(send_async("in the handler"))
        configuration.require("send", "news")

    asker = Asker(asked)
    try:
        with ExitStack() as opened:
            _in_a_thread(asker, opened)
            if kind == "sync":
                send("ana")
            else:
                asyncio.run(send_async("ana"))
            configure(tmp_path / "nowhere.toml")
        assert asker.asked == 3, "the rules are ignored, limiting is off, and the rules are ignored once more"
        assert sent == [*["in the handler"] * 2, *["in the handler"] * 2, "ana", *["in the handler"] * 2][: len(sent)]
    finally:
        configuration.reset()


def test_lines_that_are_held_are_bounded_and_an_interrupt_leaves_nothing_for_long(
    recorder: Recorder, log_clock: Clock
) -> None:
    """A mark that an interrupt left behind neither fills the memory nor silences the thread for more than a minute."""
    with log.lines_held(), log.lines_held():
        for number in range(300):
            log.warning("%d", number)
        assert recorder.ours == []
    assert recorder.ours == [str(number) for number in range(log.MOST_HELD)]

    def interrupted() -> None:
        log.lines_held().__enter__()
        log._logging_since.set(log.now())
        log.warning("lost")
        log_clock.advance(60)
        log.warning("logged")

    copy_context().run(interrupted)
    assert recorder.ours[log.MOST_HELD :] == ["logged"]


def test_everything_is_logged_in_one_place() -> None:
    """No module logs by itself, so none can forget the guard. The command prints the lines of the library."""
    package = Path(inspect.getfile(ratelimited_notify)).parent
    logging_modules = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("getLogger", "warn", "log", "exception", "critical")
        and ast.unparse(node.value) in ("logging", "_log", "_logger", "warnings", "logger")
    }

    assert logging_modules == {"log.py", "cli/send.py"}


def _said(tree: ast.AST) -> Iterator[str]:
    """The messages in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "warning":
            yield ast.literal_eval(node.args[0])
        elif isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) == "Message":
            yield from (
                each.value
                for each in ast.walk(node)
                if isinstance(each, ast.Constant) and isinstance(each.value, str) and len(each.value) > 20
            )


def test_the_reference_has_every_line() -> None:
    """The page of log lines has the beginning of each line. (Those about doubtful rules are made elsewhere.)"""
    package = Path(ratelimited_notify.__file__).parent
    page = (Path(__file__).parent.parent / "docs" / "reference" / "log.md").read_text()
    said = [message for path in package.rglob("*.py") for message in _said(ast.parse(path.read_text()))]
    beginnings = {f'"{message.partition("%")[0].rstrip(" (")}' for message in said} - {'"'}

    assert len(beginnings) > 10
    assert {each for each in beginnings if each[:29] not in page} == set()


# 7. One outage is a few lines.


@pytest.mark.parametrize("choice", ["allow", "deny"])
@pytest.mark.parametrize("kind", LIMITERS)
@pytest.mark.parametrize("scheme", ["redis", "memcached"])
def test_a_thousand_failures_are_one_line_and_a_number(
    scheme: str, kind: str, choice: Any, recorder: Recorder, log_clock: Clock
) -> None:
    """The first at once, then the number every ten seconds, also where each has a limiter of its own."""
    uri, said = down(scheme), "allowed" if choice == "allow" else "refused"
    limiter = LIMITERS[kind](MANY, uri, on_storage_error=choice)
    for number in range(1000):
        limiter.hit("news", "ana")
        if number % 100 == 0:
            Limiter(MANY, uri, on_storage_error=choice).hit_many("news", ["ana", "bob"])
    log_clock.advance(10)
    limiter.hit("news", "ana")
    limiter.close()

    assert [line.partition(":")[0] for line in recorder.ours] == [
        f"Notifications were {said} without being counted (1), because the storage failed",
        f"Notifications were {said} without being counted (1020 more), because the storage failed",
    ]
    assert [record.levelno for record in recorder.records] == [logging.WARNING] * 2


COUNTED: dict[str, Callable[[Any], object]] = {
    "hit": lambda limiter: limiter.hit("news", "ana"),
    "hit at a cost": lambda limiter: limiter.hit("news", "ana", cost=2),
    "hit_many": lambda limiter: limiter.hit_many("news", ["ana", "bob"]),
    "decide": lambda limiter: limiter.decide([Notification("news", "ana"), Notification("log", "ana")]),
}
"""Decisions that are counted if the storage works."""
UNCOUNTED: dict[str, Callable[[Any], object]] = {
    "test": lambda limiter: limiter.test("news", "ana"),
    "windows": lambda limiter: limiter.windows("news", "ana"),
    "hit_many of nobody": lambda limiter: limiter.hit_many("news", []),
    "decide about nothing": lambda limiter: limiter.decide([]),
}
"""Calls that count nothing, so they cannot say that decisions are counted again."""


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("kind", LIMITERS)
def test_the_first_decision_that_is_counted_says_that_it_is_over(
    kind: str, counted: str, recorder: Recorder, log_clock: Clock
) -> None:
    """Once, with how many were not counted and for how long; a test does not say it."""
    storage = Unreliable() if kind == "sync" else AsyncUnreliable()
    limiter = LIMITERS[kind](MANY, storage, on_storage_error="allow")
    storage.failing = ("acquire", "acquire_many")
    for _ in range(5):
        limiter.hit("news", "ana", cost=2)
        log_clock.advance(3)
    storage.failing = ()
    for call in UNCOUNTED.values():
        call(limiter)
    assert len(recorder.ours) == 2

    for _ in range(3):
        COUNTED[counted](limiter)
    limiter.close()

    assert recorder.ours[1].startswith("Notifications were allowed without being counted (4 more), because")
    assert recorder.ours[2:] == [
        "Notifications are counted again. Before that, 5 were allowed without being counted, in 15 s."
    ]
    assert {record.levelno for record in recorder.records} == {logging.WARNING}


@pytest.mark.parametrize("way", ["limiter", "decorated"])
def test_the_shortcut_says_that_it_is_over(way: str, recorder: Recorder, log_clock: Clock) -> None:
    """Windows in memory fail only where their lock is stuck; the first decision after that says it, as everywhere."""
    limiter = Limiter(MANY, on_storage_error="deny", timeout=0.01)

    @rate_limited("news", limiter=limiter, on_limit="drop")
    def send(to: str) -> bool:
        return True

    call: Callable[[], object] = (lambda: limiter.hit("news", "ana")) if way == "limiter" else (lambda: send("ana"))
    assert call()
    for _ in range(2):
        with limiter.storage.guard.lock:  # type: ignore[attr-defined]  # windows in memory
            assert not call()
        assert call()
        assert call()
    assert [line.split()[2] for line in recorder.ours] == ["refused", "counted"]
    log_clock.advance(10)
    assert call()

    assert recorder.ours[2:] == [
        "Notifications are counted again. Before that, 1 were refused without being counted, in 10 s."
    ]
    assert call()
    assert limiter.plans.shortcuts


def test_a_server_that_comes_back(start_valkey: Callable[..., Valkey], recorder: Recorder) -> None:
    """With a real server: counted, not counted, counted again; the lines give the newest cause, and one says it is over."""
    server = start_valkey()
    limiter = Limiter(MANY, server.url, on_storage_error="allow", circuit=None)
    assert limiter.hit("news", "ana").error is None
    assert recorder.ours == []
    server.stop()
    assert [limiter.hit("news", "ana").error is None for _ in range(50)] == [False] * 50
    server.start()
    assert [limiter.hit("news", "ana").error is None for _ in range(50)] == [True] * 50
    limiter.close()

    begun, over = recorder.ours
    assert begun.startswith("Notifications were allowed without being counted (1), because the storage failed: ")
    assert over.startswith("Notifications are counted again. Before that, 50 were allowed without being counted, in ")


def _ask(limiter: Limiter, record: logging.LogRecord) -> object:
    return limiter.hit("log", "admin")


def _failing_sends(url: str, fail: Callable[[], None]) -> dict[str, Callable[[], object]]:
    """Each way to send and fail, sync and async, with a storage that fails in the middle."""

    def send(to: str) -> None:
        fail()

    async def send_async(to: str) -> None:
        fail()

    def reserved(limiter: Limiter) -> None:
        with limiter.reserve("news", "ana"):
            fail()

    async def reserved_async(limiter: AsyncLimiter) -> None:
        async with limiter.reserve("news", "ana"):
            fail()

    def sync(use: Callable[[Limiter], object]) -> Callable[[], object]:
        def used() -> object:
            with Limiter(MANY, url, on_storage_error="allow") as limiter:
                return use(limiter)

        return used

    def asynchronous(use: Callable[[AsyncLimiter], Any]) -> Callable[[], object]:
        async def used() -> object:
            async with AsyncLimiter(MANY, url, on_storage_error="allow") as limiter:
                return await use(limiter)

        return lambda: asyncio.run(used())

    return {
        "notifier": sync(lambda limiter: Notifier(send, limiter=limiter, refund=True).send("news", "ana")),
        "decorator": sync(lambda limiter: rate_limited("news", limiter=limiter, refund=True)(send)("ana")),
        "reserve": sync(reserved),
        "async notifier": asynchronous(
            lambda limiter: AsyncNotifier(send_async, limiter=limiter, refund=True).send("news", "ana")
        ),
        "async notifier, sync gateway": asynchronous(
            lambda limiter: AsyncNotifier(send, limiter=limiter, refund=True).send("news", "ana")
        ),
        "async decorator": asynchronous(
            lambda limiter: rate_limited("news", limiter=limiter, refund=True)(send_async)("ana")
        ),
        "async reserve": asynchronous(reserved_async),
    }


@pytest.mark.parametrize("backend", ["start_valkey", "start_memcached"])
def test_a_gateway_that_fails_while_the_server_is_down(
    backend: str, request: pytest.FixtureRequest, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's own error reaches the caller. The hit that stays counted is one line, also where the errors of the
    gateway and of the storage are of one class, and a handler that asks the same server gets one record.
    """
    server = request.getfixturevalue(backend)()
    raised: list[Exception] = []

    def fail() -> None:
        server.stop()
        raise raised[0]

    for error in (ConnectionRefusedError("ana@example.com"), TimeoutError("ana@example.com"), ValueError("ana")):
        raised[:] = [error]
        sends = _failing_sends(server.url, fail)
        for name, send in sends.items():
            if "reserve" in name and isinstance(error, TimeoutError):
                continue  # The message may have been sent, so nothing is given back.
            _forget(monkeypatch)
            recorder.records = []
            server.stop()
            server.start()
            limiter = Limiter(MANY, server.url, on_storage_error="allow")
            asker = Asker(partial(_ask, limiter))
            with ExitStack() as opened:
                _as_handler(asker, opened)
                with pytest.raises(type(error)) as caught:
                    send()
            limiter.close()

            assert caught.value is error
            assert [line.partition(":")[0] for line in recorder.ours] == [
                "A hit could not be given back and stays counted"
            ], (name, error)
            assert asker.asked == 1
            assert "@" not in "".join(recorder.ours)


def test_a_batch_whose_gateway_fails_while_the_server_is_down(
    start_valkey: Callable[..., Valkey], recorder: Recorder, log_clock: Clock
) -> None:
    """All hits of the batch that stay are in two lines."""
    server = start_valkey()

    def send(to: str) -> None:
        server.stop()
        raise ConnectionRefusedError(to)

    with Limiter(MANY, server.url) as limiter:
        Notifier(send, limiter=limiter).send_many("news", [f"user {number}" for number in range(30)])
        assert len(recorder.ours) == 1
        log_clock.advance(10)
        assert limiter.failures.unreleased.event.ended() == (30, 10)


def test_a_refund_callable_that_raises_is_one_line(recorder: Recorder, log_clock: Clock) -> None:
    """A thousand failures of it are one line, the number, and the end, without a word of its message."""

    def decide(error: BaseException) -> bool:
        if error.args:
            return True
        raise LookupError("ana@example.com")

    refunded = refunding(decide)
    assert not any(refunded(ValueError()) for _ in range(1000))
    log_clock.advance(10)
    refunded(ValueError())
    log_clock.advance(2)
    assert refunded(OSError("known"))

    assert recorder.ours == [
        "refund= raised LookupError; the hit is kept.",
        "refund= raised LookupError (1000 more times); the hits are kept.",
        "refund= decides again. Before that, it did not 1001 times in 12 s, and the hits were kept.",
    ]
    assert {record.levelno for record in recorder.records} == {logging.ERROR}


def test_hits_that_are_not_given_back_are_one_line(recorder: Recorder, log_clock: Clock) -> None:
    """A thousand sends that fail while nothing can be given back; a refusal, or a hit that has expired, does not end it."""
    storage = Unreliable()
    limiter = Limiter(MANY, storage)
    storage.failing = ("release",)

    def reserve(meanwhile: Callable[[], object]) -> None:
        with limiter.reserve("news", "ana"):
            meanwhile()
            raise ConnectionRefusedError

    def fail(meanwhile: Callable[[], object] = list) -> None:
        with pytest.raises(ConnectionRefusedError):
            reserve(meanwhile)

    for _ in range(1000):
        fail()
    log_clock.advance(10)
    fail()
    storage.failing = ()
    fail(lambda: limiter.clear("news", "ana"))
    assert len(recorder.ours) == 2
    fail()

    assert recorder.ours == [
        "A hit could not be given back and stays counted: The storage does not answer.",
        "Hits could not be given back and stay counted (1000 more): The storage does not answer.",
        "Hits are given back again. Before that, 1001 could not be given back, in 10 s, and stay counted.",
    ]


def test_limiters_of_one_server_share_their_lines(recorder: Recorder) -> None:
    """Sync and async, one after another, with what they do in a failure; the servers that are remembered are bounded."""
    uri = down()
    for kind in ("sync", "async", "sync"):
        for choice in ("allow", "deny"):
            limiter = LIMITERS[kind](MANY, uri, on_storage_error=choice)
            limiter.hit("news", "ana")
            limiter.close()
    assert [line.split()[2] for line in recorder.ours] == ["allowed", "refused"]

    for number in range(200):
        failures.failures_at(f"server {number}", "raise")
    assert len(failures._known) <= 64
    assert Limiter(MANY).failures is not Limiter(MANY).failures


class Elsewhere(MemoryStorage):
    """A storage of `limits` that may fail, and does not say where its server is."""

    is_down = False

    def acquire_entry(self, *args: Any, **kwargs: Any) -> bool:
        if self.is_down:
            raise ConnectionError
        return super().acquire_entry(*args, **kwargs)


def test_storages_of_one_class_have_lines_of_their_own(recorder: Recorder) -> None:
    """If one storage fails, and another one of the same class does not, the log does not say that it is over."""
    down, running = Elsewhere(), Elsewhere()
    down.is_down = True
    limiters = [Limiter(MANY, storage, on_storage_error="allow") for storage in (down, running, down)]
    limiters.append(Limiter(MANY, limiters[0].storage, on_storage_error="allow"))
    for limiter in limiters * 3:
        limiter.hit("news", "ana")

    assert limiters[0].failures is limiters[2].failures is limiters[3].failures
    assert [line.split(" (")[0] for line in recorder.ours] == ["Notifications were allowed without being counted"]


def test_a_type_without_a_rule_in_a_handler_is_logged_later(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And limiting that is off as well: they are logged once, and not lost because the first time was in a handler."""
    limiter, off = Limiter([Rule("log", "1/day")]), Limiter(enabled=False)
    monkeypatch.setattr(switch, "_said", False)

    def asked() -> None:
        log._logging_since.set(log.now())
        assert limiter.hit("news", "ana")
        assert off.hit("news", "ana")

    copy_context().run(asked)
    assert recorder.ours == []
    limiter.hit("news", "ana")
    off.hit("news", "ana")
    assert len(recorder.ours) == 2
