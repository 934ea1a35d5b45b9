"""Recipients and other field values as strings: windows count by these strings, and keys are made of them."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import NotifyError
from ratelimited_notify.windows.keys import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratelimited_notify.notification.annotations import Recipient

# Up to this length, `unicodedata` puts combining marks in order fast enough.
_SHORT = 500


def several(recipients: Iterable[Recipient]) -> Iterable[Recipient]:
    """Return the recipients, unless they are a single string, whose characters would be taken for recipients.

    Raises:
        TypeError: the argument is a `str` or `bytes`.
    """
    if isinstance(recipients, (str, bytes)):
        raise TypeError("The recipients are a single string; pass a list, even for one recipient.")
    return recipients


ARGUMENTS = ("cost", "priority")
"""The names of separate arguments. A field cannot have one of these names."""


def check_field_names(fields: object) -> None:
    """Check that `fields` is a mapping and that a field can have each of its names. They need not be declared.

    Raises:
        TypeError: `fields` is not a mapping, or a name is not a string.
        NotifyError: a name is the name of a separate argument, such as cost.
    """
    if not isinstance(fields, Mapping):
        raise TypeError(
            f"fields= is a {type(fields).__name__}; it must be a mapping from names to values, such as {{'tenant': 'acme'}}."
        )
    for name in cast("Mapping[object, object]", fields):
        if not isinstance(name, str):
            raise TypeError(f"The name of a field must be a string such as 'tenant', not {type(name).__name__}.")
        if name in ARGUMENTS:
            raise NotifyError(f"{name!r} is not a field; pass it as the argument {name}=.")


def is_uuid(value: object) -> bool:
    """Whether this is a UUID. If nobody has loaded `uuid`, which takes long, there is none."""
    kind: type | None = getattr(sys.modules.get("uuid"), "UUID", None)
    return kind is not None and isinstance(value, kind)


def text_of(value: Recipient, field: str = "recipient") -> str:
    """The value as a string.

    Arguments:
        value: the recipient, or the value of another field.
        field: the name of the field, for error messages.

    Raises:
        TypeError: the value is not a `str`, `int` or `UUID`. The message says what to pass.
        NotifyError: the value is empty, or a number with thousands of digits.
    """
    if isinstance(value, str):
        # The content as a plain str, also from a subclass of str: `str()` of an enum member may return something else.
        text = str.__str__(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        try:
            text = int.__repr__(value)
        except ValueError:
            # Python refuses to convert an int with more than 4300 digits.
            raise NotifyError(
                f"The {field} has too many digits. Pass a value that identifies it, such as an address or an id."
            ) from None
    elif is_uuid(value):
        text = str(value)
    else:
        from ratelimited_notify.callables import if_unawaited

        advice = if_unawaited(value) or "Pass a value that identifies it, such as user.id or user.email." + (
            " On a decorator, say where it is: recipient='user.email'." if field == "recipient" else ""
        )
        raise TypeError(f"The {field} is a {type(value).__name__}; it must be a str, an int or a UUID. {advice}")
    if not text:
        raise NotifyError(f"The {field} is empty. Pass a value that identifies it, such as an address or an id.")
    return text


def email(address: str) -> str:
    """The address without a name and surrounding spaces, in lower case and composed (NFC), so all spellings are one
    recipient.
    """
    from ratelimited_notify.notification.address import NamedAddress

    text = address.strip().lower()
    # Compose first: a mark after an angle bracket makes it another character.
    return NamedAddress.split(unicodedata.normalize("NFC", text if len(text) <= _SHORT else _ordered(text))).address


def _ordered(text: str) -> str:
    """The text decomposed, with the combining marks after each letter in canonical order.

    `unicodedata` uses an insertion sort for this, which takes minutes if one letter has a hundred thousand marks.
    """
    decomposed = "".join(unicodedata.normalize("NFD", character) for character in text)
    runs = groupby(decomposed, key=lambda character: unicodedata.combining(character) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining) if marks else run) for marks, run in runs)


def counting_as(normalize: str | Callable[[str], str] | None, pseudonymize: bytes | None) -> Callable[[Recipient], str]:
    """Make the function that maps a recipient to the string that it is counted as.

    Arguments:
        normalize: `"email"`, a callable from str to str, or None to count each spelling separately.
        pseudonymize: a secret of 1 to 64 bytes, or None. With a secret, a keyed BLAKE2b hash replaces the recipient.

    Raises:
        NotifyError: an argument has another value.
    """
    if normalize is not None and normalize != "email" and not callable(normalize):
        raise NotifyError(f"normalize={normalize!r} is not known; use 'email', a callable from str to str, or None.")
    if callable(normalize):
        from ratelimited_notify.callables import check_is_called_only

        check_is_called_only(normalize, "normalize=")
    if pseudonymize is not None and not (isinstance(pseudonymize, bytes) and 1 <= len(pseudonymize) <= 64):
        raise NotifyError("pseudonymize= must be a secret of 1 to 64 bytes, such as secrets.token_bytes(32).")
    if normalize is None and pseudonymize is None:
        return text_of
    rewrite = email if normalize == "email" else normalize

    def counted_as(recipient: Recipient) -> str:
        text = text_of(recipient)
        if callable(rewrite):
            rewritten: object = rewrite(text)
            if not isinstance(rewritten, str) or not rewritten:
                from ratelimited_notify.callables import close_coroutine

                close_coroutine(rewritten)
                raise NotifyError(
                    f"normalize= returned {'an empty string' if rewritten == '' else type(rewritten).__name__}; "
                    "it must return a string that identifies the recipient."
                )
            text = str.__str__(rewritten)
        return digest(text, pseudonymize) if pseudonymize else text

    return counted_as
