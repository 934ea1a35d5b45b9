"""Whether a message may have gone out: along the causes of an exception, and what the table in the docs says."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gzip
import http.client
import inspect
import re
import runpy
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, strategies as st

from outcomes import CANARY, raised_by
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notifier,
    RateLimitExceeded,
    SendFailed,
    StorageError,
    rate_limited,
)
from ratelimited_notify.limiter.outcome import outcome_unknown
from ratelimited_notify.limiter.outcome_table import TABLE, Outcome, row_of

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = {"news": "1/day"}
DOCS = Path(__file__).parent.parent / "docs"


class Answered(Exception):
    """As in httpx and many others."""

    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})()
        super().__init__(CANARY)


ConnectTimeout = type("ConnectTimeout", (Exception,), {})
MaxRetryError = type("MaxRetryError", (Exception,), {})

LEAVES: dict[str, tuple[Callable[[], BaseException], Outcome | None]] = {
    "nothing": (lambda: ValueError(CANARY), None),
    "time-out": (lambda: TimeoutError(CANARY), Outcome.UNKNOWN),
    "interrupt": (lambda: KeyboardInterrupt(CANARY), Outcome.UNKNOWN),
    "unavailable": (lambda: Answered(503), Outcome.UNKNOWN),
    "refused": (lambda: ConnectionRefusedError(CANARY), Outcome.NEVER_CONNECTED),
    "connecting": (lambda: ConnectTimeout(CANARY), Outcome.NEVER_CONNECTED),
    "too many": (lambda: Answered(429), Outcome.NOT_SENT),
    "wrapper": (lambda: MaxRetryError(CANARY), Outcome.WRAPPED),
}


class Node(NamedTuple):
    """An exception to be: its kind, and what is behind it, by how it is linked."""

    kind: str
    links: dict[str, Node]

    def built(self) -> BaseException:
        error = LEAVES[self.kind][0]()
        for link, behind in self.links.items():
            LINKS[link](error, behind.built())
        return error

    def outcome(self) -> Outcome | None:
        """What the issue says about it: from the outside in, what is known hides what is behind it."""
        known = LEAVES[self.kind][1]
        if known is not None and known is not Outcome.WRAPPED:
            return known
        links = {link for link in self.links if link not in {"suppressed", "hidden"}}
        told = [self.links[link].outcome() for link in links]
        if known is Outcome.WRAPPED:
            return Outcome.NEVER_CONNECTED if set(told) == {Outcome.NEVER_CONNECTED} else Outcome.UNKNOWN
        return next((each for each in ORDER if each in told), None)


ORDER = (Outcome.UNKNOWN, Outcome.SENT, Outcome.NOT_SENT, Outcome.NEVER_CONNECTED)


def _cause(error: BaseException, behind: BaseException) -> None:
    error.__cause__ = behind


def _context(error: BaseException, behind: BaseException) -> None:
    error.__context__ = behind


def _suppressed(error: BaseException, behind: BaseException) -> None:
    error.__context__ = behind
    error.__suppress_context__ = True


def _reason(error: BaseException, behind: BaseException) -> None:
    error.reason = behind  # type: ignore[attr-defined]  # as urllib's URLError has it


def _argument(error: BaseException, behind: BaseException) -> None:
    error.args = (*error.args, behind)


def _last_attempt(error: BaseException, behind: BaseException) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_exception(behind)
    error.last_attempt = future  # type: ignore[attr-defined]  # as tenacity's RetryError has it


LINKS: dict[str, Callable[[BaseException, BaseException], None]] = {
    "cause": _cause,
    "context": _context,
    "suppressed": _suppressed,
    "reason": _reason,
    "argument": _argument,
    "last_attempt": _last_attempt,
}


def _links(behind: st.SearchStrategy[Node]) -> st.SearchStrategy[dict[str, Node]]:
    # An exception has one context; with a cause, it is suppressed.
    one = st.sampled_from(["cause", "context", "suppressed"])
    rest = st.dictionaries(st.sampled_from(["reason", "argument", "last_attempt"]), behind, max_size=2)
    return st.tuples(st.dictionaries(one, behind, max_size=1), rest).map(lambda pair: {**pair[0], **pair[1]})


nodes = st.recursive(
    st.builds(Node, st.sampled_from(sorted(LEAVES)), st.just({})),
    lambda behind: st.builds(Node, st.sampled_from(sorted(LEAVES)), _links(behind)),
    max_leaves=8,
)


@given(node=nodes)
def test_causes_are_looked_at_from_the_outside_in(node: Node) -> None:
    """What the table knows decides and hides its causes; of what it does not know the causes decide, unknown first."""
    expected = node.outcome()

    assert outcome_unknown(node.built()) is (expected is not None and expected.kept)


@given(members=st.lists(nodes, min_size=1, max_size=3))
def test_a_group_is_as_unknown_as_its_members(members: list[Node]) -> None:
    """One member that may have gone out is enough; the members are independent of each other."""
    outcomes = [node.outcome() for node in members]
    group = BaseExceptionGroup(CANARY, [node.built() for node in members])

    assert outcome_unknown(group) is any(outcome is not None and outcome.kept for outcome in outcomes)


@pytest.mark.parametrize("link", sorted(LINKS))
def test_a_circle_of_causes_ends(link: str) -> None:
    """Exceptions that are behind each other are looked at once."""
    first, second, wrapper = ValueError(), LookupError(), MaxRetryError()
    LINKS[link](first, second)
    LINKS[link](second, first)
    LINKS[link](wrapper, wrapper)

    assert not outcome_unknown(first)
    assert outcome_unknown(wrapper)


def test_what_two_branches_share_counts_in_both() -> None:
    """An exception that a known one hides still counts where it stands for itself."""
    late = TimeoutError()
    connecting = ConnectTimeout()
    connecting.__cause__ = late

    assert not outcome_unknown(connecting)
    assert outcome_unknown(ExceptionGroup("both", [connecting, late]))


def test_a_chain_without_end_is_unknown() -> None:
    """After a hundred exceptions nobody looks further, and the hit stays."""
    chain: BaseException = ValueError()
    for _ in range(5000):
        outer = ValueError()
        outer.__context__ = chain
        chain = outer
    began = time.perf_counter()

    assert outcome_unknown(chain)
    assert time.perf_counter() - began < 1


class Hostile(Exception):
    """Whatever is read of it raises."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError(name)


def test_an_exception_that_cannot_be_read_is_unknown() -> None:
    """Looking at an exception never replaces it by another."""
    assert outcome_unknown(Hostile())


def _late() -> None:
    raise TimeoutError(CANARY)


def _refused() -> None:
    raise ConnectionRefusedError(CANARY)


def _invalid() -> None:
    raise ValueError(CANARY)


def _too_many() -> None:
    raise Answered(429)


def _failing_over(first: Callable[[], None], second: Callable[[], None]) -> None:
    try:
        first()
    except Exception:  # noqa: BLE001  # as people write it
        second()


def _failing_over_deeply(first: Callable[[], None], second: Callable[[], None]) -> None:
    try:
        first()
    except Exception:  # noqa: BLE001  # as people write it
        try:
            _failing_over(_invalid, second)
        except Exception as error:
            raise LookupError(CANARY) from error


class Shell(NamedTuple):
    """One way to send: calls a gateway for the only hit there is, and says how many hits are left after it."""

    send: Callable[[Callable[[], None]], int]


def _left(limiter: Limiter) -> int:
    return limiter.windows("news", "ana")[0].remaining


def _by_notifier(gateway: Callable[[], None]) -> int:
    notifier = Notifier(lambda recipient: gateway(), RULES)
    with contextlib.suppress(Exception):
        notifier.send("news", "ana")
    return _left(notifier.limiter)


def _by_batch(gateway: Callable[[], None]) -> int:
    notifier = Notifier(lambda recipient: gateway(), RULES)
    notifier.send_many("news", ["ana"])
    return _left(notifier.limiter)


def _by_decorator(gateway: Callable[[], None]) -> int:
    limiter = Limiter(RULES)
    with contextlib.suppress(Exception):
        rate_limited("news", recipient=lambda: "ana", limiter=limiter)(gateway)()
    return _left(limiter)


def _by_reserve(gateway: Callable[[], None]) -> int:
    limiter = Limiter(RULES)
    with contextlib.suppress(Exception), limiter.reserve("news", "ana"):
        gateway()
    return _left(limiter)


async def _by_async_notifier(gateway: Callable[[], None]) -> int:
    async def send(recipient: str) -> None:
        gateway()

    notifier = AsyncNotifier(send, RULES)
    with contextlib.suppress(Exception):
        await notifier.send("news", "ana")
    return (await notifier.limiter.windows("news", "ana"))[0].remaining


async def _by_thread(gateway: Callable[[], None]) -> int:
    notifier = AsyncNotifier(lambda recipient: gateway(), RULES)
    with contextlib.suppress(Exception):
        await notifier.send("news", "ana")
    return (await notifier.limiter.windows("news", "ana"))[0].remaining


async def _by_async_batch(gateway: Callable[[], None]) -> int:
    async def send(recipient: str) -> None:
        gateway()

    notifier = AsyncNotifier(send, RULES)
    await notifier.send_many("news", ["ana"])
    return (await notifier.limiter.windows("news", "ana"))[0].remaining


async def _by_async_decorator(gateway: Callable[[], None]) -> int:
    limiter = AsyncLimiter(RULES)

    @rate_limited("news", limiter=limiter)
    async def send(to: str) -> None:
        gateway()

    with contextlib.suppress(Exception):
        await send("ana")
    return (await limiter.windows("news", "ana"))[0].remaining


async def _by_async_reserve(gateway: Callable[[], None]) -> int:
    limiter = AsyncLimiter(RULES)
    with contextlib.suppress(Exception):
        async with limiter.reserve("news", "ana"):
            gateway()
    return (await limiter.windows("news", "ana"))[0].remaining


SHELLS: list[Callable[[Callable[[], None]], Any]] = [
    _by_notifier, _by_batch, _by_decorator, _by_reserve,
    _by_async_notifier, _by_thread, _by_async_batch, _by_async_decorator, _by_async_reserve,
]  # fmt: skip
shells = pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.__name__[4:])


async def _awaited(shell: Callable[[Callable[[], None]], Any], gateway: Callable[[], None], handling: bool) -> int:
    if not handling:
        return int(await shell(gateway))
    try:
        _late()
    except TimeoutError:
        return int(await shell(gateway))
    raise AssertionError


def _sent(shell: Callable[[Callable[[], None]], Any], gateway: Callable[[], None], *, handling: bool = False) -> int:
    """How many hits are left after the send; `handling` a time-out of something else, as when an alert tells of it."""
    if inspect.iscoroutinefunction(shell):
        return asyncio.run(_awaited(shell, gateway, handling))
    if not handling:
        return int(shell(gateway))
    try:
        _late()
    except TimeoutError:
        return int(shell(gateway))
    raise AssertionError


@shells
@pytest.mark.parametrize("handling", [False, True])
@pytest.mark.parametrize("gateway", [_invalid, _refused, _too_many, _late], ids=lambda gateway: gateway.__name__[1:])
def test_what_the_caller_handles_does_not_count(shell: Any, gateway: Callable[[], None], handling: bool) -> None:
    """An alert about a time-out, sent where it is handled, is judged by what happened to the alert."""
    assert _sent(shell, gateway, handling=handling) == (0 if gateway is _late else 1)


@shells
@pytest.mark.parametrize("handling", [False, True])
@pytest.mark.parametrize("way", [_failing_over, _failing_over_deeply])
@pytest.mark.parametrize("second", [_invalid, _refused, _too_many], ids=lambda gateway: gateway.__name__[1:])
def test_a_gateway_that_fails_over_after_a_time_out(
    shell: Any, way: Callable[..., None], second: Callable[[], None], handling: bool
) -> None:
    """The first provider may have sent it, whatever became of the second: the hit stays."""
    assert _sent(shell, lambda: way(_late, second), handling=handling) == 0


@shells
@pytest.mark.parametrize("way", [_failing_over, _failing_over_deeply])
@pytest.mark.parametrize("second", [_invalid, _refused, _too_many], ids=lambda gateway: gateway.__name__[1:])
def test_a_gateway_that_fails_over_after_a_refusal(
    shell: Any, way: Callable[..., None], second: Callable[[], None]
) -> None:
    """Neither provider sent it: the hit is given back."""
    assert _sent(shell, lambda: way(_refused, second)) == 1


@pytest.mark.parametrize(
    "error",
    [StorageError("The storage does not answer."), RateLimitExceeded(Limiter({"news": "0/day"}).test("news", "ana"))],
    ids=lambda error: type(error).__name__,
)
def test_a_limit_inside_the_gateway(error: Exception) -> None:
    """A decision that could not be made, or was a refusal, sent nothing, whatever stopped it."""
    error.__cause__ = TimeoutError()

    assert not outcome_unknown(error)


# The time limits and ends of workers of other libraries: their module, their class, what it is made of.
LIMITS: list[tuple[str, str, type[BaseException]]] = [
    ("billiard.exceptions", "SoftTimeLimitExceeded", Exception),
    ("billiard.exceptions", "TimeLimitExceeded", Exception),
    ("billiard.exceptions", "Terminated", Exception),
    ("billiard.exceptions", "WorkerLostError", Exception),
    ("rq.timeouts", "JobTimeoutException", Exception),
    ("rq.exceptions", "StopRequested", Exception),
    ("huey.exceptions", "TaskTimeout", Exception),
    ("stopit.utils", "TimeoutException", Exception),
    ("timeout_decorator.timeout_decorator", "TimeoutError", AssertionError),
    ("pebble.common", "ProcessExpired", OSError),
    ("concurrent.futures.process", "BrokenProcessPool", concurrent.futures.BrokenExecutor),
    ("concurrent.futures._base", "CancelledError", Exception),
    ("gevent.timeout", "Timeout", BaseException),
    ("eventlet.timeout", "Timeout", BaseException),
    ("func_timeout.exceptions", "FunctionTimedOut", BaseException),
    ("dramatiq.middleware.time_limit", "TimeLimitExceeded", BaseException),
    ("dramatiq.middleware.shutdown", "Shutdown", BaseException),
    ("trio", "Cancelled", BaseException),
]


@pytest.mark.parametrize(("module", "name", "base"), LIMITS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_time_limit_may_come_in_the_middle_of_a_send(module: str, name: str, base: type[BaseException]) -> None:
    """What a task queue or a time limit throws into a running function leaves the outcome open, whatever it interrupts."""
    error = type(name, (base,), {"__module__": module})()
    error.__context__ = ConnectionRefusedError()
    wrapped = ValueError()
    wrapped.__cause__ = error

    assert outcome_unknown(error)
    assert outcome_unknown(wrapped)


@pytest.mark.parametrize("status", [*range(100, 600), 0, 99, 600, 1006, 21211, -1])
def test_a_status_is_one_wherever_a_client_has_it(status: int) -> None:
    """4xx was not sent, but for 408; anything else may have been; what is no status of HTTP says nothing."""
    valid = 100 <= status <= 599
    unknown = valid and not (400 <= status < 500 and status != 408)
    response = type("Response", (), {"status_code": status})()
    errors: list[Exception] = []
    for name, value in [
        ("response", response),
        ("resp", type("Response", (), {"status": status})()),
        ("response", type("HTTPResponse", (), {"code": status})()),
        ("response", {"ResponseMetadata": {"HTTPStatusCode": status}}),
        ("status_code", status),
        ("status", status),
        ("http_status", status),
    ]:
        errors.append(type("ProviderError", (Exception,), {name: value})(CANARY))
    errors.append(
        type("HTTPClientError", (Exception,), {"code": status, "__module__": "tornado.httpclient"})(CANARY)
        if valid
        else ValueError()
    )

    assert [outcome_unknown(error) for error in errors] == [unknown] * len(errors)


def _class(name: str, *bases: type[BaseException], **attributes: object) -> type[BaseException]:
    """A class as in another library: `module.Name`."""
    module, _, short = name.rpartition(".")
    return type(short, bases or (Exception,), {"__module__": module, **attributes})


NETWORK_ERROR = _class("telegram.error.NetworkError")
REFUSED_BY_TELEGRAM = _class("telegram.error.BadRequest", NETWORK_ERROR)
RESEND_ERROR = _class("resend.exceptions.ResendError", error_type="application_error")

# What clients raise that are not installed here, as their code raises it, and whether the message may have gone out.
OTHERS: list[tuple[BaseException, bool]] = [
    (_class("vonage.errors.ServerError")(CANARY), True),
    (_class("vonage.errors.ClientError")(CANARY), False),
    (_class("aiogram.exceptions.TelegramServerError")(CANARY), True),
    (_class("plivo.exceptions.PlivoServerError")(CANARY), True),
    (_class("google.api_core.exceptions.InternalServerError", code=500)(CANARY), True),
    (_class("openai.InternalServerError", status_code=404)(CANARY), False),
    (NETWORK_ERROR(CANARY), True),
    (REFUSED_BY_TELEGRAM(CANARY), False),
    (
        _class("facebook_business.exceptions.FacebookRequestError", http_status=lambda: 503, _http_status=503)(CANARY),
        True,
    ),
    (
        _class("facebook_business.exceptions.FacebookRequestError", http_status=lambda: 400, _http_status=400)(CANARY),
        False,
    ),
    (_class("twisted.web._newclient.ResponseNeverReceived")([CANARY]), True),
    (_class("twisted.web._newclient.ResponseFailed")([CANARY]), True),
    (_class("twisted.web._newclient.RequestTransmissionFailed")([CANARY]), True),
    (_class("aiohttp.client_exceptions.NonHttpUrlRedirectClientError")(CANARY), True),
    (_class("tornado.iostream.UnsatisfiableReadError")(CANARY), True),
    (_class("pika.exceptions.StreamLostError")(CANARY), True),
    (_class("resend.exceptions.ApplicationError", RESEND_ERROR, code=500)(CANARY), True),
    (_class("resend.exceptions.RateLimitError", RESEND_ERROR, code=429)(CANARY), False),
    (_class("resend.exceptions.ResendError", code=500, error_type="HttpClientError")(CANARY), False),
    (_class("pusher.errors.PusherBadStatus")(CANARY), True),
    (_class("aioapns.exceptions.MaxAttemptsExceeded")(), True),
    (_class("multiprocessing.pool.MaybeEncodingError")(CANARY), True),
    (_class("zmq.error.Again")(CANARY), True),
    (_class("pycurl.error")(28, CANARY), True),
    (_class("pycurl.error")(56, CANARY), True),
    (_class("pycurl.error")(6, CANARY), False),
    (_class("pycurl.error")(7, CANARY), False),
    (ET.ParseError(CANARY), True),
    (_class("lxml.etree.XMLSyntaxError")(CANARY), True),
    (_class("msgspec.DecodeError")(CANARY), True),
    (zlib.error(CANARY), True),
    (gzip.BadGzipFile(CANARY), True),
    (EOFError(CANARY), True),
    (http.client.HTTPException(CANARY), True),
    (http.client.InvalidURL(CANARY), False),
    (http.client.NotConnected(CANARY), False),
]


@pytest.mark.parametrize(("error", "unknown"), OTHERS, ids=lambda value: type(value).__name__)
def test_what_other_clients_raise(error: BaseException, unknown: bool) -> None:
    """A server that failed, a connection that was lost and an answer that cannot be read keep the hit, by whatever name."""
    assert outcome_unknown(error) is unknown


def test_network_errors_of_telegram_have_causes() -> None:
    """Without an answer, python-telegram-bot raises from the error of its client."""
    error = NETWORK_ERROR(CANARY)
    error.__cause__ = ConnectTimeout()

    assert not outcome_unknown(error)


@pytest.mark.parametrize("held", [list, tuple, lambda errors: dict(enumerate(errors))], ids=["list", "tuple", "dict"])
def test_a_collection_of_exceptions_is_looked_into(held: Any) -> None:
    """What tried several providers and raises all that went wrong, as an argument or as a result."""
    late, refused = held([ValueError(CANARY), TimeoutError(CANARY)]), held([ConnectionRefusedError(CANARY)])

    assert outcome_unknown(LookupError(CANARY, late))
    assert not outcome_unknown(LookupError(CANARY, refused))
    assert outcome_unknown(SendFailed(late))
    assert not outcome_unknown(SendFailed(refused))
    assert outcome_unknown(LookupError(held([ValueError()] * 10 + [TimeoutError() for _ in range(200)])))


def test_a_mapping_with_a_status_of_its_own() -> None:
    """A response of httplib2 is a dict of its headers, and has its status as a number beside them."""
    response = type("Response", (dict,), {})({"status": "503"})
    response.status = 503  # type: ignore[attr-defined]  # as httplib2 does

    assert outcome_unknown(SendFailed(response))


@pytest.mark.parametrize("attribute", ["code", "status", "smtp_code", "status_code"])
@pytest.mark.parametrize("code", [421, 450, 500, 550, 554])
def test_a_reply_of_smtp_is_no_status_of_http(attribute: str, code: int) -> None:
    """A mail server that answers 550 refused the message."""
    assert not outcome_unknown(type("SMTPDataError", (Exception,), {attribute: code})(CANARY))


@pytest.mark.parametrize("code", [421, 503, 599])
def test_a_code_of_anything_else_is_no_status(code: int) -> None:
    """Many libraries number their errors."""
    assert not outcome_unknown(type("ProviderError", (Exception,), {"code": code})(CANARY))


def test_botocore_and_tornado_have_a_class_of_the_same_name() -> None:
    """Tornado's says what the server answered, botocore's wraps whatever went wrong."""
    tornado = type("HTTPClientError", (Exception,), {"__module__": "tornado.httpclient", "code": 404})
    botocore = type("HTTPClientError", (Exception,), {"__module__": "botocore.exceptions", "code": None})

    assert not outcome_unknown(tornado())
    assert outcome_unknown(botocore())


def test_every_row_has_a_key_of_its_own() -> None:
    """Tests and messages name rows by their keys."""
    assert len({row.key for row in TABLE}) == len(TABLE)


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    """The guarantees page shows each row, with what becomes of the hit."""
    rendered = runpy.run_path(str(DOCS / "explanation" / "outcomes.py"))["table"]()
    page = (DOCS / "explanation" / "guarantees.md").read_text("utf-8")

    assert rendered in page, "Run: python docs/explanation/outcomes.py"
    assert len(re.findall(r"^\|", rendered, re.MULTILINE)) == len(TABLE) + 3


@given(name=st.sampled_from(sorted({name for row in TABLE for name in row.names})))
def test_names_are_those_of_classes_and_of_base_classes(name: str) -> None:
    """A subclass is what its base class is."""
    library, _, short = name.rpartition(".")
    kind = type(short, (Exception,), {"__module__": f"{library or 'other'}.errors"})
    own = type("Provider", (kind,), {"__module__": "application"})
    row, inherited = row_of(kind()), row_of(own())

    assert row is not None
    assert inherited is row
    assert raised_by(lambda: outcome_unknown(own())) is None
