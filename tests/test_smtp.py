from __future__ import annotations

import asyncio
import email
import email.header
import email.policy
import email.utils
import os
import pickle
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from hypothesis import example, given, settings, strategies as st

from outcomes import ends_when_cancelled
from ratelimited_notify.errors import MissingExtra, NotifyError
from ratelimited_notify.gateways.smtp import (
    AsyncSMTPGateway,
    DeliveryUnknown,
    InvalidMessage,
    ServerUnreachable,
    SMTPError,
    SMTPGateway,
    conversation,
)
from ratelimited_notify.gateways.smtp.mailbox import Mailbox
from ratelimited_notify.gateways.smtp.message import compose
from ratelimited_notify.limiter.outcome import outcome_unknown
from smtp_server import CLOSE, DRIP, HANG, RESET, FailingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

SENDER = "shop@example.com"
ANA = "ana.secret@example.com"
PASSWORD = "p@ss/wörd"
PLAIN_PASSWORD = "p@ss/w:rd"


class Sync:
    """Drives `SMTPGateway`."""

    gateway_class = SMTPGateway

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: what the gateway takes.
        self.gateway = SMTPGateway(*args, **{"sender": SENDER, "local_hostname": "tests.example", **options})

    def send(
        self, recipient: str = ANA, subject: str = "Hello", body: str = "Body\n", **options: Any
    ) -> str:  # Any: as above.
        return self.gateway(recipient, subject, body, **options)

    def send_at_once(self, count: int) -> list[str]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda number: self.send(subject=f"Number {number}"), range(count)))

    def shut(self) -> None:
        self.gateway.close()

    close = shut


class Async:
    """Drives `AsyncSMTPGateway`, in an event loop of its own."""

    gateway_class = AsyncSMTPGateway

    def __init__(self, *args: Any, **options: Any) -> None:  # Any: what the gateway takes.
        self.gateway = AsyncSMTPGateway(*args, **{"sender": SENDER, "local_hostname": "tests.example", **options})
        self.runner = asyncio.Runner()

    def send(
        self, recipient: str = ANA, subject: str = "Hello", body: str = "Body\n", **options: Any
    ) -> str:  # Any: as above.
        return self.runner.run(self.gateway(recipient, subject, body, **options))

    def send_at_once(self, count: int) -> list[str]:
        async def gather() -> list[str]:
            calls = (self.gateway(ANA, f"Number {number}", "Body") for number in range(count))
            return await asyncio.gather(*calls)

        return self.runner.run(gather())

    def shut(self) -> None:
        self.runner.run(self.gateway.close())

    def close(self) -> None:
        with self.runner:
            self.shut()


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> type[Sync | Async]:
    """The gateway for threads, then the one for asyncio."""
    return request.param


@pytest.fixture
def connect(kind: type[Sync | Async]) -> Iterator[Callable[..., Sync | Async]]:
    """Makes gateways to a server, and closes them."""
    made = []

    def to(server: Any, **options: Any) -> Sync | Async:  # Any: one of two servers; what the gateway takes.
        made.append(kind("127.0.0.1", server.port, **{"timeout": 5.0, **options}))
        return made[-1]

    yield to
    for one in made:
        one.close()


class Inbox:
    """Keeps what a real server took."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.sessions: list[Session] = []
        self.port = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        self.envelopes.append(envelope)
        self.sessions.append(session)
        return "250 2.0.0 taken"

    @property
    def messages(self) -> list[email.message.EmailMessage]:
        return [
            email.message_from_bytes(one.content.replace(b"\r\n", b"\n"), policy=email.policy.default)
            for one in self.envelopes
        ]


@contextmanager
def real_server(
    inbox: Inbox | None = None, **options: Any
) -> Iterator[Inbox]:  # Any: what aiosmtpd's Controller takes.
    """An aiosmtpd server on a free port."""
    inbox = inbox or Inbox()
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        inbox.port = free.getsockname()[1]
    controller = Controller(inbox, hostname="127.0.0.1", port=inbox.port, **{"enable_SMTPUTF8": False, **options})
    controller.start()
    try:
        yield inbox
    finally:
        controller.stop()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """A real server, and what it took."""
    with real_server() as inbox:
        yield inbox


def text(message: email.message.EmailMessage) -> str:
    """The body as a reader sees it: line ends are CRLF wherever it was encoded (RFC 2045, 6.8)."""
    return message.get_content().replace("\r\n", "\n")


def shown(error: BaseException) -> str:
    """Everything that a log would show of this error."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


# --- What arrives -------------------------------------------------------------------------------------------------------


def test_a_message_arrives(connect: Callable[..., Sync | Async], inbox: Inbox) -> None:
    """The recipient gets subject, body and headers; the caller gets the Message-ID."""
    message_id = connect(inbox).send(ANA, "Hello", "Body\n", headers={"X-Campaign": "spring"})

    [envelope], [message] = inbox.envelopes, inbox.messages
    assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, [ANA])
    assert message["Message-ID"] == message_id
    assert (message["From"], message["To"], message["Subject"], message["X-Campaign"]) == (
        SENDER,
        ANA,
        "Hello",
        "spring",
    )
    assert text(message) == "Body\n"
    assert message["Date"].datetime.tzinfo is not None


def test_unicode_arrives(connect: Callable[..., Sync | Async], inbox: Inbox) -> None:
    """Subject, body and the sender's name are any text; the server need not know of it."""
    subject, body = "Grüße 👩‍👩‍👧 " * 20, "Zażółć gęślą jaźń\n" * 40
    connect(inbox, sender='Zoë, "the" Shop <shop@example.com>').send(ANA, subject, body)

    [message] = inbox.messages
    assert message["Subject"] == subject.strip()
    assert message["From"].addresses[0].display_name == 'Zoë, "the" Shop'
    assert message["From"].addresses[0].addr_spec == SENDER
    assert text(message) == body
    assert inbox.envelopes[0].content.isascii()


@pytest.mark.parametrize("name", ["Shop", '"Shop, Ltd."', 'The "Shop" \\ Co', "Shop " * 30, '"=?utf-8?q?Shop?="'])
def test_a_sender_may_have_a_name(connect: Callable[..., Sync | Async], inbox: Inbox, name: str) -> None:
    """The name that readers see is the one that was given."""
    connect(inbox, sender=f"{name} <{SENDER}>").send()
    [address] = inbox.messages[0]["From"].addresses

    assert inbox.envelopes[0].mail_from == address.addr_spec == SENDER
    # email.headerregistry puts a space too many between two encoded words of a name.
    assert address.display_name.split() == name.strip('"').split()


def test_a_big_body_and_dots_arrive(connect: Callable[..., Sync | Async], inbox: Inbox) -> None:
    """Lines that begin with dots, and a lone dot, are text; so are megabytes of them."""
    body = ".\n..\n...and so on\n" + ".x\n" * 400_000 + ".\n"
    connect(inbox, timeout=60.0).send(ANA, "Dots", body)
    [one] = inbox.messages

    assert text(one) == body


def test_what_could_not_be_decoded_does_not_keep_a_message_back(
    connect: Callable[..., Sync | Async], inbox: Inbox
) -> None:
    """A lone surrogate, as in a file name that is not UTF-8, arrives as the sign for what cannot be shown."""
    connect(inbox).send(ANA, "half \ud800 pair", "caf\udce9 is missing\n", html="<p>caf\udce9</p>\n")
    [message] = inbox.messages

    assert message["Subject"] == "half \ufffd pair"
    assert text(message.get_body(("plain",))) == "caf\ufffd is missing\n"
    assert text(message.get_body(("html",))) == "<p>caf\ufffd</p>\n"


@pytest.mark.parametrize("body", ["", "\n", "no end", "a\rb\r\nc\n", "nul \0 here", "\f\v\x1c\x85\u2028", "x" * 5_000])
def test_any_body_arrives(connect: Callable[..., Sync | Async], inbox: Inbox, body: str) -> None:
    """A body is any text; only its line ends are made alike."""
    connect(inbox).send(ANA, "Any", body)

    expected = body.replace("\r\n", "\n").replace("\r", "\n")
    assert text(inbox.messages[0]).removesuffix("\n") == expected.removesuffix("\n")


def test_html_is_an_alternative(connect: Callable[..., Sync | Async], inbox: Inbox) -> None:
    """With `html=` a reader chooses between text and HTML."""
    connect(inbox).send(ANA, "Both", "text\n", html="<p>hé</p>\n")
    [message] = inbox.messages

    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert text(message.get_body(("html",))) == "<p>hé</p>\n"


def test_a_long_unsubscribe_link_stays_readable() -> None:
    """A long URL in a header is neither broken nor encoded: mail programs look for it as it is."""
    value = "<mailto:out@example.com>, <https://example.com/" + "unsubscribe/" * 30 + ">"
    letter = compose(Mailbox("", SENDER), ANA, "S", "B", headers={"List-Unsubscribe": value})

    assert value.split()[1].encode() in letter.content


def test_reply_to_may_have_a_name() -> None:
    """A Reply-To is an address, with a name in any script."""
    letter = compose(Mailbox("", SENDER), ANA, "S", "B", headers={"Reply-To": "Zoë <zoe@example.com>"})
    [address] = email.message_from_bytes(letter.content, policy=email.policy.default)["Reply-To"].addresses

    assert (address.display_name, address.addr_spec) == ("Zoë", "zoe@example.com")


def test_a_server_that_knows_no_ehlo(connect: Callable[..., Sync | Async]) -> None:
    """A server of the old kind, which answers to HELO only, gets the message too."""
    with FailingServer({"EHLO": "500 what"}) as server:
        connect(server).send()

        assert (len(server.mails), server.commands["HELO"]) == (1, 1)


def test_the_size_is_told_where_it_is_asked_for(connect: Callable[..., Sync | Async]) -> None:
    """A server that has a limit learns the size first, and may refuse before the message is transferred."""
    with FailingServer(offers="SIZE=1000 SIZE") as server:
        connect(server).send()

        assert server.mails[0].sender == f"FROM:<{SENDER}> SIZE={len(server.mails[0].content)}"


@pytest.mark.parametrize(
    "recipient",
    [f"Ana Lee <{ANA}>", f"<{ANA}>", f" {ANA} ", f'"Lee, \\"Ana\\"" <{ANA}>', f"{ANA}\n", f"=?utf-8?b?Wm/Dqw==?= <{ANA}>", f"Zoë <{ANA}>"],
    ids=ascii,
)  # fmt: skip
def test_a_recipient_may_have_a_name(connect: Callable[..., Sync | Async], inbox: Inbox, recipient: str) -> None:
    """The envelope has the address, the header has the name too."""
    connect(inbox).send(recipient)
    [envelope], [message] = inbox.envelopes, inbox.messages
    [to] = message["To"].addresses

    assert (envelope.rcpt_tos, to.addr_spec) == ([ANA], ANA)
    names = {"Ana": "Ana Lee", '"Lee,': 'Lee, "Ana"', "=?utf-8?b?Wm/Dqw==?=": "Zoë", "Zoë": "Zoë"}
    assert to.display_name == names.get(recipient.split(maxsplit=1)[0], "")


def test_copies_and_answers_go_where_they_should(connect: Callable[..., Sync | Async], inbox: Inbox) -> None:
    """Each address of cc and bcc gets the message once, bcc is in no header, and there may be several Reply-To."""
    connect(inbox).send(
        cc=["Ben <ben@example.com>", "cleo@example.com"], bcc=f"dan@example.com, BEN <ben@example.com>, {ANA}",
        reply_to='"Shop, Ltd." <shop@example.com>, help@example.com',
    )  # fmt: skip
    connect(inbox).send(headers={"Reply-To": "Zoë <zoe@example.com>, Shop, Ltd. <shop@example.com>"})
    (envelope, _), (message, other) = inbox.envelopes, inbox.messages

    assert envelope.rcpt_tos == [ANA, "ben@example.com", "cleo@example.com", "dan@example.com"]
    assert [str(one) for one in message["Cc"].addresses] == ["Ben <ben@example.com>", "cleo@example.com"]
    assert message["Bcc"] is None
    assert b"dan@" not in envelope.content
    assert [(one.display_name, one.addr_spec) for one in message["Reply-To"].addresses] == [
        ("Shop, Ltd.", "shop@example.com"), ("", "help@example.com"),
    ]  # fmt: skip
    assert [(one.display_name, one.addr_spec) for one in other["Reply-To"].addresses] == [
        ("Zoë", "zoe@example.com"), ("Shop, Ltd.", "shop@example.com"),
    ]  # fmt: skip


def test_a_refused_copy_keeps_the_message_back(connect: Callable[..., Sync | Async]) -> None:
    """If one of several addresses is refused, nobody gets the message, and the hit is given back."""
    with FailingServer() as server:
        eve = "eve" + "@example.com"
        server.refuses = {eve: f"550 5.1.1 no {eve} here"}
        gateway = connect(server)
        with pytest.raises(SMTPError, match="an address in cc or bcc") as caught:
            gateway.send(bcc=eve)
        gateway.send(cc="ben@example.com")

        assert [mail.recipient for mail in server.mails] == ["TO:<ben@example.com>"]
    assert not outcome_unknown(caught.value)
    assert eve not in shown(caught.value)


@pytest.mark.parametrize("domain", ["exämple.com", "EXÄMPLE.com", "例子.广告", "डाटा.भारत"])
def test_a_domain_is_sent_in_ascii_without_smtputf8(
    connect: Callable[..., Sync | Async], inbox: Inbox, domain: str
) -> None:
    """Where a server knows ASCII only, domains are sent in their xn-- form; names and texts stay as they are."""
    ascii_domain = domain.lower().encode("idna").decode()
    address = f"ana@{domain}"
    gateway = connect(inbox, sender=f"Zoë <shop@{domain}>")
    gateway.send(f"Zoë <{address}>", "Grüße", cc=f"ben@{domain}", bcc=f"cleo@{domain}", reply_to=address)
    [envelope], [message] = inbox.envelopes, inbox.messages

    assert envelope.mail_from == f"shop@{ascii_domain}"
    assert envelope.rcpt_tos == [f"{local}@{ascii_domain}" for local in ("ana", "ben", "cleo")]
    assert envelope.content.isascii()
    assert [str(message[name]) for name in ("From", "To", "Cc", "Reply-To", "Subject")] == [
        f"Zoë <shop@{ascii_domain}>", f"Zoë <ana@{ascii_domain}>", f"ben@{ascii_domain}", f"ana@{ascii_domain}", "Grüße",
    ]  # fmt: skip
    assert message["Message-ID"].endswith(f"@{ascii_domain}>")
    with real_server(enable_SMTPUTF8=True) as other:
        connect(other).send(address)

        assert other.envelopes[0].rcpt_tos == [address]


@pytest.mark.parametrize("domain", ["straße.example", "ﬁsh.example", "x\u0301" * 40 + ".example"], ids=ascii)
def test_a_domain_that_would_be_another_in_ascii_is_refused(
    connect: Callable[..., Sync | Async], inbox: Inbox, domain: str
) -> None:
    """The standards do not agree about ß: rather no mail than one to somebody else's domain."""
    with pytest.raises(SMTPError, match=r"SMTPUTF8.*If it is the domain, write it in its xn-- form") as caught:
        connect(inbox).send(f"ana@{domain}")

    assert inbox.envelopes == []
    assert not outcome_unknown(caught.value)


def test_a_non_ascii_address_takes_smtputf8(connect: Callable[..., Sync | Async]) -> None:
    """An address in another script arrives where the server offers SMTPUTF8."""
    with real_server(enable_SMTPUTF8=True) as inbox:
        connect(inbox).send("zoë@exämple.com", "Zoë", "Body")

        assert inbox.envelopes[0].rcpt_tos == ["zoë@exämple.com"]
        assert inbox.messages[0]["Subject"] == "Zoë"


def test_a_non_ascii_address_without_smtputf8_is_refused(connect: Callable[..., Sync | Async], inbox: Inbox) -> None:
    """Where the server does not offer it, the error says so, nothing is sent, and the connection stays good."""
    gateway, address = connect(inbox), "zoë@example.com"
    with pytest.raises(SMTPError, match="SMTPUTF8") as caught:
        gateway.send(address)
    gateway.send()

    assert address not in shown(caught.value)
    assert not outcome_unknown(caught.value)
    assert [one.rcpt_tos for one in inbox.envelopes] == [[ANA]]


# --- Nothing is smuggled in ---------------------------------------------------------------------------------------------

BREAKS = ["\r", "\n", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\0", "\x7f", "\ud800"]


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
@pytest.mark.parametrize("place", ["recipient", "name", "header", "header name", "reply-to", "cc", "bcc"])
def test_line_breaks_are_refused(connect: Callable[..., Sync | Async], line_break: str, place: str) -> None:
    """No line break of any kind gets into a header or an envelope; nothing is even connected to."""
    text = f"a{line_break}Bcc: eve@example.com"
    arguments = {
        "recipient": {"recipient": f"ana{line_break}@example.com"},
        "name": {"recipient": f"Ana{line_break}Bcc: eve@example.com <ana@example.com>"},
        "cc": {"cc": f"a{line_break}@example.com"},
        "bcc": {"bcc": [f"a@example.com{line_break}b@example.com"]},
        "header": {"headers": {"X-A": text}},
        "header name": {"headers": {text: "x"}},
        "reply-to": {"headers": {"Reply-To": f"A{line_break}B <a@example.com>"}},
    }[place]
    with FailingServer() as server:
        with pytest.raises(InvalidMessage) as caught:
            connect(server).send(**arguments)

        assert server.connections == 0
    assert isinstance(caught.value, (NotifyError, ValueError))
    assert "eve@" not in shown(caught.value)
    assert not outcome_unknown(caught.value)


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_a_line_break_in_a_subject_is_a_space(
    connect: Callable[..., Sync | Async], inbox: Inbox, line_break: str
) -> None:
    """An alert arrives, in one line, and no header with it; a break at the end leaves nothing."""
    connect(inbox).send(ANA, f"Disk{line_break}Bcc: eve@example.com{line_break}", "Body")
    [envelope], [message] = inbox.envelopes, inbox.messages

    shown_break = "\ufffd" if line_break == "\ud800" else " "
    assert message["Subject"] == f"Disk{shown_break}Bcc: eve@example.com{shown_break}".strip()
    assert (message["Bcc"], envelope.rcpt_tos) == (None, [ANA])


BAD_ADDRESSES = [
    "", "ana", "@example.com", "ana@", "a@b@example.com", "ana@example.com,eve@example.com", "ana@example.com eve@example.com",
    "ana@example.com;eve@example.com", "Ana <ana@example.com>, Eve <eve@example.com>", "ana@example.com, Eve <eve@example.com>", "<>", "Ana <>", "<<ana@example.com>>",
    "ana@example.com; <eve@example.com>", '"Ana" <ana@example.com> x', "Ana <ana @example.com>", "ana@example.com> SIZE=1", "ana@example.com>,<eve@example.com",
    "ana @example.com", '"ana"@example.com', "ana(comment)@example.com", "ana@example..com",
    "ana@.example.com", "ana@example.com.", "ana\\@example.com", "@relay:ana@example.com", "ana\t@example.com", "ana\u3000b@example.com",
    "ana\uff20eve@example.com", "ana@example.com\uff0ceve@example.com", "x" * 65 + "@example.com", "ana@" + "x." * 130 + "com",
    "ana@[127.0.0.1", "ana\u200b@example.com", 5, None,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ADDRESSES, ids=ascii)
def test_what_is_not_one_address_is_refused(bad: Any) -> None:  # Any: some are no text at all.
    """Two addresses, names, angle brackets and look-alikes are refused with an error that does not show them."""
    with pytest.raises(InvalidMessage) as caught:
        compose(Mailbox("", SENDER), bad, "S", "B")

    assert "the recipient" in str(caught.value)
    assert not isinstance(bad, str) or bad in "name@example.com" or bad not in str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        "a@b",
        "ana+tag@example.co.uk",
        "o'neil@x-y.example",
        "ana@[127.0.0.1]",
        "ana@[IPv6:::1]",
        "用户@例子.广告",
        "दीप@डाटा.भारत",
    ],
)
def test_plausible_addresses_are_taken(good: str) -> None:
    """What servers deliver to is not refused here."""
    assert compose(Mailbox("", SENDER), good, "S", "B").recipient == good


SMUGGLED = [
    "=?utf-8?q?a=0D=0ABcc:_eve=40example=2Ecom?=",
    "=?utf-8?b?YQ0KQmNjOiBlQGUuY29t?= é",
    "=?utf-8?q?a=0ABcc:_e?= <a@b.c>",
]
NASTY = st.text(st.sampled_from('aB:<>@,;"\\ \t\r\n\0\x85\u2028=?_é\ud800') | st.characters(), max_size=60)
# What passes the checks, and is as awkward as that allows.
PASSING = st.text(
    st.sampled_from('aB:@,;"\\ \t=?_é')
    | st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="<>")
) | st.sampled_from([*SMUGGLED[:2], "x" * 1_100, "x " * 600, " " * 1_100 + "x"])
ANYTHING = PASSING | PASSING | PASSING | PASSING | NASTY | st.sampled_from(SMUGGLED)


@given(
    subject=ANYTHING, name=PASSING, value=ANYTHING, local=st.just("ana") | st.just("o'neil+é") | NASTY, body=ANYTHING
)
@example(subject="", name="", value="", local=" 0", body="")
def test_no_message_has_a_header_or_a_recipient_too_many(
    subject: str, name: str, value: str, local: str, body: str
) -> None:
    """Whatever the texts: a message is refused, or has the headers and the recipient it should have, and no other."""
    recipient = local + "@example.com"
    try:
        sender = Mailbox.parse(f"{name}<{SENDER}>", "the sender")
        letter = compose(sender, recipient, subject, body, headers={"X-A": value, "Reply-To": f"{name}<{SENDER}>"})
    except InvalidMessage:
        return
    head, _, _rest = letter.content.partition(b"\r\n\r\n")
    fields = head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t").split(b"\r\n")
    message = email.message_from_bytes(letter.content, policy=email.policy.default.clone(utf8=True))

    assert [field.partition(b":")[0] for field in fields] == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"X-A", b"Reply-To", b"Content-Type", b"Content-Transfer-Encoding",
        b"MIME-Version",
    ]  # fmt: skip
    assert letter.recipient == recipient.strip()
    assert len(message["To"].addresses) == 1
    assert b"\r" not in letter.content.replace(b"\r\n", b"")
    assert b"\n" not in letter.content.replace(b"\r\n", b"")
    assert letter.content.endswith(b"\r\n")
    assert all(len(line) <= 998 for line in letter.content.split(b"\r\n"))


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
def test_any_subject_is_read_as_it_was_written(subject: str) -> None:
    """What a reader sees is what was written, also where it looks like an encoded word."""
    from email.header import decode_header, make_header

    letter = compose(Mailbox("", SENDER), ANA, subject, "B")
    [field] = [one for one in letter.content.replace(b"\r\n ", b" ").split(b"\r\n") if one.startswith(b"Subject:")]

    assert str(make_header(decode_header(field.decode()[len("Subject: ") :]))).strip() == subject.strip()


@pytest.mark.parametrize("international", [False, True], ids=["without SMTPUTF8", "with SMTPUTF8"])
def test_any_message_arrives_as_it_was_written(connect: Callable[..., Sync | Async], international: bool) -> None:
    """What a real server received is parsed: names, subject, addresses and body are those that were given, and no more."""
    words = st.text(
        st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from('"\\<>@,;=?'), max_size=40
    )
    subjects = words | st.text(st.characters() | st.sampled_from("\r\n\0\ud800"), max_size=40) | st.just("long" * 400)
    domains = st.sampled_from(["example.com", "exämple.com", "例子.广告"])

    def spaceless(text: object) -> str:
        # email.headerregistry puts a space too many between two encoded words.
        return re.sub(r"\s", "", str(text))

    with real_server(enable_SMTPUTF8=international) as inbox:
        gateway = connect(inbox)

        @settings(max_examples=40, deadline=None)
        @given(words.filter(lambda name: "=?" not in name), subjects, domains, words)
        def arrives(name: str, subject: str, domain: str, body: str) -> None:
            gateway.send(
                email.utils.formataddr((name, "ana@example.com")).replace("example.com", domain), subject, body
            )
            envelope = inbox.envelopes.pop()
            # With SMTPUTF8, headers are UTF-8 (RFC 6532).
            content = envelope.content.decode().replace("\r\n", "\n")
            message = email.message_from_string(content, policy=email.policy.default.clone(utf8=international))
            expected = f"ana@{domain if international else domain.encode('idna').decode()}"
            [to] = message["To"].addresses

            assert envelope.rcpt_tos == [expected]
            assert to.addr_spec == expected
            assert spaceless(to.display_name) == spaceless(name)
            read = email.header.make_header(email.header.decode_header(message.get("Subject")))
            shown_subject = re.sub(
                "[\ud800-\udfff]", "\ufffd", re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "", subject)
            )
            assert spaceless(read) == spaceless(shown_subject)
            assert text(message).rstrip() == body.rstrip()
            assert set(message.keys()) == {
                "From", "To", "Subject", "Date", "Message-ID", "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
            }  # fmt: skip

        arrives()


@pytest.mark.parametrize(
    "name", ["To", "cc", "Bcc", "From", "Subject", "Content-Type", "Resent-To", "Message-ID", "X A", "X:A", "é", "", 5]
)
def test_headers_of_the_gateway_cannot_be_replaced(name: Any) -> None:  # Any: one is no text.
    """`headers=` adds; it does not redirect a message."""
    with pytest.raises(InvalidMessage):
        compose(Mailbox("", SENDER), ANA, "S", "B", headers={name: "x"})


@pytest.mark.parametrize(
    "arguments",
    [("S", 5), (5, "B"), (None, "B"), ("S", None), ("S", b"bytes")],
    ids=ascii,
)
def test_what_is_no_text_is_refused(arguments: tuple[Any, Any]) -> None:  # Any: that is the point.
    """A subject or a body that cannot be sent in a message is named."""
    with pytest.raises(InvalidMessage, match=r"subject|body"):
        compose(Mailbox("", SENDER), ANA, *arguments)


@pytest.mark.parametrize("name", ["X-A", "Reply-To"])
def test_a_header_that_is_no_text_is_refused(name: str) -> None:
    """A number in a header is an error that names the header."""
    with pytest.raises(InvalidMessage, match=name):
        compose(Mailbox("", SENDER), ANA, "S", "B", headers={name: 5})  # type: ignore[dict-item]  # that is the point


@pytest.mark.parametrize("headers", [[("X-A", "b")], [], "X-A: b", 5], ids=ascii)
def test_headers_are_a_mapping(headers: Any) -> None:  # Any: that is the point.
    """Pairs, or a text, are refused in words that say what to write."""
    with pytest.raises(InvalidMessage, match=r"^headers= must be a mapping from names to strings, not (list|str|int)$"):
        compose(Mailbox("", SENDER), ANA, "S", "B", headers=headers)


def test_a_header_twice_is_refused() -> None:
    """Two spellings of one header are an error, not a surprise."""
    with pytest.raises(InvalidMessage, match="twice"):
        compose(Mailbox("", SENDER), ANA, "S", "B", headers={"X-A": "1", "x-a": "2"})


# --- What a failure means -----------------------------------------------------------------------------------------------

BEFORE = ["greeting", "EHLO", "MAIL", "RCPT", "DATA"]
DURING = ["body", "end"]


@pytest.mark.parametrize("fault", [CLOSE, RESET, HANG, DRIP, "nonsense", "999 what", "150 wait"])
@pytest.mark.parametrize("phase", BEFORE)
def test_lost_before_the_message_was_not_sent(connect: Callable[..., Sync | Async], phase: str, fault: str) -> None:
    """A connection lost or mute before the message itself is an error that gives the hit back; nothing arrived."""
    with FailingServer({phase: fault, "HELO": fault}) as server:
        with pytest.raises(SMTPError) as caught:
            connect(server, timeout=0.4).send()

        assert server.mails == []
    assert not outcome_unknown(caught.value)
    assert "nothing was sent" in str(caught.value)
    assert ANA not in shown(caught.value)


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("fault", [CLOSE, RESET, HANG, DRIP, "nonsense", "999 what", "354 more"])
def test_lost_before_the_last_reply_is_unknown(connect: Callable[..., Sync | Async], fault: str, taken: bool) -> None:
    """A connection lost or mute while the last reply is awaited keeps the hit: the server may have taken the message."""
    unknown_outcome(connect, "end", fault, taken)


@pytest.mark.parametrize("fault", [CLOSE, RESET, HANG, DRIP])
@pytest.mark.parametrize("phase", ["go", "body"])
def test_lost_in_the_message_is_unknown(connect: Callable[..., Sync | Async], phase: str, fault: str) -> None:
    """A connection lost or mute once the server has asked for the message keeps the hit."""
    unknown_outcome(connect, phase, fault, taken=False)


def unknown_outcome(connect: Callable[..., Sync | Async], phase: str, fault: str, taken: bool) -> None:
    """The hit is kept, and whether the message arrived is the server's to know."""
    with FailingServer({phase: fault}, taken=taken) as server:
        with pytest.raises(DeliveryUnknown) as caught:
            connect(server, timeout=1.0).send(body="line\n" * 1_000)

        assert len(server.mails) == taken
    assert outcome_unknown(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert ANA not in shown(caught.value)


@pytest.mark.parametrize("fault", [CLOSE, RESET, HANG, "421 4.3.2 going away"])
def test_after_the_last_reply_nothing_raises(connect: Callable[..., Sync | Async], fault: str) -> None:
    """Once the server has said 250 the message is sent, whatever happens to the connection, and the next one goes out too."""
    with FailingServer({"after": fault, "QUIT": fault}, times=1) as server:
        gateway = connect(server, timeout=1.0)
        first = gateway.send()
        second = gateway.send()
        gateway.shut()

        assert [message.content.count(b"Message-ID") for message in server.mails] == [1, 1]
        assert first != second


REFUSALS = [
    "421 4.3.2 <ana.secret@example.com> later",
    "450 4.2.1 <ana.secret@example.com> busy",
    "550 5.1.1 <ana.secret@example.com> unknown",
    "552 no",
]


@pytest.mark.parametrize("reply", REFUSALS, ids=lambda reply: reply[:3])
@pytest.mark.parametrize("phase", ["greeting", "MAIL", "RCPT", "DATA", "end"])
def test_a_refusal_was_not_sent(connect: Callable[..., Sync | Async], phase: str, reply: str) -> None:
    """What the server refuses gives the hit back, tells the code, and keeps the server's words out."""
    with FailingServer({phase: reply}) as server:
        with pytest.raises(SMTPError) as caught:
            connect(server).send()

        assert server.mails == []
    assert caught.value.code == int(reply[:3])
    assert caught.value.status in (None, reply[4:9])
    assert phase == "greeting" or reply.startswith("552") or caught.value.status == reply[4:9]
    assert not outcome_unknown(caught.value)
    assert "ana.secret" not in shown(caught.value)


def test_nothing_listens(connect: Callable[..., Sync | Async]) -> None:
    """A server that is not there is an error that names host and port, and gives the hit back."""
    with FailingServer() as server:
        pass
    with pytest.raises(SMTPError, match=rf"127.0.0.1:{server.port}.*connection refused") as caught:
        connect(server).send()

    assert not outcome_unknown(caught.value)


def test_a_server_that_never_accepts_is_given_up(connect: Callable[..., Sync | Async]) -> None:
    """Connecting is bounded in time, and what it ends in gives the hit back."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        try:
            with pytest.raises(SMTPError) as caught:
                connect(SimpleNamespace(port=address[1]), timeout=0.3).send()
        finally:
            for one in waiting:
                one.close()

    assert not outcome_unknown(caught.value)


def test_an_endless_reply_is_given_up(connect: Callable[..., Sync | Async]) -> None:
    """A reply that goes on for ever, line by line, fills neither time nor memory."""
    endless = "\r\n".join(["250-more"] * 20_000)
    with FailingServer({"MAIL": endless}) as server:
        with pytest.raises(SMTPError) as caught:
            connect(server).send()

        assert server.mails == []
    assert not outcome_unknown(caught.value)


@pytest.mark.parametrize("stray", ["250 what", "354 what", "550 what", "nonsense"])
def test_a_stray_reply_is_not_taken_for_the_last_one(connect: Callable[..., Sync | Async], stray: str) -> None:
    """Where a server says one thing too many, a message is never held for sent that was not taken."""
    with FailingServer({"after": stray}, times=1) as server:
        gateway = connect(server, timeout=1.0)
        gateway.send()
        with suppress(SMTPError):
            gateway.send()
            server.faults = {"arrived": ""}

        assert len(server.mails) == 1 + len(server.faults.keys() & {"arrived"})


# --- Connections --------------------------------------------------------------------------------------------------------


def test_the_connection_is_used_again(connect: Callable[..., Sync | Async]) -> None:
    """Many messages, one connection, and a QUIT at its end."""
    with FailingServer() as server:
        gateway = connect(server)
        for _ in range(5):
            gateway.send()
        gateway.shut()

        assert (server.connections, len(server.mails)) == (1, 5)
        assert server.commands["QUIT"] == 1


@pytest.mark.parametrize("faults", [{}, {"MAIL": HANG}, {"MAIL": "421 4.4.2 idle too long"}, {"MAIL": RESET}], ids=str)
def test_a_connection_that_died_at_rest_is_replaced(
    connect: Callable[..., Sync | Async], faults: dict[str, str]
) -> None:
    """A connection that turns out dead before anything of the message was sent costs nothing: another one is made."""
    with FailingServer() as server:
        gateway = connect(server, timeout=2.0)
        gateway.send()
        if faults:
            server.faults, server.times = faults, 1
        else:
            server.cut()
        gateway.send()

        assert (server.connections, len(server.mails)) == (2, 2)


SAID = [
    "452 4.5.3 Too many messages in this session, please reconnect",
    "450 4.7.0 too much on this connection <ana.secret@example.com>",
    "421 4.4.2 going away",
    CLOSE,
    RESET,
]


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA"])
def test_a_session_that_is_over_is_replaced(connect: Callable[..., Sync | Async], phase: str, said: str) -> None:
    """A server may take so many messages on a connection: the next one goes over another, once, and arrives once."""
    with FailingServer(most=2) as server:
        server.over = (phase, said)
        gateway = connect(server)
        for number in range(7):
            gateway.send(subject=f"Number {number}")
        gateway.shut()

        assert server.connections == 4
        assert [re.search(rb"Subject: Number (\d)", mail.content)[1] for mail in server.mails] == [
            str(number).encode() for number in range(7)
        ]


def test_a_real_server_may_limit_its_sessions(connect: Callable[..., Sync | Async]) -> None:
    """`aiosmtpd` that takes one message in each session gets every message, in a session of its own."""

    class Once(Inbox):
        async def handle_MAIL(  # noqa: N802  # aiosmtpd's name
            self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
        ) -> str:
            if session in self.sessions:
                return "452 4.5.3 One message per session, please reconnect"
            envelope.mail_from = address
            envelope.mail_options.extend(options)
            return "250 2.1.0 ok"

    with real_server(Once()) as inbox:
        gateway = connect(inbox)
        for _ in range(3):
            gateway.send()

        assert len(inbox.envelopes) == len({id(session) for session in inbox.sessions}) == 3


@pytest.mark.parametrize("said", SAID[:3])
@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "end"])
def test_a_new_session_is_not_tried_again(connect: Callable[..., Sync | Async], phase: str, said: str) -> None:
    """What a server says to the first message of a connection is its answer; the next message gets a connection of its own."""
    with FailingServer({phase: said}, times=1) as server:
        gateway = connect(server)
        with pytest.raises(SMTPError) as caught:
            gateway.send()
        assert server.connections == 1
        gateway.send()

        assert (server.connections, len(server.mails)) == (2, 1)
    assert caught.value.code == int(said[:3])
    assert not outcome_unknown(caught.value)
    assert "ana.secret" not in shown(caught.value)


@pytest.mark.parametrize("reply", ["450 4.2.0 greylisted, try later", "452 4.2.2 mailbox full", "550 no such session"])
@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "end"])
def test_other_refusals_are_not_tried_again(connect: Callable[..., Sync | Async], phase: str, reply: str) -> None:
    """A refusal that is about the message or its recipient is final, and the connection stays good."""
    with FailingServer() as server:
        gateway = connect(server)
        gateway.send()
        server.faults, server.times = {phase: reply}, 1
        with pytest.raises(SMTPError):
            gateway.send()
        gateway.send()

        assert (server.connections, len(server.mails)) == (1, 2)


def test_a_connection_that_dies_later_is_not_tried_again(connect: Callable[..., Sync | Async]) -> None:
    """Only commands before the message are tried again, on a used connection; a message never is."""
    with FailingServer() as server:
        gateway = connect(server)
        gateway.send()
        server.faults, server.times = {"end": CLOSE}, 1
        with pytest.raises(DeliveryUnknown):
            gateway.send()

        assert (server.connections, len(server.mails)) == (1, 1)


def test_a_connection_that_rested_long_is_replaced(
    connect: Callable[..., Sync | Async], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a firewall may have dropped without a word is not waited for."""
    with FailingServer() as server:
        gateway = connect(server)
        gateway.send()
        monkeypatch.setattr(conversation, "IDLE_SECONDS", -1.0)
        gateway.send()

        assert (server.connections, len(server.mails)) == (2, 2)


@pytest.mark.parametrize("reset", ["250 ok", "500 no", "421 bye", CLOSE])
def test_a_refusal_does_not_spoil_the_next_message(connect: Callable[..., Sync | Async], reset: str) -> None:
    """After a refused recipient the connection is reset before it is used again, and replaced where that fails."""
    with FailingServer({"RCPT": "550 5.1.1 unknown"}, times=1) as server:
        gateway = connect(server)
        with pytest.raises(SMTPError):
            gateway.send("eve@example.com")
        server.faults, server.times = {"RSET": reset}, 1
        gateway.send()

        assert [mail.recipient for mail in server.mails] == [f"TO:<{ANA}>"]
        assert server.commands["RSET"] == 1
        assert server.connections == (1 if reset == "250 ok" else 2)


def test_no_more_connections_than_asked_for(connect: Callable[..., Sync | Async]) -> None:
    """Many calls at once share the connections allowed, and every message arrives once."""
    with FailingServer() as server:
        sent = connect(server, connections=3).send_at_once(30)

        assert len(set(sent)) == len(server.mails) == 30
        assert server.connections <= 3


def test_threads_share_a_gateway() -> None:
    """Messages of many threads do not get mixed up."""
    with real_server() as inbox, SMTPGateway("127.0.0.1", inbox.port, sender=SENDER) as gateway:

        def send(number: int) -> None:
            for turn in range(10):
                gateway(f"user{number}@example.com", f"{number}", f"{number}.{turn}\n")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, range(8)))

        got = [
            (one.rcpt_tos[0], message["Subject"], message.get_content())
            for one, message in zip(inbox.envelopes, inbox.messages, strict=True)
        ]
    assert sorted(got) == sorted(
        (f"user{number}@example.com", f"{number}", f"{number}.{turn}\n") for number in range(8) for turn in range(10)
    )


def test_a_closed_gateway_refuses(connect: Callable[..., Sync | Async]) -> None:
    """After `close()` nothing is sent, nothing is connected to, and closing again is harmless."""
    with FailingServer() as server:
        with_connection, without = connect(server), connect(server)
        with_connection.send()
        for gateway in (with_connection, without):
            gateway.shut()
            with pytest.raises(SMTPError, match="closed") as caught:
                gateway.send()
            gateway.shut()

        assert server.ended.acquire(timeout=5)
        assert (server.connections, len(server.mails)) == (1, 1)
    assert not outcome_unknown(caught.value)


def test_a_server_that_ignores_quit_does_not_hold_close_up(connect: Callable[..., Sync | Async]) -> None:
    """`close()` waits for the answer to QUIT, but not for long, and ends the connection all the same."""
    with FailingServer({"QUIT": HANG}) as server:
        gateway = connect(server, timeout=30.0)
        gateway.send()
        before = time.monotonic()
        gateway.shut()

        assert time.monotonic() - before < 10


def test_a_call_under_way_is_not_left_behind_by_close() -> None:
    """A connection in use while the gateway is closed ends when its message is through."""
    with FailingServer({"end": "250 2.0.0 taken"}) as server:
        gateway = SMTPGateway("127.0.0.1", server.port, sender=SENDER)
        inside, closed = threading.Event(), threading.Event()
        fault = server._fault

        def slow(phase: str, connection: socket.socket) -> bool:
            if phase == "RCPT":
                inside.set()
                closed.wait(5)
            return fault(phase, connection)

        server._fault = slow  # type: ignore[method-assign]  # a pause in the middle of a message
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(gateway, ANA, "S", "B")
            assert inside.wait(5)
            gateway.close()
            closed.set()

            assert sending.result(5).startswith("<")
        assert server.ended.acquire(timeout=5)


@pytest.mark.parametrize("phase", ["greeting", "RCPT", "end"])
def test_an_interrupt_in_the_middle_does_not_leave_a_connection_in_disorder(phase: str) -> None:
    """Ctrl-C while the server's answer is awaited drops the connection; the next message gets another."""
    with (
        FailingServer({phase: HANG}, times=1) as server,
        SMTPGateway("127.0.0.1", server.port, sender=SENDER) as gateway,
    ):

        def interrupt() -> None:
            server.reached.wait(5)
            time.sleep(0.2)  # So that it comes while the answer is awaited.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            gateway(ANA, "S", "B")
        thread.join()
        assert not gateway._pool().resting
        gateway(ANA, "S", "B")

        assert (server.connections, len(server.mails)) == (2, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="There is no fork here.")
def test_a_fork_makes_connections_of_its_own() -> None:
    """Parent and child never speak on one connection."""
    program = """
import os, sys
from ratelimited_notify.gateways.smtp import SMTPGateway
gateway = SMTPGateway("127.0.0.1", int(sys.argv[1]), sender="shop@example.com")
gateway("ana@example.com", "parent", "1")
child = os.fork()
if child == 0:
    gateway("ana@example.com", "child", "2")
    os._exit(0)
_, status = os.waitpid(child, 0)
gateway("ana@example.com", "parent", "3")
gateway.close()
sys.exit(status)
"""
    with FailingServer() as server:
        subprocess.run([sys.executable, "-W", "error", "-c", program, str(server.port)], check=True, timeout=30)

        # The child ends without a goodbye, so that the parent's connection would be found in use if it were shared.
        assert (server.connections, len(server.mails)) == (2, 3)
        assert server.commands["QUIT"] == 1


# --- Encryption and login -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the test servers' certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def server_side(authority: trustme.CA) -> ssl.SSLContext:
    """The server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client that trusts these certificates."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def check_login(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
) -> AuthResult:  # Any: aiosmtpd's
    """Takes one user."""
    return AuthResult(
        success=(data.login, data.password) == (b"user@example.com", PLAIN_PASSWORD.encode()), handled=False
    )


def tls_server(tls: str | None, server_side: ssl.SSLContext, **options: Any) -> Any:  # Any: what the Controller takes.
    """A server with the encryption that is asked for."""
    if tls == "implicit":
        return real_server(ssl_context=server_side, **options)
    return real_server(tls_context=server_side, require_starttls=True, **options)


LOGIN = {"username": "user@example.com", "password": PLAIN_PASSWORD}


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_encrypted_and_logged_in(
    connect: Callable[..., Sync | Async], tls: str, server_side: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """With STARTTLS or from the first byte: the message arrives encrypted, after a login, twice on one connection."""
    # aiosmtpd sees encryption only where it began with STARTTLS.
    options = {"auth_required": tls == "starttls", "auth_require_tls": tls == "starttls", "authenticator": check_login}
    with tls_server(tls, server_side, **options) as inbox:
        gateway = connect(inbox, tls=tls, tls_context=trusting, **LOGIN)
        gateway.send()
        gateway.send()
        gateway.shut()

        assert len(inbox.envelopes) == 2
        assert inbox.sessions[0] is inbox.sessions[1]
        assert inbox.sessions[0].authenticated
        assert tls == "implicit" or inbox.sessions[0].ssl is not None


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    connect: Callable[..., Sync | Async], tls: str, server_side: ssl.SSLContext
) -> None:
    """Certificates are checked by default; a wrong one is an error before anything is said, and the hit is given back."""
    with tls_server(tls, server_side) as inbox:
        with pytest.raises(SMTPError) as caught:
            connect(inbox, tls=tls, **LOGIN).send()

        assert inbox.envelopes == []
    assert not outcome_unknown(caught.value)


def test_starttls_is_not_optional(connect: Callable[..., Sync | Async]) -> None:
    """Where a server does not offer STARTTLS, nothing is sent in the open, no password either."""
    with FailingServer(offers="AUTH=PLAIN") as server:
        with pytest.raises(SMTPError) as caught:
            connect(server, tls="starttls", **LOGIN).send()

        assert not {"AUTH", "MAIL"} & set(server.commands)
    assert not outcome_unknown(caught.value)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_tls_handshake_is_bounded(connect: Callable[..., Sync | Async], tls: str, trusting: ssl.SSLContext) -> None:
    """A server that stops talking in the handshake is given up, and the hit is given back."""
    faults = {"greeting": HANG} if tls == "implicit" else {"STARTTLS": "220 ready"}
    with FailingServer(faults, offers="STARTTLS") as server:
        with pytest.raises(SMTPError) as caught:
            connect(server, tls=tls, tls_context=trusting, timeout=0.4).send()

        assert server.mails == []
    assert not outcome_unknown(caught.value)


@pytest.mark.parametrize("reply", ["535 5.7.8 user@example.com may not", CLOSE, HANG, RESET, "nonsense"])
def test_a_failed_login_shows_no_credentials(connect: Callable[..., Sync | Async], reply: str) -> None:
    """A refused login is an error with the server's code, without user and password, and the hit is given back."""
    with FailingServer({"AUTH": reply}, offers="AUTH=PLAIN") as server:
        with pytest.raises(SMTPError, match="the login failed") as caught:
            connect(server, timeout=0.4, **LOGIN).send()

        assert server.mails == []
    assert caught.value.code in (535, -1, None)
    assert "user@example.com" not in shown(caught.value)
    assert PLAIN_PASSWORD not in shown(caught.value)
    assert not outcome_unknown(caught.value)


def test_what_keeps_from_connecting_is_said_in_words(
    kind: type[Sync | Async],
    connect: Callable[..., Sync | Async],
    server_side: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    """A wrong name, port or kind of encryption is told by what to do about it, not by the name of a class."""

    def said(gateway: Sync | Async) -> str:
        with pytest.raises(ServerUnreachable) as caught:
            gateway.send()
        assert not outcome_unknown(caught.value)
        return str(caught.value)

    nowhere = kind("no-such-host.invalid", 25)
    assert "the host name cannot be resolved" in said(nowhere)
    nowhere.close()
    with FailingServer() as server:
        assert "the server does not support STARTTLS" in said(connect(server, tls="starttls", tls_context=trusting))
        assert "does not speak TLS on this port: is it smtp:// or smtp+starttls://?" in said(
            connect(server, tls="implicit", tls_context=trusting)
        )
    assert "connection refused: is the server running" in said(connect(server))
    with FailingServer({"greeting": HANG}) as server:
        assert re.search("no answer within the timeout|did not answer in time", said(connect(server, timeout=0.2)))
    with FailingServer({"greeting": CLOSE}) as server:
        assert "closed the connection" in said(connect(server))
    with tls_server("implicit", server_side) as inbox:
        assert "its certificate is not for this host" in said(connect(inbox, tls="implicit"))


def test_a_server_without_login_is_an_error(connect: Callable[..., Sync | Async], inbox: Inbox) -> None:
    """Credentials for a server that offers no login: nothing is sent."""
    with pytest.raises(ServerUnreachable, match=r"the login failed \(the server does not support login\)"):
        connect(inbox, **LOGIN).send()

    assert inbox.envelopes == []


# --- Settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("smtp://mail.example.com", ("mail.example.com", 25, None, None)),
        ("smtp://mail.example.com:2525/", ("mail.example.com", 2525, None, None)),
        ("SMTP://[::1]:25", ("::1", 25, None, None)),
        ("smtp+starttls://mail.example.com", ("mail.example.com", 587, "starttls", None)),
        (
            "smtps://user:p%40ss%2Fw%3Ard@mail.example.com",
            ("mail.example.com", 465, "implicit", ("user", PLAIN_PASSWORD)),
        ),
        ("smtps://us%40er:@mail.example.com:1", ("mail.example.com", 1, "implicit", ("us@er", ""))),
        ("smtp://user:secret@127.0.0.1", ("127.0.0.1", 25, None, ("user", "secret"))),
        ("smtp://user:secret@localhost", ("localhost", 25, None, ("user", "secret"))),
    ],
)
def test_uris(kind: type[Sync | Async], uri: str, expected: tuple[Any, ...]) -> None:  # Any: parts of different types.
    """One line of configuration says where to and how."""
    gateway = kind.gateway_class.from_uri(uri, sender=SENDER, timeout=3)

    assert (gateway.host, gateway.port, gateway.tls, gateway._login) == expected
    assert gateway.timeout == 3.0


@pytest.mark.parametrize(
    "uri",
    [
        "mail.example.com", "http://user:hunter2@mail.example.com", "smtp://", "smtp://user:hunter2@", "smtp://user:hunter2@mail.example.com:port",
        "smtps://user:hunter2@mail.example.com:99999", "smtps://user:hunter2@mail.example.com:0", "smtps://user:hunter2@[::1", "smtps://user:hun/ter2@mail.example.com", "smtps://user:hunter2#x@mail.example.com",
        "smtps://user:hunter2?x@mail.example.com", "smtps://user:hunter2@mail.example.com/path", "smtps://user:hunter2%ff@mail.example.com",
        "smtps://user@mail.example.com", "smtps://:hunter2@mail.example.com", "smtp://user:hunter2@mail.example.com", "smtps://user:hunter2@mail.example.com\n", "smtps://user:hunter2@ma\u2100il.example.com",
        "smtps://user:hunter2@mail .example.com", 5, None,
    ],
    ids=ascii,
)  # fmt: skip
def test_a_bad_uri_is_an_error_that_does_not_quote_it(
    kind: type[Sync | Async], uri: Any
) -> None:  # Any: some are no text.
    """A URI that cannot be used is refused at once, and its password stays out of the log."""
    with pytest.raises(NotifyError) as caught:
        kind.gateway_class.from_uri(uri, sender=SENDER)

    assert not {"hunter2", "ter2", "hun/"} & set(shown(caught.value).replace("'", " ").split())
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": ""}, {"host": "a b"}, {"host": 5}, {"port": 0}, {"port": "25"}, {"port": True}, {"port": 70_000}, {"sender": "Shop"}, {"sender": "a@b, c@d"},
        {"sender": "a\nb <a@b>"}, {"sender": None}, {"username": "user"}, {"password": "x"}, {"username": 5, "password": "x"}, {"tls": "ssl"}, {"tls": True},
        {"timeout": 0}, {"timeout": None}, {"timeout": float("inf")}, {"timeout": float("nan")}, {"timeout": True}, {"connections": 0},
        {"connections": 1.5}, {"local_hostname": "a\r\nb"}, {"username": "user", "password": "hunter2"},
    ],
    ids=ascii,
)  # fmt: skip
def test_bad_settings_are_refused_at_construction(
    kind: type[Sync | Async], arguments: dict[str, Any]
) -> None:  # Any: wrong types.
    """What cannot work is an error where it is written, not at the first message."""
    with pytest.raises(NotifyError) as caught:
        kind.gateway_class(**{"host": "mail.example.com", "sender": SENDER, **arguments})

    assert "hunter2" not in str(caught.value)


def test_a_password_in_the_open_has_to_be_asked_for(kind: type[Sync | Async]) -> None:
    """A login without encryption to another host is an error that names the ways out."""
    with pytest.raises(NotifyError, match=r"smtps://.*plaintext_login=True"):
        kind.gateway_class("mail.example.com", sender=SENDER, **LOGIN)

    kind.gateway_class("mail.example.com", sender=SENDER, plaintext_login=True, **LOGIN)


def test_reprs_show_no_secret(kind: type[Sync | Async]) -> None:
    """A gateway, or a message, in a log shows neither credentials nor addresses."""
    gateway = kind.gateway_class("mail.example.com", sender=SENDER, tls="implicit", **LOGIN)

    assert repr(gateway) == f"{kind.gateway_class.__name__}('mail.example.com', 465, tls='implicit')"
    assert "example" not in repr(compose(Mailbox("", SENDER), ANA, "S", "B")) + repr(Mailbox("", SENDER))


def test_smtplib_takes_ascii_credentials_only() -> None:
    """What smtplib cannot log in with is said at construction, without showing it; aiosmtplib takes it."""
    with pytest.raises(NotifyError, match="ASCII") as caught:
        SMTPGateway("mail.example.com", sender=SENDER, tls="implicit", username="user", password=PASSWORD)

    assert PASSWORD not in shown(caught.value)
    AsyncSMTPGateway("mail.example.com", sender=SENDER, tls="implicit", username="user", password=PASSWORD)


@pytest.mark.parametrize(
    "error",
    [
        SMTPError("text", 550, "5.1.1"),
        SMTPError("text"),
        ServerUnreachable("text", 535),
        DeliveryUnknown("text"),
        InvalidMessage("text"),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    """A worker process can hand an error to its parent."""
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


# --- asyncio ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [*BEFORE, *DURING])
def test_cancelled_in_the_middle(phase: str) -> None:
    """A call that is cancelled drops its connection and says nothing more on it; the next message gets another."""
    with FailingServer({phase: HANG}, times=1) as server:

        async def main() -> str:
            async with AsyncSMTPGateway("127.0.0.1", server.port, sender=SENDER) as gateway:
                call = asyncio.create_task(gateway(ANA, "cancelled", "line\n" * (1_000_000 if phase == "body" else 10)))
                await asyncio.to_thread(server.reached.wait, 10)
                call.cancel()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await call
                assert outcome_unknown(caught.value)
                return await gateway(ANA, "next", "B")

        asyncio.run(main())

        assert [b"Subject: next" in mail.content for mail in server.mails] == [True]
        assert server.connections == 2


@pytest.mark.parametrize("phase", ["greeting", "EHLO", "MAIL"])
def test_cancelled_at_any_step_of_the_loop(phase: str) -> None:
    """A cancellation ends the call also where it comes together with an answer: `asyncio.wait_for` of 3.11 swallows it."""
    with FailingServer({phase: HANG}) as server:

        async def main() -> None:
            async with AsyncSMTPGateway("127.0.0.1", server.port, sender=SENDER) as gateway:
                for steps in range(60):
                    assert await ends_when_cancelled(gateway(ANA, "cancelled", "B"), steps), steps

        asyncio.run(main())


def test_a_gateway_outlives_its_loops() -> None:
    """One gateway, one loop after another, never closed in between: every message arrives, no connection is left open."""
    with FailingServer() as server:
        gateway = AsyncSMTPGateway("127.0.0.1", server.port, sender=SENDER)
        for turn in range(1, 4):

            async def twice() -> None:
                await gateway(ANA, "S", "B")
                await gateway(ANA, "S", "B")

            asyncio.run(twice())
            assert server.ended.acquire(timeout=5)
            assert (server.connections, server.commands["QUIT"], len(server.mails)) == (turn, turn, 2 * turn)


def test_a_loop_that_was_never_shut_down_does_no_harm() -> None:
    """Connections of a loop that is gone are forgotten, not used."""
    with FailingServer() as server:
        gateway = AsyncSMTPGateway("127.0.0.1", server.port, sender=SENDER)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(gateway(ANA, "S", "B"))
        loop.run_until_complete(loop.shutdown_asyncgens())
        bare = asyncio.new_event_loop()
        bare.run_until_complete(gateway._pool())
        bare.close()
        loop.close()
        asyncio.run(gateway(ANA, "S", "B"))

        assert (server.connections, len(server.mails)) == (2, 2)
        assert gateway._pools == {}


def test_loops_at_once_share_a_gateway() -> None:
    """A gateway serves loops in several threads; closing it in one ends the connections of all."""
    with FailingServer() as server:
        gateway = AsyncSMTPGateway("127.0.0.1", server.port, sender=SENDER)
        barrier = threading.Barrier(3)

        async def other() -> None:
            await gateway(ANA, "S", "B")
            await asyncio.to_thread(barrier.wait, 10)
            await asyncio.to_thread(server.ended.acquire, timeout=10)
            await asyncio.to_thread(barrier.wait, 10)

        async def main() -> None:
            await gateway(ANA, "S", "B")
            await asyncio.to_thread(barrier.wait, 10)
            await gateway.close()
            await asyncio.to_thread(barrier.wait, 10)

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(asyncio.run, run()) for run in (other, other, main)]:
                done.result(20)

        assert (server.connections, server.commands["QUIT"], len(server.mails)) == (3, 3, 3)


def test_waiting_calls_may_be_cancelled() -> None:
    """A call that is cancelled while it waits for a connection takes none with it."""
    with FailingServer({"RCPT": HANG}, times=1) as server:

        async def main() -> None:
            async with AsyncSMTPGateway("127.0.0.1", server.port, sender=SENDER, connections=1) as gateway:
                calls = [asyncio.create_task(gateway(ANA, "S", "B")) for _ in range(3)]
                await asyncio.to_thread(server.reached.wait, 10)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                await asyncio.wait_for(gateway(ANA, "S", "B"), 10)

        asyncio.run(main())

        assert len(server.mails) == 1


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiosmtplib the async gateway says what to install, and the sync one works."""
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)
    with pytest.raises(MissingExtra, match=r"AsyncSMTPGateway .*pip install 'ratelimited-notify\[smtp\]'"):
        AsyncSMTPGateway("mail.example.com", sender=SENDER)

    SMTPGateway("mail.example.com", sender=SENDER)


def test_the_import_does_not_load_aiosmtplib() -> None:
    """The module for both gateways asks for the extra only when the async one is made."""
    program = "import sys, ratelimited_notify.gateways.smtp; sys.exit('aiosmtplib' in sys.modules)"

    subprocess.run([sys.executable, "-c", program], check=True)
