"""Problems of rules in the words of the source that they come from."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from ratelimited_notify.sources.base import RuleSource
    from ratelimited_notify.sources.status import SourceStatus


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


def explained_in_force(source: RuleSource, status: SourceStatus) -> AbstractContextManager[None]:
    """The same for a block that uses the rules in force, if they are what the source has loaded last."""
    return nullcontext() if status.version is None or status.failures else explained_by(source)
