"""The fields of a notification, as `--field` gives them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratelimited_notify.errors import NotifyError

if TYPE_CHECKING:
    from collections.abc import Iterable


def fields_of(given: Iterable[str]) -> dict[str, str]:
    """The fields and their values.

    Raises:
        NotifyError: a text is not a name and a value. The message does not quote it: the value may be an address.
    """
    fields: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise NotifyError("--field must be a name and a value, such as tenant=acme.")
        fields[name] = value
    return fields
