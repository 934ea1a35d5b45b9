"""Records about what is suppressed and what fails: the first of a kind at once, then a number, and never about themselves."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from outcomes import Unreliable
from ratelimited_notify import (
    AsyncNotifier,
    Limiter,
    Notifier,
    NotifyError,
    RateLimitExceeded,
    Rule,
    log,
    rate_limited,
)
from ratelimited_notify.instrumentation.logging import MOST_KINDS, instrument
from striking import Striking, Struck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ratelimited_notify.pytest_plugin import Clock

OURS = "ratelimited_notify"
ANA = "ana@example.com"
BEN = "ben@example.com"


class Records(BufferingHandler):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        super().__init__(capacity=1_000_000)

    @property
    def said(self) -> list[str]:
        """Their messages."""
        return [record.getMessage() for record in self.buffer]


@contextmanager
def recorded(name: str = OURS, level: int = logging.INFO) -> Iterator[Records]:
    """The records of a logger at this level."""
    logger, handler = logging.getLogger(name), Records()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.fixture
def records() -> Iterator[Records]:
    """The records of the library at the level INFO and above."""
    with recorded() as handler:
        yield handler


def once(**options: Any) -> Notifier[[], None]:
    """A notifier that sends one news a day."""
    return Notifier(lambda recipient: None, {"news": "1/day"}, **options)


def send_to(recipient: str) -> None:
    """A gateway that fails for Ben."""
    if recipient == BEN:
        raise ConnectionRefusedError(recipient)


def asynchronous(times: int) -> list[bool]:
    """Send news so many times under asyncio."""

    async def send() -> list[bool]:
        async def gateway(recipient: str) -> None:
            pass

        notifier = AsyncNotifier(gateway, {"news": "1/day"})
        return [bool(await notifier.send("news", ANA)) for _ in range(times)]

    return asyncio.run(send())


def decorated(on_limit: Any) -> Callable[[int], list[bool]]:
    """Calls of a decorated function."""

    def call(times: int) -> list[bool]:
        @rate_limited("news", on_limit=on_limit, limiter=Limiter({"news": "1/day"}))
        def send(recipient: str) -> bool:
            return True

        sent = []
        for _ in range(times):
            with suppress(RateLimitExceeded):
                sent.append(bool(send(ANA)))
        return sent

    return call


def one_by_one(times: int) -> list[bool]:
    """Send news so many times."""
    notifier = once()
    return [bool(notifier.send("news", ANA)) for _ in range(times)]


WAYS: dict[str, Callable[[int], object]] = {
    "send": one_by_one,
    "send_many": lambda times: once().send_many("news", [ANA] * times),
    "asyncio": asynchronous,
    "dropped": decorated("drop"),
    "raised": decorated("raise"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_first_is_logged_at_once_and_the_others_are_a_number(way: str, records: Records, log_clock: Clock) -> None:
    """A loop that sends 7,700 times is two records, however it sends."""
    with instrument():
        WAYS[way](7700)
        assert records.said == ["A notification of type 'news' was suppressed by rule 'news'."]

        log_clock.advance(10)
        WAYS[way](1)

    assert records.said[1:] == ["A notification of type 'news' was suppressed by rule 'news', and 7,697 like it."]


def test_a_record_has_the_same_for_programs(records: Records) -> None:
    """What the message says can be read from attributes, and a formatter for JSON finds them."""
    with instrument("warning"):
        once().send_many("news", [ANA, ANA])

    [record] = records.buffer
    assert (record.levelname, record.name) == ("WARNING", OURS)
    assert {name: value for name, value in vars(record).items() if name.startswith("notification_")} == {
        "notification_type": "news",
        "notification_status": "suppressed",
        "notification_rule": "news",
        "notification_error": None,
        "notification_count": 1,
    }


def test_a_failure_is_a_record_of_its_own(records: Records) -> None:
    """It names the class of the exception, and neither its message nor the recipient."""
    notifier = Notifier(send_to, {"news": "5/day"})
    with instrument():
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                notifier.send("news", BEN)

    assert records.said == [
        "A notification of type 'news' failed with ConnectionRefusedError.",
        "A notification of type 'news' failed with ConnectionRefusedError, and 1 like it.",
    ]
    assert records.buffer[1].notification_count == 2  # type: ignore[attr-defined]  # from `extra`
    assert BEN not in repr([vars(record) for record in records.buffer])


def test_each_type_and_rule_is_counted_by_itself(records: Records) -> None:
    """The first of each is logged at once, and its rule is the first one that refuses."""
    rules = [Rule("news", "1/day"), Rule("*", "2/day", by="recipient", name="cap"), Rule("offer", "1/day")]
    notifier = Notifier(send_to, rules)
    with instrument():
        for type in ("news", "news", "offer", "offer"):
            notifier.send(type, ANA)

    assert records.said == [
        "A notification of type 'news' was suppressed by rule 'news'.",
        "A notification of type 'offer' was suppressed by rule 'cap'.",
    ]


def test_a_number_that_is_due_is_logged_with_any_other_notification(records: Records, log_clock: Clock) -> None:
    """When the loop has ended, what else is sent brings its number to the log."""
    notifier = Notifier(send_to, {"news": "1/day", "offer": "1000/day"})

    @rate_limited("offer", limiter=notifier.limiter)
    def send_offer(recipient: str) -> None:
        pass

    with instrument():
        notifier.send_many("news", [ANA] * 100)
        log_clock.advance(9)
        notifier.send("offer", ANA)
        assert len(records.said) == 1

        log_clock.advance(1)
        send_offer("cleo@example.com")
        assert records.said[1:] == ["A notification of type 'news' was suppressed by rule 'news', and 97 like it."]

        log_clock.advance(100)
        notifier.send("offer", ANA)
    assert len(records.said) == 2


def test_closing_logs_what_is_left_and_ends_it(records: Records) -> None:
    """No suppression is lost, and none is logged after the end."""
    notifier = once()
    handle = instrument()
    notifier.send_many("news", [ANA] * 5)
    handle.close()
    handle.close()
    notifier.send("news", ANA)

    assert records.said == [
        "A notification of type 'news' was suppressed by rule 'news'.",
        "A notification of type 'news' was suppressed by rule 'news', and 2 like it.",
    ]


def test_what_is_left_is_logged_at_the_end_of_the_process() -> None:
    """A short program logs all it suppressed."""
    program = """
import logging
from ratelimited_notify import Notifier
from ratelimited_notify.instrumentation.logging import instrument
logging.basicConfig(level="INFO", format="%(message)s")
instrument()
Notifier(lambda recipient: None, {"news": "1/day"}).send_many("news", ["ana"] * 9)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stderr.splitlines() == [
        "A notification of type 'news' was suppressed by rule 'news'.",
        "A notification of type 'news' was suppressed by rule 'news', and 6 like it.",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
def test_a_forked_child_does_not_log_what_its_parent_counted(tmp_path: Path) -> None:
    """Each suppression is in the numbers of one process."""
    program = f"""
import logging, os
from ratelimited_notify import Notifier
from ratelimited_notify.instrumentation.logging import instrument
logging.basicConfig(level="INFO", format="%(process)d %(notification_count)d", filename={str(tmp_path / "log")!r})
handle = instrument()
notifier = Notifier(lambda recipient: None, {{"news": "1/day"}})
notifier.send_many("news", ["ana"] * 9)
for _ in range(2):
    if os.fork() == 0:
        notifier.send_many("news", ["ana"] * 4)
        handle.close()
        os._exit(0)
    os.wait()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    counts: dict[str, list[int]] = {}
    for line in (tmp_path / "log").read_text().splitlines():
        process, number = line.split()
        counts.setdefault(process, []).append(int(number))

    assert sorted(counts.values()) == [[1, 3], [1, 3], [1, 7]]


def test_threads_lose_nothing(records: Records, log_clock: Clock) -> None:
    """The numbers add up, however many threads send at once."""
    notifier = once()
    with instrument(), ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            list(threads.map(lambda _: notifier.send("news", ANA), range(100)))
            log_clock.advance(11)

    assert sum(record.notification_count for record in records.buffer) == 1999  # type: ignore[attr-defined]  # from `extra`
    assert len(records.buffer) <= 22


def test_kinds_are_bounded(records: Records) -> None:
    """Types that are made of something that differs each time fill neither the log nor the memory."""
    notifier = Notifier(send_to, [Rule("*", "0/day")])
    with instrument():
        for number in range(MOST_KINDS + 500):
            notifier.send(f"order {number}", ANA)

    assert len(records.said) == MOST_KINDS + 2
    assert records.said[-2:] == [
        "A notification of another type was suppressed.",
        "A notification of another type was suppressed, and 498 like it.",
    ]
    assert records.buffer[-1].notification_type == "other"  # type: ignore[attr-defined]  # from `extra`


def test_a_type_that_is_an_address_is_not_shown(records: Records) -> None:
    """Swapped arguments show no recipient, and a type of several lines is one line."""
    notifier = Notifier(send_to, [Rule("*", "0/day")])
    with instrument():
        notifier.send(ANA, "news")
        notifier.send("two\nlines", ANA)

    shown = repr([vars(record) for record in records.buffer]) + "".join(records.said)
    assert ANA not in shown
    assert "\n" not in "".join(str(value) for record in records.buffer for value in vars(record).values())


def test_decisions_are_logged_instead_on_request(records: Records) -> None:
    """A limiter that is asked alone has no deliveries. With `decisions=True` a suppression is not counted twice."""
    limiter = Limiter({"news": "1/day", "alert": "5/day"})
    with instrument(decisions=True):
        for _ in range(3):
            limiter.hit("news", ANA)
        Notifier(send_to, limiter=limiter).send("news", ANA)

    assert records.said == [
        "A notification of type 'news' was refused by rule 'news'.",
        "A notification of type 'news' was refused by rule 'news', and 1 like it.",
    ]


def test_refusals_without_a_storage_are_suppressions(records: Records) -> None:
    """`on_storage_error="deny"` suppresses too, and no rule is to blame."""
    storage = Unreliable()
    storage.failing = ("acquire",)
    notifier = Notifier(send_to, {"news": "5/day"}, storage, on_storage_error="deny")
    with instrument():
        notifier.send("news", ANA)

    assert "A notification of type 'news' was suppressed." in records.said


# What reads the records.


class Mailer(logging.Handler):
    """A handler that sends each record by the library, which allows one a day."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[str] = []
        self.notifier = Notifier(lambda recipient, text: self.mails.append(text), {"log": "1/day"})

    def emit(self, record: logging.LogRecord) -> None:
        self.notifier.send("log", "admin@example.com", self.format(record))


def test_a_record_never_leads_to_another(records: Records, log_clock: Clock) -> None:
    """A handler that sends the records by the library gets one for each kind in 10 seconds, and none about itself."""
    mailer = Mailer()
    logging.getLogger(OURS).addHandler(mailer)
    try:
        with instrument():
            notifier = once()
            for _ in range(50):
                notifier.send_many("news", [ANA] * 10)
                log_clock.advance(1)
        assert {record.notification_type for record in records.buffer} == {"news"}  # type: ignore[attr-defined]  # from `extra`
        assert 5 <= len(records.buffer) <= 7
        assert len(mailer.mails) == 1
    finally:
        logging.getLogger(OURS).removeHandler(mailer)


def test_what_a_filter_raises_does_not_reach_the_sender(records: Records) -> None:
    """The record is lost, the sender is not."""
    notifier = once()

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if hasattr(record, "notification_type"):
                raise ValueError(record.getMessage())
            return True

    broken = Broken()
    logging.getLogger(OURS).addFilter(broken)
    try:
        with instrument():
            assert [bool(each) for each in notifier.send_many("news", [ANA] * 3)] == [True, False, False]
    except ValueError:
        # Closing the handle is not sending.
        pass
    finally:
        logging.getLogger(OURS).removeFilter(broken)
    assert len(records.said) == 1
    assert "raised ValueError" in records.said[0]


@pytest.mark.parametrize("logger", ["shop.mail", logging.getLogger("shop.mail")], ids=["name", "logger"])
def test_another_logger(logger: object, records: Records) -> None:
    """The records go where the user wants them."""
    with recorded("shop.mail") as there, instrument(logger=logger):
        once().send_many("news", [ANA] * 2)

    assert len(there.said) == 1
    assert records.said == []


def test_an_adapter_keeps_its_fields() -> None:
    """A `LoggerAdapter` adds what it has, and takes away nothing."""
    with recorded("shop.mail") as there:
        with instrument(logger=logging.LoggerAdapter(logging.getLogger("shop.mail"), {"shop": 7})):
            once().send_many("news", [ANA] * 2)

        [record] = there.buffer
        assert (record.shop, record.notification_rule) == (7, "news")  # type: ignore[attr-defined]  # from `extra`


@pytest.mark.parametrize("wrapper", [None, structlog.BoundLogger, structlog.stdlib.BoundLogger])
def test_a_logger_of_structlog_gets_an_event_with_the_same_keys(wrapper: Any) -> None:
    """Any kind of its loggers works, also one that was never used before."""
    captured = structlog.testing.LogCapture()
    logger = structlog.wrap_logger(
        structlog.PrintLogger() if wrapper is not structlog.stdlib.BoundLogger else logging.getLogger("shop.mail"),
        processors=[captured],
        wrapper_class=wrapper or structlog.make_filtering_bound_logger(logging.INFO),
        shop=7,
    )
    with instrument(logging.WARNING, logger):
        once().send_many("news", [ANA] * 2)

    assert captured.entries == [
        {
            "event": "A notification of type 'news' was suppressed by rule 'news'.",
            "log_level": "warning",
            "shop": 7,
            "notification_type": "news",
            "notification_status": "suppressed",
            "notification_rule": "news",
            "notification_error": None,
            "notification_count": 1,
        }
    ]


def test_records_of_the_logging_module_reach_structlog_with_their_fields() -> None:
    """With structlog's formatter for the logging module, the fields are keys of the event."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    with recorded() as handler:
        handler.setFormatter(formatter)
        with instrument():
            once().send_many("news", [ANA] * 2)
        [event] = [json.loads(handler.format(record)) for record in handler.buffer]

    assert event["event"] == "A notification of type 'news' was suppressed by rule 'news'."
    assert event["notification_rule"] == "news"
    assert event["notification_count"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "LOUD"}, "level="),
        ({"level": None}, "level="),
        ({"level": True}, "level="),
        ({"logger": 5}, "logger="),
        ({"logger": print}, "logger="),
        ({"decisions": "yes"}, "decisions="),
    ],
)
def test_an_argument_that_cannot_be_used_is_an_error(arguments: dict[str, Any], message: str) -> None:
    """The message says which argument, and nothing is watched."""
    with pytest.raises(NotifyError, match=message):
        instrument(**arguments)
    assert Limiter({"news": "1/day"}).watching is None


# Interrupts.


@pytest.mark.slow
def test_an_interrupt_at_any_line_breaks_nothing(log_clock: Clock) -> None:
    """It reaches the sender, and afterwards suppressions are logged as before."""
    from ratelimited_notify.instrumentation import logging as ours

    files = (str(ours.__file__), str(log.__file__))
    at = 0
    while True:
        at += 1
        with recorded() as records, instrument():
            notifier = once()
            notifier.send("news", ANA)
            striking = Striking(at, Struck, files)
            striking.during(partial(notifier.send, "news", ANA))
            if striking.seen < at:
                break
            log_clock.advance(100)
            notifier.send("news", ANA)
            log_clock.advance(100)
            notifier.send("news", ANA)
            assert records.said, striking.where
    assert at > 10


def test_a_signal_handler_that_sends(records: Records) -> None:
    """A notification that a signal handler sends in the middle of a record is decided as always."""
    notifier, results = once(), []

    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    handler = Interrupting()
    before = signal.signal(signal.SIGUSR1, lambda *_: results.append(bool(notifier.send("news", BEN))))
    logging.getLogger(OURS).addHandler(handler)
    try:
        with instrument():
            notifier.send_many("news", [ANA] * 2)
    finally:
        logging.getLogger(OURS).removeHandler(handler)
        signal.signal(signal.SIGUSR1, before)
    assert results == [True]
    assert len(records.said) == 1


# Without any of it.


@pytest.mark.parametrize("way", WAYS)
def test_without_it_a_suppression_is_a_line_at_the_level_debug(way: str) -> None:
    """The level alone shows what is suppressed, and why."""
    with recorded(level=logging.DEBUG) as records:
        WAYS[way](3)

    assert (
        records.said
        == ["A notification is suppressed: 'news' refused by rule 'news' (1 per day), try again in 1 day."] * 2
    )
    assert {record.levelno for record in records.buffer} == {logging.DEBUG}


@pytest.mark.parametrize("way", WAYS)
def test_without_it_nothing_is_logged_at_the_level_info(way: str, records: Records) -> None:
    """A suppression is what rules are for."""
    WAYS[way](3)

    assert records.said == []


def test_with_it_there_is_no_line_at_the_level_debug() -> None:
    """A suppression is logged in one way."""
    with recorded(level=logging.DEBUG) as records, instrument():
        WAYS["dropped"](5)
        WAYS["send"](5)

    assert logging.DEBUG not in {record.levelno for record in records.buffer}


def test_a_level_that_is_set_later_counts_for_all_but_dropped_calls() -> None:
    """Where nothing drops, each suppression looks at the level."""
    notifier = once()
    notifier.send_many("news", [ANA] * 3)
    with recorded(level=logging.DEBUG) as records:
        notifier.send("news", ANA)

    assert len(records.said) == 1


def test_a_line_at_the_level_debug_does_not_lead_to_another() -> None:
    """A handler that sends by the library gets it, and what it sends makes no line."""
    mailer = Mailer()
    logging.getLogger(OURS).addHandler(mailer)
    try:
        with recorded(level=logging.DEBUG) as records, closing(mailer):
            once().send_many("news", [ANA] * 4)
        assert len(records.said) == 3
        assert len(mailer.mails) == 1
    finally:
        logging.getLogger(OURS).removeHandler(mailer)


def test_a_closed_handle_leaves_nothing_behind() -> None:
    """What is closed is gone, with all that it counted."""
    from ratelimited_notify.instrumentation import logging as ours

    handle = instrument()
    handle.close()
    del handle
    gc.collect()

    assert not list(ours._recordings)
