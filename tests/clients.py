"""Gateways made of the clients that people use, each as its documentation shows. All of them raise if a send fails."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from servers import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 0.1
"""Seconds."""

MESSAGE = {"to": "ana.secret@example.com", "text": "Hello"}


def client(name: str) -> Any:  # Any: a library that may be missing
    """The module of a client; if it is not installed, the test is skipped, and fails where `CI` is set."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what they import themselves
            return import_module(name)
    except ModuleNotFoundError:
        unavailable(f"{name} is not installed")


def by_urllib(url: str) -> None:
    request = Request(url, json.dumps(MESSAGE).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            json.loads(response.read())
    except HTTPError as error:
        error.close()
        raise


def by_requests(url: str) -> None:
    response = client("requests").post(url, json=MESSAGE, timeout=TIMEOUT)
    response.raise_for_status()
    response.json()


def by_requests_with_retries(url: str) -> None:
    requests, adapters, urllib3 = client("requests"), client("requests.adapters"), client("urllib3")
    retries = urllib3.Retry(
        2, allowed_methods=None, status_forcelist=(503,), backoff_factor=0.01, raise_on_status=False
    )
    with requests.Session() as session:
        session.mount("http://", adapters.HTTPAdapter(max_retries=retries))
        response = session.post(url, json=MESSAGE, timeout=TIMEOUT)
    response.raise_for_status()
    response.json()


def by_urllib3(url: str) -> None:
    urllib3 = client("urllib3")
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT) as pool:
        response = pool.request("POST", url, json=MESSAGE)
        if response.status >= 400:
            raise urllib3.exceptions.ResponseError(urllib3.exceptions.ResponseError.GENERIC_ERROR)
        response.json()


def by_urllib3_with_retries(url: str) -> None:
    urllib3 = client("urllib3")
    retries = urllib3.Retry(2, allowed_methods=None, status_forcelist=(429, 503), backoff_factor=0.01)
    with urllib3.PoolManager(retries=retries, timeout=TIMEOUT) as pool:
        pool.request("POST", url, json=MESSAGE).json()


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Made once, because that takes longer than a request."""
    return ssl.create_default_context()


def by_httpx(url: str, name: str = "httpx") -> None:
    response = client(name).post(url, json=MESSAGE, timeout=TIMEOUT, verify=_trusted())
    response.raise_for_status()
    response.json()


def by_httpx2(url: str) -> None:
    by_httpx(url, "httpx2")


async def by_async_httpx(url: str, name: str = "httpx") -> None:
    async with client(name).AsyncClient(timeout=TIMEOUT, verify=_trusted()) as session:
        response = await session.post(url, json=MESSAGE)
        response.raise_for_status()
        response.json()


async def by_aiohttp(url: str) -> None:
    aiohttp = client("aiohttp")
    timeout = aiohttp.ClientTimeout(sock_connect=TIMEOUT, sock_read=TIMEOUT)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.post(url, json=MESSAGE) as response,
    ):
        await response.json()


async def by_tornado(url: str) -> None:
    httpclient = client("tornado.httpclient")
    http = httpclient.AsyncHTTPClient(force_instance=True)
    try:
        response = await http.fetch(
            url, method="POST", body=json.dumps(MESSAGE), connect_timeout=TIMEOUT, request_timeout=2 * TIMEOUT
        )
        json.loads(response.body)
    finally:
        http.close()


@functools.cache
def _aws_session() -> Any:  # Any: of botocore
    return client("botocore.session").Session()


def by_botocore(url: str, attempts: int = 1, service: str = "sesv2") -> None:
    config = client("botocore.config").Config(
        connect_timeout=TIMEOUT,
        read_timeout=TIMEOUT,
        retries={"total_max_attempts": attempts, "mode": "standard"},
    )
    aws = _aws_session().create_client(
        service,
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=config,
    )
    try:
        if service == "sns":
            aws.publish(PhoneNumber="+491700000000", Message="Hello")
        else:
            aws.send_email(Destination={"ToAddresses": [MESSAGE["to"]]}, Content={"Raw": {"Data": b"Hello"}})
    finally:
        aws.close()


def by_botocore_with_retries(url: str) -> None:
    by_botocore(url, 2)


def by_botocore_sns(url: str) -> None:
    by_botocore(url, service="sns")


def by_tenacity(url: str) -> None:
    tenacity = client("tenacity")
    tenacity.retry(stop=tenacity.stop_after_attempt(2))(by_requests)(url)


def by_tenacity_raising_the_last(url: str) -> None:
    tenacity = client("tenacity")
    tenacity.retry(stop=tenacity.stop_after_attempt(2), reraise=True)(by_requests)(url)


def by_own_error(url: str) -> None:
    """An application's own error around the client's."""
    try:
        by_requests(url)
    except Exception as error:
        raise LookupError(MESSAGE["to"]) from error


def by_anymail(url: str) -> None:
    settings = client("django.conf").settings
    if not settings.configured:
        settings.configure(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend", USE_TZ=True)
    backend = client("anymail.backends.postmark").EmailBackend(server_token="token", api_url=f"{url}/")
    backend.timeout = TIMEOUT
    mail = client("django.core.mail")
    mail.EmailMessage("Hello", "Hello", "us@example.com", [MESSAGE["to"]], connection=backend).send()


def by_slack(url: str) -> None:
    slack = client("slack_sdk").WebClient("token", base_url=f"{url}/", timeout=TIMEOUT, retry_handlers=[])
    slack.chat_postMessage(channel="C1", text="Hello")


def awaited(gateway: Callable[[str], Any]) -> Callable[[str], None]:
    """A coroutine function as a plain function."""

    @functools.wraps(gateway)
    def called(url: str) -> None:
        asyncio.run(gateway(url))

    return called


GATEWAYS: dict[str, Callable[[str], None]] = {
    "urllib": by_urllib,
    "requests": by_requests,
    "requests, retrying": by_requests_with_retries,
    "urllib3": by_urllib3,
    "urllib3, retrying": by_urllib3_with_retries,
    "httpx": by_httpx,
    "httpx, async": awaited(by_async_httpx),
    "httpx2": by_httpx2,
    "aiohttp": awaited(by_aiohttp),
    "tornado": awaited(by_tornado),
    "botocore": by_botocore,
    "botocore, retrying": by_botocore_with_retries,
    "botocore, SNS": by_botocore_sns,
    "tenacity": by_tenacity,
    "tenacity, reraise": by_tenacity_raising_the_last,
    "own error": by_own_error,
    "anymail": by_anymail,
    "slack_sdk": by_slack,
}
