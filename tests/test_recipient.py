"""Who a notification is for: what is taken for a recipient, and what it is counted as."""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import pytest
from hypothesis import example, given, strategies as st

from ratelimited_notify import NotifyError
from ratelimited_notify.notification.recipient import counting_as, email, text_of


class Plain(str):
    """A text of another class, with an idea of its own of how it looks."""

    __slots__ = ()

    def __str__(self) -> str:
        return "not what it holds"


class Desk(str, Enum):  # noqa: UP042  # what StrEnum replaced: its str() is "Desk.OPS"
    OPS = "ops@example.com"


class Pager(StrEnum):
    OPS = "ops@example.com"


class Number(IntEnum):
    FIVE = 5


SOME_ID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ana@example.com", "ana@example.com"),
        (5, "5"),
        (-5, "-5"),
        (SOME_ID, "12345678-1234-5678-1234-567812345678"),
        (Plain("ana"), "ana"),
        (Desk.OPS, "ops@example.com"),
        (Pager.OPS, "ops@example.com"),
        (Number.FIVE, "5"),
        (" ", " "),
    ],
)
def test_recipients_are_texts_numbers_and_uuids(value: str | int | UUID, text: str) -> None:
    """`5` and `"5"` are one, and of a text of another class it is the content that counts."""
    assert text_of(value) == text
    assert type(text_of(value)) is str


@pytest.mark.parametrize(
    "value",
    [True, False, None, b"ana@example.com", 5.0, ["ana@example.com"], object()],
    ids=lambda value: type(value).__name__,
)
def test_other_things_are_a_type_error_that_names_the_fix(value: object) -> None:
    """A bool, None or a user object is a mistake of the caller's, told in words that show no value."""
    with pytest.raises(TypeError, match=r"user\.id or user\.email") as caught:
        text_of(value)

    assert f"a {type(value).__name__};" in str(caught.value)
    assert "ana@example.com" not in str(caught.value)


def test_the_message_names_the_field() -> None:
    """Other fields are checked as recipients are, under their own names."""
    with pytest.raises(TypeError, match="The tenant is a bool"):
        text_of(True, "tenant")
    with pytest.raises(NotifyError, match="The tenant is empty"):
        text_of("", "tenant")


@pytest.mark.parametrize("number", [10**5000, -(10**5000)], ids=["large", "small"])
def test_a_number_beyond_all_ids_is_refused(number: int) -> None:
    """Python writes out no more than 4300 digits: an error of ours, without its own behind it."""
    with pytest.raises(
        NotifyError, match=r"^The recipient has too many digits\. Pass a value that identifies it"
    ) as caught:
        text_of(number)
    assert caught.value.__suppress_context__


def test_an_empty_recipient_is_refused() -> None:
    """A missing address would put everybody without one into one window."""
    with pytest.raises(NotifyError, match="The recipient is empty"):
        text_of("")


@pytest.mark.parametrize("address", ["Ana@Example.COM", "  ana@example.com\n", "ANA@EXAMPLE.COM"])
def test_spellings_of_an_address_are_one(address: str) -> None:
    """With "email", case and surrounding space make no second recipient."""
    assert counting_as("email", None)(address) == "ana@example.com"


def test_composed_and_decomposed_letters_are_one() -> None:
    """The same letter is typed as one code point on one machine and as two on another."""
    assert email("jose\u0301@example.com") == email("jos\u00e9@example.com")


@given(st.text())
@example("\u0130@example.com")
@example("\u1fef")
def test_normalising_twice_changes_nothing(address: str) -> None:
    """An override may be written normalised or not."""
    assert email(email(address)) == email(address)


def test_the_two_forms_of_a_domain_in_another_script_stay_two_recipients() -> None:
    """The documentation says so: which domains are the same depends on the standard (a ß is an ss in that of 2003)."""
    assert email("ana@ex\u00e4mple.com") != email("ana@xn--exmple-cua.com")


def test_without_options_each_spelling_counts_by_itself() -> None:
    """Nothing is normalised that was not asked for."""
    assert counting_as(None, None)("Ana@example.com") == "Ana@example.com"


def test_a_callable_normalises() -> None:
    """Any function from text to text will do, and gets the text."""
    seen: list[object] = []
    counted = counting_as(lambda text: seen.append(text) or text[-4:], None)

    assert counted(491_700_001_234) == "1234"
    assert seen == ["491700001234"]


def test_what_a_callable_returns_may_be_of_a_class_of_its_own() -> None:
    """A recipient is counted by the content of what normalize= returned."""
    assert counting_as(lambda text: Desk.OPS, None)("x") == "ops@example.com"
    assert type(counting_as(lambda text: Plain("a"), None)("x")) is str


@pytest.mark.parametrize(("returned", "said"), [("", "an empty string"), (None, "NoneType"), (5, "int")])
def test_a_callable_that_returns_no_text_is_an_error(returned: object, said: str) -> None:
    """What normalize= gave is named by its kind, never by its value."""
    with pytest.raises(NotifyError, match=f"returned {said}; it must return a string"):
        counting_as(lambda text: returned, None)("ana@example.com")


def test_a_spelling_of_nothing_is_refused() -> None:
    """Only space, normalised, is no address."""
    with pytest.raises(NotifyError, match="returned an empty string"):
        counting_as("email", None)("  ")


@pytest.mark.parametrize("normalize", ["e-mail", 5, ("email",)])
def test_an_unknown_normalize_is_an_error(normalize: object) -> None:
    """The choices are named."""
    with pytest.raises(NotifyError, match="use 'email', a callable from str to str, or None"):
        counting_as(normalize, None)


@pytest.mark.parametrize("secret", ["text", b"", b"x" * 65, bytearray(b"secret"), True])
def test_an_unusable_secret_is_an_error_that_does_not_show_it(secret: object) -> None:
    """The secret must be 1 to 64 bytes, and stays out of the message."""
    with pytest.raises(NotifyError, match=r"1 to 64 bytes") as caught:
        counting_as(None, secret)

    assert str(secret) not in str(caught.value)


def test_a_pseudonym_depends_on_recipient_and_secret() -> None:
    """One recipient under one secret is one pseudonym, and nobody else's."""
    counted, other = counting_as(None, b"secret"), counting_as(None, b"other")

    assert counted("ana@example.com") == counted("ana@example.com")
    assert counted("5") == counted(5)
    assert len({counted("ana@example.com"), counted("bo@example.com"), other("ana@example.com")}) == 3
    assert "ana" not in counted("ana@example.com")


def test_a_pseudonym_is_of_the_normalised_recipient() -> None:
    """Spellings stay one under a pseudonym."""
    counted = counting_as("email", b"secret")

    assert counted("Ana@Example.com") == counted("ana@example.com")


@given(st.text(st.characters(), min_size=1))
def test_any_text_has_a_pseudonym(recipient: str) -> None:
    """Lone surrogates and the like are no reason to fail."""
    assert len(counting_as(None, b"secret")(recipient)) == 32
