"""What a decision says in the headers of an HTTP response.

`Retry-After` is of RFC 9110, section 10.2.3. `RateLimit-Policy` and `RateLimit` are of draft-ietf-httpapi-ratelimit-headers-11
(May 2026): lists of strings with parameters, written as structured fields (RFC 9651).
"""

from __future__ import annotations

from collections import Counter
from math import ceil, inf
from typing import TYPE_CHECKING

from ratelimited_notify.rules.wording import limit_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from ratelimited_notify.limiter.window_state import WindowState


def retry_after_field(seconds: int | None) -> dict[str, str]:
    """`Retry-After`, in whole seconds. With None there is none: the field has no value for never."""
    return {} if seconds is None else {"Retry-After": str(max(1, seconds))}


def rate_limit_fields(windows: Sequence[WindowState], now: datetime, *, allowed: bool) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`, with an item for each window. Without windows there are none: the draft has no
    value for unlimited, and an empty list cannot be sent.

    The partition key (`pk`) is left out, because it would show the recipient.

    Arguments:
        windows: the windows that could refuse.
        now: the time of the decision.
        allowed: whether it was allowed.
    """
    # A pause is no policy. Of the limits of a paused rule, nothing is left until it ends.
    pauses = {window.rule: window for window in windows if window.paused}
    windows = [window for window in windows if not window.paused]
    if not windows:
        return {}
    policies: list[str] = []
    limits: list[str] = []
    for name, window in zip(_names(windows), windows, strict=True):
        quoted = _quoted(name)
        policies.append(f"{quoted};q={window.item.amount};w={window.item.get_expiry()}")
        left = max(pauses.get(window.rule, window), window, key=lambda window: window.retry_after)
        limits.append(f"{quoted};r={left.remaining}{_time(left, now, allowed=allowed)}")
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}


def _time(window: WindowState, now: datetime, *, allowed: bool) -> str:
    """The parameter `t` of `RateLimit`: the seconds in which no more than what is left may be used.

    `Retry-After` must not be earlier, so a refusal has it only for windows that refuse: until this cost fits.
    """
    seconds = (window.reset_at - now).total_seconds() if allowed else window.retry_after
    return f";t={ceil(seconds)}" if 0 < seconds < inf else ""


def _names(windows: Sequence[WindowState]) -> Iterator[str]:
    """A name for each window, no two of them equal: its rule, with the period if the rule has several windows."""
    rules = Counter(window.rule for window in windows)
    taken: set[str] = set()
    for window in windows:
        name = window.rule
        if rules[name] > 1:
            name = f"{name} per {limit_text(window.item).partition(' per ')[2]}"
        while name in taken:
            name += "'"
        taken.add(name)
        yield name


def _quoted(text: str) -> str:
    """The text as a string of a structured field, which holds printable ASCII only: everything else is percent-encoded in
    UTF-8, and so is the percent sign itself, so that different texts stay different.
    """
    return '"' + "".join(map(_character, text.encode("utf-8", "surrogatepass"))) + '"'


def _character(byte: int) -> str:
    if not 0x20 <= byte < 0x7F or byte == ord("%"):
        return f"%{byte:02X}"
    character = chr(byte)
    return f"\\{character}" if character in '"\\' else character
