"""Who a notification is for, as text: what windows are counted by and what keys are made of."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias, cast
from uuid import UUID

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.windows.keys import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Recipient: TypeAlias = str | int | UUID
"""A recipient, or the value of any other field: `5` and `"5"` are one."""


# Up to here, putting marks in order takes no time that matters.
_SHORT = 500


def several(recipients: Iterable[Recipient]) -> Iterable[Recipient]:
    """The recipients, which are not the letters of one.

    Raises:
        TypeError: they are a single text, or bytes.
    """
    if isinstance(recipients, (str, bytes)):
        raise TypeError("The recipients are a single text; pass a list of them, if only of one.")
    return recipients


ARGUMENTS = ("cost", "priority")
"""What calls have as arguments of their own, so that a field cannot have their names."""


def check_field_names(fields: object) -> None:
    """Make sure that each name may be that of a field, declared or not.

    Raises:
        TypeError: it is no mapping, or a name is not a text.
        NotifyError: a name is that of another argument.
    """
    if not isinstance(fields, Mapping):
        raise TypeError(
            f"fields= is a {type(fields).__name__}; it must be a mapping from names to values, such as {{'tenant': 'acme'}}."
        )
    for name in cast("Mapping[object, object]", fields):
        if not isinstance(name, str):
            raise TypeError(f"The name of a field is a text such as 'tenant', not a {type(name).__name__}.")
        if name in ARGUMENTS:
            raise NotifyError(f"{name!r} is not a field: it is an argument of its own, {name}=.")


def text_of(value: Recipient, field: str = "recipient") -> str:
    """The value as text.

    Raises:
        TypeError: it is something else than `str`, `int` or `UUID`; the message says what to write.
        NotifyError: it is empty, or a number of thousands of digits.
    """
    if isinstance(value, str):
        # A plain copy of what a str subclass holds: an enumeration's own `str()` may say something else.
        text = str.__str__(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        try:
            text = int.__repr__(value)
        except ValueError:
            # Python refuses to write out more than 4300 digits.
            raise NotifyError(
                f"The {field} has too many digits. Pass what identifies it, such as an address or an id."
            ) from None
    elif isinstance(value, UUID):
        text = str(value)
    else:
        raise TypeError(
            f"The {field} is a {type(value).__name__}; it must be a str, an int or a UUID. "
            f"Pass what identifies it, such as user.id or user.email."
        )
    if not text:
        raise NotifyError(f"The {field} is empty. Pass what identifies it, such as an address or an id.")
    return text


def email(address: str) -> str:
    """The address without surrounding space, in lower case and composed (NFC), so that its spellings are one recipient."""
    text = address.strip().lower()
    return unicodedata.normalize("NFC", text if len(text) <= _SHORT else _ordered(text))


def _ordered(text: str) -> str:
    """The text decomposed, and the marks behind each letter in their canonical order.

    `unicodedata` puts them in order by insertion, which takes minutes where somebody hangs a hundred thousand on one letter.
    """
    decomposed = "".join(unicodedata.normalize("NFD", character) for character in text)
    runs = groupby(decomposed, key=lambda character: unicodedata.combining(character) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining) if marks else run) for marks, run in runs)


def counting_as(normalize: str | Callable[[str], str] | None, pseudonymize: bytes | None) -> Callable[[Recipient], str]:
    """A function from a recipient to the text it is counted as.

    Arguments:
        normalize: `"email"`, a callable from text to text, or None to count each spelling by itself.
        pseudonymize: a secret of 1 to 64 bytes; with it a keyed BLAKE2b stands for the recipient.

    Raises:
        NotifyError: one of the two is none of these.
    """
    if normalize is not None and normalize != "email" and not callable(normalize):
        raise NotifyError(f"normalize={normalize!r} is not known; use 'email', a callable from str to str, or None.")
    if pseudonymize is not None and not (isinstance(pseudonymize, bytes) and 1 <= len(pseudonymize) <= 64):
        raise NotifyError("pseudonymize= must be a secret of 1 to 64 bytes, such as secrets.token_bytes(32).")
    if normalize is None and pseudonymize is None:
        return text_of
    rewrite = email if normalize == "email" else normalize

    def counted(recipient: Recipient) -> str:
        text = text_of(recipient)
        if callable(rewrite):
            rewritten: object = rewrite(text)
            if not isinstance(rewritten, str) or not rewritten:
                raise NotifyError(
                    f"normalize= returned {'an empty text' if rewritten == '' else type(rewritten).__name__}; "
                    "it must return a text that identifies the recipient."
                )
            text = str.__str__(rewritten)
        return digest(text, pseudonymize) if pseudonymize else text

    return counted
