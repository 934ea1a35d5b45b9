"""What is said to memcached, and what its replies mean. No I/O: threads and asyncio share it.

Three commands are all that compare-and-swap needs, and `version` asks whether the server is there. Each reply is checked
against what was asked, to its last byte; what is neither the answer nor an error of the server's is `Garbled`.
The protocol: https://docs.memcached.org/protocols/basic/
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, TypeVar

T_co = TypeVar("T_co", covariant=True)

Received: TypeAlias = bytes | bytearray

LARGEST_VALUE = 1 << 26
"""Bytes: no item that is read and written for each decision is nearly as large."""

_LONGEST_LINE = 2048
_DIGITS_OF_64_BITS = 20

TOO_LARGE = "object too large for cache"

# What memcached says of itself, and may be shown. Anything else may hold a key, and so a recipient.
_KNOWN = frozenset((TOO_LARGE, "out of memory storing object", "out of memory", "out of memory writing get response"))


class Refusal(Exception):
    """The server says that it did not do what was asked."""

    def __init__(self, said: str, *, is_certain: bool) -> None:
        super().__init__(said)
        self.said = said
        self.is_certain = is_certain
        """Whether nothing was stored; a proxy in between may say so only because it lost the answer."""


class TooLarge(Refusal):
    """The server keeps no item of this size."""

    def __init__(self) -> None:
        super().__init__(TOO_LARGE, is_certain=True)


class Garbled(Exception):
    """The reply is no answer to what was asked."""


class OutOfTime(TimeoutError):
    """The deadline had passed before anything was sent."""


FAILURES = (OSError, Refusal, Garbled)
"""How an exchange fails: no answer or none in time, a refusal, or something else than an answer."""


class Exchange(Protocol[T_co]):
    """A request, and how to read the reply to it."""

    @property
    def request(self) -> bytes: ...

    @property
    def changes(self) -> bool:
        """Whether the request changes anything, so that it must not be sent twice."""
        ...

    def read(self, received: Received, /) -> T_co | None:
        """The answer, or None as long as more has to come.

        Raises:
            Refusal: the server could not do it.
            Garbled: this is no reply to it.
        """
        ...


class Gets:
    """The value under a key, and the number that a compare-and-swap of it needs; two None if there is none."""

    __slots__ = ("_beginning", "request")

    changes: bool = False

    def __init__(self, key: bytes) -> None:
        self.request = b"gets %b\r\n" % key
        self._beginning = b"VALUE %b " % key

    def read(self, received: Received, /) -> tuple[bytes | None, bytes | None] | None:
        if received == b"END\r\n":
            return None, None
        end_of_line = _end_of_line(received)
        if end_of_line < 0:
            return None
        if not received.startswith(self._beginning):
            raise _instead(received, end_of_line)
        words = received[len(self._beginning) : end_of_line].split(b" ")
        if len(words) != 3 or not all(word.isdigit() and len(word) <= _DIGITS_OF_64_BITS for word in words):
            raise Garbled
        size = int(words[1])
        if size > LARGEST_VALUE:
            raise Garbled
        start = end_of_line + 2
        end = start + size
        if len(received) < end + 7:
            return None
        if received[end:] != b"\r\nEND\r\n":
            raise Garbled
        return bytes(received[start:end]), bytes(words[2])


class Store:
    """Store a value where it is still the one that `Gets` saw. False if somebody else was quicker."""

    __slots__ = ("_lost", "request")

    changes: bool = True

    def __init__(self, key: bytes, value: bytes, expire: int, unique: bytes | None) -> None:
        self._lost: tuple[bytes, ...]
        if unique is None:
            self.request = b"add %b 0 %d %d\r\n%b\r\n" % (key, expire, len(value), value)
            self._lost = (b"NOT_STORED\r\n",)
        else:
            self.request = b"cas %b 0 %d %d %b\r\n%b\r\n" % (key, expire, len(value), unique, value)
            self._lost = (b"EXISTS\r\n", b"NOT_FOUND\r\n")

    def read(self, received: Received, /) -> bool | None:
        if received == b"STORED\r\n":
            return True
        if received in self._lost:
            return False
        end_of_line = _end_of_line(received)
        if end_of_line < 0:
            return None
        failure = _instead(received, end_of_line)
        raise TooLarge if isinstance(failure, Refusal) and failure.said == TOO_LARGE else failure


class Version:
    """Whether the server answers at all: True."""

    __slots__ = ()

    changes: bool = False
    request: bytes = b"version\r\n"

    def read(self, received: Received, /) -> bool | None:
        end_of_line = _end_of_line(received)
        if end_of_line < 0:
            return None
        if not received.startswith(b"VERSION ") or len(received) != end_of_line + 2:
            raise _instead(received, end_of_line)
        return True


def _end_of_line(received: Received) -> int:
    end = received.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0 and len(received) >= _LONGEST_LINE:
        raise Garbled
    return end


def _instead(received: Received, end_of_line: int) -> Refusal | Garbled:
    """What the server said instead of an answer."""
    kind, _, said = bytes(received[:end_of_line]).decode("ascii", "replace").partition(" ")
    if kind == "SERVER_ERROR":
        return Refusal(said if said in _KNOWN else "an error of the server's own", is_certain=said in _KNOWN)
    if kind in {"CLIENT_ERROR", "ERROR"}:
        return Refusal("it does not understand the request", is_certain=True)
    return Garbled()
