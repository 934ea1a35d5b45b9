"""The exception for a refusal: cheap to raise, and readable wherever an exception goes."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from typing import Any

import pytest

from limiting import Clock
from ratelimited_notify import (
    Decision,
    Limiter,
    MissingExtra,
    NotifyError,
    Problem,
    RateLimitExceeded,
    RuleError,
    StorageError,
)
from ratelimited_notify.gateways.smtp import SMTPError
from ratelimited_notify.storage import NothingSent, UnexpectedReply, UnreadableWindow

SAID = "'news' refused by rule 'news' (1 per day), try again in 1 day"


@pytest.fixture
def refusal() -> Decision:
    limiter = Limiter({"news": "1/day"}, clock=Clock())
    limiter.hit("news", "ana@example.com")
    return limiter.hit("news", "ana@example.com")


def test_its_message_is_in_its_args(refusal: Decision) -> None:
    """What shows an exception by its `args` shows the message."""
    error = RateLimitExceeded(refusal)

    assert error.args == (SAID,)
    assert (str(error), repr(error)) == (SAID, f'RateLimitExceeded("{SAID}")')
    assert error.decision is refusal
    error.args = (*error.args, "again")
    assert error.args == (SAID, "again")
    error.args = ("later",)
    assert (str(error), error.decision) == ("later", refusal)


def test_raising_reads_nothing() -> None:
    """The message is made when it is read, and not before: most handlers never read it."""

    class Unread:
        def __str__(self) -> str:
            raise AssertionError

    decision: Any = Unread()
    with pytest.raises(RateLimitExceeded) as caught:
        raise RateLimitExceeded(decision)

    assert caught.value.decision is decision
    with pytest.raises(AssertionError):
        str(caught.value)


@pytest.mark.parametrize("made", ["text", "none"])
def test_made_from_its_text(made: str) -> None:
    """A task queue makes it again from its text. Then there is no decision, and nothing is made up."""
    error = RateLimitExceeded(*[SAID] * (made == "text"))

    assert str(error) == (SAID if made == "text" else "")
    assert (error.decision, error.retry_after, error.headers(), error.headers(ratelimit=True)) == (None, 0.0, {}, {})
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (str(again), again.args, again.decision) == (str(error), error.args, None)


@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_a_copy_says_the_same(refusal: Decision, copied: Any) -> None:
    """Everything on it goes along: the decision, notes, and what its `args` were set to."""
    error = RateLimitExceeded(refusal)
    error.add_note("the second today")
    again = copied(error)

    assert (str(again), again.args, again.__notes__) == (SAID, (SAID,), ["the second today"])
    assert (again.retry_after, again.headers()) == (86_400.0, {"Retry-After": "86400"})
    assert again.decision.blocked_by == refusal.blocked_by
    error.args = ("later",)
    assert (str(copied(error)), copied(error).retry_after) == ("later", 86_400.0)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_result_of_celery(refusal: Decision, serializer: str) -> None:
    """Celery's result backend shows the message, and makes the same class again."""
    from celery import Celery
    from celery.backends.cache import CacheBackend

    app = Celery("shop", set_as_current=False)
    app.conf.update(result_serializer=serializer, result_accept_content=[serializer])
    backend = CacheBackend(app=app, url="memory://")
    error = RateLimitExceeded(refusal)
    backend.mark_as_failure(serializer, error)
    again = backend.exception_to_python(backend.get_result(serializer))

    assert type(again) is RateLimitExceeded
    assert str(again) == SAID
    if serializer == "pickle":
        assert again.retry_after == 86_400.0
    else:
        assert (again.decision, again.retry_after, again.headers()) == (None, 0.0, {})


ERRORS: list[NotifyError] = [
    NotifyError("wrong"),
    RuleError("wrong"),
    RuleError([Problem("rules[0]", "wrong"), Problem("", "worse")], "rules.toml"),
    StorageError("gone"),
    NothingSent("gone"),
    UnexpectedReply("the server at localhost:6379"),
    UnreadableWindow("the rule 'news'"),
    MissingExtra("redis", "redis://"),
    SMTPError("550 no such user", 550, "5.1.1"),
    RateLimitExceeded("refused"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_can_be_made_again_from_its_text(error: NotifyError) -> None:
    """What keeps an exception as JSON keeps the name of its class and its `args`. Both together say the same again."""
    module, name = type(error).__module__, type(error).__qualname__
    args = json.loads(json.dumps(error.args))
    again = getattr(sys.modules[module], name)(*args)

    assert str(again) == str(error)
    assert str(pickle.loads(pickle.dumps(again))) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
