"""Documents in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError
from ratelimited_notify.rules.document import rule_set_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratelimited_notify.rules.ruleset import RuleSet


class _Twice(ValueError):
    """A key is in an object twice."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Twice
    return made


def _no_number(_text: str) -> object:
    raise ValueError


def read_json(text: str, what: str = "The file") -> Mapping[str, object]:
    """The document in a text.

    Arguments:
        text: the text.
        what: what contains it, for messages.

    Raises:
        RuleError: the text is not JSON, or not an object, or a key is in an object twice. The message quotes nothing: a key may
            be an address.
    """
    try:
        document: object = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        said = f"{error.msg[:1].lower()}{error.msg[1:]} (at line {error.lineno}, column {error.colno})"
    except _Twice:
        said = "a key is in an object twice"
    except RecursionError:
        said = "it is nested too deeply"
    except ValueError:
        # Also a number with thousands of digits.
        said = "it contains a number that JSON does not have, or that is too long"
    else:
        if isinstance(document, dict):
            return document  # pyright: ignore[reportUnknownVariableType]  # JSON has no other keys
        raise RuleError(f'{what} must contain an object, as in {{"rules": [{{"type": "news", "limit": "1/day"}}]}}.')
    raise RuleError(f"{what} is not valid JSON: {said}.")


def write_json(document: Mapping[str, object], rules: RuleSet) -> bytes:
    """The text of a document, as UTF-8.

    Arguments:
        document: the document.
        rules: the rules in it. What is read from the text must make the same.

    Raises:
        RuleError: JSON cannot express it. The message quotes nothing.
    """
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if rule_set_of(read_json(text)) == rules:
            return text.encode()
    except (TypeError, ValueError, RecursionError, RuleError):
        pass
    raise RuleError("The rules contain something that JSON cannot express, such as a key that is no string.")
