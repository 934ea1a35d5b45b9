"""Documents of rules as texts: TOML, YAML and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import RuleError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML", ".json": "JSON"}
"""By the ending of a file. A file with another ending is TOML."""


def kind_of_file(ending: str) -> str:
    """The format of a file whose name ends like this."""
    return FORMATS.get(ending.lower(), "TOML")


def document_in(content: bytes, ending: str) -> Mapping[str, object]:
    """The document in a file.

    Arguments:
        content: the bytes of the file.
        ending: the ending of its name, such as `.toml`.

    Raises:
        RuleError: it is not a document in this format.
        MissingExtra: the format needs a package that is not installed.
    """
    kind = kind_of_file(ending)
    try:
        # Some editors write a byte order mark, which TOML 1.0 does not allow.
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise RuleError(f"The file is not valid {kind}: it is not UTF-8.") from None
    if kind == "YAML":
        from ratelimited_notify.sources.formats.yaml import read_yaml

        return read_yaml(text)
    if kind == "JSON":
        from ratelimited_notify.sources.formats.json import read_json

        return read_json(text)
    from ratelimited_notify.sources.formats.toml import read_toml

    return read_toml(text)
