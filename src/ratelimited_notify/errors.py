"""The errors that this library raises. All of them are subclasses of `NotifyError`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,29}").fullmatch


def is_name(text: object) -> bool:
    """Whether a message may quote this key. A key that does not look like the name of an option may be an address."""
    return isinstance(text, str) and _NAME(text) is not None


# An email address or a handle, a number, hexadecimal digits as of a UUID or a device, a URL, a long token.
_ADDRESS = re.compile(
    r".*@\S.*|\W*(?:[0-9][ ().+/-]*){5,}|(?:[0-9a-f]-?){20,}|.*://.*|(?:tel|sms|mailto):.*|[\w:.~+/=-]{100,}",
    re.IGNORECASE | re.DOTALL,
).fullmatch

HIDDEN_TYPE = "(not shown: it looks like a recipient; the type comes first)"


def type_text(type: object) -> str:
    """The type of a notification for a message. One that looks like an address is not shown: probably the caller
    swapped the type and the recipient.
    """
    if not isinstance(type, str):
        return f"<{type.__class__.__name__}>"
    # A name is not that long.
    return HIDDEN_TYPE if len(type) > 200 or _ADDRESS(type) else repr(type)


def shown_type(type: object) -> str:
    """The type of a notification for data that others read. One that looks like an address is not shown, as in messages."""
    text = type_text(type)
    return str.__str__(type) if isinstance(type, str) and text != HIDDEN_TYPE else text


class NotifyError(Exception):
    """The base class of all errors of this library.

    Exceptions from a gateway are never wrapped: they reach the caller unchanged.
    """


class Problem(NamedTuple):
    """One problem in a rule or a rule set."""

    place: str
    """Where the problem is, such as `rules[3].limit`. Empty if it concerns the whole."""
    message: str
    """What is wrong, and what to write instead."""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message

    def under(self, place: str) -> Problem:
        """The same problem with a place one level further out."""
        return Problem(f"{place}.{self.place}" if self.place else place, self.message)


MOST_SHOWN = 100
"""So many problems are shown in the message of one error."""


class RuleError(NotifyError):
    """A rule or a rule set cannot be used.

    `problems` lists everything that is wrong; the message shows the first hundred problems. `source` names the file that the
    rules were read from, if any.
    """

    def __init__(self, problems: Iterable[Problem] | str, source: str | None = None) -> None:
        self.problems: tuple[Problem, ...] = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        self.source = source
        lines = [str(problem) for problem in self.problems[:MOST_SHOWN]]
        more = len(self.problems) - MOST_SHOWN
        if more > 0:
            lines.append(f"... and {more:,} more {'problem' if more == 1 else 'problems'}.")
        super().__init__("\n".join(lines if source is None else [f"The rules in {source} cannot be used:", *lines]))

    def __reduce__(self) -> tuple[type[RuleError], tuple[tuple[Problem, ...], str | None]]:
        return type(self), (self.problems, self.source)


class StorageError(NotifyError):
    """The storage could not be reached, refused the request, or did not answer in time.

    The message says whether the hit may have been counted. The library never sends it again.
    """

    nothing_counted = False
    """True if it is certain that nothing was counted: the request did not reach the server, or the server refused it."""

    def __init__(self, *args: object, nothing_counted: bool = False) -> None:
        super().__init__(*args)
        if nothing_counted:
            self.nothing_counted = True


class MissingExtra(NotifyError, ImportError):
    """A feature needs an optional dependency that is not installed. The message says how to install it."""

    def __init__(self, extra: str, needed_by: str | None = None) -> None:
        # Task queues that keep results as JSON make an exception again from its message alone.
        message = extra
        if needed_by is not None:
            message = (
                f"{needed_by} needs an optional dependency. Install it with: pip install 'ratelimited-notify[{extra}]'"
            )
        self.extra = "" if needed_by is None else extra
        self.needed_by = needed_by
        super().__init__(message)

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, ...]]:
        return type(self), (str(self),) if self.needed_by is None else (self.extra, self.needed_by)


_SAID = re.compile(r"The gateway returned a result of type \S+, which is a failure\.").fullmatch


class SendFailed(NotifyError):
    """What the gateway returned is a failure: `failed=` said so.

    `result` is what it returned. Pickling keeps it if it can be pickled; otherwise `result` is None afterwards. It is None
    too if a task queue that keeps results as JSON, such as Celery, made the exception again from its text.
    """

    def __init__(self, result: object = None) -> None:
        # Only its class: the result itself may contain the recipient.
        message = f"The gateway returned a result of type {type(result).__name__}, which is a failure."
        if type(result) is str and _SAID(result):
            message, result = result, None
        self.result = result
        super().__init__(message)

    def __reduce__(self) -> tuple[type[SendFailed], tuple[object], dict[str, object]]:
        result = _picklable(self.result)
        return type(self), (result,), {**self.__dict__, "result": result, "args": self.args}


def _picklable(value: object) -> object:
    import pickle

    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  # whatever a result of any library raises
        return None
    return value
