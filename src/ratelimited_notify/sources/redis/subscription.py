"""A subscription to changes, on a connection of its own, which notices when the other side is gone."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.sources.redis.connection import Connection

if TYPE_CHECKING:
    from ratelimited_notify.sources.redis.address import Address

_APART = 0.05
"""Seconds between two messages at the least. What is published in between counts as one."""

_MOST_AT_ONCE = 1000
"""How many messages are read before the rules are."""


class Subscription:
    """Waits for messages in a channel. The constructor subscribes.

    Arguments:
        address: the server.
        channel: the channel.
        timeout: seconds for each reply.
        silence: seconds without a message after which the server has to answer a PING.

    Raises:
        NotifyError: the server cannot be reached, or refused.
    """

    def __init__(self, address: Address, channel: str, timeout: float, silence: float) -> None:
        self._timeout = timeout
        self._silence = silence
        self._pid = os.getpid()
        self.interrupted = False
        """Whether another thread has ended it."""
        self.is_proven = False
        """Whether the server has sent something since it subscribed."""
        self._connection = Connection(address, timeout)
        try:
            reply = self._connection.ask("SUBSCRIBE", channel)
            if not isinstance(reply, list) or reply[:1] != [b"subscribe"]:
                raise NotifyError("Redis did not confirm the subscription. Is another program listening there?")
        except BaseException:
            self._connection.close()
            raise
        self.since = self._heard = time.monotonic()
        self._asked: float | None = None
        self._next = 0.0

    @property
    def is_inherited(self) -> bool:
        """Whether it belongs to the parent of this process."""
        return self._pid != os.getpid()

    def wait(self, seconds: float) -> bool:
        """Wait for a message.

        Returns:
            Whether there was one.

        Raises:
            NotifyError: the connection is lost, or the server does not answer a PING.
        """
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            if self._asked is None and now >= self._heard + self._silence:
                self._connection.send("PING")
                self._asked = now
            # What to do next, apart from reading.
            next_step = self._heard + self._silence if self._asked is None else self._asked + self._timeout
            if self._connection.is_readable(max(0.0, min(until, next_step) - now)):
                if self._is_message():
                    self._read_on()
                    return True
                continue
            now = time.monotonic()
            if self._asked is not None and now >= self._asked + self._timeout:
                raise NotifyError(f"Redis did not answer a PING within {self._timeout:g} seconds.")
            if now >= until:
                return False

    def _is_message(self) -> bool:
        reply = self._connection.reply()
        self._heard, self._asked, self.is_proven = time.monotonic(), None, True
        return isinstance(reply, list) and reply[:1] == [b"message"]

    def _read_on(self) -> None:
        """Read what has come as well, and take a pause if messages come all the time."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        for _ in range(_MOST_AT_ONCE):
            if not self._connection.is_readable(0.0):
                break
            self._connection.reply()
        self._next = time.monotonic() + _APART

    def interrupt(self) -> None:
        """End the wait of another thread, which closes it."""
        if not self.is_inherited:
            self.interrupted = True
            self._connection.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
