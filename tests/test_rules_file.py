"""Rules in a TOML file: what can be written there, and what is told about what cannot."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import pickle
import re
import traceback
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st
from limits import RateLimitItemPerDay, RateLimitItemPerHour

from ratelimited_notify import Limiter, Notifier, NotifyError, Rule, RuleError, RuleSet
from ratelimited_notify.errors import Problem
from ratelimited_notify.rules import document
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.rules.limit import _EXAMPLES
from ratelimited_notify.rules.table import _RULE
from ratelimited_notify.sources import rules_from
from ratelimited_notify.sources.file import read_rules

if TYPE_CHECKING:
    from collections.abc import Callable


WHOLE = """
fields = ["ip"]
default = "5/hour"
unknown_type = "send"

[[rules]]
type = "status"
limit = "2/minute"

[[rules]]
type = "marketing.*"
limit = ["3/hour", "10/day"]
by = "recipient"
strategy = "fixed-window"
name = "marketing"
on_limit = "drop"
exempt = "critical"
count_exempt = false
enforce = false
required = "tenant"

[[rules]]
type = "sms"
limit = "none"
by = ["recipient", "ip"]
exempt = ["critical", "urgent"]

[rules.overrides]
"vip@example.com" = "50/day"
"shop@example.com" = "none"

[rules.tiers]
gold = ["20/day", "5/hour"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a file of rules."""

    def written(text: str) -> Path:
        path = tmp_path / "rules.toml"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return written


def problems(make: Callable[[Any], object], source: Any) -> list[str]:
    """Everything that is wrong, as `place: message`."""
    with pytest.raises(RuleError) as caught:
        make(source)
    return [str(problem) for problem in caught.value.problems]


def places(make: Callable[[Any], object], source: Any) -> list[str]:
    """Where something is wrong."""
    with pytest.raises(RuleError) as caught:
        make(source)
    return [problem.place for problem in caught.value.problems]


def test_everything_that_rules_can_say_can_be_written_in_a_file(write: Callable[[str], Path]) -> None:
    """The names are those of `Rule` and `RuleSet`, and "none" is no limit."""
    assert read_rules(write(WHOLE)) == RuleSet(
        [
            Rule("status", "2/minute"),
            Rule(
                "marketing.*",
                "3/hour; 10/day",
                by="recipient",
                strategy="fixed-window",
                name="marketing",
                on_limit="drop",
                exempt="critical",
                count_exempt=False,
                enforce=False,
                required="tenant",
            ),
            Rule(
                "sms",
                None,
                by=("recipient", "ip"),
                exempt=("critical", "urgent"),
                overrides={"vip@example.com": "50/day", "shop@example.com": None},
                tiers={"gold": "20/day; 5/hour"},
            ),
        ],
        fields=["ip"],
        default="5/hour",
        unknown_type="send",
    )


def test_a_limiter_takes_the_path_of_a_file(write: Callable[[str], Path]) -> None:
    """As a text and as a path, when it is made and when its rules are exchanged."""
    path = write('[[rules]]\ntype = "news"\nlimit = "1/day"\n')
    limiter = Limiter(str(path))

    assert limiter.rules == RuleSet({"news": "1/day"})
    limiter.rules = write('[[rules]]\ntype = "news"\nlimit = "2/day"\n')
    assert limiter.rules == RuleSet({"news": "2/day"})


@pytest.mark.parametrize(
    "text", ["", 'default = "none"', "rules = []", "\ufeff# a byte order mark\n", 'unknown_type = "send"\r\n']
)
def test_a_file_may_hold_no_rules(write: Callable[[str], Path], text: str) -> None:
    """Nothing said is the empty set, whatever the editor put around it."""
    assert read_rules(write(text)) == RuleSet()


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (None, RuleSet()),
        ({"news": "1/day"}, RuleSet({"news": "1/day"})),
        ([Rule("news", "1/day")], RuleSet({"news": "1/day"})),
        (RuleSet({"news": "1/day"}), RuleSet({"news": "1/day"})),
    ],
)
def test_rules_come_in_several_forms(rules: Any, expected: RuleSet) -> None:
    """A limiter takes a mapping, rules, a rule set or nothing."""
    assert rules_from(rules) == expected


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("rules = 5", "rules", "is a number. Write each rule as a [[rules]] table."),
        ('[rules]\ntype = "news"', "rules", "Write each rule as a [[rules]] table."),
        ("rules = [5]", "rules[0]", "must be a table with at least a type and a limit"),
        (
            "[[rule]]",
            "rule",
            "is not known; known are rules, fields, default, unknown_type. Is it meant to be [[rules]]?",
        ),
        ('"ana@example.com" = "1/day"', "?", "is not known; known are rules, fields, default, unknown_type"),
        ('fields = "ip"', "fields", 'is a string. Write a list, as in fields = ["ip"].'),
        ('fields = ["an ip"]', "fields[0]", "'an ip' is not a valid name"),
        ("fields = [5]", "fields[0]", "5 is not a valid name"),
        ("default = 5", "default", "is a number"),
        ('default = "often"', "default", "'often' is not a limit"),
        ("unknown_type = true", "unknown_type", "is true or false"),
        ('unknown_type = "drop"', "unknown_type", "'drop' is not known"),
    ],
)
def test_what_is_wrong_at_the_top_has_its_place(write: Callable[[str], Path], text: str, place: str, said: str) -> None:
    """Each mistake is named by the key that it is at."""
    (problem,) = problems(read_rules, write(text))

    assert problem.startswith(f"{place}: ")
    assert said in problem


@pytest.mark.parametrize(
    ("line", "place", "said"),
    [
        ('typ = "news"', "typ", "Is it meant to be type?"),
        ('color = "red"', "color", "is not known; known are type, limit, by,"),
        ("by = 5", "by", "is a number"),
        ('by = ["recipient", 5]', "by", "must be one string or several"),
        ('by = "ip"', "by", "'ip' is not a field"),
        ("strategy = 5", "strategy", "is a number"),
        ('strategy = "leaky"', "strategy", "'leaky' is not known"),
        ("name = 5", "name", "is a number"),
        ('name = ""', "name", "must be a non-empty string"),
        ('on_limit = "defer"', "on_limit", "needs the queue of deferred notifications"),
        ("on_limit = 5", "on_limit", "is a number"),
        ('overrides = "many"', "overrides", "is a string"),
        ('overrides = {"ana@example.com" = 5}', "overrides[0]", "it is not a limit"),
        ('overrides = {"50/day" = "ana@example.com"}', "overrides[0]", "it is not a limit"),
        ('"ana@example.com" = "50/day"', "?", "is not known; known are type, limit, by,"),
        ('overrides = {"" = "1/day"}', "overrides[0]", "is empty"),
        (
            'by = "type"\noverrides = {"ana@example.com" = "1/day"}',
            "overrides",
            "counts by recipient or by one other field",
        ),
        ('tiers = ["gold"]', "tiers", "is a list"),
        ('tiers = {gold = "often"}', "tiers.gold", "'often' is not a limit"),
        ("tiers = {gold = 5}", "tiers.gold", "5 is not a limit"),
        ("exempt = 5", "exempt", "is a number"),
        ("exempt = [5]", "exempt", "must be one string or several"),
        ('enforce = "yes"', "enforce", "is a string"),
        ("count_exempt = 1", "count_exempt", "is a number"),
        ("required = true", "required", "is true or false. Write a field or a list of them"),
        ('required = "ip"', "required", "'ip' is not a field"),
    ],
)
def test_what_is_wrong_in_a_rule_has_its_place(write: Callable[[str], Path], line: str, place: str, said: str) -> None:
    """Each mistake is named by the rule's number and the key, and nothing else is complained about."""
    good = '[[rules]]\ntype = "status"\nlimit = "2/minute"\n'
    (problem,) = problems(read_rules, write(f'{good}[[rules]]\ntype = "news"\nlimit = "1/day"\n{line}\n'))

    assert problem.startswith(f"rules[1].{place}: ")
    assert said in problem
    assert "@" not in problem


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('limit = "1/day"', ["rules[0].type: is missing."]),
        ('type = "news"', ["rules[0].limit: is missing."]),
        ("", ["rules[0].type: is missing.", "rules[0].limit: is missing."]),
        (
            'type = 5\nlimit = "1/day"',
            ['rules[0].type: is a number. Write a string, as in type = "news".'],
        ),
        (
            'type = "news"\nlimit = 5',
            ['rules[0].limit: is a number. Write a string, as in limit = "3/day".'],
        ),
    ],
)
def test_a_rule_needs_a_type_and_a_limit(write: Callable[[str], Path], lines: str, expected: list[str]) -> None:
    """One that is missing or mistyped is told by itself, with no mistakes that follow from it."""
    assert problems(read_rules, write(f"[[rules]]\n{lines}")) == expected


def test_all_that_is_wrong_in_a_file_is_told_at_once(write: Callable[[str], Path]) -> None:
    """Whoever mends the first mistake does not meet the second, in whichever rule and of whichever kind it is."""
    path = write(
        """
        fields = ["an ip"]
        default = 5
        colour = "red"
        unknown_type = "drop"
        rules = [
            5,
            {type = "news", limit = "often", by = ["recipient", "ip"], strategy = 5, overrides = {"ana" = 5, "bo" = "often"}},
            {type = "status", limit = "2/minute", on_limit = "shout"},
            {type = "status", limit = "3/minute"},
            {limit = "3/minute", by = "ip"},
            {limit = "3/minute"},
            {type = "mail", limit = "1/day", by = [""], tiers = {gold = "often"}},
            {type = "mail", limit = "1/day"},
            {type = "mail", limit = "1/day"},
        ]
        """
    )

    assert places(read_rules, path) == [
        "default",
        "colour",
        "rules[0]",
        "rules[1].strategy", "rules[1].limit", "rules[1].overrides[0]", "rules[1].overrides[1]",
        "rules[2].on_limit",
        "rules[4].type",
        "rules[5].type",
        "rules[6].by", "rules[6].tiers.gold",
        "fields[0]",
        "unknown_type",
        "rules[1].by",
        "rules[4].by",
        "rules[3]",
        "rules[8]",
    ]  # fmt: skip


def test_the_error_names_the_file(write: Callable[[str], Path]) -> None:
    """It goes on to name each problem on a line of its own, and survives the way from another process."""
    path = write("[[rules]]")
    with pytest.raises(RuleError) as caught:
        read_rules(path)

    assert str(caught.value).splitlines() == [
        f"The rules in {path} cannot be used:",
        "rules[0].type: is missing.",
        "rules[0].limit: is missing.",
    ]
    assert pickle.loads(pickle.dumps(caught.value)).source == str(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """What the system says of it is passed on."""
    path = tmp_path / "none.toml"

    with pytest.raises(RuleError) as caught:
        Limiter(path)

    assert (
        str(caught.value) == f"The rules in {path} cannot be used:\nThe file cannot be read: No such file or directory."
    )


@pytest.mark.parametrize("form", [Limiter, lambda rules: Notifier(print, rules), rules_from])
@pytest.mark.parametrize("limit", ["1/day", "3/week", "3/hour; 10/day"])
def test_a_limit_in_the_place_of_rules_is_no_missing_file(form: Callable[[Any], object], limit: str) -> None:
    """Whoever writes a limit alone learns how to say what it is for, and not that a file is missing."""
    with pytest.raises(RuleError) as caught:
        form(limit)

    assert str(caught.value) == (
        f"{limit!r} is a limit, and no file has this name. Say what it is for: "
        f"rules={{'news': {limit!r}}} limits one type, rules={{'*': {limit!r}}} each type."
    ).replace("{'news'", '{"news"').replace("{'*'", '{"*"')


def test_a_file_may_be_called_like_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is one, it is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "day").write_text('default = "5/hour"')

    assert Limiter("1/day").rules == RuleSet(default="5/hour")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """Nor is anything else that cannot be read."""
    with pytest.raises(RuleError, match="The file cannot be read: Is a directory"):
        read_rules(tmp_path)


@pytest.mark.parametrize(
    "content", [b"rules = [", b"[[rules]]\n[[rules]", b"\xff\xfe", b"{}", b"a = 1\na = 2", b"a = " + b"[" * 10_000]
)
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    """The parser's word, with its line and column where it has them."""
    path = tmp_path / "rules.toml"
    path.write_bytes(content)

    with pytest.raises(RuleError, match="The file is not valid TOML: "):
        read_rules(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[rules.overrides."ana@example.com"]\n' * 2, "a key or a table is defined twice (at line 2, column #)"),
        (
            'a = {"ana@example.com" = 1, "ana@example.com" = 2}',
            "a key or a table is defined twice (at line 1, column #)",
        ),
        (
            'a = {"ana@example.com" = 1}\na."ana@example.com".b = 2\n',
            "a key or a table is defined twice (at line 2, column #)",
        ),
        ('a = {b = 1}\n[a."ana@example.com"]', "a key or a table is defined twice (at line 2, column #)"),
        ("a = {5 = 1, 5 = 2}", "a key or a table is defined twice (at line 1, column #)"),
        ('"ana@example.com" 5', "Expected '=' after a key in a key/value pair (at line 1, column #)"),
        ("rules = [", "Invalid value (at end of document)"),
        ('a = "\x01"', "a character is not allowed there (at line 1, column #)"),
        ("a = " + "[" * 10_000, "it is nested too deeply"),
    ],
)
def test_what_is_not_toml_is_told_by_its_place(write: Callable[[str], Path], text: str, said: str) -> None:
    """The parser quotes keys, which may be addresses: what is shown of its word is the place, and what quotes none."""
    with pytest.raises(RuleError) as caught:
        read_rules(write(text))

    assert re.sub(r"column \d+", "column #", str(caught.value.problems[0])) == f"The file is not valid TOML: {said}."
    assert "ana" not in "".join(traceback.format_exception(caught.value)).replace("test_rules_file", "")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """It is told at once, whatever is in it: also of a device without an end."""
    path = tmp_path / "rules.toml"
    with path.open("wb") as file:
        file.truncate(2**40)

    for source in (path, Path("/dev/zero")):
        with pytest.raises(RuleError, match="The file is larger than 16 MiB, the most that is read"):
            read_rules(source)


def test_a_document_with_too_many_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted before anything else is done with them, and overrides and tiers of all rules together."""
    monkeypatch.setattr(document, "MOST_RULES", 100)
    monkeypatch.setattr(document, "MOST_LIMITS", 1000)

    def table(number: int, **others: Any) -> dict[str, Any]:
        overrides = {f"user{each}": "2/day" for each in range(9)}
        made = {
            "type": "a",
            "limit": "1/day",
            "name": f"rule {number}",
            "overrides": overrides,
            "tiers": {"gold": "3/day"},
        }
        return made | others

    tables = [table(number) for number in range(100)]
    assert len(rule_set_of({"rules": tables})) == 100
    with pytest.raises(RuleError, match=r"rules: are 101; at most 100 are read\. Write globs"):
        rule_set_of({"rules": [*tables, "wrong"]})
    with pytest.raises(RuleError, match=r"rules: have 1,001 overrides and tiers; at most 1,000 are read\. Write globs"):
        rule_set_of({"rules": [*tables[1:], table(0, tiers={"gold": "3/day", "silver": "2/day"})]})
    for wrong in (5, "x", [1]):
        with pytest.raises(RuleError, match=r"rules\[1\]\.overrides"):
            rule_set_of({"rules": [{}, table(1, overrides=wrong, tiers=wrong)]})


def test_a_message_does_not_grow_with_what_is_wrong() -> None:
    """The first hundred problems are shown, and of long or deep values a part. All problems are there."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    long = "9" * 1_000_000
    values = [
        deep,
        [deep],
        long,
        [long],
        long + "/day",
        "x" * 1_000_000,
        {"a": deep},
        [{"a": deep}] * 5,
        ";".join([long] * 5),
    ]
    documents: list[dict[str, Any]] = [
        {key: value} for value in values for key in ("rules", "fields", "default", "unknown_type")
    ]
    for value in values:
        tables = [{"type": "news", "limit": "1/day", key: value} for key in RULE_KEYS]
        documents += ({"rules": [table]} for table in tables)
        documents.append(
            {"rules": [{"type": "news", "limit": "1/day", "overrides": {"vip": value}, "tiers": {"gold": value}}]}
        )
    for each in documents:
        with contextlib.suppress(RuleError):
            # A type and a name may be that long.
            rule_set_of(each)
    with pytest.raises(RuleError) as caught:
        rule_set_of({"rules": [{"type": "news", "limit": f"{number}"} for number in range(1000)]})

    assert len(caught.value.problems) >= 1000
    assert str(caught.value).count("\n") == 100
    assert str(caught.value).endswith(f"... and {len(caught.value.problems) - 100:,} more problems.")
    with pytest.raises(RuleError) as caught:
        Rule("news", "9" * 1_000_000)
    assert len(str(caught.value)) < 1000


def test_wrong_names_without_end_get_advice_as_far_as_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """To search for similar names takes long, so that a million wrong names would take minutes."""
    searched: list[str] = []

    def search(name: str, *_: object) -> list[str]:
        searched.append(name)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", search)
    names = [f"limi{number}" for number in range(300)]
    rule: dict[str, Any] = {"type": "a", "limit": "1/day"}
    documents: list[dict[str, Any]] = [
        dict.fromkeys(names),
        {"rules": [rule | dict.fromkeys(names)]},
        {"rules": [rule | {name: 1, name + "t": 2} for name in names]},
        {"rules": [rule | {"by": names}]},
        {"rules": [rule | {"name": name, "by": name, "required": name} for name in names]},
        {"fields": names, "rules": [rule | {"name": name, "by": f"{name}t"} for name in names]},
    ]
    for each in documents:
        searched.clear()
        with pytest.raises(RuleError) as caught:
            rule_set_of(each)

        assert len(caught.value.problems) >= 300
        assert 0 < len(searched) <= 101
    searched.clear()
    with pytest.raises(RuleError):
        rule_set_of({"rules": [rule | {"x" * 1_000_000: 1}]})
    assert searched == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": "1/day;" * 1000},
        {"limit": "x;" * 1000},
        {"limit": ["x"] * 1000},
        {"limit": ["1/day"] * 1000},
        {"limit": [";".join(["x"] * 90)] * 90},
        {"tiers": {"gold" * 1000: "x"}},
        {"by": "nope"},
    ],
)
def test_one_problem_is_not_long_however_much_is_wrong(wrong: dict[str, Any]) -> None:
    """One value of a file can be millions of limits, and then the message would be hundreds of megabytes."""
    fields = [f"field{number}" for number in range(900)]
    with pytest.raises(RuleError) as caught:
        rule_set_of({"fields": fields, "rules": [{"type": "a", "limit": "1/day"} | wrong]})

    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    ("number", "last"),
    [(100, "x99: wrong"), (101, "... and 1 more problem."), (1102, "... and 1,002 more problems.")],
)
def test_the_message_says_how_many_problems_it_leaves_out(number: int, last: str) -> None:
    """In the plural only if there are several."""
    error = RuleError([Problem(f"x{each}", "wrong") for each in range(number)])
    assert str(error).splitlines()[-1] == last


def test_a_document_with_too_many_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wrong field of a rule is compared with all of them."""
    monkeypatch.setattr(document, "MOST_FIELDS", 10)
    fields = [f"field{number}" for number in range(11)]
    assert len(rule_set_of({"fields": fields[1:]}).fields) == 15
    with pytest.raises(RuleError, match="fields: are 11; at most 10 are read"):
        rule_set_of({"fields": fields})


NOISE = [b"", b"\0", b"\r", b"\xff", b"[[", b'"', b"=", b"'" * 3, b"none", b"9" * 50, b"1/day", b"\n"]


@given(st.data())
def test_any_file_is_a_rule_set_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever its bytes are: noise, or rules in which some bytes were changed, cut out or doubled."""
    content = bytearray(WHOLE.encode() if data.draw(st.integers(0, 3)) else data.draw(st.binary(max_size=200)))
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 30)))
        content[start:end] = data.draw(st.sampled_from([*NOISE, bytes(content[start:end]) * 2]))
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    with contextlib.suppress(RuleError):
        limiter = Limiter(read_rules(path), tier_of=lambda _: "gold")
        with contextlib.suppress(NotifyError):
            assert limiter.test("news", "ana", tenant="acme").error is None


def test_what_is_no_path_is_not_read() -> None:
    """A path with a NUL in it names no file."""
    with pytest.raises(RuleError, match="The rules in"):
        read_rules("a\0b")


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["1/day", "news"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
RULE_KEYS = [
    "type", "limit", "by", "strategy", "name", "on_limit", "overrides", "tiers", "exempt", "count_exempt", "enforce", "required", "other",
]  # fmt: skip
tables = st.dictionaries(st.sampled_from(RULE_KEYS), values, max_size=6)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rules": st.lists(st.one_of(tables, values), max_size=4) | values,
            "fields": values,
            "default": values,
            "unknown_type": values,
            "other": values,
        },
    )
)
def test_any_document_is_a_rule_set_or_an_error_with_places(document: dict[str, Any]) -> None:
    """Nothing in a document leads to any other exception, and each problem says where it is."""
    problems: tuple[Problem, ...] = ()
    try:
        rules = rule_set_of(document)
    except RuleError as error:
        problems = error.problems
    else:
        assert len(rules) == len(document.get("rules", []))

    assert all(problem.place for problem in problems)


@given(st.lists(tables, max_size=4))
def test_dicts_are_the_rules_that_a_file_of_them_has(given_tables: list[dict[str, Any]]) -> None:
    """One decoder reads both: the same rules, or the same problems at the same places."""

    def made(make: Callable[[], RuleSet]) -> RuleSet | list[str]:
        try:
            return make()
        except RuleError as error:
            return [str(problem) for problem in error.problems]

    assert made(lambda: RuleSet(given_tables)) == made(lambda: rule_set_of({"rules": given_tables}))


def test_dicts_are_read_wherever_rules_are_written() -> None:
    """A list of dicts, alone or mixed with rules, in each thing that takes rules; for instance from a settings file."""
    plain = [{"type": "news", "limit": "1/day"}, {"type": "sms", "limit": "none", "by": ["tenant"]}]
    expected = RuleSet([Rule("news", "1/day"), Rule("sms", None, by="tenant")])

    assert RuleSet(json.loads(json.dumps(plain))) == expected
    assert RuleSet([Rule("news", "1/day"), plain[1]]) == expected
    assert RuleSet(**json.loads(json.dumps({"rules": plain, "fields": ["ip"], "default": "5/hour"}))) == RuleSet(
        expected, fields=["ip"], default="5/hour"
    )
    assert rules_from(plain) == Limiter(plain).rules == Notifier(print, plain).rules == expected
    limiter = Limiter()
    limiter.rules = (MappingProxyType(each) for each in plain)
    assert limiter.rules == expected


def test_a_dict_takes_what_a_rule_takes() -> None:
    """The names are the parameters of `Rule`, and values need not come from a file."""
    arguments: dict[str, Any] = {
        "type": "sms",
        "limit": RateLimitItemPerDay(2),
        "by": ("recipient", "tenant"),
        "strategy": "fixed-window",
        "name": None,
        "on_limit": None,
        "overrides": {5: None, "ana": ("50/day", RateLimitItemPerHour(5))},
        "tiers": None,
        "exempt": {"critical"},
        "count_exempt": False,
        "enforce": True,
        "required": ("tenant",),
    }

    assert RuleSet([arguments]) == RuleSet([Rule(**arguments)])
    assert set(_RULE) == set(inspect.signature(Rule).parameters)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([{"type": "news"}], ["rules[0].limit: is missing."]),
        (
            [{"type": "news", "limit": "1/day"}, {"type": "sms", "limit": "often", "enforce": 1}],
            [
                "rules[1].enforce: is a number. Write true or false, without quotes.",
                f"rules[1].limit: 'often' is not a limit. {_EXAMPLES}",
            ],
        ),
        (["news", {}], ["rules[0]: is a str, not a Rule or a dict.", "rules[1].type: is missing.", "rules[1].limit: is missing."]),
        ({"type": "news", "limit": "1/day"}, ["rules: is one rule; write it in a list: [{'type': ..., 'limit': ...}]."]),
        (
            {"rules": [{"type": "news", "limit": "1/day"}]},
            ["rules: is a document with rules in it; write RuleSet(**document)."],
        ),
        ([{"ana@example.com": "1/day", "type": "news", "limit": "1/day"}], None),
    ],
)  # fmt: skip
def test_what_is_wrong_in_dicts_has_its_place(rules: Any, expected: list[str] | None) -> None:
    """All mistakes at once, by the number of the rule and the name of the argument; and no address is shown."""
    said = problems(RuleSet, rules)

    assert expected is None or said == expected
    assert "@" not in "".join(said)


def test_types_may_be_called_like_the_parts_of_a_rule() -> None:
    """A mapping from type to limit is that, whatever the types are called."""
    assert [rule.type for rule in RuleSet({"type": "1/day", "limit": "2/day", "rules": ["3/day"]})] == [
        "type",
        "limit",
        "rules",
    ]


def test_keys_that_are_no_texts_are_unknown() -> None:
    """Documents of other kinds than TOML can have them."""
    assert places(rule_set_of, {5: "news"}) == ["?"]
