"""URIs of storages, of sources of rules and of mail servers. Nobody is asked: they are only read."""

from __future__ import annotations

from target import Target

from ratelimited_notify import NotifyError
from ratelimited_notify.gateways.smtp import SMTPGateway
from ratelimited_notify.sources.load import source_of
from ratelimited_notify.storage import open_async_storage, open_storage

PASSWORD = "QXZJKWVQXZ"
"""Stands in the seeds. No message may hold it, wherever else in a URI it has got to."""


def _check(shown: str) -> None:
    assert PASSWORD not in shown


def read_storage(content: bytes) -> None:
    """A storage, or an error of ours that shows nothing of the URI."""
    text = content.decode("utf-8", "surrogateescape")
    for opened in (open_storage, open_async_storage):
        try:
            opened(text)
        except NotifyError as error:
            _check(str(error))


def read_source(content: bytes) -> None:
    """A source, none, or an error of ours."""
    text = content.decode("utf-8", "surrogateescape")
    try:
        source_of(text)
    except NotifyError as error:
        # The path of a file is shown.
        if not text.startswith(("file:", "sqlite")):
            _check(str(error))


def read_smtp(content: bytes) -> None:
    """A gateway, or an error of ours that shows nothing of the URI."""
    try:
        SMTPGateway.from_uri(content.decode("utf-8", "surrogateescape"), sender="Shop <shop@example.com>").close()
    except NotifyError as error:
        _check(str(error))


_STORAGES = (
    f"redis://user:{PASSWORD}@127.0.0.1:6379/0?timeout=2&max_connections=10",
    f"valkeys://:{PASSWORD}@[::1]:6379",
    f"redis+unix://:{PASSWORD}@/run/redis.sock?db=2",
    f"redis+cluster://{PASSWORD}:{PASSWORD}@h:7000,h:7001",
    f"redis+sentinel://:{PASSWORD}@h:26379,h:26380/main?db=3",
    "memcached://h:11211,h2:11211",
    "memcached:///run/memcached.sock",
    "memory://",
    "sqlite:///windows.db?synchronous=full",
    "async+notify+redis://h",
)
_SOURCES = (
    f"redis://user:{PASSWORD}@127.0.0.1:6379/0?key=notify:rules&interval=5&wait=false",
    f"postgresql://user:{PASSWORD}@127.0.0.1/db?interval=1&sslmode=require",
    f"mysql+pymysql://user:{PASSWORD}@127.0.0.1/db",
    "sqlite:///rules.db?allow_empty=true",
    "file:rules.toml?interval=1&watch=true",
    "file:///etc/notify/rules%20.yaml",
)
_SMTP = (
    "smtp://127.0.0.1:25",
    f"smtps://user:{PASSWORD}@mail.example.com",
    f"smtp+starttls://user%40x:{PASSWORD}@[::1]:587/",
)
_WORDS = tuple(
    b": / // :// @ ? # & = % %00 %ff %0a [ ] , ;  + ::1 [::1 65536 0 \xe2\x84\xab \xef\xbc\xa0 \xd9\xa3".split()
)
_OPTIONS = tuple(b"timeout= db= password= key= interval= wait= fallback= ssl_cert_reqs= nan true".split())


def _encoded(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


TARGETS = (
    Target("URI of a storage", read_storage, _encoded(_STORAGES), (*_WORDS, *_OPTIONS)),
    Target("URI of a source", read_source, _encoded(_SOURCES), (*_WORDS, *_OPTIONS)),
    Target("URI of a mail server", read_smtp, _encoded(_SMTP), _WORDS),
)
