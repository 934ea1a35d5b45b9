"""Notifications from a stream, through the rules, to a gateway: what the commands `send` and `demo` do."""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ratelimited_notify.cli.gateway import open_gateway, rehearsal
from ratelimited_notify.cli.input import Input, InputError
from ratelimited_notify.cli.report import report, say
from ratelimited_notify.cli.tally import COUNTED, Tally
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.gateways.smtp import DeliveryUnknown, ServerUnreachable, SMTPError
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.limiter.sync import Limiter
from ratelimited_notify.notifier.delivery import Status
from ratelimited_notify.notifier.sync import Notifier
from ratelimited_notify.sources.file import read_rules

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console

    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.notifier.delivery import Delivery
    from ratelimited_notify.rules.ruleset import RuleSet

    # A recipient, a subject and a body.
    Gateway: TypeAlias = Callable[[str, str, str], object]

MEMORY = "memory://"

MOST_UNREACHED = 5
"""So many times in a row the mail server may be out of reach, each of which may take a time-out; then no more is tried."""


@dataclass(frozen=True, slots=True)
class Route:
    """By which rules notifications are sent, where to, and where they are counted."""

    rules: str | os.PathLike[str]
    sender: str
    gateway: str | None = None
    storage: str = MEMORY
    max_wait: float | None = None
    dry_run: bool = False
    timeout: float | None = None
    """Seconds after which the mail server is given up; None is what the gateway says by itself."""


class _Leap:
    """The time, in a dry run: waiting moves it on at once."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


def send(stream: BinaryIO, route: Route, out: Console, aside: Console) -> Tally:
    """Send the notifications of a stream as far as the rules allow, and print what became of them.

    Arguments:
        stream: one JSON object a line.
        route: by which rules, where to, and where they are counted.
        out: gets the tables.
        aside: gets progress, warnings, and each line that is malformed or whose sending failed.

    Returns:
        What became of them; also after an interrupt, when what was decided and not sent has been given back.

    Raises:
        NotifyError: the rules, the gateway or the storage cannot be used; nothing was read.
    """
    rules = read_rules(route.rules)
    _check_waiting(rules, route.max_wait)
    clock = _Leap() if route.dry_run else None
    tally = Tally(frozenset(rule.name for rule in rules if not rule.enforce))
    if any(rule.tiers for rule in rules):
        say(aside, "warning: A command cannot know who is in a tier; the limits of tiers are left out.", "yellow")
    with ExitStack() as opened:
        opened.enter_context(_warnings(aside))
        gateway: Gateway = opened.enter_context(_gateway(route))
        limiter = opened.enter_context(Limiter(rules, MEMORY if route.dry_run else route.storage, clock=clock))
        _check_storage(limiter, route)
        notifier = Notifier(gateway, limiter=limiter, max_wait=route.max_wait)
        try:
            with _terminable():
                _deliver(notifier, stream, tally, aside)
        except KeyboardInterrupt:
            tally.interrupted = True
        except InputError as error:
            tally.broken = True
            say(aside, str(error), "red")
    now = datetime.fromtimestamp(time.time() if clock is None else clock(), UTC)
    report(out, tally, now, dry_run=route.dry_run)
    return tally


def _deliver(notifier: Notifier[[str, str], object], stream: BinaryIO, tally: Tally, aside: Console) -> None:
    def malformed(number: int, problem: str) -> None:
        tally.malformed += 1
        say(aside, f"line {number}: malformed: {problem}", "red")

    source = _Counted(Input(stream, malformed))
    # Closed at once when something breaks in, so that what was decided and not sent is given back while it can be.
    with _progress(source, aside) as advance, closing(_deliveries(notifier, source)) as deliveries:
        unreached = 0
        for delivery in deliveries:
            tally.add(delivery)
            if delivery.status is Status.FAILED:
                say(aside, f"line {delivery.notification.id}: failed: {_reason(delivery)}", "red")
            advance(tally)
            unreached = _unreached(delivery, unreached)
            if unreached == MOST_UNREACHED:
                tally.stopped = True
                break
    if tally.stopped and source.size is not None:
        # All there are but those that were dealt with: some were read and decided about, and given back.
        for _ in source:
            pass
        tally.untried = source.read - sum(counted.total() for counted in tally.statuses.values())


def _unreached(delivery: Delivery[object], so_far: int) -> int:
    """How often in a row the server was out of reach; what was not tried there, a refusal say, tells nothing of it."""
    if isinstance(delivery.error, ServerUnreachable):
        return so_far + 1
    tried = delivery.status is Status.SENT or isinstance(delivery.error, SMTPError | DeliveryUnknown)
    return 0 if tried else so_far


class _Counted:
    """The notifications of an input, from where the last reader left off, and how many were read."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._notifications = iter(source)
        self.read = 0

    @property
    def size(self) -> int | None:
        return self._source.size

    @property
    def position(self) -> int:
        return self._source.position

    def __iter__(self) -> Iterator[Notification]:
        for notification in self._notifications:
            self.read += 1
            yield notification


def _deliveries(notifier: Notifier[[str, str], object], source: _Counted) -> Generator[Delivery[object], None, None]:
    if source.size is not None:
        yield from notifier.iter_many(source)
        return
    # Who writes into a pipe may do so now and then: a notification is not to wait until there are enough for a batch.
    for notification in source:
        yield from notifier.iter_many((notification,))


def _reason(delivery: Delivery[object]) -> str:
    # The messages of this library name nobody; of others nothing is known.
    error = delivery.error
    return str(error) if isinstance(error, NotifyError) else type(error).__name__


def _gateway(route: Route) -> AbstractContextManager[Gateway]:
    if route.timeout is not None and not 0 < route.timeout < inf:
        raise NotifyError("--timeout must be seconds: more than 0, and finite.")
    gateway = None if route.gateway is None else open_gateway(route.gateway, route.sender)
    if route.dry_run:
        return nullcontext(rehearsal(route.sender))
    if gateway is None:
        raise NotifyError("No gateway is named. Say where to send, --gateway smtp://host:port; --dry-run needs none.")
    if route.timeout is not None:
        gateway.timeout = route.timeout
    return closing(gateway)


def _check_waiting(rules: RuleSet, max_wait: float | None) -> None:
    waiting = [rule.name for rule in rules if rule.on_limit == "wait"]
    if waiting and max_wait is None:
        raise NotifyError(
            f'Rule {waiting[0]!r} has on_limit = "wait": say how long to wait for one notification at the most, '
            "--max-wait SECONDS."
        )


def _check_storage(limiter: Limiter, route: Route) -> None:
    """Make sure that the storage answers, before a long input fails line by line."""
    # With limiting switched off, no storage is asked and none needs to be there.
    probe = None if switch.read() else getattr(limiter.storage, "probe", None)
    try:
        if probe is not None:
            probe()
    except StorageError as error:
        scheme = route.storage.partition("://")[0]
        raise NotifyError(f"The storage, {scheme}://, cannot be used; no notification was sent. {error}") from None


@contextmanager
def _terminable() -> Generator[None, None, None]:
    """SIGTERM, which service managers send, is an interrupt from the keyboard: what was not sent is given back."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        # Python sets signals from the main thread only.
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(source: _Counted, aside: Console) -> Generator[Callable[[Tally], None], None, None]:
    """A bar while it lasts, where somebody is looking: how far the input was read, and what came of it so far."""
    if not aside.is_terminal:
        yield lambda tally: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(compact=True),
        console=aside,
        transient=True,
    )
    task = bar.add_task("BaseNotifier", total=source.size, counts="")

    def advance(tally: Tally) -> None:
        counts = ", ".join(f"{tally.total(status):,} {status.value}" for status in COUNTED)
        bar.update(task, completed=source.position, counts=counts)

    with bar:
        yield advance


@contextmanager
def _warnings(aside: Console) -> Generator[None, None, None]:
    """What the library has to say while it works, above the bar and not through it."""

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(aside, f"{record.levelname.lower()}: {record.getMessage()}", "yellow")

    log = logging.getLogger("ratelimited_notify")
    handler = Said(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
