"""What a source of rules is: it yields a version and a document. Only the live rules make a rule set of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.pickling import NotPickled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.sources.annotations import FixedRules

SOURCE_OPTIONS = ("interval", "wait", "allow_empty", "fallback")
"""The options that each source has."""

LONGEST_INTERVAL = 86_400.0
"""Seconds."""


class Loaded(NamedTuple):
    """What a source has loaded."""

    version: str
    """Identifies the content: another content has another version."""
    document: Mapping[str, object]
    """The rules as tables, as TOML and JSON give them: `{"rules": [{"type": "news", "limit": "1/day"}]}`. It may also have
    `fields`, `default` and `unknown_type`."""

    def __repr__(self) -> str:
        # Overrides are for recipients, and a tool may show the variables of a traceback.
        return "<Loaded>"


@dataclass(frozen=True)
class SourceOptions:
    """How a source is asked, and what holds while it has nothing to offer.

    Arguments:
        interval: seconds between two loads.
        fallback: the rules that hold until the first load succeeds: the path of a file, or rules in any other form.
        wait: True makes a first load that fails an error. False starts without rules.
        allow_empty: True accepts that a source has no rules any more. By default the last rules stay in force: a truncated
            table must not lift all limits.
    """

    interval: float = 5.0
    fallback: FixedRules | None = field(default=None, repr=False)
    wait: bool = True
    allow_empty: bool = False

    def __post_init__(self) -> None:
        interval: object = self.interval
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0 < interval <= LONGEST_INTERVAL:
            raise NotifyError(f"interval= must be a number of seconds above 0 and up to {LONGEST_INTERVAL:,.0f}.")
        for name in ("wait", "allow_empty"):
            if not isinstance(getattr(self, name), bool):
                raise NotifyError(f"{name}= must be True or False.")


class RefreshedHere(NotPickled):
    """What keeps rules up to date in one process."""

    _belongings = "thread, locks and connections"
    _instead = ""


class RuleSource(RefreshedHere, ABC):
    """The base class of all sources of rules. Subclass it for a source of your own, or use `FunctionRules`.

    Arguments:
        interval: seconds between two loads, 5 by default.
        fallback: the rules that hold until the first load succeeds, in any form that `Limiter` takes except a source.
            Without them, and with `wait=True`, the first load must succeed.
        wait: True (the default) makes a first load that fails an error of the limiter's constructor. False starts without
            rules, and takes them as soon as they can be loaded.
        allow_empty: True accepts that the source has no rules any more. By default the last rules stay in force.

    Raises:
        NotifyError: an argument cannot be used.
    """

    options = SourceOptions()
    place = ""
    """Where the rules are, for messages. It contains no password."""
    live: Any = None  # Any: a weak reference to the live rules, which are made of this
    """The live rules of this source, shared by all limiters that are made with it."""
    portable = True
    """Whether it can be pickled or copied as long as no limiter uses it."""
    patience = 0
    """So many failures in a row are not worth a line in the log."""

    def __init__(
        self,
        *,
        interval: float = 5.0,
        fallback: FixedRules | None = None,
        wait: bool = True,
        allow_empty: bool = False,
    ) -> None:
        self.options = SourceOptions(interval, fallback, wait, allow_empty)

    @abstractmethod
    def load(self, known: str | None) -> Loaded | tuple[str, Mapping[str, object]] | None:
        """The version and the document, or None if the version is still the one that is known.

        It is called by one thread at a time. Whatever it raises is logged, and the last rules stay in force.

        Arguments:
            known: the version that was loaded last; None if the document is needed in any case.
        """

    def wait(self, timeout: float) -> bool:
        """Wait until something may have changed, for `timeout` seconds at the longest.

        By default, nothing tells a source about changes, and it is loaded once per interval. What a method of your own
        raises counts as waiting in vain.

        Returns:
            Whether something may have changed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close connections and files. The source may be used again afterwards."""

    def explained(self, problem: Problem) -> Problem:
        """A problem of the document that was loaded last, with its place in the words of this source. By default it stays as it
        is: `rules[3].limit`.
        """
        return problem

    def __getstate__(self) -> object:
        return object.__getstate__(self) if self.portable and self.live is None else super().__getstate__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{f' of {self.place}' if self.place else ''}>"


def waits(source: RuleSource) -> bool:
    """Whether the source is told about changes."""
    return type(source).wait is not RuleSource.wait


def checked(source: RuleSource, loaded: object) -> tuple[str, Mapping[str, object]]:
    """What a source has loaded, if it is a version and a document.

    Raises:
        RuleError: it is something else.
    """
    from collections.abc import Mapping

    if isinstance(loaded, tuple) and len(cast("tuple[object, ...]", loaded)) == 2:
        version, document = cast("Loaded", loaded)
        if isinstance(cast("object", version), str) and isinstance(cast("object", document), Mapping):
            return version, document
    raise RuleError(
        f"{source!r} returned something else than a version, which is a string, and a document, which is a mapping such as "
        '{"rules": [{"type": "news", "limit": "1/day"}]}.'
    )
