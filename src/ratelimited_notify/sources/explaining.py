"""Problems of rules in the words of the source that they come from."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError

if TYPE_CHECKING:
    from collections.abc import Generator

    from ratelimited_notify.sources.base import RuleSource


@contextmanager
def explained_by(source: RuleSource) -> Generator[None]:
    """Name the places of all problems as the source does: its rows, say.

    Raises:
        RuleError: the block raised one. This one has the same problems, each with its place in the source.
    """
    try:
        yield
    except RuleError as error:
        raise RuleError(map(source.explained, error.problems), source.place or None) from None
