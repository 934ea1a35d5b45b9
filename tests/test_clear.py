"""`clear`: the windows of one recipient, and on request those that it shares, on every storage."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from limiting import LIMITERS, Clock
from ratelimited_notify import AsyncLimiter, Limiter, Rule

if TYPE_CHECKING:
    from backends import Backend

RULES = [
    Rule("*", "9/day", name="own"),
    Rule("*", "8/day", by="tenant", name="tenant"),
    Rule("*", "7/day", by="dedupe_key", name="same", strategy="fixed-window"),
    Rule("*", "6/day", by=(), name="all", strategy="sliding-window-counter"),
]


def left(limiter: Any, recipient: str, **fields: str) -> dict[str, int]:
    return {state.rule: state.remaining for state in limiter.windows("news", recipient, **fields)}


def test_shared_windows_on_every_storage(backend: Backend) -> None:
    """By default they stay; with `shared=True` they are emptied with the recipient's own, and counted."""
    backend.flush()
    kind = "async" if backend.asynchronous else "sync"
    limiter = LIMITERS[kind](RULES, backend.bare, namespace=backend.namespace)
    if backend.asynchronous:
        limiter.__dict__["runner"].close()
        limiter.__dict__["runner"] = backend.storage
    fields = {"tenant": "acme", "dedupe_key": "disk full"}
    limiter.hit("news", "ana", **fields)
    limiter.hit("news", "bo", **fields)
    limiter.hit("news", "bo", tenant="other", dedupe_key="login")

    assert limiter.clear("news", "ana", **fields) == 1
    assert left(limiter, "ana", **fields) == {"own": 9, "tenant": 6, "same": 5, "all": 3}
    assert limiter.clear("news", "ana", shared=False, **fields) == 0
    assert limiter.clear("news", "ana", shared=True, **fields) == 3
    assert left(limiter, "ana", **fields) == {"own": 9, "tenant": 8, "same": 7, "all": 6}
    assert left(limiter, "bo", tenant="other", dedupe_key="login") == {"own": 7, "tenant": 7, "same": 6, "all": 6}
    assert limiter.clear("news", "ana", shared=True, **fields) == 0


@pytest.mark.parametrize("by", ["dedupe_key", "tenant", ()])
@pytest.mark.parametrize("kind", LIMITERS)
def test_a_rule_that_is_shared_only(kind: str, by: Any) -> None:
    """An alert that is to be sent once can be let through again."""
    limiter = LIMITERS[kind]([Rule("alert", "1/hour", by=by)], clock=Clock())
    fields = {by: "disk full"} if by else {}
    assert limiter.hit("alert", "ana", **fields)
    assert not limiter.hit("alert", "bo", **fields)

    assert limiter.clear("alert", "bo", **fields) == 0
    assert limiter.clear("alert", "bo", shared=True, **fields) == 1
    assert limiter.hit("alert", "bo", **fields)
    limiter.close()


def test_a_remembered_refusal_of_a_shared_window_is_forgotten() -> None:
    """A limiter that remembers refusals asks again after it has cleared the window."""
    limiter = Limiter([Rule("alert", "1/hour", by=())], clock=Clock(), remember_refusals=True)
    limiter.hit("alert", "ana")
    assert not limiter.hit("alert", "ana")
    limiter.clear("alert", "ana", shared=True)

    assert limiter.hit("alert", "ana")


def test_windows_of_limits_own_storages() -> None:
    """Through the adapter too."""
    from limits.storage import MemoryStorage

    limiter = Limiter([Rule("alert", "1/hour", by=(), strategy="fixed-window")], MemoryStorage())
    limiter.hit("alert", "ana")

    assert limiter.clear("alert", "ana", shared=True) == 1
    assert limiter.hit("alert", "ana")


def test_a_field_called_shared() -> None:
    """It cannot be passed, and the error says so; it is not taken for yes."""
    limiter: Any = Limiter({"news": "1/day"}, clock=Clock())
    with pytest.raises(TypeError, match="shared= must be True or False"):
        limiter.clear("news", "ana", shared="acme")
    later: Any = AsyncLimiter({"news": "1/day"}, clock=Clock())
    with pytest.raises(TypeError, match="shared= must be True or False"):
        asyncio.run(later.clear("news", "ana", shared=1))
