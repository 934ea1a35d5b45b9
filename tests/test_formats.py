"""Documents of rules in YAML and JSON: what is read, and what is told about what cannot be read."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, strategies as st

from ratelimited_notify import Limiter, Rule, RuleError, RuleSet
from ratelimited_notify.sources.file import read_rules
from ratelimited_notify.sources.formats import document_in
from ratelimited_notify.sources.formats.json import read_json
from ratelimited_notify.sources.formats.yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# PyYAML does not write line breaks of Unicode as it reads them.
LETTERS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=8)

EXPECTED = RuleSet(
    [
        Rule("news", "1/day", overrides={"+491701": "50/day", "0171": None}, exempt="critical"),
        Rule("22:00", ["3/hour", "10/day"], by=("recipient", "ip"), enforce=False, name="yes"),
    ],
    fields=["ip"],
    default="5/hour",
)
AS_YAML = """
# Rules.
fields: [ip]
default: 5/hour
rules:
  - type: news
    limit: 1/day
    overrides: {+491701: 50/day, 0171: none}
    exempt: [critical]
  - type: 22:00
    limit:
      - 3/hour
      - "10/day"
    by: [recipient, ip]
    enforce: false
    name: yes
"""
AS_JSON = json.dumps(
    {
        "fields": ["ip"],
        "default": "5/hour",
        "rules": [
            {
                "type": "news",
                "limit": "1/day",
                "overrides": {"+491701": "50/day", "0171": "none"},
                "exempt": ["critical"],
            },
            {
                "type": "22:00",
                "limit": ["3/hour", "10/day"],
                "by": ["recipient", "ip"],
                "enforce": False,
                "name": "yes",
            },
        ],
    }
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rules.yaml", AS_YAML),
        ("rules.YML", AS_YAML),
        ("rules.json", AS_JSON),
        ("a.b.json", "\ufeff" + AS_JSON.replace(" ", "\r\n")),
    ],
)
def test_rules_in_other_formats(name: str, text: str, tmp_path: Path) -> None:
    """By the ending of the name; telephone numbers, times and `yes` stay what they are."""
    path = tmp_path / name
    path.write_bytes(text.encode())

    assert read_rules(path) == EXPECTED
    assert Limiter(path).hit("news", "0171").remaining is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LETTERS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner, max_size=3),
        max_leaves=12,
    )
)
def test_what_is_written_is_read(value: Any) -> None:
    """By the writers of Python and PyYAML."""
    document = {"x": value}

    assert read_json(json.dumps(document)) == document
    try:
        text = yaml.safe_dump(document, allow_unicode=True, default_flow_style=True)
    except yaml.YAMLError:
        return
    assert _without_numbers(read_yaml(text)) == _without_numbers(document)


def _without_numbers(value: Any) -> Any:
    """The same with texts for numbers: PyYAML writes some in the notation of YAML 1.1."""
    if isinstance(value, dict):
        return {key: _without_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(_without_numbers, value))
    if isinstance(value, float) or (isinstance(value, str) and "." in value):
        return "number"
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, None) for text in ("", "~", "null", "Null")),
        *((text, text) for text in ("yes", "No", "on", "off", "y", "22:00", "2026-11-27", "1_000", "0x10", "0o7", "1e", ".", ".inf", ".nan", "=")),
        *((text, 12) for text in ("12", "+12", "012")),
        *((text, 1.5) for text in ("1.5", "+1.5", "15e-1", "1.50")),
        ("!!str 12", "12"), ("'12'", "12"), ("|-\n  a\n  b", "a\nb"), (">-\n  a\n  b", "a b"),
    ],
)  # fmt: skip
def test_scalars_in_yaml_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """No sexagesimal numbers, no dates, no words for true and false."""
    document = read_yaml(f"x: {text}\n")

    assert (document["x"], type(document["x"])) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "a key is defined twice (at line 3)"),
        ("x: {a@b.c: 1, 'a@b.c': 2}", "a key is defined twice (at line 1)"),
        ("a: &x 1\nb: *x", "an alias is not allowed, write out what it stands for (at line 2)"),
        ("a: {<<: {b: 1}, <<: {c: 1}}", "a key is defined twice (at line 1)"),
        ("a: !secret x", "a tag is not allowed (at line 1)"),
        ("a: !!python/object:os.system x", "a tag is not allowed (at line 1)"),
        ("a: !!set {b, c}", "a tag is not allowed (at line 1)"),
        ("a: 1\n---\nb: 2", "there is a second document (at line 2)"),
        ("? [a, b]\n: 1", "a key must be a text (at line 1)"),
        ("a: [1, 2\nb: 3", "it cannot be parsed (at line 2, column 2)"),
        ("a: b: ana@example.com", "it cannot be parsed (at line 1, column 5)"),
        ("a: \x01", "a character is not allowed"),
        ("a: " + "[" * 100, "it is nested too deeply (at line 1)"),
        ("a: " + "{a: " * 100, "it is nested too deeply (at line 1)"),
    ],
)
def test_what_is_no_yaml_is_told_by_its_line(text: str, said: str) -> None:
    """Nothing of it is quoted: a key may be an address."""
    with pytest.raises(RuleError) as caught:
        read_yaml(text)

    assert str(caught.value) == f"The file is not valid YAML: {said}."
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "a": 2}', "a key is in an object twice"),
        ('{"a@b.c": {"a@b.c": [{"x": 1, "x": 1}]}}', "a key is in an object twice"),
        (
            '{"a": 1,}',
            "illegal trailing comma before end of object (at line 1, column 8)"
            if sys.version_info >= (3, 13)
            else "expecting property name enclosed in double quotes (at line 1, column 9)",
        ),
        ("", "expecting value (at line 1, column 1)"),
        ('{"a": NaN}', "it contains a number that JSON does not have, or that is too long"),
        ('{"a": -Infinity}', "it contains a number that JSON does not have, or that is too long"),
        ('{"a": ' + "9" * 5000 + "}", "it contains a number that JSON does not have, or that is too long"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_what_is_no_json_is_told_by_its_place(text: str, said: str) -> None:
    """Nothing of it is quoted."""
    with pytest.raises(RuleError) as caught:
        read_json(text)

    assert str(caught.value) == f"The file is not valid JSON: {said}."


@pytest.mark.parametrize("read", [read_yaml, read_json])
@pytest.mark.parametrize("text", ["[]", '"news"', "5", "true"])
def test_a_document_is_a_mapping(read: Callable[[str], object], text: str) -> None:
    """At the top."""
    with pytest.raises(RuleError, match="The file must contain a"):
        read(text)


def test_a_document_without_rules() -> None:
    """An empty file is one in YAML, as in TOML."""
    assert read_yaml("# nothing\n") == read_yaml("") == document_in(b"", ".toml") == {}


@given(st.binary(max_size=100), st.sampled_from([".toml", ".yaml", ".json", ".txt"]))
def test_any_bytes_are_a_document_or_an_error(content: bytes, ending: str) -> None:
    """Nothing else is raised."""
    try:
        document = document_in(content, ending)
    except RuleError:
        return
    assert isinstance(document, dict)


@given(st.text(":-[]{},&*!|>'\"#%@`? \n\tab01~", max_size=60))
def test_any_text_is_yaml_or_an_error(text: str) -> None:
    """Made of what has a meaning in YAML."""
    try:
        document = read_yaml(text)
    except RuleError:
        return
    assert isinstance(document, dict)


def test_a_large_document_is_read_in_time() -> None:
    """In time that grows with its size, not with its square."""
    lines = "\n".join(
        f"  - {{type: t{number}, limit: 1/day, overrides: {{a{number}@example.com: 2/day}}}}" for number in range(3000)
    )
    began = time.process_time()

    assert len(read_yaml("rules:\n" + lines)["rules"]) == 3000  # type: ignore[arg-type]  # it is a list
    assert time.process_time() - began < 20
