"""E-mail addresses written with a name: `Ana Lee <ana@example.com>`. Windows count the address, and messages show the name."""

from __future__ import annotations

import re
from typing import NamedTuple

# A name in quotes may contain anything, if a backslash stands before each quote and each backslash.
_QUOTED = re.compile(r'"(?P<name>[^"\\]*(?:\\.[^"\\]*)*)"\s*<(?P<address>[^<>]*)>', re.DOTALL).fullmatch
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>").fullmatch
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class NamedAddress(NamedTuple):
    """An address and the name before it. Neither is checked."""

    name: str
    """The name without the quotes around it. It may be empty."""
    address: str
    quoted: bool = False
    """The name was in quotes, so it is meant exactly as it is."""

    def __repr__(self) -> str:
        # A tool may show the variables of a traceback.
        return "<NamedAddress>"

    @classmethod
    def split(cls, text: str) -> NamedAddress:
        """Split `Ana Lee <ana@example.com>`, `"Lee, Ana" <ana@example.com>`, `<ana@example.com>` or `ana@example.com`.

        Space around the parts is dropped. A text of any other form is an address as a whole.
        """
        text = text.strip()
        if text.endswith(">"):
            quoted = _QUOTED(text)
            found = quoted or _NAMED(text)
            if found is not None and (address := found["address"].strip()):
                name = _ESCAPED.sub(r"\1", found["name"]) if quoted else found["name"]
                return cls(name.strip(), address, quoted is not None)
        return cls("", text)
