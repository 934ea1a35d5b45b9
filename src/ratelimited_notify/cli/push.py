"""Write rules to where programs read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.cli.report import say
from ratelimited_notify.cli.words import plain
from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.rules.difference import differences
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.rules.ruleset import RuleSet
from ratelimited_notify.sources.load import source_of
from ratelimited_notify.sources.writing import (
    NO_VERSION,
    NothingThere,
    Unusable,
    WritableSource,
    is_version,
    other_version,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


def target(text: str) -> WritableSource:
    """The source that rules are to be written to.

    Raises:
        NotifyError: the text does not name one.
    """
    source = source_of(text)
    if source is None or not isinstance(source, WritableSource):
        raise NotifyError(
            "--to must name where programs read rules and this command can write them, such as "
            "redis://localhost/0?key=notify:rules, sqlite:///rules.db or postgresql://… To replace a rules file, copy the new "
            "one over it."
        )
    return source


def push(
    document: Mapping[str, object],
    rules: RuleSet,
    to: WritableSource,
    if_version: str | None,
    screen: Console,
    aside: Console,
    *,
    dry_run: bool,
) -> None:
    """Say what changes, and write the rules unless nothing does.

    Arguments:
        document: the rules to write.
        rules: the same, checked.
        to: where to write them.
        if_version: the version that is to be replaced; None if any.
        screen: the console for the changes.
        aside: the console for warnings.
        dry_run: whether to write nothing.

    Raises:
        VersionConflict: the version there is another one. Nothing was written.
        NotifyError: the rules there cannot be read, or the new ones cannot be written.
    """
    version, before = _there(to, aside)
    is_empty = before is not None and not before.rules and before.default is None
    if if_version is not None and not is_version(version, if_version) and not (if_version == NO_VERSION and is_empty):
        raise other_version(version, if_version)
    there = f"The rules there have version {version}."
    if version is None or is_empty:
        there = f"There are no rules there yet; with --if-version {NO_VERSION}, push writes only if that is still so."
    for change in differences(before or RuleSet(), rules):
        say(screen, plain(change))
    if before == rules:
        say(screen, f"Nothing changes. {there}")
    elif dry_run:
        say(screen, f"Nothing was written. {there}")
    else:
        say(screen, f"Written as version {to.write(document, if_version=if_version)}.")


def _there(to: WritableSource, aside: Console) -> tuple[str | None, RuleSet | None]:
    """The version of the rules there and the rules, None if there are none or they cannot be used."""
    try:
        loaded = to.load(None)
        if loaded is None:
            return None, RuleSet()
    except NothingThere:
        return None, RuleSet()
    except Unusable as error:
        # Anything else that is wrong there, such as a missing table, would keep the new rules from being written.
        say(aside, plain(f"The rules that are there cannot be used: {error}"), "yellow")
        return error.version, None
    try:
        return loaded[0], rule_set_of(loaded[1])
    except RuleError as error:
        say(aside, plain(f"The rules that are there cannot be used: {error}"), "yellow")
        return loaded[0], None
