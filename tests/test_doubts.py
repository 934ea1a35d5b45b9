"""What is hardly meant as it is written: refused where it cannot be meant, and otherwise a warning, once."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from processes import unconfigured
from ratelimited_notify import (
    AsyncLimiter,
    Limiter,
    Notifier,
    NotifyError,
    Rule,
    RuleError,
    RuleSet,
    configure,
    rate_limited,
)
from ratelimited_notify.rules.glob import parts_of
from ratelimited_notify.sources import load

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a process to itself, in which nothing is configured and nothing was logged."""
    monkeypatch.setattr(load, "_logged", set())
    with unconfigured(monkeypatch):
        yield


def warnings(*rules: Rule) -> list[str]:
    return [str(problem) for problem in RuleSet(rules).warnings]


@pytest.mark.parametrize(
    ("type", "said"),
    [
        ("^news.*$", "is a regular expression, but types are matched as globs. Write 'news*'."),
        ("^news\\.eu.+$", "is a regular expression, but types are matched as globs. Write 'news.eu?*'."),
        (
            "^(news|status)$",
            "is a regular expression, but types are matched as globs. Write a glob with *, ? and [...]",
        ),
        ("^[a-z]+$", "is a regular expression, but types are matched as globs. Write a glob with *, ? and [...]"),
        ("{a,b}", "'{a,b}' has alternatives in braces, which globs do not have. Write one rule for each of them."),
        ("news.{eu, us}.*", "has alternatives in braces"),
    ],
)
def test_a_type_that_cannot_be_meant_is_refused(type: str, said: str) -> None:
    """A pattern of another language would match nothing, and nothing would be limited."""
    for make in (
        lambda: Rule(type, "1/day"),
        lambda: RuleSet({type: "1/day"}),
        lambda: RuleSet([{"type": type, "limit": "1/day"}]),
    ):
        with pytest.raises(RuleError) as caught:
            make()
        (problem,) = caught.value.problems
        assert problem.place.endswith("type")
        assert said in problem.message
    with pytest.raises(NotifyError):
        rate_limited(type, "1/day")


@pytest.mark.parametrize(
    ("type", "said"),
    [
        (
            "news|status",
            "'news|status' looks like several types, but matches only itself. Write one rule for each type, or [|]",
        ),
        ("a, b", "'a, b' looks like several types, but matches only itself. Write one rule for each type, or [,]"),
        ("a.*;b", "looks like several types, but is matched as a glob. Write one rule for each type, or [;]"),
        ("marketing.%", "looks like a pattern of SQL, but matches only itself. Write * for any characters, or [%]"),
        ("%", "looks like a pattern of SQL"),
        ("news%", "looks like a pattern of SQL"),
        (
            "[x",
            "'[x' has a bracket that is never closed, so it stands for itself. Close it, or write [[] for a bracket.",
        ),
        ("[a]b[!", "has a bracket that is never closed"),
        ("^news.*", "looks like a regular expression, but is matched as a glob: only *, ? and [...] have a meaning"),
        ("news$", "looks like a regular expression, but matches only itself"),
        ("news\\.eu", "looks like a regular expression"),
        ("news.+", "looks like a regular expression"),
        ("(?i)news", "looks like a regular expression"),
        ("!news", "looks like an exclusion, but matches only itself"),
        ("news.{region}", "looks like a text in which something must still be filled in"),
        ("{}", "looks like a text in which something must still be filled in"),
        (" news", "begins or ends with a space, and so must the types that it matches"),
        ("news\n", "begins or ends with a space"),
        (
            "alert-[^0-9]",
            "has a set that begins with ^, which is one of its characters. To exclude characters, write [!...].",
        ),
        ("alert-[9-0]", "has a range that ends before it begins, so no other type matches."),
        ("alert-[9-0x]", "has a range that ends before it begins, so the range matches nothing."),
        ("news|" * 100, "looks like several types"),
    ],
)
def test_a_type_that_is_hardly_meant_is_a_warning(type: str, said: str) -> None:
    """It is accepted, since a type may be any text; the warning has its place, and does not repeat a long text."""
    (warning,) = warnings(Rule("status", "1/day"), Rule(type, "1/day"))

    assert warning.startswith("rules[1].type: ")
    assert said in warning
    assert len(warning) < 300
    assert Rule(type, "1/day").matches(type)


@pytest.mark.parametrize(
    "type",
    [
        "news", "marketing.*", "*", "**", "?", "alert-[0-9]", "alert-[!0-9]", "news[|]status", "a[,]b", "[[]x", "[%]", "[$]", "[^]GSPC", "[ ]news", "news.[{]region}", "news[;]status", "x[\\]d", "[a-]", "[-a]",
        "50%", "100% off", "order shipped", "a]b", "a}b", "news.v2", "Ünïcode", "a+b", "a^b", "a$b", "a!b", "C:\\x", "user@example.com", "a/b", "[]a]", "[!]a]",
    ],
)  # fmt: skip
def test_what_is_meant_is_no_warning(type: str) -> None:
    """Plain names, globs, and characters in brackets."""
    assert warnings(Rule(type, "1/day", exempt="critical", tiers={"gold": "5/day"}, overrides={"ana": "5/day"})) == []


@pytest.mark.parametrize("value", ["*@example.com", "*", "**", "%@example.com", "*%"])
@pytest.mark.parametrize("by", ["recipient", "tenant"])
def test_an_override_for_a_pattern_is_refused(value: str, by: str) -> None:
    """Nobody is called that, so it would be for nobody; the message shows no address."""
    with pytest.raises(RuleError) as caught:
        Rule("sms", "5/day", by=by, overrides={"ana": "9/day", value: "50/day"})

    assert str(caught.value) == (
        f"overrides[1]: is a pattern, but an override is for a single {by}. "
        "Write one for each, or a tier, and let tier_of= say who is in it."
    )


@pytest.mark.parametrize(
    "value",
    [
        "ana*",
        "+4917*",
        "ana+*@example.com",
        "^.*@example.com$",
        "ana@example.com, bo@example.com",
        "a@x.com;b@x.com",
        "a@x.com b@x.com",
    ],
)
@pytest.mark.parametrize("by", ["recipient", "tenant"])
def test_an_override_that_looks_like_a_pattern_is_a_warning(value: str, by: str) -> None:
    """With its place, and without the address."""
    (warning,) = warnings(Rule("sms", "5/day", by=by, overrides={"ana": "9/day", value: "50/day"}))

    assert warning == (
        f"rules[0].overrides[1]: looks like a pattern, but an override is for a single {by}. "
        "Write one for each, or a tier, and let tier_of= say who is in it."
    )


@pytest.mark.parametrize(
    "value",
    [
        "ana@example.com",
        "@ana",
        "+49 170 1234",
        "ana+news@example.com",
        "a%b",
        "%",
        "^",
        "https://x.example/?a=b,c",
        "a, b",
        5,
    ],
)
def test_other_recipients_are_no_warning(value: Any) -> None:
    """Handles, numbers, tags, URLs."""
    assert warnings(Rule("sms", "5/day", overrides={value: "50/day"})) == []


@pytest.mark.parametrize("name", ["critical, urgent", "crit*", "a|b", " critical"])
@pytest.mark.parametrize("option", ["exempt", "tiers"])
def test_names_that_look_like_several_are_a_warning(name: str, option: str) -> None:
    """Priorities and tiers are names, not patterns and not lists in one text."""
    rule = Rule("sms", "5/day", exempt=name) if option == "exempt" else Rule("sms", "5/day", tiers={name: "9/day"})

    assert warnings(rule) == [
        f"rules[0].{option}: {name!r} is taken as one name. It is not a pattern; write several names as a list."
    ]


@given(st.text(max_size=20) | st.text(st.sampled_from("[]!^-$*?{},|%\\ a.("), max_size=12))
def test_every_text_is_judged(text: str) -> None:
    """Whatever it is, it is refused, warned of or accepted, and nothing else happens; brackets are found as `fnmatch` finds them."""
    try:
        rule = Rule(text or "?", "1/day", overrides={text or "?": None}, exempt=text or (), tiers={text or "?": None})
        places = {problem.place for problem in rule.warnings}
    except RuleError as error:
        places = {problem.place for problem in error.problems}
    assert places <= {"type", "overrides[0]", "exempt", "tiers"}
    outside, sets, unclosed = parts_of(text)
    assert unclosed == ("[" in outside)
    assert len(text) == len(outside) + sum(len(each) + 1 for each in sets)


# How it is told.


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {(record.name, record.levelno) for record in caplog.records} <= {("ratelimited_notify", logging.WARNING)}
    return [record.getMessage() for record in caplog.records]


def assigned(rules: Any) -> None:
    limiter = Limiter()
    limiter.rules = rules


@pytest.mark.parametrize("give", [Limiter, AsyncLimiter, partial(Notifier, print), configure, assigned])
def test_a_warning_is_logged_once(caplog: pytest.LogCaptureFixture, give: Any) -> None:
    """However many limiters have the rules, and however often they are read again: one line, by its place."""
    for _ in range(3):
        give([Rule("news", "1/day"), Rule("a|b", "1/day")])

    (line,) = logged(caplog)
    assert line.startswith("rules[1].type: 'a|b' looks like several types")


def test_warnings_are_logged_within_bounds(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that a program makes up fill neither the log nor the memory."""
    monkeypatch.setattr(load, "_MOST_LOGGED", 10)
    for number in range(30):
        Limiter({f"a|{number}": "1/day"})

    assert len(logged(caplog)) == len(load._logged) == 10


def test_the_type_of_a_decorator_is_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """It is the type that is sent, so it matches as it is meant."""
    rate_limited("a|b", "1/day")(lambda to: None)("ana")

    assert logged(caplog) == []
