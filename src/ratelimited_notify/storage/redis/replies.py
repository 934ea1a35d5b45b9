"""What the server answers, made sense of. Pure.

A proxy, another program at the same address or a reply that was meant for somebody else may put anything here. So each
reply is checked wholly against what was asked before any of it is used; what is not an answer to that is an
`UnexpectedReply`, and its connection is not used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ratelimited_notify.errors import StorageError
from ratelimited_notify.storage.redis.failures import UnexpectedReply

# After `failures`, which says what to install where redis is missing.
from redis.exceptions import ResponseError  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimited_notify.windows.strategies import Window

T = TypeVar("T")


class UnreadableWindow(StorageError):
    """A window's key holds something that this library did not write.

    Of the decisions that were asked for in the same run of a script, none was counted. The connection is as good as before.
    """

    request = 0
    """The place of the window's request among those of that run."""


def checked_reply(read: Callable[[Any], T], reply: Any) -> T | ResponseError | UnreadableWindow:  # Any: a reply
    """What is read of a reply, or the error that it is: one that was understood, so that the connection may go on.

    Raises:
        UnexpectedReply: it is no answer to what was asked.
    """
    if isinstance(reply, ResponseError):
        return reply
    try:
        return read(reply)
    except UnreadableWindow as error:
        return error


def unreadable_window(window: Window, request: int = 0, outcome: str = "nothing was counted") -> UnreadableWindow:
    """The error for a window whose key holds something else."""
    error = UnreadableWindow(
        f"The window of rule {window.rule!r} in Redis holds something that this library did not write, so {outcome}. "
        "Clear it, and give the limits a database or a namespace of their own, which nothing else writes to."
    )
    error.request = request
    return error


def given(reply: object, windows: Sequence[Window]) -> int:
    """In how many of the windows the hit that was to be given back was found.

    Raises:
        UnreadableWindow: one of them holds something else; the others have got back what they held.
        UnexpectedReply: this is no answer.
    """
    place = -reply if isinstance(reply, int) else 0
    if 0 < place <= len(windows):
        raise unreadable_window(windows[place - 1], outcome="what was counted there is not given back")
    return number(reply, len(windows))


def number(reply: object, most: int) -> int:
    """A number of things of which there are at most so many: windows that held anything, keys that were dropped."""
    if type(reply) is not int or not 0 <= reply <= most:
        raise UnexpectedReply
    return reply


def shaped(reply: object, shape: type[T]) -> T:
    """The reply, if it is of this type all through.

    Raises:
        UnexpectedReply: it is not.
    """
    try:
        return msgspec.convert(reply, shape)
    except msgspec.MsgspecError:
        raise UnexpectedReply from None
