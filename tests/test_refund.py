from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from outcomes import CANARY, INTERRUPTED, MAYBE_SENT, NOT_SENT, named, raised_by
from ratelimited_notify.errors import NotifyError
from ratelimited_notify.limiter.outcome import outcome_unknown
from ratelimited_notify.limiter.refund import refunding

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYTHING = (*NOT_SENT, *MAYBE_SENT, *INTERRUPTED)

BUILTIN = sorted(
    (kind for kind in vars(__import__("builtins")).values() if isinstance(kind, type) and issubclass(kind, OSError)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("error", NOT_SENT, ids=named)
def test_what_says_that_nothing_went_out(error: BaseException) -> None:
    """After an error that has no doubt about it, the message did not go out."""
    assert not outcome_unknown(error)
    assert refunding(None)(error)


@pytest.mark.parametrize("error", [*MAYBE_SENT, *INTERRUPTED], ids=named)
def test_what_leaves_it_open(error: BaseException) -> None:
    """After a time-out, a lost connection, a cancellation or an interrupt the message may have gone out."""
    assert outcome_unknown(error)
    assert not refunding(None)(error)


@pytest.mark.parametrize("kind", BUILTIN)
def test_errors_of_the_system(kind: type[OSError]) -> None:
    """Of the system's errors just time-outs and lost connections leave it open, a refused one does not."""
    lost = issubclass(kind, (TimeoutError, ConnectionError)) and kind is not ConnectionRefusedError

    assert outcome_unknown(kind()) is lost


_words = st.sampled_from(
    ["Read", "Time", "Out", "Timeout", "TimedOut", "TIMEOUT", "time_out", "Gateway", "Error", "Disconnected"]
)


@given(words=st.lists(_words, min_size=1, max_size=4), bases=st.lists(_words, max_size=3))
def test_a_name_that_says_time_out(words: list[str], bases: list[str]) -> None:
    """An exception class that says time-out or disconnected, in one name of its line, leaves it open; others do not."""
    kind: type[Exception] = Exception
    for name in (*bases, "".join(words)):
        kind = type(name, (kind,), {})
    names = ["".join(words), *bases]
    says = any(
        part in name.replace("_", "").lower() for name in names for part in ("timeout", "timedout", "disconnected")
    )

    assert outcome_unknown(kind()) is says


@pytest.mark.parametrize("error", EVERYTHING, ids=named)
@pytest.mark.parametrize("choice", [True, False])
def test_always_and_never(choice: bool, error: BaseException) -> None:
    """`refund=True` gives back after everything, `refund=False` after nothing."""
    assert refunding(choice)(error) is choice


@given(
    kinds=st.lists(st.sampled_from([ValueError, TimeoutError, OSError, KeyboardInterrupt]), min_size=1).map(tuple),
    error=st.sampled_from(EVERYTHING),
)
def test_exception_types(kinds: tuple[type[BaseException], ...], error: BaseException) -> None:
    """Exception types give back after just these, however unknown the outcome."""
    assert refunding(kinds)(error) is isinstance(error, kinds)
    assert refunding(kinds[0])(error) is isinstance(error, kinds[0])


def test_a_callable_decides() -> None:
    """A callable gets the exception, and its truth counts."""
    seen: list[BaseException] = []

    def decide(error: BaseException) -> Any:
        seen.append(error)
        return "yes" if isinstance(error, TimeoutError) else ""

    refunded = refunding(decide)
    late, wrong = TimeoutError(), ValueError()

    assert refunded(late) is True
    assert refunded(wrong) is False
    assert seen == [late, wrong]


def test_a_coroutine_function_cannot_decide() -> None:
    """Nobody would await it, and a coroutine that is not awaited counts as true."""

    async def decide(error: BaseException) -> bool:
        return False

    with pytest.raises(NotifyError, match="refund= is a coroutine function"):
        refunding(decide)  # type: ignore[arg-type]  # what is tested


def test_an_answer_that_nobody_awaits_keeps_the_hit() -> None:
    """A plain function may return a coroutine, which would count as true."""

    async def later() -> bool:
        return True

    def decide(error: BaseException) -> Any:
        return later()

    assert refunding(decide)(ValueError()) is False


def test_a_callable_that_raises_keeps_the_hit(caplog: pytest.LogCaptureFixture) -> None:
    """Where the callable itself fails the hit is kept, and the log says so without a word of the message."""

    def decide(error: BaseException) -> bool:
        raise LookupError(CANARY)

    with caplog.at_level(logging.DEBUG):
        error = raised_by(lambda: int(CANARY))
        assert error is not None
        assert refunding(decide)(error) is False

    assert "refund= raised LookupError; the hit is kept." in caplog.text
    assert CANARY not in caplog.text


def test_an_interrupt_in_the_callable_is_not_held_back() -> None:
    """Control-C while the callable decides stops the program."""

    def decide(error: BaseException) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refunding(decide)(ValueError())


@pytest.mark.parametrize("refund", [1, "yes", (), (ValueError, "yes"), [ValueError], (ValueError, int)])
def test_anything_else_is_an_error(refund: Any) -> None:
    """What is no choice of `refund=` is told where it is given."""
    with pytest.raises(NotifyError, match=r"^refund= must be True, False, exception types, a callable .*, or None\.$"):
        refunding(refund)


def test_the_choices_are_read_by_type() -> None:
    """A class that is no exception type is a callable like any other."""
    choose: Callable[[Any], Any] = refunding(bool)

    assert choose(ValueError()) is True
