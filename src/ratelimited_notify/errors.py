"""The errors that this library raises, all of them a `NotifyError`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,29}").fullmatch


def is_name(text: object) -> bool:
    """Whether an error may show this text as the name of an option or a field: a key may be anything, an address too."""
    return isinstance(text, str) and _NAME(text) is not None


class NotifyError(Exception):
    """The root of every error that this library raises by itself.

    What a gateway raises is never wrapped: it reaches the caller unchanged.
    """


class Problem(NamedTuple):
    """One thing that is wrong with a rule or a rule set."""

    place: str
    """Where it is: `rules[3].limit`; empty where that goes without saying."""
    message: str
    """What is wrong there, and what to write."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message

    def under(self, place: str) -> Problem:
        """The same problem seen from one level further out."""
        return Problem(f"{place}.{self.place}" if self.place else place, self.message)


class RuleError(NotifyError):
    """A rule or a rule set cannot be used; `problems` lists everything that is wrong with it.

    `source` names the file that it was read from, if any.
    """

    def __init__(self, problems: Iterable[Problem] | str, source: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        self.source = source
        lines = [str(problem) for problem in self.problems]
        super().__init__("\n".join(lines if source is None else [f"The rules in {source} cannot be used:", *lines]))

    def __reduce__(self) -> tuple[type[RuleError], tuple[tuple[Problem, ...], str | None]]:
        return type(self), (self.problems, self.source)


class StorageError(NotifyError):
    """The storage could not be reached, refused, or did not answer in time.

    The message says whether the hit may have been counted. It is never sent again.
    """


class MissingExtra(NotifyError, ImportError):
    """Something was asked for that needs an optional dependency which is not installed."""

    def __init__(self, extra: str, needed_by: str) -> None:
        self.extra = extra
        self.needed_by = needed_by
        super().__init__(
            f"{needed_by} needs an optional dependency. Install it with: pip install 'ratelimited-notify[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.extra, self.needed_by)
