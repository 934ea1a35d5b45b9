"""Rules from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from ratelimited_notify.errors import Problem, RuleError
from ratelimited_notify.rules.document import rule_set_of

if TYPE_CHECKING:
    import os

    from ratelimited_notify.rules.ruleset import RuleSet


def read_rules(path: str | os.PathLike[str]) -> RuleSet:
    """The rule set that a TOML file describes: `[[rules]]` tables, and optionally `fields`, `default`, `unknown_type`.

    Raises:
        RuleError: the file cannot be read, is not TOML, or holds something that cannot be used.
    """
    source = Path(path)
    try:
        # Some editors begin a file with a byte order mark, which TOML 1.0 does not know.
        document = tomllib.loads(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RuleError(
            [Problem("", f"it cannot be read: {error.strerror or type(error).__name__}.")], str(source)
        ) from error
    except (ValueError, RecursionError) as error:
        # What is not UTF-8, what is not TOML, and what is nested without end.
        raise RuleError([Problem("", f"it is not a TOML file: {error}.")], str(source)) from error
    try:
        return rule_set_of(document)
    except RuleError as error:
        raise RuleError(error.problems, str(source)) from None
