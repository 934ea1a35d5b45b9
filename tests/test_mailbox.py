"""Addresses with names: what a reader of the message sees is what was given, and the window counts the address."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
from email.headerregistry import Address
from email.utils import formataddr
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import example, given, strategies as st

from ratelimited_notify import AsyncNotifier, Limiter, Notification, Notifier, Rule
from ratelimited_notify.gateways.smtp import AsyncSMTPGateway, InvalidMessage, SMTPGateway
from ratelimited_notify.gateways.smtp.mailbox import Mailbox
from ratelimited_notify.gateways.smtp.message import compose
from ratelimited_notify.notification.address import NamedAddress
from ratelimited_notify.notification.recipient import email as normalized
from smtp_server import FailingServer

ANA = "ana@example.com"
SENDER = Mailbox("", "shop@example.com")

# What may stand in a name: no control characters, no line separators, no lone surrogates.
NAMES = (
    st.text(
        st.sampled_from('aB<>@,;:."\\ ()[]=?_é')
        | st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]),
        max_size=60,
    )
    | st.sampled_from(['"Acme" Shop', 'Shop "Acme"', '"', '\\', '\\"', '"a" "b"', "a\\", "x" * 1_100, "é" * 300])
).map(str.strip)  # fmt: skip


def seen(written: str) -> tuple[str, str]:
    """The name and the address that a mail program shows of a message to this recipient."""
    letter = compose(SENDER, written, "S", "B")
    message = email.message_from_bytes(letter.content, policy=email.policy.default.clone(utf8=True))
    [address] = message["To"].addresses
    assert letter.recipient == address.addr_spec
    return address.display_name, address.addr_spec


def same(shown: str, name: str) -> bool:
    """Whether both are one name. email.headerregistry puts a space too many between two encoded words of a name."""
    return re.sub(r"\s", "", shown) == re.sub(r"\s", "", name)


@given(NAMES)
@example('"Acme" Shop')
@example("Zoë, \\ \"the\" 'Shop'")
def test_what_formataddr_writes_is_read_as_it_was_meant(name: str) -> None:
    """Backslashes, quotes and encoded words that the standard library writes are undone, in a sender as in a recipient."""
    written = formataddr((name, ANA))
    if "=?" in name:  # formataddr writes these as if they were encoded words.
        return

    assert Mailbox.parse(written, "the sender") == Mailbox(name, ANA)
    shown, address = seen(written)
    assert address == ANA
    assert same(shown, name)


@given(NAMES)
def test_what_headerregistry_writes_is_read_as_it_was_meant(name: str) -> None:
    """So is what `str(Address(...))` gives, the other way of the standard library."""
    written = str(Address(name, addr_spec=ANA))
    if "=?" in name:  # Address writes these as if they were encoded words.
        return

    assert Mailbox.parse(written, "the sender") == Mailbox(name, ANA)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (ANA, ""),
        (f"  {ANA}\n", ""),
        (f"<{ANA}>", ""),
        (f"< {ANA} >", ""),
        (f"Ana Lee <{ANA}>", "Ana Lee"),
        (f"Ana Lee<{ANA}>", "Ana Lee"),
        (f"Lee, Ana <{ANA}>", "Lee, Ana"),
        (f"{ANA} <{ANA}>", ANA),
        (f'"Lee, Ana" <{ANA}>', "Lee, Ana"),
        (f'"Lee <ana@home>, Ana" <{ANA}>', "Lee <ana@home>, Ana"),
        (f'"Acme" Shop <{ANA}>', '"Acme" Shop'),
        (f'Shop "Acme" <{ANA}>', 'Shop "Acme"'),
        (f'"a" "b" <{ANA}>', '"a" "b"'),
        (f'The 5" disk <{ANA}>', 'The 5" disk'),
        (f'"" <{ANA}>', ""),
        (f"=?utf-8?q?Zo=C3=AB?= <{ANA}>", "Zoë"),
        (f"=?utf-8?q?Zo=C3=AB?= =?UTF-8?B?w6k=?= Lee <{ANA}>", "Zoëé Lee"),
        (f"=?iso-8859-1?q?Zo=EB?= <{ANA}>", "Zoë"),
        (f'"=?utf-8?q?Zo=C3=AB?=" <{ANA}>', "=?utf-8?q?Zo=C3=AB?="),
        (f"=?no-such?q?Zo=C3=AB?= <{ANA}>", "=?no-such?q?Zo=C3=AB?="),
        (f"=?utf-8?b?YQ?= =?utf-8?q?=FF?= <{ANA}>", "=?utf-8?b?YQ?= =?utf-8?q?=FF?="),
    ],
)
def test_ways_to_write_an_address(written: str, name: str) -> None:
    """As people and programs write them."""
    assert Mailbox.parse(written, "the recipient") == Mailbox(name, ANA)
    shown, address = seen(written)
    assert (address, same(shown, name)) == (ANA, True)


@pytest.mark.parametrize(
    "written", [f"=?utf-8?q?a=0D=0ABcc:_eve=40example=2Ecom?= <{ANA}>", f"=?utf-8?b?AAo=?= <{ANA}>"]
)
def test_a_line_break_in_an_encoded_word_injects_nothing(written: str) -> None:
    """What is hidden in an encoded word is checked like the rest."""
    with pytest.raises(InvalidMessage, match="line breaks"):
        compose(SENDER, written, "S", "B")
    with pytest.raises(InvalidMessage, match="line breaks"):
        Mailbox.parse(written, "the sender")


ANY = st.text(st.sampled_from('aB<>@,;"\\ \t\r\n\0\x85\u2028=?_é\ud800.') | st.characters(), max_size=60)


@given(ANY | st.builds("{} <{}>".format, ANY, st.sampled_from([ANA, "zoë@exämple.com"]) | ANY))
@example(f'"<ana@example.com>" <{ANA}>')
@example(f"{ANA} <{ANA}")
def test_what_is_counted_is_what_is_sent_to(recipient: str) -> None:
    """No way to write a recipient counts for one address and goes to another."""
    try:
        letter = compose(SENDER, recipient, "S", "B")
    except InvalidMessage:
        return

    assert SMTPGateway.counted_as(recipient) == letter.recipient
    assert normalized(recipient) == normalized(letter.recipient)
    assert NamedAddress.split(letter.recipient).address == letter.recipient


LISTS = st.lists(st.tuples(NAMES.filter(lambda name: "=?" not in name), st.just(ANA) | st.just("b@x.example")), max_size=5)  # fmt: skip


@given(LISTS)
def test_several_addresses_are_read_as_they_were_meant(pairs: list[tuple[str, str]]) -> None:
    """A list in one string, as mail programs write it, or as a list of strings."""
    written = [formataddr(pair) for pair in pairs]
    expected = tuple(Mailbox(*pair) for pair in pairs)

    assert Mailbox.parse_all(", ".join(written), "cc") == expected
    assert Mailbox.parse_all(written, "cc") == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", []),
        ("  ", []),
        ("a@x.com,", ["a@x.com"]),
        ("Lee, Ana <a@x.com>, Bo <b@x.com>", ["a@x.com", "b@x.com"]),
        ('5" disk <a@x.com>, b@x.com', ["a@x.com", "b@x.com"]),
        ('"a, \\"b@c, d" <a@x.com>, b@x.com', ["a@x.com", "b@x.com"]),
    ],
)
def test_lists_as_people_write_them(written: str, expected: list[str]) -> None:
    """A comma in a name or in quotes separates nothing."""
    assert [mailbox.address for mailbox in Mailbox.parse_all(written, "cc")] == expected


@pytest.mark.parametrize("wrong", ["a@x.com b@x.com", ["a@x.com, b@x.com"], [5], 5, None, "a@x.com; b@x.com"], ids=ascii)  # fmt: skip
def test_what_is_no_list_of_addresses_is_refused(wrong: Any) -> None:  # Any: that is the point.
    """The message names the place, and shows no address."""
    for place in ("cc", "bcc", "reply_to"):
        with pytest.raises(InvalidMessage, match=f"an address in {place} must be") as caught:
            compose(SENDER, ANA, "S", "B", **{place: wrong})

        assert "x.com" not in str(caught.value)


def test_cc_and_bcc_among_the_headers_are_refused() -> None:
    """A header alone would send nobody a copy; the message says where the addresses go."""
    for name in ("Cc", "BCC"):
        with pytest.raises(InvalidMessage, match=f"pass the addresses as {name.lower()}"):
            compose(SENDER, ANA, "S", "B", headers={name: "b@x.com"})
    with pytest.raises(InvalidMessage, match="Reply-To appears twice"):
        compose(SENDER, ANA, "S", "B", headers={"Reply-To": "b@x.com"}, reply_to="c@x.com")


# --- Counting -----------------------------------------------------------------------------------------------------------

SPELLINGS = [ANA, f"Ana Lee <{ANA}>", f" {ANA}\n", f'"Lee, Ana" <{ANA}>', f"<{ANA}>"]


@pytest.mark.parametrize("shared", [False, True], ids=["own limiter", "shared limiter"])
@pytest.mark.parametrize("way", ["send", "send_many", "iter_many", "partial"])
def test_a_notifier_with_a_mail_gateway_counts_the_address(way: str, shared: bool) -> None:
    """Names do not make a second recipient; the gateway gets what was passed, and the decision has the address."""
    with FailingServer() as server, SMTPGateway("127.0.0.1", server.port, sender="shop@example.com") as gateway:
        rules = [Rule("news", "2/day", overrides={"vip@example.com": "9/day"})]
        used = partial(gateway, html="<p>x</p>") if way == "partial" else gateway
        notifier: Any = (  # Any: of both gateways
            Notifier(used, limiter=Limiter(rules)) if shared else Notifier(used, rules)
        )
        recipients = [*SPELLINGS, *["The VIP <vip@example.com>"] * 4]
        if way in ("send", "partial"):
            deliveries = [notifier.send("news", recipient, "S", "B") for recipient in recipients]
        elif way == "send_many":
            deliveries = notifier.send_many("news", recipients, "S", "B")
        else:
            deliveries = list(notifier.iter_many(Notification("news", each, ("S", "B")) for each in recipients))

        assert [bool(delivery) for delivery in deliveries] == [True] * 2 + [False] * 3 + [True] * 4
        assert [delivery.notification.recipient for delivery in deliveries] == recipients
        assert {delivery.decision.recipient for delivery in deliveries} == {ANA, "vip@example.com"}
        assert b"Ana Lee" in server.mails[1].content
        assert notifier.limiter.windows("news", ANA)[0].remaining == 0


def test_an_async_notifier_with_a_mail_gateway_counts_the_address() -> None:
    """The same under asyncio, one by one and in batches."""

    async def main(port: int) -> list[bool]:
        gateway = AsyncSMTPGateway("127.0.0.1", port, sender="shop@example.com")
        async with gateway, AsyncNotifier(gateway, {"news": "2/day"}) as notifier:
            first = await notifier.send("news", SPELLINGS[1], "S", "B")
            return [bool(first), *map(bool, await notifier.send_many("news", SPELLINGS, "S", "B"))]

    with FailingServer() as server:
        assert asyncio.run(main(server.port)) == [True, True, False, False, False, False]


def test_a_gateway_that_says_nothing_about_counting_gets_what_it_got_before() -> None:
    """Other gateways, and mocks, count each spelling by itself."""
    notifier = Notifier(Mock(), {"news": "1/day"})

    assert all(notifier.send("news", each) for each in SPELLINGS)


def test_normalize_email_drops_names() -> None:
    """With `normalize="email"` a limiter, or a decorated function, counts the address too."""
    limiter = Limiter({"news": "1/day"}, normalize="email")

    assert [bool(limiter.hit("news", each)) for each in [*SPELLINGS, "ANA <Ana@Example.com>"]] == [True] + [False] * 5


@given(st.text(st.sampled_from('a<>@\u0338" Ση')))
@example("x<a<\u0338b>")
@example("x <\u0338>")
def test_normalising_addresses_with_names_twice_changes_nothing(text: str) -> None:
    """As without names: an override may be written either way."""
    assert normalized(normalized(text)) == normalized(text)
