"""Sources as texts, for environment variables and the command: `file:rules.toml?interval=1`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from ratelimited_notify.errors import MissingExtra, NotifyError, RuleError
from ratelimited_notify.rules.table import meant
from ratelimited_notify.sources.base import SOURCE_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimited_notify.sources.base import RuleSource

_CLOSE = 0.8
"""How similar a misspelt option is, of 1."""

_DATABASES = ("postgresql", "postgres", "sqlite", "mysql", "mariadb", "mssql", "oracle")

_FILES = "file:rules.toml for a path, file:///etc/notify/rules.toml for one from the root"


def source_from(text: str) -> RuleSource:
    """The source that a text describes.

    Raises:
        RuleError: the text cannot be used. The message shows no password.
    """
    scheme, _, rest = text.partition(":")
    if scheme.startswith(("redis", "valkey")):
        return _redis(text)
    path, _, query = rest.partition("?")
    if scheme.partition("+")[0] in _DATABASES:
        return _in_database(text.partition("?")[0], query)
    options = _options(query, ("watch",) if scheme == "file" else ())
    if scheme == "file":
        from ratelimited_notify.sources.file import FileRules

        path = unquote(
            path.removeprefix("//localhost").removeprefix("//") if path.startswith(("///", "//localhost/")) else path
        )
        if path.startswith("//"):
            raise RuleError(f"A source with two slashes, 'file://', names a host, and files have none. Write {_FILES}.")
        if not path:
            raise RuleError("A source 'file:' needs a path, as in 'file:rules.toml'.")
        try:
            return FileRules(path, **options)  # type: ignore[arg-type]  # it checks them
        except MissingExtra:
            raise
        except NotifyError as error:
            raise RuleError(f"The source 'file:{path}': {error}") from None
    raise RuleError(f"There is no source {scheme!r}; use file:, redis:, sqlite: or postgresql:.")


def _in_database(url: str, query: str) -> RuleSource:
    """The source in a database. Options that are not ours belong to the URL of the database."""
    from ratelimited_notify.sources.sql.source import SQLRules

    parts = query.split("&") if query else []
    ours = [part for part in parts if part.partition("=")[0] in SOURCE_OPTIONS]
    theirs = [part for part in parts if part not in ours]
    _check_meant(theirs)
    options = _options("&".join(ours))
    try:
        return SQLRules(f"{url}?{'&'.join(theirs)}" if theirs else url, **options)  # type: ignore[arg-type]  # it checks them
    except NotifyError as error:
        if isinstance(error, MissingExtra):
            raise
        said = str(error)
    # Outside of the block, so that nothing is chained to it.
    raise RuleError(f"The source {url.partition(':')[0]!r}: {said}")


def _redis(text: str) -> RuleSource:
    from ratelimited_notify.sources.redis import RedisRules

    uri, _, query = text.partition("?")
    # The other options are those of the connection, which is read by what connects.
    parts = query.split("&") if query else []
    own = [part for part in parts if part.partition("=")[0] in SOURCE_OPTIONS]
    keys = [part.partition("=")[2] for part in parts if part.partition("=")[0] == "key"]
    others = [part for part in parts if part.partition("=")[0] not in (*SOURCE_OPTIONS, "key")]
    _check_meant(others, "key")
    if len(keys) != 1 or not keys[0]:
        raise RuleError("A source in Redis needs one key, as in 'redis://localhost/0?key=notify:rules'.")
    uri += f"{'?' * bool(others)}{'&'.join(others)}"
    options = _options("&".join(own))
    try:
        return RedisRules(uri, key=unquote(keys[0]), **options)  # type: ignore[arg-type]  # it checks them
    except (MissingExtra, RuleError):
        raise
    except NotifyError as error:
        said = str(error)
    raise RuleError(said)


def _check_meant(parts: Iterable[str], *also: str) -> None:
    """Check that none of these options of a connection is a misspelt one of the source. It is not shown: it may be secret.

    Raises:
        RuleError: one is.
    """
    for part in parts:
        close = get_close_matches(part.partition("=")[0].lower(), (*SOURCE_OPTIONS, *also), 1, _CLOSE)
        if close:
            raise RuleError(f"An option of the source is not known. Is it meant to be {close[0]}?")


def _options(query: str, also: tuple[str, ...] = ()) -> dict[str, object]:
    options: dict[str, object] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "interval":
            try:
                options[name] = float(value)
            except ValueError:
                raise RuleError(
                    "interval= in a source must be a number of seconds, as in 'file:rules.toml?interval=1'."
                ) from None
        elif name in ("wait", "allow_empty", *also):
            if value not in ("true", "false"):
                raise RuleError(f"{name}= in a source must be true or false.")
            options[name] = value == "true"
        elif name == "fallback":
            options[name] = value
        else:
            known = ("interval", "wait", "allow_empty", *also, "fallback")
            raise RuleError(f"This source has the options {', '.join(known[:-1])} and {known[-1]}.{meant(name, known)}")
    return options
