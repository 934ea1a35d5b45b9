"""What type checkers know about the public names: checked, never run. Wrong calls are rejected, or their comments are unused."""

# Both checkers take `type: ignore` for their own, and both say where one is not needed: each wrong call is one to both.
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack, assert_type
from uuid import UUID

from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Decision,
    Delivery,
    Limiter,
    LimitNotation,
    Notification,
    Notifier,
    OnLimit,
    OnStorageError,
    Problem,
    RateLimitExceeded,
    Recipient,
    Refund,
    Rule,
    RuleError,
    Rules,
    RuleSet,
    SendFailed,
    WindowState,
    configure,
    limiter_of,
    rate_limited,
)
from ratelimited_notify.pytest_plugin import Clock, Outbox

if TYPE_CHECKING:
    from ratelimited_notify.limiter import LimiterOptions


@dataclass
class User:
    id: int
    email: str


# A decorated function keeps its type: a refusal is an exception.


@rate_limited("news", limit="1/day")
def send(recipient: str, body: str, *, copy: bool = False) -> int:
    return len(body)


assert_type(send("ana", "Hi"), int)
assert_type(send("ana", body="Hi", copy=True), int)
send("ana")  # type: ignore[call-arg]  # the body is missing
send("ana", 5)  # type: ignore[arg-type]  # a body is a text
send("ana", "Hi", cc="bob")  # type: ignore[call-arg]  # there is no such parameter
as_it_was: Callable[[str, str], int] = send


@rate_limited("news", on_limit="wait", max_wait=60, recipient="user.email", cost="parts", fields={"tenant": "user.id"})
async def send_later(user: User, parts: int) -> str:
    return user.email


async def awaits() -> None:
    assert_type(await send_later(User(1, "ana"), 2), str)
    await send_later("ana", 2)  # type: ignore[arg-type]  # it takes a user
    coroutine: Coroutine[Any, Any, str] = send_later(User(1, "ana"), parts=1)  # Any: the event loop's.
    await coroutine


# A function that drops may return None.


@rate_limited("news", on_limit="drop")
def send_or_not(to: str) -> int:
    return len(to)


@rate_limited("news", on_limit="drop")
async def send_later_or_not(to: str) -> int:
    return len(to)


assert_type(send_or_not("ana"), int | None)
send_or_not(5)  # type: ignore[arg-type]  # a recipient is a text here
send_or_not("ana") + 1  # type: ignore[operator]  # it may be None


async def awaits_or_not() -> None:
    assert_type(await send_later_or_not("ana"), int | None)


# Methods of every kind, whichever side the decorator is on.


class Mails:
    @rate_limited("news")
    def method(self, to: str) -> int:
        return len(to)

    @rate_limited("news", on_limit="drop")
    def method_or_not(self, to: str) -> int:
        return len(to)

    @rate_limited("news")
    async def coroutine(self, to: str) -> int:
        return len(to)

    @classmethod
    @rate_limited("news")
    def below_class(cls, to: str) -> int:
        return len(to)

    @rate_limited("news")
    @classmethod
    def above_class(cls, to: str) -> int:
        return len(to)

    @classmethod
    @rate_limited("news", on_limit="drop")
    def below_class_or_not(cls, to: str) -> int:
        return len(to)

    @rate_limited("news", on_limit="drop")
    @classmethod
    def above_class_or_not(cls, to: str) -> int:
        return len(to)

    @staticmethod
    @rate_limited("news")
    def below_static(to: str) -> int:
        return len(to)

    @rate_limited("news")
    @staticmethod
    def above_static(to: str) -> int:
        return len(to)

    @rate_limited("news", on_limit="drop")
    @staticmethod
    def above_static_or_not(to: str) -> int:
        return len(to)

    @rate_limited("news", on_limit="drop")
    @classmethod
    async def above_class_later_or_not(cls, to: str) -> int:
        return len(to)


mails = Mails()
assert_type(mails.method("ana"), int)
assert_type(mails.method_or_not("ana"), int | None)
assert_type(Mails.below_class("ana"), int)
assert_type(mails.below_class("ana"), int)
assert_type(Mails.above_class("ana"), int)
assert_type(Mails.below_class_or_not("ana"), int | None)
assert_type(Mails.above_class_or_not("ana"), int | None)
assert_type(Mails.below_static("ana"), int)
assert_type(mails.above_static("ana"), int)
assert_type(Mails.above_static_or_not("ana"), int | None)
mails.method()  # type: ignore[call-arg]  # the recipient is missing
mails.method_or_not(5)  # type: ignore[arg-type]  # a recipient is a text here
Mails.below_class(5)  # type: ignore[arg-type]  # a recipient is a text here
Mails.above_class(5)  # type: ignore[arg-type]  # a recipient is a text here
Mails.above_static(5)  # type: ignore[arg-type]  # a recipient is a text here


async def methods_later() -> None:
    assert_type(await mails.coroutine("ana"), int)
    assert_type(await Mails.above_class_later_or_not("ana"), int | None)


# What else the decorator takes.


def body_length(to: str, body: str) -> int:
    return len(body)


def kind_of(to: str, body: str) -> str:
    return body


rate_limited("news", cost=body_length, priority=kind_of, limiter=Limiter(), refund=TimeoutError)(body_length)
rate_limited(kind_of, limiter=AsyncLimiter(), refund=(TimeoutError, OSError), fields={"tenant": kind_of})
rate_limited("news", refund=SendFailed, failed=lambda result: not result)(body_length)
rate_limited(5)  # type: ignore[call-overload]  # a type is a text
rate_limited("news", on_limit="ignore")  # type: ignore[call-overload]  # no such choice
rate_limited("news", cost=1.5)  # type: ignore[call-overload]  # a cost is a whole number
rate_limited("news")(5)  # type: ignore[type-var]  # it decorates functions


# A notifier is typed by its gateway.


def gateway(recipient: str, subject: str, body: str, *, copy: bool = False) -> bytes:
    return body.encode()


notifier = Notifier(gateway, {"news": "1/day", "status": None}, on_limit="wait", max_wait=60, clock=Clock())
delivery = notifier.send("news", "ana", "Subject", "Body", copy=True)
assert_type(delivery, Delivery[bytes])
assert_type(delivery.result, bytes | None)
assert_type(delivery.decision, Decision)
assert_type(delivery.notification, Notification)
assert_type(delivery.error, BaseException | None)
assert_type(bool(delivery), bool)
assert_type(delivery.decision.windows, tuple[WindowState, ...])
assert_type(delivery.decision.released, bool)
assert_type(delivery.decision.headers(ratelimit=True), dict[str, str])
assert_type(delivery.decision.to_dict(), dict[str, object])
refused = RateLimitExceeded(delivery.decision)
assert_type(refused.decision, Decision | None)
assert_type(refused.retry_after, float)
assert_type(refused.headers(), dict[str, str])
RateLimitExceeded("its text")
RateLimitExceeded(5)  # type: ignore[arg-type]  # neither a decision nor a text
assert_type(notifier.send_many("news", ["ana", "bob"], "Subject", "Body"), list[Delivery[bytes]])
assert_type(notifier.iter_many([Notification("news", "ana")]), Generator[Delivery[bytes], None, None])
assert_type(notifier.deliver(Notification("news", UUID(int=1), ["Hi"], priority="high")), Delivery[bytes])
assert_type(
    notifier.bind(tenant="acme", priority="high", cost=2).send("news", "ana", "Subject", "Body"), Delivery[bytes]
)
assert_type(notifier.limiter, Limiter)
with notifier as entered:
    assert_type(entered.send("news", 7, "Subject", "Body").result, bytes | None)

notifier.send("news", "ana")  # type: ignore[call-arg]  # the gateway wants a subject and a body
notifier.send("news", "ana", "Subject", 5)  # type: ignore[arg-type]  # a body is a text
notifier.send("news", "ana", "Subject", "Body", cc="bob")  # type: ignore[call-arg]  # there is no such parameter
notifier.send("news", 1.5, "Subject", "Body")  # type: ignore[arg-type]  # not what identifies somebody
notifier.send(type="news", recipient="ana", subject="S", body="B")  # type: ignore[call-arg]  # the type and the recipient are given by place
notifier.send_many("news", 5, "Subject", "Body")  # type: ignore[arg-type]  # not many
notifier.bind(tenant="acme").send("news", "ana", "Subject")  # type: ignore[call-arg]  # bound or not, the body is missing
notifier.bind(cost="2")  # type: ignore[arg-type]  # a cost is a whole number
notifier.deliver("news")  # type: ignore[arg-type]  # no notification
Notifier(5)  # type: ignore[arg-type]  # no gateway
Notifier(gateway, {"news": 5})  # type: ignore[arg-type]  # no limit
Notifier(gateway, limiter=AsyncLimiter())  # type: ignore[arg-type]  # it is not awaited here
Notifier(gateway, on_limit="ignore")  # type: ignore[arg-type]  # no such choice
Notifier(gateway, timeout="1")  # type: ignore[arg-type]  # seconds are a number
Notifier(gateway, no_such_option=1)  # type: ignore[call-arg]  # no such option

assert_type(Notifier(partial(gateway, copy=True)).send("news", "ana", "Subject", "Body"), Delivery[bytes])
assert_type(Notifier(Outbox()).send("news", "ana", 1, anything=2), Delivery[None])
handed_on: Notifier[[str, str], bytes] = Notifier(lambda recipient, subject, body: b"")


# So is an async one, whether the gateway is awaited or not.


async def async_gateway(recipient: str, body: str) -> bytes:
    return body.encode()


def awaitable_gateway(recipient: str, body: str) -> Awaitable[bytes]:
    return async_gateway(recipient, body)


class Service:
    async def __call__(self, recipient: str, body: str) -> bytes:
        return body.encode()


async def notifies() -> None:
    asynchronous = AsyncNotifier(async_gateway, [Rule("news", "1/day")], concurrency=10)
    assert_type(await asynchronous.send("news", "ana", "Body"), Delivery[bytes])
    assert_type(await asynchronous.send_many("news", ["ana"], body="Body"), list[Delivery[bytes]])
    assert_type(asynchronous.iter_many([Notification("news", "ana")]), AsyncGenerator[Delivery[bytes], None])
    assert_type(await asynchronous.bind(tenant="acme").send("news", "ana", "Body"), Delivery[bytes])
    assert_type(await asynchronous.deliver(Notification("news", "ana")), Delivery[bytes])
    assert_type(await AsyncNotifier(gateway).send("news", "ana", "Subject", "Body"), Delivery[bytes])
    assert_type(await AsyncNotifier(awaitable_gateway).send("news", "ana", "Body"), Delivery[bytes])
    assert_type(await AsyncNotifier(Service()).send("news", "ana", "Body"), Delivery[bytes])
    assert_type(asynchronous.limiter, AsyncLimiter)
    async with asynchronous as entered:
        assert_type((await entered.send("news", "ana", "Body")).result, bytes | None)

    await asynchronous.send("news", "ana")  # type: ignore[call-arg]  # the body is missing
    await asynchronous.send("news", "ana", 5)  # type: ignore[arg-type]  # a body is a text
    await AsyncNotifier(gateway).send("news", "ana", 5, "Body")  # type: ignore[arg-type]  # a subject is a text
    AsyncNotifier(async_gateway, limiter=Limiter())  # type: ignore[call-overload]  # it has to be awaited
    AsyncNotifier(async_gateway, concurrency="10")  # type: ignore[call-overload]  # a number
    await asynchronous.send("news", "ana", "Body").result  # type: ignore[attr-defined]  # it was not awaited


# Functions that hand arguments on are annotated with public names.


def make_notifier(
    rules: Rules | None, on_limit: OnLimit, refund: Refund, on_storage_error: OnStorageError
) -> Notifier[[str, str], bytes]:
    return Notifier(
        lambda recipient, subject, body: b"",
        rules,
        on_limit=on_limit,
        refund=refund,
        on_storage_error=on_storage_error,
    )


def make_limiter(limit: LimitNotation, **options: Unpack[LimiterOptions]) -> Limiter:
    return Limiter([Rule("news", limit)], **options)


def decide(recipient: Recipient) -> Decision:
    return make_limiter("1/day", namespace="shop").hit("news", recipient)


def problems(error: RuleError) -> tuple[Problem, ...]:
    return error.problems


make_notifier({"news": 5}, "drop", None, "allow")  # type: ignore[arg-type]  # no limit
make_notifier(None, "ignore", None, "allow")  # type: ignore[arg-type]  # no such choice
make_limiter("1/day", timeout="1")  # type: ignore[arg-type]  # seconds are a number


# Limiters, rules and the configuration.

limiter = Limiter(RuleSet({"news": "1/day"}, fields=("ip",)), normalize=str.lower, on_storage_error="deny")
assert_type(limiter.hit("news", "ana", cost=2, priority="high", tenant="acme"), Decision)
assert_type(limiter.hit_many("news", ["ana", 7]), list[Decision])
with limiter.reserve("news", "ana") as reserved:
    assert_type(reserved, Decision)
limiter.hit("news", None)  # type: ignore[arg-type]  # nobody
limiter.rules = {"news": "2/day"}
limiter.ruls = {"news": "2/day"}  # type: ignore[attr-defined]  # misspelt
notifier.rules = [Rule("news", "2/day")]
assert_type(notifier.rules, RuleSet)
notifier.on_limit = "raise"  # type: ignore[attr-defined]  # an argument
configured = configure({"news": "1/day"}, "redis://localhost:6379/0", namespace="shop", enabled=True)
assert_type(configured.limiter, Limiter)
assert_type(configured.async_limiter, AsyncLimiter)
assert_type(limiter_of(send), Limiter)
assert_type(limiter_of(send_or_not), Limiter)
assert_type(limiter_of(send_later), AsyncLimiter)
assert_type(limiter_of(send_later_or_not), AsyncLimiter)
assert_type(limiter_of(send).clear("news", "ana", shared=True, tenant="acme"), int)
assert_type(limiter_of(send).pause("provider", 30, tenant="acme"), datetime | None)
assert_type(limiter_of(send).resume("provider", tenant="acme"), bool)
limiter_of(send).pause("provider", "30")  # type: ignore[arg-type]  # no number
limiter_of("send")  # type: ignore[call-overload]  # no function
configure(storage=5)  # type: ignore[arg-type]  # no storage
configure(clock="noon")  # type: ignore[arg-type]  # no clock


async def limits() -> None:
    asynchronous = AsyncLimiter("rules.toml")
    # Windows in memory are shared by threads and asyncio.
    AsyncLimiter({"news": "1/day"}, limiter.storage)
    AsyncNotifier(async_gateway, {"news": "1/day"}, limiter.storage)
    AsyncLimiter("rules.toml", 5)  # type: ignore[arg-type]  # no storage
    assert_type(await asynchronous.hit("news", "ana"), Decision)
    assert_type(await asynchronous.windows("news", "ana"), tuple[WindowState, ...])
    assert_type(await asynchronous.pause("provider", 30.5), datetime | None)
    assert_type(await asynchronous.resume("provider"), bool)
    async with asynchronous.reserve("news", "ana") as decision:
        assert_type(decision, Decision)
