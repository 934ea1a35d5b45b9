"""What is kept in Redis: one hash with a version and a document, and how it is replaced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, cast

from ratelimited_notify.errors import NotifyError, RuleError
from ratelimited_notify.sources.redis.connection import connected
from ratelimited_notify.sources.version import version_of
from ratelimited_notify.sources.writing import NothingThere, Unusable, is_version, other_version

if TYPE_CHECKING:
    from ratelimited_notify.sources.redis.address import Address
    from ratelimited_notify.sources.redis.connection import Connection

VERSION, DOCUMENT = "version", "document"

MOST_BYTES = 16 * 2**20
"""The largest document, as for files."""

_TOO_LARGE = f"The document is larger than {MOST_BYTES // 2**20} MiB, the most that is read."

_LONGEST_VERSION = 200
_ATTEMPTS = 20
"""How often the rules are written again because somebody else was quicker."""

_DIGITS = 8
"""Of the digest in a version. With it, a version never stands for two documents, even if the database was emptied meanwhile."""

_counted = re.compile(r"([0-9]{1,18})(?:-[0-9a-f]+)?").fullmatch


class Content(NamedTuple):
    """What is in the hash."""

    version: str
    document: bytes

    def __repr__(self) -> str:
        # Overrides are for recipients, and a tool may show the variables of a traceback.
        return "<Content>"


def read(address: Address, timeout: float, key: str, known: str | None) -> Content | str:
    """The version, if it is the one that is known; otherwise the version and the document, which belong together.

    Raises:
        RuleError: the server refused, or what is there is no document of rules.
        NotifyError: the server cannot be reached.
    """
    with connected(address, timeout) as connection:
        version = _version(connection.ask("HGET", key, VERSION))
        if version is None:
            raise NothingThere(
                "Nothing is there: the key does not exist, or is a hash without the field version. Write rules with: "
                "ratelimited-notify rules push rules.toml --to URI"
            )
        if version == known:
            return version
        # Asked first: a value of this size would have to be read to its end.
        size = connection.ask("HSTRLEN", key, DOCUMENT)
        if isinstance(size, int) and size > MOST_BYTES:
            raise Unusable(_TOO_LARGE, version=version)
        found: object = connection.ask("HMGET", key, VERSION, DOCUMENT)
    if not isinstance(found, list) or len(cast("list[object]", found)) != 2:
        raise _strange()
    first, document = cast("list[object]", found)
    version = _version(first)
    if version is None or document is None:
        raise Unusable("The hash has no field document beside its version.", version=version)
    if not isinstance(document, bytes):
        raise _strange()
    _check_size(len(document))
    return Content(version, document)


def write(address: Address, timeout: float, key: str, document: bytes, if_version: str | None) -> str:
    """Replace the document and the version in one step, and publish the new version.

    Raises:
        VersionConflict: the version there is another one.
        RuleError: the document is too large, or the server refused.
        NotifyError: the server cannot be reached. If it says so, the document may have been written.
    """
    _check_size(len(document))
    digest = version_of(document)[:_DIGITS]
    with connected(address, timeout) as connection:
        for _ in range(_ATTEMPTS):
            connection.ask("WATCH", key)
            before = _version(connection.ask("HGET", key, VERSION))
            if if_version is not None and not is_version(before, if_version):
                raise other_version(before, if_version)
            found = None if before is None else _counted(before)
            version = f"{int(found[1]) + 1 if found else 1}-{digest}"
            if _exchanged(connection, key, version, document):
                return version
    raise NotifyError(f"Others have written rules {_ATTEMPTS} times in the meantime. Nothing was written; try again.")


def _exchanged(connection: Connection, key: str, version: str, document: bytes) -> bool:
    """Whether both were written. False if somebody else has written since the version was read."""
    connection.ask("MULTI")
    connection.ask("HSET", key, VERSION, version, DOCUMENT, document)
    # In the same step, so that a process that gets the message finds the new rules.
    connection.ask("PUBLISH", key, version)
    try:
        return connection.ask("EXEC") is not None
    except RuleError:
        raise
    except NotifyError as error:
        said = str(error)
    raise NotifyError(f"It is not known whether the rules were written: {said}")


def _version(reply: object) -> str | None:
    if reply is None:
        return None
    if not isinstance(reply, bytes):
        raise _strange()
    if not 0 < len(reply) <= _LONGEST_VERSION:
        raise RuleError(f"The version is empty, or has more than {_LONGEST_VERSION} bytes.")
    version = reply.decode("utf-8", "backslashreplace")
    if not version.isprintable():
        raise RuleError("The version contains a character that cannot be printed.")
    return version


def _check_size(size: object) -> None:
    if not isinstance(size, int):
        raise _strange()
    if size > MOST_BYTES:
        raise RuleError(_TOO_LARGE)


def _strange() -> NotifyError:
    return NotifyError("The server answered something that Redis does not answer. Is it another program?")
