"""What real clients raise when a real server refuses, hangs, cuts the connection or answers an error, and what that costs."""

from __future__ import annotations

import asyncio
import operator
import os
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from clients import GATEWAYS, MESSAGE, TIMEOUT, awaited, by_async_httpx, client
from outcomes import raised_by
from ratelimited_notify import Notifier, SendFailed, Status
from ratelimited_notify.limiter.outcome import outcome_unknown
from ratelimited_notify.limiter.outcome_table import TABLE, row_of
from servers import HOST, free_port
from unreliable_server import FullServer, UnreliableServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Valkey

pytestmark = pytest.mark.slow

NEVER_CONNECTED = ("refused", "no such host", "full")
LOST = ("hang", "cut", "reset", "garbage", "half")
REFUSED = ("400", "403", "429")
UNKNOWN = ("408", "500", "502", "503", "504")
UNREADABLE = ("undecodable", "text")

# What a client cannot tell, or does not look at, by name.
WITHOUT_STATUS = {"botocore, SNS", "tenacity", "tenacity, reraise"}
"""Their last attempt is not their only one, or its body cannot be read."""
BY_FAILED = {"urllib3", "urllib3, retrying"}
"""They return every answer."""
READS_NOTHING = {"botocore", "botocore, retrying"}
"""They need nothing of the answer to a message."""


@contextmanager
def behaving(behaviour: str) -> Iterator[tuple[str, Any]]:
    """A server that does this, and its address."""
    with FullServer() if behaviour == "full" else UnreliableServer() as server:
        special = {"refused": f"http://{HOST}:{free_port()}/x", "no such host": "http://no-such-host.invalid/x"}
        yield special.get(behaviour, f"{server.url}/{behaviour}"), server


def after(gateway: str, behaviour: str) -> BaseException:
    """What the gateway raises after this."""
    with behaving(behaviour) as (url, _):
        error = raised_by(lambda: GATEWAYS[gateway](url))
    assert error is not None, "It raises nothing."
    return error


each_gateway = pytest.mark.parametrize("gateway", GATEWAYS)


@each_gateway
@pytest.mark.parametrize("behaviour", NEVER_CONNECTED)
def test_what_never_connected_costs_nothing(gateway: str, behaviour: str) -> None:
    """After a refused connection, an unknown host or a time-out of connecting, nothing went out."""
    # urllib has one time-out for everything, and one exception for it.
    told = (gateway, behaviour) not in {("urllib", "full"), ("slack_sdk", "full")}

    assert outcome_unknown(after(gateway, behaviour)) is not told


@each_gateway
@pytest.mark.parametrize("behaviour", LOST)
def test_a_connection_that_is_lost_keeps_the_hit(gateway: str, behaviour: str) -> None:
    """Once the request is on its way, it may have gone out, however the connection ends."""
    if gateway in READS_NOTHING and behaviour == "half":
        pytest.skip("It does not read the answer.")

    assert outcome_unknown(after(gateway, behaviour))


@each_gateway
@pytest.mark.parametrize("behaviour", UNREADABLE)
def test_a_success_that_cannot_be_read_keeps_the_hit(gateway: str, behaviour: str) -> None:
    """The server took the message: only what it says about that is lost."""
    if gateway in READS_NOTHING or (gateway, behaviour) == ("botocore, SNS", "text"):
        pytest.skip("It does not read the answer.")

    assert outcome_unknown(after(gateway, behaviour))


@pytest.mark.parametrize("gateway", [name for name in GATEWAYS if name not in WITHOUT_STATUS | BY_FAILED])
@pytest.mark.parametrize("status", REFUSED)
def test_an_answer_that_refuses_costs_nothing(gateway: str, status: str) -> None:
    """A server that answers 4xx has not sent the message. A client that had tried before does not know."""
    retried = (gateway, status) == ("botocore, retrying", "429")

    assert outcome_unknown(after(gateway, status)) is retried


@pytest.mark.parametrize("gateway", [name for name in GATEWAYS if name not in BY_FAILED])
@pytest.mark.parametrize("status", UNKNOWN)
def test_an_answer_that_leaves_it_open_keeps_the_hit(gateway: str, status: str) -> None:
    """A server that failed, or gave up waiting for one behind it, may have sent the message."""
    assert outcome_unknown(after(gateway, status))


@pytest.mark.parametrize("gateway", ["tenacity", "tenacity, reraise", "urllib3, retrying", "requests, retrying"])
@pytest.mark.parametrize(("behaviour", "kept"), [("503,429", True), ("503,429,429", True)])
def test_the_last_of_several_attempts_is_not_all(gateway: str, behaviour: str, kept: bool) -> None:
    """An answer of 429 says nothing about the attempt before it."""
    assert outcome_unknown(after(gateway, behaviour)) is kept


def test_one_attempt_of_a_client_that_might_retry_is_all() -> None:
    """If tenacity did not try again, the answer is known."""
    tenacity = client("tenacity")
    once = tenacity.retry(stop=tenacity.stop_after_attempt(1), reraise=True)(GATEWAYS["requests"])
    with behaving("429") as (url, _):
        error = raised_by(lambda: once(url))

    assert error is not None
    assert not outcome_unknown(error)


def test_attempts_that_did_not_connect_do_not_count() -> None:
    """urllib3 tells of each earlier attempt. Those that did not connect sent nothing."""
    urllib3 = client("urllib3")
    requests = client("requests")
    with behaving("429") as (url, _):
        response = requests.post(url, json=MESSAGE, timeout=TIMEOUT)
    failed = urllib3.exceptions.NewConnectionError(None, "refused")
    history = urllib3.util.retry.RequestHistory
    outcomes = []
    for entry in (
        history("POST", url, failed, None, None),
        history("POST", url, None, 503, None),
        history("POST", url, None, 307, "/there"),
    ):
        response.raw.retries = urllib3.Retry(1, history=(entry,))
        error = raised_by(response.raise_for_status)
        assert error is not None
        outcomes.append(outcome_unknown(error))
        # As firebase_admin raises it.
        own = type("QuotaExceededError", (Exception,), {"http_response": response})()
        outcomes.append(outcome_unknown(own))

    assert outcomes == [False, False, True, True, False, False]


@pytest.mark.parametrize("gateway", ["httpx", "httpx, async", "httpx2"])
def test_a_redirect_that_is_not_followed_keeps_the_hit(gateway: str) -> None:
    """Many forms answer a POST that they took with a redirect."""
    assert outcome_unknown(after(gateway, "302"))


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_pool_without_a_free_connection_costs_nothing(name: str) -> None:
    """A call that gets no connection from the pool has sent nothing."""
    httpx = client(name)
    limits = httpx.Limits(max_connections=1)
    with (
        behaving("text") as (url, server),
        httpx.Client(limits=limits, timeout=TIMEOUT, verify=False) as session,  # there is no TLS
        session.stream("GET", url),
    ):
        error = raised_by(lambda: session.post(url, json=MESSAGE))

    assert type(error).__name__ == "PoolTimeout"
    assert error is not None
    assert not outcome_unknown(error)
    assert len(server.received) == 1


# gRPC: a real server in this process.


@contextmanager
def grpc_server(behaviour: str) -> Iterator[str]:
    """The address of a server whose calls end with this status code, or hang."""
    grpc = client("grpc")
    if behaviour == "refused":
        yield f"{HOST}:{free_port()}"
        return
    from concurrent.futures import ThreadPoolExecutor

    done = threading.Event()
    called = threading.Event()

    def handle(request: bytes, context: Any) -> bytes:
        called.set()
        if behaviour in {"hang", "stop"}:
            done.wait(5)
        elif behaviour == "large":
            return b"x" * 5_000_000
        else:
            context.abort(getattr(grpc.StatusCode, behaviour), "no")
        return b""

    handlers = grpc.method_handlers_generic_handler("s", {"m": grpc.unary_unary_rpc_method_handler(handle)})
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=(handlers,))
        port = server.add_insecure_port(f"{HOST}:0")
        server.start()
        if behaviour == "stop":
            threading.Thread(target=lambda: called.wait(5) and server.stop(0), daemon=True).start()
        yield f"{HOST}:{port}"
        done.set()
        server.stop(0).wait(5)


def by_grpc(address: str) -> None:
    grpc = client("grpc")
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary("/s/m")(b"Hello", timeout=TIMEOUT * 10)


async def by_async_grpc(address: str) -> None:
    grpc = client("grpc")
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary("/s/m")(b"Hello", timeout=TIMEOUT * 10)


GRPC = {
    "refused": False, "hang": True, "stop": True, "large": True,
    "CANCELLED": True, "UNKNOWN": True, "DEADLINE_EXCEEDED": True, "ABORTED": True, "INTERNAL": True, "UNAVAILABLE": True,
    "DATA_LOSS": True, "INVALID_ARGUMENT": False, "NOT_FOUND": False, "ALREADY_EXISTS": False, "PERMISSION_DENIED": False,
    "RESOURCE_EXHAUSTED": False, "FAILED_PRECONDITION": False, "OUT_OF_RANGE": False, "UNIMPLEMENTED": False,
    "UNAUTHENTICATED": False,
}  # fmt: skip


@pytest.mark.parametrize("gateway", [by_grpc, awaited(by_async_grpc)], ids=["threads", "asyncio"])
@pytest.mark.parametrize("behaviour", GRPC)
def test_grpc_says_it_by_its_code(gateway: Callable[[str], None], behaviour: str) -> None:
    """The status code of a call says whether the message may have gone out."""
    with grpc_server(behaviour) as address:
        error = raised_by(lambda: gateway(address))

    assert error is not None
    assert outcome_unknown(error) is GRPC[behaviour]


# Each row of the table.


def _at_grpc(behaviour: str) -> BaseException:
    with grpc_server(behaviour) as address:
        error = raised_by(lambda: by_grpc(address))
    assert error is not None
    return error


def _interrupted() -> BaseException:
    async def call() -> None:
        with behaving("hang") as (url, _):
            await asyncio.wait_for(by_async_httpx(url), 0.05)

    error = raised_by(lambda: asyncio.run(call()))
    assert isinstance(error, TimeoutError)
    assert isinstance(error.__cause__, BaseException)
    return error.__cause__


def _past_its_time() -> BaseException:
    error: BaseException = client("billiard.exceptions").SoftTimeLimitExceeded()
    return error


def _over_an_inner_limit() -> BaseException:
    inner = Notifier(lambda recipient: None, {"sms": "0/day"}, on_limit="raise")
    error = raised_by(lambda: inner.send("sms", "ana"))
    assert error is not None
    return error


ROWS: dict[str, Callable[[], BaseException]] = {
    "interrupted": _interrupted,
    "time limit": _past_its_time,
    "own refusal": _over_an_inner_limit,
    "connect phase": lambda: after("httpx", "refused"),
    "refused": lambda: after("tornado", "refused"),
    "grpc unreachable": lambda: _at_grpc("refused"),
    "retried": lambda: after("botocore, retrying", "429"),
    "grpc refused": lambda: _at_grpc("INVALID_ARGUMENT"),
    "grpc": lambda: _at_grpc("INTERNAL"),
    "unreadable status": lambda: after("aiohttp", "garbage"),
    "slack refused": lambda: after("slack_sdk", "not-ok"),
    "answer refused": lambda: after("requests", "429"),
    "answer unreadable": lambda: after("aiohttp", "text"),
    "answer unknown": lambda: after("urllib", "503"),
    "decoding": lambda: after("httpx2", "undecodable"),
    "lost": lambda: after("urllib", "hang"),
    "lost by client": lambda: after("httpx", "hang"),
    "wrapped": lambda: after("requests", "cut"),
}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.key)
def test_each_row_is_what_a_real_client_raises(row: Any) -> None:
    """For each row of the table there is a client and a server that make it."""
    error = ROWS[row.key]()

    assert outcome_unknown(error) is row.outcome.kept
    assert row_of(error) is row


def test_a_client_that_does_not_say_that_it_tried_again() -> None:
    """What the guarantees page says: slack_sdk tells of the last attempt only, unless its own retries are off."""
    outcomes = []
    for options in ({}, {"retry_handlers": []}):
        with behaving("cut,429") as (url, server):
            slack = client("slack_sdk").WebClient("token", base_url=f"{url}/", timeout=1, **options)
            error = raised_by(lambda: slack.chat_postMessage(channel="C1", text="Hello"))  # noqa: B023  # called at once
        assert error is not None
        outcomes.append((len(server.received), outcome_unknown(error)))

    assert outcomes == [(2, False), (1, True)]


def test_an_error_of_slack_itself_keeps_the_hit() -> None:
    """Slack says of some errors that the message may have been posted all the same."""
    assert outcome_unknown(after("slack_sdk", "fatal"))


@pytest.mark.parametrize("gateway", ["requests", "httpx", "httpx2", "urllib3", "aiohttp", "urllib"])
def test_tls_that_fails_in_the_handshake_costs_nothing(gateway: str) -> None:
    """A server that does not speak TLS, or whose certificate is not trusted, got no message."""
    trustme = client("trustme")
    with behaving("text") as (url, server):
        plain = raised_by(lambda: GATEWAYS[gateway](url.replace("http:", "https:")))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost", HOST).configure_cert(context)
        untrusted = raised_by(lambda: GATEWAYS[gateway](server.with_tls(context)))

    assert plain is not None
    assert untrusted is not None
    assert (outcome_unknown(plain), outcome_unknown(untrusted)) == (False, False)
    assert server.received == []


def _urllib_with(context: ssl.SSLContext, url: str) -> None:
    urlopen(Request(url, b"Hello"), timeout=TIMEOUT, context=context).close()


def _urllib3_with(context: ssl.SSLContext, url: str) -> None:
    with client("urllib3").PoolManager(retries=False, timeout=TIMEOUT, ssl_context=context) as pool:
        pool.request("POST", url, json=MESSAGE)


def _httpx_with(context: ssl.SSLContext, url: str) -> None:
    client("httpx").post(url, json=MESSAGE, timeout=TIMEOUT, verify=context)


@pytest.mark.parametrize("gateway", [_urllib_with, _urllib3_with, _httpx_with])
def test_tls_that_breaks_after_the_handshake_keeps_the_hit(gateway: Callable[[ssl.SSLContext, str], None]) -> None:
    """The reasons of OpenSSL are the same as for a server that does not speak TLS, but the message has gone out."""
    authority, trusting = client("trustme").CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", HOST).configure_cert(context)
    with UnreliableServer() as server:
        url = server.with_tls(context).replace("/text", "/plain")
        error = raised_by(lambda: gateway(trusting, url))

    assert error is not None
    assert outcome_unknown(error)
    assert len(server.received) == 1


def _httpx_following(url: str) -> None:
    client("httpx").post(url, json=MESSAGE, timeout=TIMEOUT, follow_redirects=True, verify=False)  # there is no TLS


@pytest.mark.parametrize("gateway", [_httpx_following, GATEWAYS["aiohttp"], GATEWAYS["requests"], GATEWAYS["urllib"]])
def test_redirects_without_end_keep_the_hit(gateway: Callable[[str], None]) -> None:
    """Each of the servers that redirected may have taken the message before."""
    with behaving("loop") as (url, server):
        error = raised_by(lambda: gateway(url))

    assert error is not None
    assert outcome_unknown(error)
    assert server.received


def test_an_answer_with_too_many_headers_keeps_the_hit() -> None:
    """The server answered, and what it said is lost."""
    for gateway in ("urllib", "requests", "urllib3", "aiohttp"):
        assert outcome_unknown(after(gateway, "many")), gateway


def test_a_provider_that_rejects_all_recipients_in_its_answer_costs_nothing() -> None:
    """Anymail says it with an exception that has the response, of status 200."""
    response = type("Response", (), {"status_code": 200})()
    refused = client("anymail.exceptions").AnymailRecipientsRefused(response=response)

    assert not outcome_unknown(refused)


@pytest.mark.parametrize("gateway", ["requests", "httpx", "httpx2", "urllib"])
@pytest.mark.parametrize("proxy", ["refused", "407"])
def test_a_proxy_that_does_not_let_through_costs_nothing(
    gateway: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy that is away, or refuses the tunnel, nobody got the message."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with behaving(proxy) as (url, server):
        monkeypatch.setenv("https_proxy", url)
        server.tunnels = 407
        error = raised_by(lambda: GATEWAYS[gateway]("https://provider.invalid/x"))

    assert error is not None
    assert not outcome_unknown(error)


# Results that are failures.


def _returned(gateway: Callable[[str], object], failed: Callable[[Any], object], behaviour: str) -> tuple[Any, int]:
    with behaving(behaviour) as (url, _):
        notifier = Notifier(lambda recipient: gateway(url), {"news": "1/day"}, failed=failed)
        delivery = notifier.send("news", MESSAGE["to"])
    return delivery, notifier.limiter.windows("news", MESSAGE["to"])[0].remaining


def _apprise(url: str) -> object:
    notifications = client("apprise").Apprise()
    notifications.add(f"{url.replace('http', 'json', 1)}?cto={TIMEOUT}&rto={TIMEOUT}")
    return notifications.notify(body="Hello")


def _requests(url: str) -> object:
    return client("requests").post(url, json=MESSAGE, timeout=TIMEOUT)


def _httpx(url: str) -> object:
    return client("httpx").post(url, json=MESSAGE, timeout=TIMEOUT, verify=False)  # there is no TLS


def _urllib3(url: str) -> object:
    with client("urllib3").PoolManager(retries=False, timeout=TIMEOUT) as pool:
        return pool.request("POST", url, json=MESSAGE)


def _tornado(url: str) -> object:
    async def fetch() -> object:
        http = client("tornado.httpclient").AsyncHTTPClient(force_instance=True)
        try:
            return await http.fetch(url, method="POST", body="x", request_timeout=TIMEOUT, raise_error=False)
        finally:
            http.close()

    return asyncio.run(fetch())


def _slack_webhook(url: str) -> object:
    return client("slack_sdk.webhook").WebhookClient(url, timeout=1, retry_handlers=[]).send(text="Hello")


def _status(response: Any) -> bool:
    return any(getattr(response, name, 0) >= 400 for name in ("status_code", "status", "code"))


RESPONSES = {
    "requests": _requests, "httpx": _httpx, "urllib3": _urllib3, "tornado": _tornado, "slack_sdk": _slack_webhook,
}  # fmt: skip


@pytest.mark.parametrize("gateway", RESPONSES)
@pytest.mark.parametrize(("status", "left"), [("429", 1), ("400", 1), ("503", 0), ("500", 0), ("408", 0)])
def test_a_response_that_is_returned_is_judged_like_one_that_is_raised(gateway: str, status: str, left: int) -> None:
    """A client that returns every answer: the table reads the status of the result."""
    delivery, remaining = _returned(RESPONSES[gateway], _status, status)

    assert delivery.status is Status.FAILED
    assert isinstance(delivery.error, SendFailed)
    assert delivery.error.result is not None
    assert remaining == left


@pytest.mark.parametrize("gateway", RESPONSES)
def test_a_response_of_success_was_sent(gateway: str) -> None:
    """Where `failed=` has nothing against the result, it is the delivery's."""
    delivery, remaining = _returned(RESPONSES[gateway], _status, "text")

    assert delivery.status is Status.SENT
    assert delivery.result is not None
    assert remaining == 0


@pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # of a module that Apprise imports
@pytest.mark.parametrize("behaviour", ["refused", "429"])
def test_apprise_returns_false(behaviour: str) -> None:
    """What Apprise could not send costs nothing, because the caller says that False is a failure."""
    delivery, remaining = _returned(_apprise, operator.not_, behaviour)

    assert delivery.status is Status.FAILED
    assert not delivery.error.result
    assert remaining == 1


def test_django_returns_zero() -> None:
    """`send_mail(fail_silently=True)` returns how many were sent."""
    settings = client("django.conf").settings
    if not settings.configured:
        settings.configure(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend", USE_TZ=True)
    mail, smtp = client("django.core.mail"), client("django.core.mail.backends.smtp")

    def send(url: str) -> object:
        backend = smtp.EmailBackend(host=HOST, port=free_port(), timeout=TIMEOUT, fail_silently=True)
        return mail.send_mail("Hello", "Hello", "us@example.com", [MESSAGE["to"]], connection=backend)

    delivery, remaining = _returned(send, lambda count: count == 0, "text")

    assert delivery.status is Status.FAILED
    assert delivery.error.result in {0, None}
    assert remaining == 1


# Celery: a real worker.

TASKS = """
import sys
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from ratelimited_notify import Limiter, rate_limited
from urllib.request import Request, urlopen

redis, provider = {redis!r}, {provider!r}
app = Celery("tasks", broker=redis, backend=redis)
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
limiter = Limiter({{"news": "1/day"}}, redis, namespace={namespace!r})


@app.task(
    autoretry_for=(SoftTimeLimitExceeded,), max_retries=2, default_retry_delay=0, retry_jitter=False, soft_time_limit=0.5,
    time_limit=30,
)
@rate_limited("news", limiter=limiter)
def send(recipient):
    urlopen(Request(provider, b"Hello"), timeout=20).close()
"""


def test_a_soft_time_limit_in_the_middle_of_a_send(valkey: Valkey, tmp_path: Path) -> None:
    """A prefork worker of Celery interrupts the send and tries again: the provider gets one message, as the rule says."""
    client("celery")
    with UnreliableServer() as server:
        provider = f"{server.url}/hang"
        redis = valkey.url.rsplit("/", 1)[0] + "/9"
        (tmp_path / "tasks.py").write_text(TASKS.format(redis=redis, provider=provider, namespace=tmp_path.name))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        log = tmp_path / "worker.log"
        command = [
            "-m",
            "celery",
            "-A",
            "tasks",
            "worker",
            "--pool",
            "prefork",
            "--concurrency",
            "1",
            "--loglevel",
            "INFO",
        ]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with log.open("w") as output:
            worker = subprocess.Popen(
                [sys.executable, *command], cwd=tmp_path, env=environment, stdout=output, stderr=output
            )
        try:
            call = (
                "import tasks; r = tasks.send.delay('ana'); r.get(timeout=40, propagate=False); print(repr(r.result))"
            )
            asked = subprocess.run(
                [sys.executable, "-c", call], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
        finally:
            worker.terminate()
            worker.wait(20)

        assert "RateLimitExceeded" in asked.stdout, asked.stderr + log.read_text()
        assert "SoftTimeLimitExceeded" in log.read_text()
        assert len(server.received) == 1
