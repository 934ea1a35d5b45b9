"""Type and recipient swapped: no log, message or repr shows what is probably an address."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Decision,
    Limiter,
    Notification,
    Notifier,
    NotifyError,
    Rule,
    RuleSet,
    rate_limited,
)
from ratelimited_notify.errors import type_text

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESSES = [
    "ana.lee@example.com",
    "Ana Lee <ana.lee@example.com>",
    " ana.lee@example.com ",
    "ana@münchen.example",
    "@ana_lee",
    "+49 170 1234567",
    "(0170) 123-45.67",
    "491701234567",
    "1234567",
    "tel:+491701234567",
    "mailto:ana",
    "8c1a2f0e-9d0b-4a3f-8f6e-0a1b2c3d4e5f",
    "8C1A2F0E9D0B4A3F8F6E0A1B2C3D4E5F",
    "https://hooks.example.com/services/T00/B00/xyz",
    "APA91b" * 25,
    "x" * 5000,
]
"""What people send notifications to."""

TYPES = [
    "news",
    "order.shipped",
    "marketing/weekly digest",
    "sms",
    "2fa",
    "404",
    "alert-2024",
    "v1:news",
    "Glückwunsch",
    "faded_cafe",
    "up & down @ noon",
]
"""What people call the types of their notifications."""

HIDDEN = "(not shown: it looks like a recipient; the type comes first)"

WARNING = (
    f"No rule matches notifications of type {HIDDEN}, so they are sent without a limit of their own. "
    "Add a rule or a default."
)


def _awaited(call: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await call()

    return asyncio.run(main())


def _decorated(address: str, limiter: Limiter) -> object:
    return rate_limited(lambda to: to, limiter=limiter)(lambda to: to)(address)


CALLS: dict[str, Callable[[str, Any], object]] = {
    "hit": lambda address, rules: Limiter(rules).hit(address, "news"),
    "test": lambda address, rules: Limiter(rules).test(address, "news"),
    "hit_many": lambda address, rules: Limiter(rules).hit_many(address, ["news"]),
    "windows": lambda address, rules: Limiter(rules).windows(address, "news"),
    "send": lambda address, rules: Notifier(lambda to: to, rules).send(address, "news"),
    "send_many": lambda address, rules: Notifier(lambda to: to, rules).send_many(address, ["news"]),
    "async hit": lambda address, rules: _awaited(lambda: AsyncLimiter(rules).hit(address, "news")),
    "async send": lambda address, rules: _awaited(lambda: AsyncNotifier(lambda to: to, rules).send(address, "news")),
    "decorated": lambda address, rules: _decorated(address, Limiter(rules)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("address", ADDRESSES, ids=range(len(ADDRESSES)))
def test_an_address_is_not_logged_as_a_type(call: str, address: str, caplog: pytest.LogCaptureFixture) -> None:
    """The warning about a type that no rule matches says what is wrong, without the address."""
    CALLS[call](address, {"news": "1/day"})

    assert caplog.messages == [WARNING]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("address", ADDRESSES[:2], ids=range(2))
def test_an_address_is_in_no_error(call: str, address: str) -> None:
    """Where an unknown type is an error, that error does not show the address either."""
    try:
        found: Any = CALLS[call](address, RuleSet({"news": "1/day"}, unknown_type="raise"))
        (error,) = [delivery.error for delivery in found]
    except NotifyError as raised:
        error = raised
    shown = "".join(traceback.format_exception(error))

    assert HIDDEN in shown
    assert address not in shown


@pytest.mark.parametrize("address", ADDRESSES, ids=range(len(ADDRESSES)))
def test_no_text_shows_an_address_as_a_type(address: str) -> None:
    """Decisions, errors and notifications do not show it, whatever they say."""
    limiter = Limiter([Rule("*", "1/day", by="recipient")])
    allowed, refused = limiter.hit(address, "ana"), limiter.hit(address, "ana", cost=2)
    texts = [*map(str, (allowed, refused, allowed.to_dict())), repr(allowed), repr(Notification(address, "ana"))]

    for text in [*texts, str(Decision(address, "ana", 1, True, error="The storage is down."))]:
        assert HIDDEN in text
        assert address not in text


@pytest.mark.parametrize("type", TYPES)
def test_a_type_is_shown(type: str, caplog: pytest.LogCaptureFixture) -> None:
    """A name that somebody gave is shown."""
    assert type_text(type) == repr(type)
    decision = Limiter({"another": "1/day"}).hit(type, "ana")
    assert str(decision).startswith(repr(type))
    assert f"of type {type!r}" in caplog.text


def test_a_thousand_addresses_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The warning about addresses comes once, and those about types still come."""
    limiter = Limiter({"news": "1/day"})
    for number in range(100):
        limiter.hit(f"user{number}@example.com", "news")
    limiter.hit("status", "ana")

    assert caplog.messages == [WARNING, WARNING.replace(HIDDEN, "'status'")]


def test_what_is_no_text_is_not_shown() -> None:
    """A type that is no text may be anything: only its class is shown."""
    assert type_text(491701234567) == "<int>"
    assert repr(Notification(5, "ana")).startswith("Notification(<int>, ")  # type: ignore[arg-type]  # that is the point


@given(st.text(max_size=20), st.text(min_size=1, max_size=20).filter(lambda text: not text[0].isspace()))
def test_nothing_with_an_at_sign_is_shown(before: str, after: str) -> None:
    """Whatever stands around the sign of an address, it is not shown."""
    assert type_text(f"{before}@{after}") == HIDDEN
