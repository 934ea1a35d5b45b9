"""What is known about a live source of rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.errors import NotifyError, RuleError

if TYPE_CHECKING:
    from ratelimited_notify.errors import Problem
    from ratelimited_notify.rules.ruleset import RuleSet


@dataclass(frozen=True)
class SourceStatus:
    """The state of a source of rules at one moment."""

    version: str | None
    """The version of the rules in force; None if they are the fallback, or if nothing has been loaded yet."""
    age: float
    """Seconds since the rules in force were last known to be those of the source. It grows while the source fails, and where
    no thread can run. `inf` if that has never been the case, so also while the fallback holds."""
    loaded_at: datetime | None
    """When the rules in force were loaded."""
    checked_at: datetime | None
    """When the source was last asked successfully."""
    error: str | None
    """Why the last attempt failed, or None."""
    problems: tuple[Problem, ...]
    """What is wrong in the rules that the source has now, if they cannot be used."""
    failures: int
    """How many attempts in a row have failed."""


class Refusal(NamedTuple):
    """Why rules cannot be used. Not the exception itself: its traceback would keep callers alive."""

    text: str
    problems: tuple[Problem, ...]
    source: str | None

    @classmethod
    def by(cls, error: NotifyError) -> Refusal:
        """What this error says."""
        if isinstance(error, RuleError):
            return cls(str(error), error.problems, error.source)
        return cls(str(error), (), None)

    def error(self) -> NotifyError:
        """The error once more."""
        return RuleError(self.problems, self.source) if self.problems else NotifyError(self.text)


class LiveState(NamedTuple):
    """What is in force, and what is known about the source. It changes as a whole, wherever an exception strikes."""

    rules: RuleSet | None = None
    version: str | None = None
    loaded_at: float | None = None
    checked: float | None = None
    checked_at: float | None = None
    # Not the exception itself: its traceback would keep callers alive.
    error: str | None = None
    problems: tuple[Problem, ...] = ()
    failures: int = 0
    unreached: int = 0
    """How many attempts in a row have not reached the source. What it says may be wrong, if it says anything."""
    refused: str | None = None
    """The version that cannot be used. It is not loaded again before it changes, unless somebody asks for that, or leaves."""
    refusal: Refusal | None = None
    """Why it cannot be used."""

    def refusing(self, version: str, error: NotifyError) -> LiveState:
        """The state after this version could not be used."""
        return self._replace(refused=version, refusal=Refusal.by(error))

    def reached(self) -> LiveState:
        """The state after the source was reached and had nothing new."""
        return self._replace(unreached=0, refusal=self.refusal if self.refused is not None else None)

    def at(self, now: float) -> SourceStatus:
        """What users see of it at a time by `time.monotonic`."""
        return SourceStatus(
            version=self.version,
            age=inf if self.checked is None else now - self.checked,
            loaded_at=_utc(self.loaded_at),
            checked_at=_utc(self.checked_at),
            error=self.error,
            problems=self.problems,
            failures=self.failures,
        )


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
