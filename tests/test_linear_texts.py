"""Texts that anybody may write are read in one pass: what would take a second look at each character takes none.

The texts are so long that a reader which goes back for each of their characters is busy for a minute and more, and one that
does not takes some milliseconds: the bound between the two is wide.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import re
import time
import unicodedata
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, strategies as st

import ratelimited_notify
from ratelimited_notify import NotifyError, Rule
from ratelimited_notify.gateways.smtp.mailbox import Mailbox
from ratelimited_notify.gateways.smtp.message import compose
from ratelimited_notify.gateways.smtp.settings import SMTPSettings
from ratelimited_notify.notification.recipient import email
from ratelimited_notify.sources.file import read_rules
from ratelimited_notify.storage.redis.sync import RedisStorage
from ratelimited_notify.storage.uri import parse
from ratelimited_notify.windows.keys import foreign, tag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

LONG = 40_000
"""So often the shapes below are repeated."""

BOUND = 10.0
"""Seconds of this thread for one text; a pass over it takes a few hundredths."""


def read(reader: Callable[[str], object], text: str) -> float:
    """Seconds that it takes to read this text, whatever comes of it."""
    began = time.thread_time()
    with suppress(NotifyError):
        reader(text)
    return time.thread_time() - began


def in_toml(write: Callable[[str], str]) -> Callable[[Path], Callable[[str], object]]:
    """A reader of rule files that hold the text."""

    def made(directory: Path) -> Callable[[str], object]:
        path = directory / "rules.toml"

        def reader(text: str) -> object:
            path.write_text(write(text), encoding="utf-8")
            return read_rules(path)

        return reader

    return made


def at_once(reader: Callable[[str], object]) -> Callable[[Path], Callable[[str], object]]:
    """A reader that needs no directory."""
    return lambda _: reader


READERS: dict[str, Callable[[Path], Callable[[str], object]]] = {
    "limit": at_once(lambda text: Rule("news", text)),
    "type": at_once(lambda text: Rule(text, "1/day").matches("news")),
    "doubts about a type": at_once(lambda text: Rule(text, "1/day").warnings),
    "doubts about names": at_once(
        lambda text: Rule("news", "1/day", overrides={text: "1/day"}, exempt=text, tiers={text: "1/day"}).warnings
    ),
    "recipient": at_once(email),
    "tag": at_once(tag_of),
    "key": at_once(lambda text: foreign(f"notify:{{{text}}}:{text}:m", "moving-window")),
    "address": at_once(lambda text: Mailbox.parse(text, "the sender")),
    "address in brackets": at_once(lambda text: Mailbox.parse(f"{text} <{text}@example.com>", "the sender")),
    "addresses": at_once(lambda text: Mailbox.parse_all(f"{text} <{text}@example.com>, {text}", "cc")),
    "quoted name": at_once(lambda text: Mailbox.parse(f'"{text} <ana@example.com>', "the sender")),
    "subject": at_once(lambda text: compose(Mailbox("Ana", "ana@example.com"), "bo@example.com", text, "Hello")),
    "body": at_once(lambda text: compose(Mailbox("Ana", "ana@example.com"), "bo@example.com", "Hello", text)),
    "gateway": at_once(lambda text: SMTPSettings.from_uri(f"smtp://{text}", sender="ana@example.com")),
    "redis": at_once(lambda text: parse(f"redis://{text}", "redis")),
    "redis with options": at_once(lambda text: RedisStorage(f"redis://h?{text}={text}")),
    "cluster": at_once(lambda text: parse(f"redis+cluster://{text}", "cluster")),
    "sentinel": at_once(lambda text: parse(f"redis+sentinel://h:1/{text}", "sentinel")),
    "memcached": at_once(lambda text: parse(f"memcached://{text}", "memcached")),
    "file": in_toml(lambda text: text),
    "key in a file": in_toml(lambda text: f"{text}=1"),
    "table in a file": in_toml(lambda text: f"[{text}]"),
    "limit in a file": in_toml(lambda text: f'[[rules]]\ntype="news"\nlimit="{text}"'),
    "comment in a file": in_toml(lambda text: f"a.b = 1 # {text}"),
}

SHAPES: dict[str, Callable[[int], str]] = {
    "spaces before the end": lambda times: "1" + " " * times + "x",
    "spaces behind per": lambda times: "1 per" + " " * times + "!",
    "spaces on both sides": lambda times: "1" + " " * times + "per" + " " * times + "!",
    "digits": lambda times: "1" * times + "!",
    "letters": lambda times: "1/" + "d" * times + "!",
    "brackets": lambda times: "[" * times,
    "brackets that are not": lambda times: "[!" * times,
    "ranges": lambda times: "[a-" * times,
    "closed brackets": lambda times: "[a]" * times,
    "stars": lambda times: "*a" * times + "b",
    "dots": lambda times: "a." * times + "a",
    "dots and spaces": lambda times: "a . " * times + "a",
    "quoted dots": lambda times: '"a".' * times + "a",
    "quotes": lambda times: '"' * times,
    "backslashes": lambda times: "\\" * times,
    "quotes that open": lambda times: '"""' + "x'" * times,
    "at signs": lambda times: "a@" * times,
    "angles": lambda times: "a<" * times,
    "places": lambda times: " (at " * times,
    "braces": lambda times: "{" * times,
    "lists in braces": lambda times: "{a," * times,
    "a list in a brace": lambda times: "{" + "a," * times,
    "anchors": lambda times: "^" + "$" * times + "^",
    "colons": lambda times: "a:" * times,
    "commas": lambda times: "a," * times,
    "thousands": lambda times: "1" + ",000" * times + "!",
    "separators": lambda times: "1/day;" * (times // 10) + ";" * times,
    "percents": lambda times: "%2" * times,
    "spaces": lambda times: " " * times + "a" + " " * times,
    "tabs": lambda times: "a\t" * times,
    "lines": lambda times: "a\n" * times,
    "marks out of order": lambda times: "a" + "\u0300\u0316" * times,
    "marks in three heaps": lambda times: "a" + "\u0345" * times + "\u0300" * times + "\u0316" * times,
    "encoded words": lambda times: "=?utf-8?q?a?= " * times,
    "umlauts": lambda times: "ü" * times,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_long_text_is_read_in_one_pass(reader: str, tmp_path: Path) -> None:
    """Whatever it is the text of: a limit, a type, a recipient, an address, a message, a URI, a file."""
    made = READERS[reader](tmp_path)
    slow = [name for name, shape in SHAPES.items() if read(made, shape(LONG)) > BOUND]

    assert slow == []


def patterns() -> Iterator[tuple[str, Callable[[Any], object], bool]]:
    """Every regular expression of the package: its place, the search that is made with it, and whether it is for bytes."""
    for module in pkgutil.walk_packages(ratelimited_notify.__path__, "ratelimited_notify."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            pattern = value if isinstance(value, re.Pattern) else getattr(value, "__self__", None)
            if isinstance(pattern, re.Pattern):
                search = value if callable(value) else lambda text, pattern=pattern: list(pattern.finditer(text))
                yield f"{module.name}.{name}", search, isinstance(pattern.pattern, bytes)


FRAGMENTS = (" ", "\t", "\n", "1", "a", "per", ".", "@", ":", "(at ", '"', "'", "\\", "{", "[", "=?", "#", "ü")


@pytest.mark.parametrize(("search", "of_bytes"), [pytest.param(*rest, id=place) for place, *rest in patterns()])
def test_no_expression_goes_back_for_each_character(search: Callable[[Any], object], of_bytes: bool) -> None:
    """Each regular expression of the package, on runs of anything behind runs of anything else, with a wrong end."""
    slow = []
    for one, other in product(FRAGMENTS, repeat=2):
        text = f"1{one * LONG}{other * LONG}\0"
        began = time.thread_time()
        search(text.encode() if of_bytes else text)
        if time.thread_time() - began > BOUND:
            slow.append((one, other))
            break

    assert slow == []


def test_the_expressions_are_found() -> None:
    """The test above is not one of nothing."""
    places = [place for place, *_ in patterns()]

    assert {"ratelimited_notify.rules.limit._LIMIT", "ratelimited_notify.sources.load._SCHEME"} <= set(places)
    assert len(places) > 15


@given(
    pattern=st.text(st.sampled_from("[]!-a*?b"), max_size=12),
    type=st.text(st.sampled_from("[]!-ab"), max_size=6),
)
@example("[][[", "[][[")
@example("[!][", "[!][")
def test_brackets_mean_what_fnmatch_says(pattern: str, type: str) -> None:
    """Those that are never closed stand for themselves."""
    if pattern:
        assert Rule(pattern, "1/day").matches(type) == (pattern == type or fnmatchcase(type, pattern))


@given(
    letters=st.text(st.sampled_from("aéA\u0300\u0316\u0345\u0344\u0f73\u1100\u1161가\ufb1d\u212bİß"), max_size=30),
    times=st.integers(0, 100),
)
@example("e\u0301\u0316", 400)
def test_spellings_of_a_long_recipient_are_one(letters: str, times: int) -> None:
    """However long it is, an address is composed as Unicode says."""
    text = f"ana{letters * times}"

    assert email(text) == unicodedata.normalize("NFC", text.lower())
    assert email(unicodedata.normalize("NFD", text)) == email(text)


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("a." * 101 + "b = 1", True),
        ("a . " * 101 + "b = 1", True),
        ('"a".' * 101 + "b = 1", True),
        ("[" + "a." * 101 + "b]", True),
        ("x = {" + "a." * 101 + "b = 1}", True),
        ('x = """\n"""""\n' + "a." * 101 + "b = 1", True),
        ("x = '''\n'''''\n" + "a." * 101 + "b = 1", True),
        (f"'x' = {'1.' * 101}", True),
        ("rules." * 99 + "b = 1", False),
        (f'default = "{"a." * 200}"', False),
        (f"default = '{'a.' * 200}'", False),
        (f'default = "\\"{"a." * 200}"', False),
        (f'default = """a "" b \\"""{"a." * 200}\n"""', False),
        (f"default = '''a '' b{'a.' * 200}\n'''", False),
        (f"# don't {'a.' * 200}", False),
        ("\n".join(f"k{number} = 1.5" for number in range(200)), False),
        (f"x = [{'1.5, ' * 200}]", False),
    ],
)
def test_only_keys_of_many_dots_are_too_deep(text: str, deep: bool, tmp_path: Path) -> None:
    """In texts and comments there may be any number of dots."""
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    said = ""
    try:
        read_rules(path)
    except NotifyError as error:
        said = str(error)

    assert ("nested too deep" in said) == deep


def test_lines_of_the_command_are_read_in_one_pass() -> None:
    """A line of a megabyte that is no notification is told in time."""
    from ratelimited_notify.cli.input import Input

    problems: list[str] = []
    for shape in SHAPES.values():
        began = time.thread_time()
        line = f'{{"{shape(LONG)}":1}}\n'.encode()
        list(Input(io.BytesIO(line), lambda _, problem: problems.append(problem)))
        assert time.thread_time() - began < BOUND

    assert len(problems) >= len(SHAPES)
