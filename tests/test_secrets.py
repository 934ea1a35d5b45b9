"""Credentials and recipients, made up by chance, are in nothing that the library says: in no log, event, repr, error or traceback.

Not in the text of a traceback either, and not in what a tool shows that adds the variables of each frame by their repr: texts that a
caller passed are there as they are, but no object of the library's own shows them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st

from command import invoke
from ratelimited_notify import (
    AsyncLimiter,
    AsyncNotifier,
    Limiter,
    Notification,
    Notifier,
    Rule,
    RuleSet,
    rate_limited,
)
from ratelimited_notify.gateways.smtp import AsyncSMTPGateway, SMTPGateway
from ratelimited_notify.instrumentation import watch
from ratelimited_notify.sources import FileRules, FunctionRules
from ratelimited_notify.sources.load import source_of
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RARE = "QXZJKWVqxzjkwv"
secrets = st.text(RARE, min_size=8, max_size=16)
recipients = st.tuples(secrets, st.sampled_from(["@example.com", "@mail.example", ""])).map("".join) | st.tuples(
    st.sampled_from(["Ana <", '"Lee, Ana" <']), secrets, st.just("@example.com>")
).map("".join)
FEWER = settings(max_examples=max(3, settings().max_examples // 8))

_OURS = "ratelimited_notify"


class Said(logging.Handler):
    """All that is said while this is open."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def __enter__(self) -> Self:
        logger = logging.getLogger(_OURS)
        logger.addHandler(self)
        self._level = logger.level
        logger.setLevel(logging.DEBUG)
        self._watching = watch(lambda event: self.texts.append(f"event {event!r}"))
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.close()
        logging.getLogger(_OURS).removeHandler(self)
        logging.getLogger(_OURS).setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"log {self.format(record)} {record.args!r} {record.__dict__}")

    def things(self, *things: object) -> None:
        """What these show of themselves, and the objects of ours that they hold."""
        for thing in things:
            self.texts += [f"repr of {type(thing).__name__}: {thing!r}", f"str of {type(thing).__name__}: {thing}"]

    def error(self, error: BaseException) -> None:
        """An error: its text, its traceback, and the objects of ours in the frames of the library."""
        chain: list[BaseException] = []
        following: BaseException | None = error
        while following is not None and following not in chain:
            chain.append(following)
            following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
        self.texts += [f"traceback {line}" for line in traceback.format_exception(error)]
        self.texts += [f"error {each!r} {each.args!r}" for each in chain]
        for each in chain:
            for frame, _ in traceback.walk_tb(each.__traceback__):
                if str(frame.f_globals.get("__name__")).startswith(_OURS):
                    for name, value in frame.f_locals.items():
                        place = f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}: {name}"
                        self.texts += [f"{place} = {shown}" for shown in _shown(value)]

    def of(self, *secrets: str) -> list[str]:
        """What shows one of them."""
        return [text[:300] for text in dict.fromkeys(self.texts) if any(secret in text for secret in secrets)]


def _shown(value: object, depth: int = 0) -> Iterator[str]:
    """The reprs of objects of ours: of this one, or in a collection."""
    if type(value).__module__.split(".")[0] == _OURS:
        # An object whose construction failed may have no repr.
        with suppress(AttributeError):
            yield repr(value)
    elif isinstance(value, (list, tuple, dict, set)) and depth < 3:
        for each in [*value, *(value.values() if isinstance(value, dict) else ())][:20]:
            yield from _shown(each, depth + 1)


def tried(said: Said, call: Callable[[], Any]) -> Any:
    """Call it, and note what comes of it."""
    try:
        found = call()
        if inspect.isawaitable(found):

            async def main() -> Any:
                return await found

            found = asyncio.run(main())
    except Exception as error:  # noqa: BLE001  # whatever it is
        said.error(error)
        return None
    said.things(*(found if type(found) in (list, tuple) else [found]))
    return found


def part_of(recipient: str) -> str:
    """What of a recipient may stand nowhere."""
    return max("".join(letter if letter in RARE else " " for letter in recipient).split(), key=len)


def test_the_tests_below_would_see_it() -> None:
    """A log line, an event, an error and a variable that show it are found."""
    who = "QXZJKWVQXZ@example.com"
    with Said() as said:
        logging.getLogger("ratelimited_notify.x").debug("to %s", who)
        seen = watch(said.things, recipients=True)
        Limiter({"news": "1/day"}).hit("news", who)
        seen.close()
        said.error(ValueError(who))

    assert {text.split()[0] for text in said.of(who)} >= {"log", "repr", "str", "traceback", "error"}


# --- Storages and verbs -----------------------------------------------------------------------------------------------

PORT = free_port()


def _without_port(uri: str) -> str:
    """The name of a test case. The port differs in each process, and pytest-xdist wants the same names in all."""
    return uri.replace(str(PORT), "PORT")


STORAGES = [
    "memory://",
    f"redis://{{}}:{{}}@127.0.0.1:{PORT}/0",
    f"rediss://{{}}:{{}}@127.0.0.1:{PORT}/0",
    f"valkey://127.0.0.1:{PORT}/0?username={{}}&password={{}}",
    "redis+unix://{}:{}@/nowhere/redis.sock",
    f"redis+cluster://{{}}:{{}}@127.0.0.1:{PORT},127.0.0.1:{PORT}",
    f"redis+sentinel://{{}}:{{}}@127.0.0.1:{PORT}/main",
    f"memcached://127.0.0.1:{PORT}",
    "sqlite:////nowhere/windows.db",
]
RULES = [
    Rule("news", "1/day", by=("type", "recipient", "tenant")),
    Rule("*", "2/day", by="recipient", name="cap", exempt="critical"),
    Rule("*", "5/minute", by=(), name="provider"),
    Rule("news", "1/hour", enforce=False, name="trial"),
]


def verbs(limiter: Any, who: str, tenant: str) -> Iterator[Callable[[], Any]]:
    """Everything that a limiter can be asked, and mistakes in asking."""
    yield lambda: limiter.hit("news", who, tenant=tenant)
    yield lambda: limiter.hit("news", who, tenant=tenant)
    yield lambda: limiter.test("news", who, tenant=tenant, priority="critical")
    yield lambda: limiter.hit_many("news", [who, who, f"{who}2"], tenant=tenant)
    yield lambda: limiter.windows("news", who, tenant=tenant)
    yield lambda: limiter.release(limiter.test("news", who)) if isinstance(limiter, Limiter) else None
    yield lambda: limiter.clear("news", who, tenant=tenant)
    yield lambda: limiter.clear("news", who, tenant=tenant, shared=True)
    yield lambda: limiter.pause("provider", 1)
    yield lambda: limiter.resume("provider")
    # Mistakes.
    yield lambda: limiter.hit("news", [who])
    yield lambda: limiter.hit("news", {who: who})
    yield lambda: limiter.hit("news", who.encode())
    yield lambda: limiter.hit("news", who, cost=0)
    yield lambda: limiter.hit("news", who, cost=who)
    yield lambda: limiter.hit("news", who, tenant=[tenant])
    yield lambda: limiter.hit("news", who, tenants=tenant)
    yield lambda: limiter.hit_many("news", who)
    yield lambda: limiter.hit_many("news", [[who]])
    yield lambda: limiter.release(who)
    yield lambda: limiter.pause("cap", 1, recipient=[who])
    yield lambda: limiter.pause("provider", 1, recipient=who)


@pytest.mark.parametrize("uri", STORAGES, ids=_without_port)
@given(who=recipients, tenant=secrets, user=secrets, password=secrets, kind=st.sampled_from([Limiter, AsyncLimiter]), choice=st.sampled_from(["raise", "allow"]), key=st.none() | secrets)  # fmt: skip
@FEWER
def test_limiters(
    uri: str, who: str, tenant: str, user: str, password: str, kind: Any, choice: Any, key: str | None
) -> None:
    """Each verb of each limiter, on servers that are not there and on the memory."""
    with Said() as said:
        written = uri.format(user, password)
        pseudonymize = None if key is None else key.encode()
        limiter = kind(RULES, written, on_storage_error=choice, timeout=0.03, pseudonymize=pseudonymize)
        for ask in verbs(limiter, who, tenant):
            tried(said, ask)
        said.things(limiter, limiter.storage, limiter.rules, getattr(limiter.storage, "circuits", ()))
        tried(said, limiter.close)

    assert said.texts
    assert said.of(part_of(who), tenant, user, password, *([] if key is None else [key])) == []


def test_a_type_that_looks_like_a_recipient() -> None:
    """It is probably one: the event about an unknown type does not show it."""
    with Said() as said:
        Limiter({"news": "1/day"}).hit("QXZJKWVQXZ@example.com", "news")

    (told,) = [text for text in said.texts if "UnknownType" in text]
    assert "QXZJ" not in told


# --- Rules and sources ------------------------------------------------------------------------------------------------

SOURCES = [
    f"redis://{{}}:{{}}@127.0.0.1:{PORT}/0?key=notify:rules&interval=60&wait=false",
    f"redis://{{}}:{{}}@127.0.0.1:{PORT}/0?key=notify:rules",
    f"valkeys://127.0.0.1:{PORT}/0?key=notify:rules&username={{}}&password={{}}",
    f"postgresql://{{}}:{{}}@127.0.0.1:{PORT}/db",
    f"postgresql+psycopg://127.0.0.1:{PORT}/db?user={{}}&password={{}}&wait=false",
    "mysql+nothing://{}:{}@127.0.0.1/db",
    "redis://{}:{}@127.0.0.1:0/x?key=k",
    "sqlite://{}:{}@/rules.db",
    "nothing://{}:{}@host",
]


@pytest.mark.parametrize("uri", SOURCES, ids=_without_port)
@given(user=secrets, password=secrets, kind=st.sampled_from([Limiter, AsyncLimiter]))
@FEWER
def test_sources(uri: str, user: str, password: str, kind: Any) -> None:
    """Servers of rules that are not there, and URIs that are none."""
    with Said() as said:
        written = uri.format(user, password)
        said.things(tried(said, lambda: source_of(written)))
        limiter = tried(said, lambda: kind(written))
        if limiter is not None:
            tried(said, lambda: limiter.hit("news", "ana"))
            said.things(limiter.source, limiter.source.status)
            for ask in (limiter.source.refresh, limiter.close):
                tried(said, ask)

    assert said.texts
    assert said.of(user, password) == []


MISTAKES: list[Callable[[str], Any]] = [
    lambda who: {"type": "news", "limit": "1/day", "overrides": {who: "nonsense"}},
    lambda who: {"type": "news", "limit": "1/day", "overrides": {who: 5, who.upper(): None}},
    lambda who: {"type": "news", "limit": "1/day", "overrides": [who]},
    lambda who: {"type": "news", "limit": "1/day", "overrides": {who: {"a": who}}},
    lambda who: {"type": "news", "limit": "1/day", "by": (), "overrides": {who: "1/day"}},
    lambda who: {"type": "news", "limit": "1/day", "overrides": {who: "1/day; 2/day"}},
]


@given(
    who=secrets.map("{}@example.com".format),
    mistake=st.sampled_from(MISTAKES),
    ending=st.sampled_from(["toml", "json", "yaml"]),
)
@FEWER
def test_overrides(tmp_path: Path, who: str, mistake: Callable[[str], Any], ending: str) -> None:
    """The keys of overrides are recipients: in rules with mistakes, in files that cannot be parsed, and in live sources."""
    good = {"rules": [{"type": "news", "limit": "1/day", "overrides": {who: "2/day"}}]}
    bad = {"rules": [mistake(who), *good["rules"]]}
    path = tmp_path / f"rules.{ending}"
    texts = [
        json.dumps(bad),
        json.dumps(good)[:-3],
        f'"{who}" = {{ x\n"{who}"=1',
        f"? {who}\n: [",
        f'[[rules]]\noverrides."{who}"=1\noverrides."{who}"=1',
    ]
    offered: list[Any] = [("1", good), ("2", bad)]
    with Said() as said:
        for text in texts:
            path.write_text(text)
            tried(said, lambda: Limiter(str(path)))
            tried(said, lambda: FileRules(path).load(None))
        tried(said, lambda: RuleSet(bad["rules"]))
        source = FunctionRules(lambda _: offered[0], interval=3600)
        limiter = Limiter(source, normalize="email")
        limiter.hit("news", who)
        offered.reverse()
        for _ in range(2):
            tried(said, limiter.source.refresh)
            said.things(limiter, limiter.source, limiter.source.status, limiter.rules, *limiter.rules)
        limiter.close()

    assert said.texts
    assert said.of(part_of(who), part_of(who.upper())) == []


# --- Gateways, notifiers and functions --------------------------------------------------------------------------------

MAILS = [
    f"smtp://{{}}:{{}}@127.0.0.1:{PORT}",
    f"smtps://{{}}:{{}}@127.0.0.1:{PORT}",
    f"smtp+starttls://{{}}:{{}}@127.0.0.1:{PORT}",
    "smtp://{}:{}@mail.example.com",
    "smtp://{}:{}@:x",
]


@pytest.mark.parametrize("uri", MAILS, ids=_without_port)
@given(who=recipients, body=secrets, user=secrets, password=secrets)
@FEWER
def test_mail(uri: str, who: str, body: str, user: str, password: str) -> None:
    """Mail servers that are not there, and messages that cannot be sent."""
    with Said() as said:
        written = uri.format(quote(user), quote(password))
        for gateway_kind, kind in ((SMTPGateway, Notifier), (AsyncSMTPGateway, AsyncNotifier)):
            gateway: Any = tried(said, lambda of=gateway_kind: of.from_uri(written, sender="shop@example.com"))
            if gateway is None:
                continue
            notifier: Any = kind(gateway, {"news": "9/day"})
            said.things(gateway, notifier)
            tried(said, lambda it=notifier: it.send("news", who, body, body))
            tried(said, lambda it=notifier: it.send("news", f"{who}\n", body, body))
            tried(said, lambda it=notifier: it.send("news", who, body, body, headers={body: who}))
            tried(
                said,
                lambda it=notifier: it.send("news", "ana@example.com", body, body, cc=f"{who},", reply_to=[who, body]),
            )
            tried(said, lambda it=notifier: it.send_many("news", [who, who], body, body))
            tried(said, notifier.close)
            tried(said, gateway.close)

    assert said.texts
    assert said.of(part_of(who), body, user, password) == []


class Refused(Exception):
    """What a gateway of somebody's raises. It says nothing."""


@given(who=recipients, body=secrets, on_limit=st.sampled_from(["drop", "raise"]), fails=st.booleans())
@FEWER
def test_notifiers_and_functions(who: str, body: str, on_limit: Any, fails: bool) -> None:
    """What becomes of a message: sent, suppressed, failed, in every way to send; and a decorated function, plain and async."""

    def gateway(recipient: str, *texts: str) -> None:
        if fails:
            raise Refused

    async def slow_gateway(recipient: str, *texts: str) -> None:
        gateway(recipient)

    def names_recipient(to: str, text: str) -> str:
        gateway(to)
        return "sent"

    async def names_recipient_later(to: str, text: str) -> str:
        return names_recipient(to, text)

    with Said() as said:
        notifiers: list[Any] = [
            Notifier(gateway, RULES, on_limit=on_limit),
            AsyncNotifier(slow_gateway, RULES, on_limit=on_limit),
        ]
        for notifier in notifiers:
            bound = notifier.bind(tenant=body, dedupe_key=who)
            message = Notification("news", who, (body,), fields={"tenant": body})
            said.things(notifier, bound, message)
            for _ in range(2):
                tried(said, lambda it=bound: it.send("news", who, body))
                tried(said, lambda it=notifier, one=message: it.deliver(one))
                tried(said, lambda it=bound: it.send_many("news", [who, who], body))
                tried(said, lambda it=notifier: it.send("news", [who], body))
                tried(said, lambda it=notifier: it.send("news", who, body, tenant=who))
            tried(said, notifier.close)
        for function in (names_recipient, names_recipient_later):
            decorated = rate_limited(type="news", limit="1/day", recipient="to", on_limit=on_limit)(function)
            said.things(decorated)
            for arguments in ((who, body), (who, body), ([who], body), (who,), (who, body, body)):
                tried(said, lambda it=decorated, them=arguments: it(*them))

    assert said.texts
    assert said.of(part_of(who), body) == []


# --- The command ------------------------------------------------------------------------------------------------------


@given(who=recipients, body=secrets, user=secrets, password=secrets)
@FEWER
def test_the_command(tmp_path: Path, who: str, body: str, user: str, password: str) -> None:
    """Whatever it prints: reports, summaries and errors about lines, servers and rules."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rules]]\ntype = "news"\nlimit = "1/day"\n')
    line = {"type": "news", "recipient": who, "subject": body, "body": body}
    lines = [line, line, {**line, f"{body}@x": body}, {**line, "recipient": f"{who}\n"}, {**line, "cost": who}, {**line, "fields": {f"{body}@x": body}}, {**line, "cc": [who, 5]}]  # fmt: skip
    input = b"".join(json.dumps(each).encode() + b"\n" for each in lines)
    here = f"{user}:{password}@127.0.0.1:{PORT}"
    commands: list[tuple[Any, ...]] = [
        ("send", "--rules", rules, "--dry-run"),
        ("send", "--rules", rules, "--dry-run", "--verbose", "--json"),
        ("send", "--rules", rules, "--gateway", f"smtp://{here}", "--sender", "shop@example.com"),
        ("send", "--rules", rules, "--dry-run", "--storage", f"redis://{here}/0"),
        ("send", "--rules", f"redis://{here}/0?key=k", "--dry-run"),
        ("rules", "check", f"redis://{here}/0?key=k"),
        ("rules", "check", f"postgresql://{here}/db"),
        ("rules", "push", rules, "--to", f"redis://{here}/0?key=k"),
        ("rules", "push", rules, "--to", f"postgresql://{here}/db"),
        ("rules", "init", f"postgresql://{here}/db"),
    ]
    with Said() as said:
        for arguments in commands:
            result = invoke(*arguments, input=input)
            said.texts += [f"{arguments[0]} stdout {result.stdout}", f"{arguments[0]} stderr {result.stderr}"]
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception

    assert said.of(part_of(who), body, user, password) == []
