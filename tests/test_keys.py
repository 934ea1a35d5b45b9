"""Keys: any recipient at all, none of them taken for another, none too long or too strange for a backend."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, strategies as st

from backends import STRATEGIES, Backend, window
from ratelimited_notify.windows.keys import (
    NAMESPACE_BYTES,
    REST_BYTES,
    STRATEGY_LETTERS,
    TAG_BYTES,
    digest,
    escape,
    foreign,
    rest_of,
    split,
    tag_of,
    tags_of,
    valid_namespace,
)

if TYPE_CHECKING:
    from ratelimited_notify.windows.strategies import StrategyName

# What separates, escapes or hashes in some backend or other, and lone surrogates, which `st.characters` leaves out.
TRICKY = "{}:/#% \n\r\0\t\x7f~*?[]\\\"'@+=._-é\u2028\u200b😀\ud800\udfff"
NASTY = (
    *(
        "a/b",
        "a:b",
        "a b",
        "a%3Ab",
        "a%b",
        "{a}",
        "}{",
        "}:",
        ":m",
        "#",
        "a\n",
        "a\n\n",
        "a\0",
        "a\0b",
        " ",
        "A",
        "a",
        "\uff41",
    ),
    *("limits:{a}:b:m", "notify:{ana}:news:m", "\ud83d\ude00", "😀", "é", "e\u0301", "x" * 64, "x" * 65, "ü" * 10_000),
    *(f"%#{digest('x' * 65)}", f"%25%23{digest('x' * 65)}"),
)

texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.one_of(st.sampled_from(TRICKY), st.characters(codec=None)), max_size=40),
    st.builds(
        lambda text, times: (text * times)[:10_000],
        st.text(st.sampled_from(TRICKY), min_size=1),
        st.integers(1, 10_000),
    ),
)
parts = st.lists(texts, min_size=1, max_size=5)
strategies = st.sampled_from(STRATEGIES)
namespaces = st.from_regex(r"[A-Za-z0-9._-]{1,32}", fullmatch=True)


@given(
    st.lists(
        st.one_of(st.sampled_from([*NASTY, "", "ana@example.com", "x" * 64, "x" * 65, "a\nb"]), st.text()), max_size=8
    )
)
def test_many_tags_are_the_tags_of_each(recipients: list[str]) -> None:
    """Tags made together are those made one by one, whatever stands among the recipients."""
    assert list(tags_of(recipients)) == [tag_of(recipient) for recipient in recipients]


@given(st.lists(st.integers(0, 2 * TAG_BYTES) | st.integers(TAG_BYTES - 1, TAG_BYTES + 1), max_size=6), st.randoms())
@example([TAG_BYTES + 1, 3], None)
@example([3, TAG_BYTES + 1], None)
@example([3, 0], None)
def test_many_tags_of_plain_recipients_of_any_length(lengths: list[int], random: Any) -> None:
    """A long one among short ones is hashed as it is alone, an empty one too: a batch has the windows that others have."""
    recipients = ["".join(random.choices("ab@.", k=each)) if random else "x" * each for each in lengths]

    assert list(tags_of(recipients)) == [tag_of(recipient) for recipient in recipients]


@pytest.mark.parametrize("lengths", [[1], [TAG_BYTES], [1, TAG_BYTES], [3, 4, 5]])
def test_plain_recipients_are_their_own_tags(lengths: list[int]) -> None:
    """A large batch of addresses makes no second list of them."""
    recipients = ["x" * length for length in lengths]

    assert tags_of(recipients) is recipients


@given(namespace=namespaces, recipient=texts, parts=parts, strategy=strategies)
@example(namespace="n" * 32, recipient="x" * 64, parts=["x" * 96], strategy="moving-window")
def test_a_key_suits_every_backend(namespace: str, recipient: str, parts: list[str], strategy: StrategyName) -> None:
    """At most 200 bytes of printable ASCII without spaces, with one pair of braces and something between them."""
    assert valid_namespace(namespace)
    key = f"{namespace}:{{{tag_of(recipient)}}}:{rest_of(parts, strategy)}"

    assert len(key) <= 200
    assert re.fullmatch(r"[!-~]+", key)
    assert re.fullmatch(r"[^{}]+\{[^{}]+\}:[^{}]*", key)


@given(one=texts, other=texts)
def test_two_recipients_never_share_a_tag(one: str, other: str) -> None:
    """Different texts, different tags; the same text, the same tag."""
    assert (tag_of(one) == tag_of(other)) == (one == other)
    assert (digest(one) == digest(other)) == (one == other)


def test_nasty_recipients_are_all_different() -> None:
    """Every pair of a list of texts made to be confused."""
    everything = {*NASTY, "", *map(escape, NASTY), *map(tag_of, NASTY), *TRICKY}
    tags = {tag_of(text) for text in everything}
    assert len(tags) == len(everything)


@given(one=parts, other=parts, strategy=strategies, another=strategies)
@example(one=["a:b"], other=["a", "b"], strategy="moving-window", another="moving-window")
@example(one=["a", ""], other=["a"], strategy="moving-window", another="moving-window")
@example(one=["x" * 97], other=["%#" + digest("x" * 97)], strategy="moving-window", another="moving-window")
@example(one=["a:m"], other=["a"], strategy="moving-window", another="moving-window")
def test_two_windows_never_share_a_rest(
    one: list[str], other: list[str], strategy: StrategyName, another: StrategyName
) -> None:
    """Different parts or another strategy, different rests: parts cannot flow into each other."""
    assert (rest_of(one, strategy) == rest_of(other, another)) == (one == other and strategy == another)


@given(text=texts, split_at=st.integers(0, 40))
def test_moving_a_boundary_changes_the_rest(text: str, split_at: int) -> None:
    """The same characters cut elsewhere are other parts."""
    assume(split_at < len(text))

    assert rest_of([text[:split_at], text[split_at:]], "moving-window") != rest_of([text], "moving-window")


def test_lengths_at_which_parts_are_hashed() -> None:
    """A tag and a rest are kept readable up to their limits, and hashed one byte above."""
    assert tag_of("x" * TAG_BYTES) == "x" * TAG_BYTES
    assert tag_of("x" * (TAG_BYTES + 1)) == "%#" + digest("x" * (TAG_BYTES + 1))
    assert rest_of(["x" * REST_BYTES], "fixed-window") == "x" * REST_BYTES + ":f"
    assert rest_of(["x" * (REST_BYTES + 1)], "fixed-window") == "%#" + digest("x" * (REST_BYTES + 1)) + ":f"
    assert tag_of("ana+news@example.com") == "ana+news@example.com"


def test_a_tag_is_never_empty() -> None:
    """Redis Cluster takes `{}` for no tag, and would spread a recipient's windows over slots."""
    assert len(tag_of("")) > 0


@example(secret=b"a", other=b"a\0", text="ana")
@given(secret=st.binary(min_size=1, max_size=64), other=st.binary(min_size=1, max_size=64), text=texts)
def test_a_keyed_digest_depends_on_the_secret(secret: bytes, other: bytes, text: str) -> None:
    """Without the secret nobody can look a recipient up by hashing guesses."""
    assert (digest(text, secret) == digest(text, other)) == (secret == other)
    assert digest(text, secret) != digest(text)


@given(key=texts, other=texts, strategy=strategies, another=strategies)
def test_keys_of_limits_itself(key: str, other: str, strategy: StrategyName, another: StrategyName) -> None:
    """A key that `limits` made is kept apart by key and strategy, whatever it looks like, and fits every backend."""
    kept = foreign(key, strategy)

    assert len(kept) <= 200
    assert re.fullmatch(r"[!-~]+", kept)
    assert (kept == foreign(other, another)) == ((key, strategy) == (other, another))


@given(namespace=namespaces, recipient=texts, parts=parts.filter(any), strategy=strategies, another=strategies)
def test_our_own_keys_stay_under_their_strategy(
    namespace: str, recipient: str, parts: list[str], strategy: StrategyName, another: StrategyName
) -> None:
    """A key of this library's goes through `limits` unchanged, but for another strategy than its own it is a foreign one."""
    key = f"{namespace}:{{{tag_of(recipient)}}}:{rest_of(parts, strategy)}"

    assert (foreign(key, another) == key) == (strategy == another)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "key",
    ["LIMITER/ana/1/1/day:{letter}", "a:{{b}}:{letter}", "n:{{ana}}:{letter}", "n:{{}}:rule:{letter}", "n n:{{ana}}:rule:{letter}",
     "n:{{a{{b}}:rule:{letter}", "n:{{ana}}:ru}}le:{letter}", "n:{{ana}}:rule{letter}", "{letter}"],
)  # fmt: skip
def test_a_key_of_limits_that_ends_like_ours_is_a_foreign_one(key: str, strategy: StrategyName) -> None:
    """The letter at the end is not enough, nor are braces somewhere: under our keys lies what is not theirs."""
    key = key.format(letter=STRATEGY_LETTERS[strategy])

    assert foreign(key, strategy) == f"limits:{{{tag_of(key)}}}:item:{STRATEGY_LETTERS[strategy]}"


@given(namespace=namespaces, recipient=texts, parts=parts, strategy=strategies)
def test_split_finds_the_tag(namespace: str, recipient: str, parts: list[str], strategy: StrategyName) -> None:
    """Head and rest make the key again, and the head is the same for all windows of a recipient."""
    key = f"{namespace}:{{{tag_of(recipient)}}}:{rest_of(parts, strategy)}"

    assert split(key) == (f"{namespace}:{{{tag_of(recipient)}}}:", rest_of(parts, strategy))


@example(key="limits:{a}:b:m", strategy="moving-window")
@given(key=texts, strategy=strategies)
def test_split_finds_the_tag_of_a_foreign_key(key: str, strategy: StrategyName) -> None:
    """A key that `limits` made is its own tag; one that was of this library's making has kept its own."""
    kept = foreign(key, strategy)
    head, rest = split(kept)

    assert head + rest == kept
    assert kept == key or head == f"limits:{{{tag_of(key)}}}:"


@pytest.mark.parametrize(
    ("namespace", "valid"),
    [
        ("notify", True),
        ("a.b_c-D9", True),
        ("x" * NAMESPACE_BYTES, True),
        ("x" * (NAMESPACE_BYTES + 1), False),
        ("", False),
        ("a b", False),
        ("a:b", False),
        ("a{b", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_namespaces(namespace: str, valid: bool) -> None:
    """A namespace is up to 32 letters, digits, dots, underscores and dashes."""
    assert valid_namespace(namespace) == valid


def test_any_recipient_on_every_backend(backend: Backend) -> None:
    """Every text of a list made to be confused is a recipient of its own: each has its one hit, and none a second."""
    one = window("moving-window", 1)
    everything = [*NASTY, *TRICKY, *map(escape, NASTY)]
    recipients = list(dict.fromkeys(everything))
    granted = [
        backend.storage.acquire([one], [backend.key(recipient, one)], 1).granted
        for recipient in itertools.chain(recipients, recipients)
    ]

    assert granted == [True] * len(recipients) + [False] * len(recipients)


@given(st.text())
@example("".join(map(chr, range(128))))
def test_parts_are_escaped_as_in_an_address(part: str) -> None:
    """The keys of earlier versions find their counts: the table for ASCII says what `quote` says."""
    assert escape(part) == quote(part, safe="@+=", errors="surrogatepass")


@given(st.lists(st.text(TRICKY + "ab", max_size=70), min_size=1, max_size=4))
@example(["news", "60"])
@example(["a:b", "60"])
@example([":", ""])
@example(["n" * 70, "60"])
def test_plain_parts_are_joined_as_any_others(parts: list[str]) -> None:
    """The quick look at all of them changes nothing."""
    rest = ":".join(map(escape, parts))

    assert rest_of(parts, "moving-window") == f"{rest if len(rest) <= REST_BYTES else '%#' + digest(rest)}:m"
