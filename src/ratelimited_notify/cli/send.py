"""Send the notifications of a stream that the rules allow. Used by the commands `send` and `demo`."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from ratelimited_notify.cli.gateway import Rehearsal, open_gateway
from ratelimited_notify.cli.input import Input, InputError
from ratelimited_notify.cli.journal import Journal
from ratelimited_notify.cli.progress import progress
from ratelimited_notify.cli.record import reason, record_of
from ratelimited_notify.cli.report import endings, report, say
from ratelimited_notify.cli.report_file import OutputError, ReportFile
from ratelimited_notify.cli.rules_argument import GivenRules
from ratelimited_notify.cli.signals import terminable, undisturbed
from ratelimited_notify.cli.standard_output import print_line
from ratelimited_notify.cli.tally import Tally
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError, StorageError
from ratelimited_notify.gateways.smtp import DeliveryUnknown, ServerUnreachable, SMTPError
from ratelimited_notify.limiter.switch import switch
from ratelimited_notify.limiter.sync import Limiter
from ratelimited_notify.notifier.delivery import Status
from ratelimited_notify.notifier.sync import Notifier

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console

    from ratelimited_notify.notification.notification import Notification
    from ratelimited_notify.notifier.delivery import Delivery
    from ratelimited_notify.rules.ruleset import RuleSet

    # Called with a recipient, a subject, a body, and the optional parts of a message.
    Gateway: TypeAlias = Callable[..., object]

MEMORY = "memory://"

MOST_UNREACHED = 5
"""If the mail server cannot be reached this many times in a row, stop. Each time may take a whole timeout."""


@dataclass(frozen=True, slots=True, repr=False)
class Route:
    """The settings of a run: rules, sender, gateway, storage, and limits for waiting. The URIs may have passwords, so the repr shows
    none of it.
    """

    rules: str | os.PathLike[str]
    sender: str
    gateway: str | None = None
    storage: str = MEMORY
    max_wait: float | None = None
    dry_run: bool = False
    timeout: float | None = None
    """How long to wait for the mail server, in seconds. None is the default of the gateway."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a run prints and writes."""

    json: bool = False
    """Print one JSON object for each line of the input, instead of tables."""
    report: Path | None = None
    """The file that gets the same JSON objects."""
    quiet: bool = False
    """Print no tables and no progress."""
    verbose: bool = False
    """Say about each notification what happened to it."""
    reads: tuple[Path, ...] = ()
    """The files that the run reads, which the report must not replace."""


class _Leap:
    """The clock of a dry run: waiting moves it forward without a pause."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds


def send(stream: BinaryIO, route: Route, out: Console, aside: Console, output: Output = Output()) -> Tally:
    """Send the notifications of a stream that the rules allow, and print the results.

    Arguments:
        stream: one JSON object per line.
        route: the rules, the gateway, the storage and other settings.
        out: the console for the results.
        aside: the console for progress, warnings, and a line for each malformed or failed notification.
        output: what to print, and where to write a report.

    Returns:
        The results, also after an interrupt. The hits of what was decided but not sent have been given back by then.

    Raises:
        NotifyError: the rules, the gateway, the storage or the report cannot be used, or the input is not JSON lines;
            nothing was sent.
    """
    rules = GivenRules(str(route.rules)).rules()
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
        run = _Run(notifier, tally, aside, output, dry_run=route.dry_run)
        journal = opened.enter_context(_journal(out, aside, output, tally))
        try:
            with terminable():
                run.deliver(stream, journal)
        except KeyboardInterrupt:
            tally.interrupted = True
            journal.interrupted = run.in_flight
        except (InputError, OutputError) as error:
            tally.broken = True
            say(aside, f"{error}{_stopped_at(tally) if isinstance(error, OutputError) else ''}", "red")
    now = datetime.fromtimestamp(time.time() if clock is None else clock(), UTC)
    if not output.json and not output.quiet:
        report(out, tally, now, dry_run=route.dry_run)
    else:
        for text in endings(tally, dry_run=route.dry_run):
            say(aside, text, "red")
    return tally


def _no_tier(_recipient: object, *, fields: Mapping[str, object]) -> None:
    """Nobody is in a tier."""


def _stopped_at(tally: Tally) -> str:
    if not tally.line:
        return " Nothing was sent."
    return f" Stopped after line {tally.line:,}, which was processed. The hits of what was not sent were given back."


class _Run:
    """Sends what comes from a stream."""

    def __init__(
        self, notifier: Notifier[..., object], tally: Tally, aside: Console, output: Output, *, dry_run: bool
    ) -> None:
        self._notifier = notifier
        self._tally = tally
        self._aside = aside
        self._output = output
        self._dry_run = dry_run
        self._source: _Counted | None = None
        self._recorded = 0

    @property
    def in_flight(self) -> int | None:
        """The line that was being sent, if the run was interrupted. A dry run sends nothing."""
        waiting = () if self._source is None or self._dry_run else self._source.waiting
        return next((line for line in waiting if line > self._recorded), None)

    def deliver(self, stream: BinaryIO, journal: Journal) -> None:
        """Send the notifications of the stream."""

        def malformed(number: int, problem: str) -> None:
            tally.malformed += 1
            journal.malformed(number, problem, ahead=bool(source.waiting))
            say(aside, f"line {number}: malformed: {problem}", "red")

        tally, aside = self._tally, self._aside
        source = self._source = _Counted(Input(stream, malformed))
        # On an exception, `closing` gives back at once what was decided but not sent, while that is still possible.
        with (
            progress(source, aside, quiet=self._output.quiet) as advance,
            closing(_deliveries(self._notifier, source)) as deliveries,
        ):
            unreached = 0
            for delivery in deliveries:
                tally.add(delivery)
                journal.add(record_of(delivery, dry_run=self._dry_run))
                self._recorded = source.waiting.popleft()
                self._tell(delivery)
                advance(tally)
                unreached = _unreached(delivery, unreached)
                if unreached == MOST_UNREACHED:
                    tally.stopped = True
                    break
        source.waiting.clear()
        if tally.stopped and source.size is not None:
            # Count the rest of the input. Some of it was already read and decided, and then given back.
            for _ in source:
                source.waiting.clear()
            tally.untried = source.read - sum(counted.total() for counted in tally.statuses.values())

    def _tell(self, delivery: Delivery[object]) -> None:
        line, status = delivery.notification.id, delivery.status
        if status is Status.FAILED:
            said = "failed" if delivery.error is None else f"failed: {reason(delivery.error)}"
            say(self._aside, f"line {line}: {said}", "red")
        elif self._output.verbose:
            say(self._aside, f"line {line}: {status.value}: {delivery.decision}")


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
        self.waiting: deque[int] = deque()
        """The lines of what was read and not sent yet."""

    @property
    def size(self) -> int | None:
        return self._source.size

    @property
    def position(self) -> int:
        return self._source.position

    def __iter__(self) -> Iterator[Notification]:
        for notification in self._notifications:
            self.read += 1
            self.waiting.append(int(notification.id))
            yield notification


def _deliveries(notifier: Notifier[..., object], source: _Counted) -> Generator[Delivery[object], None, None]:
    if source.size is not None:
        yield from notifier.iter_many(source)
        return
    # A program may write into a pipe only now and then, and a notification must not wait until a batch is full.
    for notification in source:
        yield from notifier.iter_many((notification,))


def _gateway(route: Route) -> AbstractContextManager[Gateway]:
    if route.timeout is not None and not 0 < route.timeout < inf:
        raise NotifyError("--timeout must be a finite number of seconds above 0.")
    gateway = None if route.gateway is None else open_gateway(route.gateway, route.sender)
    if route.dry_run:
        return nullcontext(Rehearsal(route.sender))
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
def _journal(out: Console, aside: Console, output: Output, tally: Tally) -> Generator[Journal, None, None]:
    """The journal of a run. At its end, what was held back is written, and the report takes its place."""
    file = None if output.report is None else ReportFile(output.report, output.reads)
    outputs: list[Callable[[str], None]] = [] if file is None else [file.write]
    if output.json:
        outputs.append(lambda text: print_line(out.file, text))
    journal = Journal(outputs)
    try:
        yield journal
    except NotifyError:
        # Nothing was sent.
        if file is not None:
            file.discard()
        raise
    except BaseException:
        _end(journal, file, tally, aside)
        raise
    _end(journal, file, tally, aside)


def _end(journal: Journal, file: ReportFile | None, tally: Tally, aside: Console) -> None:
    # A second Ctrl-C does not keep the report from its place.
    with undisturbed():
        for step in (journal.end, None if file is None else file.finish):
            try:
                if step is not None:
                    step()
            except OutputError as error:
                tally.broken = True
                say(aside, str(error), "red")


@contextmanager
def _warnings(aside: Console) -> Generator[None, None, None]:
    """Print the warnings of the library above the progress bar."""

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(aside, f"{record.levelname.lower()}: {plain(record.getMessage())}", "yellow")

    log = logging.getLogger("ratelimited_notify")
    handler = Said(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
