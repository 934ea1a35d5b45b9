"""Parsing and checking the server's replies. Pure.

A reply may contain anything: it may come from a proxy or another program at the same address, or belong to another caller's
request. So each reply is checked completely against its request before any of it is used. A reply that does not match is an
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

_LATEST = 2**53
"""An instant that Lua's numbers still express exactly."""


class UnreadableWindow(StorageError):
    """A window's key holds something that this library did not write.

    None of the requests in the same script call was counted. The connection can still be used.
    """

    nothing_counted = True

    request = 0
    """The position of the window's request among those of the script call."""


def checked_reply(read: Callable[[Any], T], reply: Any) -> T | ResponseError | UnreadableWindow:  # Any: a reply
    """The parsed reply. Errors that were understood are returned, not raised, because the connection can still be used.

    Raises:
        UnexpectedReply: the reply does not match the request.
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
        "Clear it, and give the limits a database or a namespace of their own, which no other program writes to."
    )
    error.request = request
    return error


def given(reply: object, windows: Sequence[Window]) -> int:
    """Parse the reply of `release.lua`: in how many of the windows the hit was found and given back.

    Raises:
        UnreadableWindow: the key of a window holds something that this library did not write. In the other windows the hit
            was given back.
        UnexpectedReply: this is not a reply of the script.
    """
    place = -reply if isinstance(reply, int) else 0
    if 0 < place <= len(windows):
        raise unreadable_window(windows[place - 1], outcome="the hit in it is not given back")
    return number(reply, len(windows))


def paused_until(reply: object, window: Window) -> int:
    """Parse the reply of `extend.lua`: the instant at which the pause ends.

    Raises:
        UnreadableWindow: the key holds something that this library did not write.
        UnexpectedReply: this is not a reply of the script.
    """
    if reply == -1:
        raise unreadable_window(window, outcome="the rule is not paused")
    return number(reply, _LATEST)


def number(reply: object, most: int) -> int:
    """Parse a reply that is a number from 0 to `most`: of windows that held anything, of deleted keys, or an instant."""
    if type(reply) is not int or not 0 <= reply <= most:
        raise UnexpectedReply
    return reply


def shaped(reply: object, shape: type[T]) -> T:
    """The reply, checked to be of this type at all levels.

    Raises:
        UnexpectedReply: it is of another type.
    """
    try:
        return msgspec.convert(reply, shape)
    except msgspec.MsgspecError:
        raise UnexpectedReply from None
