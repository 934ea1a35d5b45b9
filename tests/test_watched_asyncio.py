"""What is told about asyncio where threads have the same code in another place, and an insurance that is opened late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notification,
    Rule,
    Status,
    StorageError,
    rate_limited,
)
from ratelimited_notify.instrumentation import Delivered
from ratelimited_notify.instrumentation.watcher import Watcher
from ratelimited_notify.limiter.switch import switch
from servers import free_port

if TYPE_CHECKING:
    from ratelimited_notify.instrumentation import Event


class Surrounding(Watcher):
    """Surrounds deliveries with nothing, and keeps how they end."""

    surrounds = True

    def __init__(self) -> None:
        super().__init__(self._keep)
        self.ends: list[tuple[str, str | None]] = []

    def _keep(self, event: Event) -> None:
        if isinstance(event, Delivered):
            self.ends.append((event.status, event.error))

    def surround(self, type: str) -> None:
        """Nothing surrounds it."""


async def send(recipient: Any, *_: object) -> str:
    return "refused" if recipient == "full" else "sent"


def not_bad(recipient: str) -> str:
    if recipient == "bad":
        raise LookupError
    return recipient


def test_a_coroutine_function_whose_recipient_cannot_be_normalized() -> None:
    """The call ends as failed, and raises what `normalize=` raised."""
    limiter, told = AsyncLimiter({"news": "2/day"}, normalize=not_bad), Surrounding()
    told.surrounds = False
    limiter._add_watcher(told)
    limited = rate_limited("news", recipient="recipient", limiter=limiter)(send)

    assert asyncio.run(limited("ana")) == "sent"
    with pytest.raises(LookupError):
        asyncio.run(limited("bad"))
    assert told.ends == [("sent", None), ("failed", "LookupError")]


def test_each_way_in_which_a_surrounded_delivery_ends() -> None:
    """Refused, without a decision, and failed by its result: each is told once."""
    told = Surrounding()

    async def main() -> list[Status]:
        notifier = AsyncNotifier(send, {"news": "1/day"}, failed=lambda result: result == "refused", normalize=not_bad)
        notifier.limiter._add_watcher(told)
        alone = [await notifier.send("news", recipient) for recipient in ("ana", "ana", "full")]
        batch = [Notification("news", "bad"), Notification("status", "ben")]
        return [delivery.status for delivery in (*alone, *[each async for each in notifier.iter_many(batch)])]

    assert asyncio.run(main()) == [Status.SENT, Status.SUPPRESSED, Status.FAILED, Status.FAILED, Status.SENT]
    assert told.ends == [
        ("sent", None), ("suppressed", None), ("failed", "SendFailed"), ("failed", "LookupError"), ("sent", None),
    ]  # fmt: skip


def test_an_insurance_that_is_opened_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limiter that was made while limiting was off opens its storage, and its insurance, when it first decides."""
    down = f"redis://127.0.0.1:{free_port()}"
    monkeypatch.setattr(switch, "off", True)
    limiter = Limiter({"news": "1/day"}, down, on_storage_error="memory://")
    for_tasks = AsyncLimiter({"news": "1/day"}, down, on_storage_error="memory://")
    monkeypatch.setattr(switch, "off", False)

    async def decide() -> list[bool]:
        decisions = [await for_tasks.hit("news", "ana"), await for_tasks.hit("news", "ana")]
        await for_tasks.close()
        return [decision.allowed for decision in decisions]

    assert [limiter.hit("news", "ana").allowed, limiter.hit("news", "ana").allowed] == [True, False]
    assert asyncio.run(decide()) == [True, False]
    limiter.close()


def test_an_insurance_that_fails_too() -> None:
    """A batch whose storage and insurance both fail is refused as a whole, with the error."""

    async def main() -> list[tuple[Status, bool]]:
        storages = [f"redis://127.0.0.1:{free_port()}" for _ in range(2)]
        notifier = AsyncNotifier(send, {"news": "1/day"}, storages[0], on_storage_error=storages[1])
        deliveries = await notifier.send_many("news", ["ana", "ben"])
        await notifier.close()
        return [(delivery.status, delivery.error is not None) for delivery in deliveries]

    assert asyncio.run(main()) == [(Status.FAILED, True)] * 2


def test_a_refusal_keeps_nothing_about_a_hit() -> None:
    """There is nothing to give back, so what an insurance notes about a hit is left out."""
    limiter = Limiter({"news": "1/day"})
    limiter.hit("news", "ana", cost=1)
    refused = limiter.test("news", "ana")

    refused.note_insured(object())

    assert refused.take_receipt() is None


def test_a_pause_opens_the_insurance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is the first thing that a limiter does that was made while limiting was off. It holds in the insurance."""
    down, cap = f"redis://127.0.0.1:{free_port()}", Rule("news", "5/day", by=(), name="cap")
    monkeypatch.setattr(switch, "off", True)
    limiter = Limiter([cap], down, on_storage_error="memory://")
    for_tasks = AsyncLimiter([cap], down, on_storage_error="memory://")
    monkeypatch.setattr(switch, "off", False)

    async def pause_and_decide() -> bool:
        with pytest.raises(StorageError):
            await for_tasks.pause("cap", 60)
        decision = await for_tasks.hit("news", "ana")
        await for_tasks.close()
        return decision.allowed

    with pytest.raises(StorageError):
        limiter.pause("cap", 60)
    assert not limiter.hit("news", "ana")
    assert not asyncio.run(pause_and_decide())
    limiter.close()
