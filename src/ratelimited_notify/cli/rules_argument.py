"""Rules that an argument of a command names: a file, or a source."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ratelimited_notify.errors import MOST_SHOWN, RuleError
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.sources.file import FileRules, content_of
from ratelimited_notify.sources.formats.lines import line_finder
from ratelimited_notify.sources.load import check_path, source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratelimited_notify.errors import Problem
    from ratelimited_notify.rules.ruleset import RuleSet


class Located(NamedTuple):
    """A problem or a warning, and where it is."""

    line: int | None
    """The number of the line in the file, if it is a file and the line is known."""
    path: str
    """Where it is in the rules, such as `rules[3].limit`. Empty if it concerns the whole."""
    message: str

    def __str__(self) -> str:
        where = ", ".join([f"line {self.line}"] * (self.line is not None) + [self.path] * bool(self.path))
        return f"{where}: {self.message}" if where else self.message


class GivenRules:
    """The rules in a file or in a source. They are read once, and a source's `fallback=` and `wait=` play no part.

    Arguments:
        text: the path of a file, or a source such as `file:rules.toml`.

    Raises:
        NotifyError: the text is that of a source, and cannot be used.
    """

    def __init__(self, text: str) -> None:
        source = source_of(text)
        if source is None:
            check_path(text)
        self.source = source or FileRules(text)

    def document(self) -> Mapping[str, object]:
        """The document.

        Raises:
            NotifyError: the source cannot be reached. A `RuleError` means that what is there cannot be used.
        """
        try:
            loaded = self.source.load(None)
        except RuleError as error:
            raise RuleError(map(self.source.explained, error.problems), self.source.place) from None
        finally:
            self.source.close()
        return {} if loaded is None else loaded[1]

    def rules(self) -> RuleSet:
        """The rules.

        Raises:
            NotifyError: as for `document`.
        """
        document = self.document()
        try:
            return rule_set_of(document)
        except RuleError as error:
            raise RuleError(map(self.source.explained, error.problems), self.source.place) from None

    def located(self, problems: Iterable[Problem]) -> list[Located]:
        """These problems with their lines."""
        problems = list(problems)
        if not problems or not isinstance(self.source, FileRules):
            return [Located(None, *self.source.explained(problem)) for problem in problems]
        path = self.source.path
        try:
            # A pipe would be waited for.
            content = content_of(path) if path.is_file() else b""
        except RuleError:
            content = b""
        line_of = line_finder(content, path.suffix)
        return [Located(line_of(*problem), *problem) for problem in problems]

    def said(self, error: RuleError) -> str:
        """The message of an error of `rules`, with lines."""
        located = self.located(error.problems)
        lines = [str(each) for each in located[:MOST_SHOWN]]
        if len(located) > MOST_SHOWN:
            lines.append(f"... and {len(located) - MOST_SHOWN:,} more.")
        return "\n".join([f"The rules in {self.source.place} cannot be used:", *lines])


def as_json(problems: Iterable[Located], warnings: Iterable[Located], notes: Iterable[Located], rules: int) -> str:
    """What a check has found, as one JSON object."""
    return json.dumps(
        {
            "problems": [each._asdict() for each in problems],
            "warnings": [each._asdict() for each in warnings],
            "notes": [each._asdict() for each in notes],
            "rules": rules,
        }
    )
