"""Sources that can be written to, by a program or by `ratelimited-notify rules push`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.rules.document import rule_set_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.rules.ruleset import RuleSet
    from ratelimited_notify.sources.base import Loaded, SourceOptions

NO_VERSION = "0"
"""The version of rules that do not exist yet."""


class VersionConflict(NotifyError):
    """The rules there have another version than the one that was to be replaced. Nothing was written."""


class NothingThere(RuleError):
    """No rules have been written there yet."""


class Unusable(RuleError):
    """What is there is no document, and can be replaced by one. `version` is its version, if it has one."""

    def __init__(
        self, problems: Iterable[Problem] | str, source: str | None = None, *, version: str | None = None
    ) -> None:
        super().__init__(problems, source)
        self.version = version


@runtime_checkable
class WritableSource(Protocol):
    """A source with a method that replaces all its rules."""

    @property
    def options(self) -> SourceOptions: ...

    def load(self, known: str | None) -> Loaded | tuple[str, Mapping[str, object]] | None: ...

    def write(self, document: Mapping[str, object], *, if_version: str | None = None) -> str:
        """Replace all rules, in one step, and tell all processes that wait for changes.

        Arguments:
            document: the rules, as a rules file has them.
            if_version: write only if the rules there have this version; `"0"` if there must be none.

        Returns:
            The new version.

        Raises:
            RuleError: the document cannot be used. The error lists all problems.
            VersionConflict: the rules there have another version.
            NotifyError: the source cannot be reached, or refused the change.
        """
        ...


def is_version(version: str | None, wanted: str) -> bool:
    """Whether this is the version that is wanted. The number before a hyphen is enough, and `"0"` is none."""
    if version is None:
        return wanted == NO_VERSION
    return version == wanted or (wanted.isdigit() and version.startswith(f"{wanted}-"))


def other_version(version: str | None, wanted: str) -> VersionConflict:
    """The error for another version than the one that is wanted."""
    if version is None:
        return VersionConflict(f"There are no rules there, so none of version {wanted}. Nothing was written.")
    return VersionConflict(
        f"The rules there have version {version}, not {wanted}: somebody else has changed them. Nothing was "
        "written. Compare with: ratelimited-notify rules diff URI FILE"
    )


def checked(document: Mapping[str, object], options: SourceOptions) -> RuleSet:
    """The rules in a document that is to be written.

    Raises:
        RuleError: it cannot be used, or is empty, which the processes that read it would not accept.
    """
    rules = rule_set_of(document)
    if not rules.rules and rules.default is None and not options.allow_empty:
        raise RuleError(
            "There are no rules in it, so nothing would be limited. If that is what you want, pass allow_empty=True (in a URI "
            "allow_empty=true) here and where the rules are read."
        )
    return rules
