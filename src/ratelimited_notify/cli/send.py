"""Send the notifications of a stream that the rules allow. Used by the commands `send` and `demo`."""

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
    from collections.abc import Callable, Generator, Iterator, Mapping
    from contextlib import AbstractContextManager

    from rich.console import Console

    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.notifier.delivery import Delivery
    from ratelimited_notify.rules.ruleset import RuleSet

    # Called with a recipient, a subject and a body.
    Gateway: TypeAlias = Callable[[str, str, str], object]

MEMORY = "memory://"

MOST_UNREACHED = 5
"""If the mail server cannot be reached this many times in a row, stop. Each time may take a whole timeout."""


@dataclass(frozen=True, slots=True)
class Route:
    """The settings of a run: rules, sender, gateway, storage, and limits for waiting."""

    rules: str | os.PathLike[str]
    sender: str
    gateway: str | None = None
    storage: str = MEMORY
    max_wait: float | None = None
    dry_run: bool = False
    timeout: float | None = None
    """How long to wait for the mail server, in seconds. None is the default of the gateway."""


class _Leap:
    """The clock of a dry run: waiting moves it forward without a pause."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


def send(stream: BinaryIO, route: Route, out: Console, aside: Console) -> Tally:
    """Send the notifications of a stream that the rules allow, and print the results.

    Arguments:
        stream: one JSON object per line.
        route: the rules, the gateway, the storage and other settings.
        out: the console for the tables.
        aside: the console for progress, warnings, and a line for each malformed or failed notification.

    Returns:
        The results, also after an interrupt. The hits of what was decided but not sent have been given back by then.

    Raises:
        NotifyError: the rules, the gateway or the storage cannot be used; nothing was read.
    """
    rules = read_rules(route.rules)
    _check_waiting(rules, route.max_wait)
    clock = _Leap() if route.dry_run else None
    tally = Tally(frozenset(rule.name for rule in rules if not rule.enforce))
    if any(rule.tiers for rule in rules):
        say(
            aside,
            "warning: The command does not know the tiers of recipients, so it ignores limits of tiers.",
            "yellow",
        )
    with ExitStack() as opened:
        opened.enter_context(_warnings(aside))
        gateway: Gateway = opened.enter_context(_gateway(route))
        limiter = opened.enter_context(
            Limiter(rules, MEMORY if route.dry_run else route.storage, clock=clock, tier_of=_no_tier)
        )
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


def _no_tier(_recipient: object, *, fields: Mapping[str, object]) -> None:
    """Nobody is in a tier."""


def _deliver(notifier: Notifier[[str, str], object], stream: BinaryIO, tally: Tally, aside: Console) -> None:
    def malformed(number: int, problem: str) -> None:
        tally.malformed += 1
        say(aside, f"line {number}: malformed: {problem}", "red")

    source = _Counted(Input(stream, malformed))
    # On an exception, `closing` gives back at once what was decided but not sent, while that is still possible.
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
        # Count the rest of the input. Some of it was already read and decided, and then given back.
        for _ in source:
            pass
        tally.untried = source.read - sum(counted.total() for counted in tally.statuses.values())


def _unreached(delivery: Delivery[object], so_far: int) -> int:
    """How often in a row the server could not be reached. A delivery that did not try it, as after a refusal, is ignored."""
    if isinstance(delivery.error, ServerUnreachable):
        return so_far + 1
    tried = delivery.status is Status.SENT or isinstance(delivery.error, SMTPError | DeliveryUnknown)
    return 0 if tried else so_far


class _Counted:
    """Counts the notifications of an input. A second iteration continues where the first one stopped."""

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
    # A program may write into a pipe only now and then, and a notification must not wait until a batch is full.
    for notification in source:
        yield from notifier.iter_many((notification,))


def _reason(delivery: Delivery[object]) -> str:
    # Messages of this library never contain a recipient. Other messages may.
    error = delivery.error
    return str(error) if isinstance(error, NotifyError) else type(error).__name__


def _gateway(route: Route) -> AbstractContextManager[Gateway]:
    if route.timeout is not None and not 0 < route.timeout < inf:
        raise NotifyError("--timeout must be a finite number of seconds above 0.")
    gateway = None if route.gateway is None else open_gateway(route.gateway, route.sender)
    if route.dry_run:
        return nullcontext(rehearsal(route.sender))
    if gateway is None:
        raise NotifyError("There is no gateway. Pass --gateway smtp://host:port, or --dry-run, which needs none.")
    if route.timeout is not None:
        gateway.timeout = route.timeout
    return closing(gateway)


def _check_waiting(rules: RuleSet, max_wait: float | None) -> None:
    waiting = [rule.name for rule in rules if rule.on_limit == "wait"]
    if waiting and max_wait is None:
        raise NotifyError(
            f'Rule {waiting[0]!r} has on_limit = "wait". Pass --max-wait SECONDS, the longest wait for one notification.'
        )


def _check_storage(limiter: Limiter, route: Route) -> None:
    """Check that the storage answers, so that a long input does not fail line by line."""
    # If limiting is switched off, the storage is not used and need not be running.
    probe = None if switch.read() else getattr(limiter.storage, "probe", None)
    try:
        if probe is not None:
            probe()
    except StorageError as error:
        scheme = route.storage.partition("://")[0]
        raise NotifyError(f"The storage, {scheme}://, cannot be used; no notification was sent. {error}") from None


@contextmanager
def _terminable() -> Generator[None, None, None]:
    """Handle SIGTERM, which service managers send, like Ctrl-C: what was decided but not sent is given back."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        # Python can set signal handlers only in the main thread.
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(source: _Counted, aside: Console) -> Generator[Callable[[Tally], None], None, None]:
    """On a terminal, show a progress bar: how much of the input was read, and the counts so far."""
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
    task = bar.add_task("Sending", total=source.size, counts="")

    def advance(tally: Tally) -> None:
        counts = ", ".join(f"{tally.total(status):,} {status.value}" for status in COUNTED)
        bar.update(task, completed=source.position, counts=counts)

    with bar:
        yield advance


@contextmanager
def _warnings(aside: Console) -> Generator[None, None, None]:
    """Print the warnings of the library above the progress bar."""

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
