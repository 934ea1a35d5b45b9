"""Whether a client sent the request more than once by itself. Its error tells of the last attempt only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from ratelimited_notify.errors import SendFailed
from ratelimited_notify.limiter.responses import RESPONSES, attribute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def frames(error: BaseException) -> Iterator[FrameType]:
    """The frames that an exception went through: first where it was caught, last where it was raised."""
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def was_retried(error: BaseException) -> bool:
    """Whether the exception says that there were attempts before this one, or went through a loop that made some.

    The former is so with botocore, the latter with tenacity (and stamina, which stands on it) and backoff, if they raise
    the exception of the last attempt as it is.
    """
    if _is_above(_item(_item(attribute(error, "response"), "ResponseMetadata"), "RetryAttempts"), 0):
        return True
    return any(_is_above(_attempt(frame), 1) for frame in frames(error))


def _attempt(frame: FrameType) -> object:
    """The number of the attempt that a library for retries was at, from 1; None if the frame is of no such library."""
    library = str(frame.f_globals.get("__name__")).partition(".")[0]
    if library == "tenacity":
        return attribute(frame.f_locals.get("retry_state"), "attempt_number")
    return frame.f_locals.get("tries") if library == "backoff" else None


def _item(mapping: object, key: str) -> object:
    return cast("Mapping[object, object]", mapping).get(key) if isinstance(mapping, Mapping) else None


def _is_above(number: object, least: int) -> bool:
    return isinstance(number, int) and number > least


def earlier_attempts(error: BaseException) -> list[object]:
    """The errors of the attempts before the answer, in order (urllib3); None for an attempt that was answered."""
    responses = [error.result] if isinstance(error, SendFailed) else [attribute(error, name) for name in RESPONSES]
    attempts = [each for response in responses for each in _history(response)]
    return [attribute(each, "error") for each in attempts if not attribute(each, "redirect_location")]


def _history(response: object) -> tuple[object, ...]:
    history = attribute(attribute(attribute(response, "raw"), "retries"), "history")
    return cast("tuple[object, ...]", history) if isinstance(history, tuple) else ()
