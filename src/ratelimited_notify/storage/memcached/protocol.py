"""Requests to memcached, and parsing of its replies. No I/O: the storages for threads and for asyncio share this module.

Compare-and-swap needs three commands, and `version` checks that the server is there. Each reply is checked against its
request, to the last byte. A reply that is neither an answer nor an error of the server is `Garbled`.
The protocol: https://docs.memcached.org/protocols/basic/
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, TypeVar

T_co = TypeVar("T_co", covariant=True)

Received: TypeAlias = bytes | bytearray

LARGEST_VALUE = 1 << 26
"""Bytes. An item that is read and written for each decision is never nearly as large."""

_LONGEST_LINE = 2048
_DIGITS_OF_64_BITS = 20

TOO_LARGE = "object too large for cache"

# The error texts of memcached itself, which may be shown. Any other text may contain a key, and so a recipient.
_KNOWN = frozenset((TOO_LARGE, "out of memory storing object", "out of memory", "out of memory writing get response"))


UNAUTHENTICATED = "unauthenticated"
"""The server wants a login."""


class Refusal(Exception):
    """The server's reply says that it did not process the request."""

    def __init__(self, said: str, *, is_certain: bool) -> None:
        super().__init__(said)
        self.said = said
        self.is_certain = is_certain
        """Whether it is certain that nothing was stored. A proxy in between may send an error because it lost the reply."""


class TooLarge(Refusal):
    """The server does not store items of this size."""

    def __init__(self) -> None:
        super().__init__(TOO_LARGE, is_certain=True)


class Garbled(Exception):
    """The reply does not match the request."""


class OutOfTime(TimeoutError):
    """The deadline had passed before anything was sent."""


FAILURES = (OSError, Refusal, Garbled)
"""How an exchange fails: no reply, or not in time; a refusal; or a reply that does not match the request."""


class Exchange(Protocol[T_co]):
    """A request, and the parser of its reply."""

    @property
    def request(self) -> bytes: ...

    @property
    def changes(self) -> bool:
        """Whether the request changes anything, and so must not be sent twice."""
        ...

    def read(self, received: Received, /) -> T_co | None:
        """The answer, or None while the reply is incomplete.

        Raises:
            Refusal: the server could not process the request.
            Garbled: this is not a reply to the request.
        """
        ...


class Gets:
    """Read the value of a key and its number for a compare-and-swap; both are None if there is no value."""

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
            raise _error_in(received, end_of_line)
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
    """Store a value if the item is still the one that `Gets` read. False if another caller has written it since."""

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
        failure = _error_in(received, end_of_line)
        raise TooLarge if isinstance(failure, Refusal) and failure.said == TOO_LARGE else failure


class Version:
    """Check that the server replies at all. The answer is True."""

    __slots__ = ()

    changes: bool = False
    request: bytes = b"version\r\n"

    def read(self, received: Received, /) -> bool | None:
        end_of_line = _end_of_line(received)
        if end_of_line < 0:
            return None
        if not received.startswith(b"VERSION ") or len(received) != end_of_line + 2:
            raise _error_in(received, end_of_line)
        return True


def _end_of_line(received: Received) -> int:
    end = received.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0 and len(received) >= _LONGEST_LINE:
        raise Garbled
    return end


def _error_in(received: Received, end_of_line: int) -> Refusal | Garbled:
    """The error for a reply that is not an answer."""
    kind, _, said = bytes(received[:end_of_line]).decode("ascii", "replace").partition(" ")
    if kind == "SERVER_ERROR":
        return Refusal(said if said in _KNOWN else "an error of the server's own", is_certain=said in _KNOWN)
    if (kind, said) == ("CLIENT_ERROR", UNAUTHENTICATED):
        return Refusal(UNAUTHENTICATED, is_certain=True)
    if kind in {"CLIENT_ERROR", "ERROR"}:
        return Refusal("it does not understand the request", is_certain=True)
    return Garbled()
