"""Rules and rule sets: what can be written down, and what is told about what cannot."""

from __future__ import annotations

import copy
import pickle
import re
from enum import Enum
from typing import Any

import pytest
from hypothesis import assume, example, given, strategies as st
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, parse
from limits.limits import GRANULARITIES

from ratelimited_notify import Rule, RuleError, RuleSet
from ratelimited_notify.notification.cost import LARGEST_AMOUNT
from ratelimited_notify.rules.doubt import wrong_type
from ratelimited_notify.rules.limit import LONGEST_PERIOD, limits_of
from ratelimited_notify.rules.wording import duration_text, limits_text


class Kind(str, Enum):  # noqa: UP042  # what StrEnum replaced: its str() is "Kind.NEWS"
    NEWS = "news"


class Nameless(RateLimitItem):
    """An item of `limits` that nobody gave a period."""


class Labelled(RateLimitItemPerDay):
    """An item of `limits` with keys of its own."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "mine"


def problems(make: Any, *arguments: Any, **options: Any) -> list[str]:
    """Everything that is wrong, as `place: message`."""
    with pytest.raises(RuleError) as caught:
        make(*arguments, **options)
    return [str(problem) for problem in caught.value.problems]


def places(make: Any, *arguments: Any, **options: Any) -> list[str]:
    """Where something is wrong."""
    with pytest.raises(RuleError) as caught:
        make(*arguments, **options)
    return [problem.place for problem in caught.value.problems]


# Limits.


@pytest.mark.parametrize(
    ("notation", "expected"),
    [
        ("1/day", ["1 per 1 day"]),
        ("5 per 2 hours", ["5 per 2 hour"]),
        ("5PER2Hours", ["5 per 2 hour"]),
        ("1/second;5/minute", ["1 per 1 second", "5 per 1 minute"]),
        ("3/hour; 10/day", ["3 per 1 hour", "10 per 1 day"]),
        ("3/hour, 10/day | 20/month", ["3 per 1 hour", "10 per 1 day", "20 per 1 month"]),
        (["3/hour", "10/day; 20/month"], ["3 per 1 hour", "10 per 1 day", "20 per 1 month"]),
        (RateLimitItemPerHour(3), ["3 per 1 hour"]),
        ((RateLimitItemPerHour(3, 2), "10/day"), ["3 per 2 hour", "10 per 1 day"]),
        ((text for text in ["1/day"]), ["1 per 1 day"]),
        ("0/day", ["0 per 1 day"]),
        ("1/week", ["1 per 7 day"]),
        ("5/m", ["5 per 1 minute"]),
        ("5/h", ["5 per 1 hour"]),
        ("5/s", ["5 per 1 second"]),
        ("1/24h", ["1 per 24 hour"]),
        ("3/hour; 10/day;", ["3 per 1 hour", "10 per 1 day"]),
        ("1,000/day", ["1000 per 1 day"]),
        ("3/hour,1,000/day,20_000 per 1,000 days", ["3 per 1 hour", "1000 per 1 day", "20000 per 1000 day"]),
        (None, []),
    ],
)
def test_limits_are_written_as_limits_does(notation: Any, expected: list[str]) -> None:
    """One limit or several, each of which counts: `limits.parse` drops all but the first of them."""
    assert [str(item) for item in limits_of(notation)] == expected


@pytest.mark.parametrize(
    ("notation", "said"),
    [
        ("", "'' is not a limit"),
        ("often", "'often' is not a limit"),
        ("5", "'5' is not a limit"),
        ("/day", "'/day' is not a limit"),
        ("-1/day", "'-1/day' is not a limit"),
        ("1.5/day", "'1.5/day' is not a limit"),
        (";", "'' is not a limit"),
        (";1/day", "'' is not a limit, and there is one separator too many. Write '1/day'."),
        ("1/day;;5/hour", "Write '1/day; 5/hour'."),
        ("1/day;;often", "'' is not a limit, and there is one separator too many."),
        ("1/day x", "'1/day x' is not a limit"),
        ("1/day\n5/hour", "is not a limit"),
        ("1/day and 5/hour", "is not a limit"),
        ("٣/day", "'٣/day' is not a limit"),
        ("1/fortnight", "'1/fortnight' has an unknown period; use second, minute, hour, day, week, month or year"),
        ("1/0 days", "has a period of length 0"),
        ("1000000001/day", "has an amount that is not between 0 and 1,000,000,000"),
        ("1 per 10001 days", "has a period that is not between 1 second and 10,000 days"),
        ("9" * 5000 + "/day", "has a number with too many digits"),
        ("1 per " + "9" * 5000 + " days", "has a number with too many digits"),
        (5, "5 is not a limit"),
        (True, "True is not a limit"),
        (["1/day", 5], "5 is not a limit"),
        ({"5/day": "recipient"}, "a dict is not a limit"),
        ([{"limit": "1/day", "overrides": {"ana@example.com": "5/day"}}], "a dict is not a limit"),
        ([], "contains no limit"),
        ("1/day; 2/day", "'1 per day; 2 per day' has two limits with the same period"),
        ("1/day; 2 per 24 hours", "has two limits with the same period"),
        (RateLimitItemPerDay(-1), "has an amount that is not between"),
        (RateLimitItemPerDay(1, -1), "has a period that is not between"),
        (Nameless(1), "a Nameless has no period"),
        (RateLimitItem(1), "a RateLimitItem has no period"),
    ],
)
def test_a_limit_that_is_not_understood_is_an_error(notation: Any, said: str) -> None:
    """Nothing is dropped silently: a typo that removed a limit would be found out by the recipients."""
    with pytest.raises(RuleError) as caught:
        limits_of(notation)

    assert said in str(caught.value)
    assert "ana@" not in str(caught.value)


def test_all_that_is_wrong_with_a_limit_is_told_at_once() -> None:
    """Whoever mends the first mistake does not meet the second."""
    with pytest.raises(RuleError) as caught:
        limits_of(["often; 1/fortnight", 5, "1/0 days", "5000000000/day; 1 per 24 hours"])

    said = ["'often'", "'1/fortnight'", "5 is not", "a period of length 0", "1,000,000,000", "the same period"]
    assert [text for text in said if text not in str(caught.value)] == []


def test_bounds_of_a_limit() -> None:
    """The largest amount and the longest period are inside."""
    (item,) = limits_of(f"{LARGEST_AMOUNT} per {LONGEST_PERIOD} seconds")

    assert (item.amount, item.get_expiry()) == (LARGEST_AMOUNT, LONGEST_PERIOD)


separators = st.sampled_from([";", ",", "|"])
part = st.one_of(
    st.text(max_size=8),
    st.builds(
        lambda amount, per, multiples, period: f"{amount}{per}{multiples}{period}",
        st.integers(0, 30),
        st.sampled_from(["/", " per ", "PER", " / ", "  per", "//"]),
        st.sampled_from(["", "1 ", "2", " 3 ", "0"]),
        st.sampled_from(
            ["second", "Minutes", "hour", "days", "month", "year", "week", "secondss", "m", "M", "W", "hrs", ""]
        ),
    ),
)


@given(st.lists(part, min_size=1, max_size=4), separators)
@example(["1/second", "5/minute"], ";")
@example(["1/day", "x"], ";")
@example(["1/\u017fecond"], ";")
@example(["1/day", ""], ";")
@example(["5/M"], ";")
@example(["1 per 2w", "1/mo"], ",")
def test_any_text_is_parsed_in_full_or_refused(parts: list[str], separator: str) -> None:
    """What is accepted is what `limits` makes of each part by itself; what `limits` does not read is an error."""
    text = separator.join(parts)
    pieces = [piece for sub in parts for piece in _pieces(sub)]
    if len(pieces) > 1 and not pieces[-1].strip():
        pieces.pop()
    try:
        items = limits_of(text)
    except RuleError:
        assert not _usable(pieces)
    else:
        assert list(items) == [parse(_as_limits_writes(piece)) for piece in pieces]


def _pieces(text: str) -> list[str]:
    for separator in ",|":
        text = text.replace(separator, ";")
    return text.split(";")


SPELLINGS = {
    "second": ("s", "sec", "secs", "second", "seconds"),
    "minute": ("m", "min", "mins", "minute", "minutes"),
    "hour": ("h", "hr", "hrs", "hour", "hours"),
    "day": ("d", "day", "days"),
    "week": ("w", "wk", "wks", "week", "weeks"),
    "month": ("mo", "mos", "month", "months"),
    "year": ("y", "yr", "yrs", "year", "years"),
}
DAYS = {"week": 7}


def _as_limits_writes(piece: str) -> str:
    """The piece in the notation of `limits`, where it differs only by the name of its period."""
    found = re.fullmatch(r"(.*(?:/|per))(\s*)([0-9]*)(\s*)([a-z]+)\s*", piece, re.IGNORECASE | re.DOTALL)
    if found is None or found[5] == "M":
        return piece
    for period, spellings in SPELLINGS.items():
        if found[5].lower() in spellings:
            times = int(found[3] or 1) * DAYS.get(period, 1)
            return f"{found[1]} {times} {'day' if period == 'week' else period}"
    return piece


def _usable(pieces: list[str]) -> bool:
    try:
        items = [parse(_as_limits_writes(piece)) for piece in pieces]
    except ValueError:
        return False
    # What `limits` reads otherwise than it is written: a multiple of 0, and what comes after the first limit.
    if any(_multiples(piece) == 0 or not piece.strip()[-1:].isalpha() for piece in pieces):
        return False
    periods = [item.get_expiry() for item in items]
    return len(set(periods)) == len(periods)


def _multiples(piece: str) -> int:
    digits = [word for word in "".join(char if char.isdigit() else " " for char in piece).split() if word]
    return int(digits[1]) if len(digits) > 1 else 1


amounts = st.integers(0, LARGEST_AMOUNT)
written = st.tuples(
    amounts,
    st.sampled_from(["{}", "{:,}", "{:_}", " {} "]),
    st.sampled_from(["/", " per ", "per", " / ", "/ "]),
    st.integers(1, 1_000),
    st.sampled_from(["{}", "{:,}", "{} ", ""]),
    st.sampled_from(list(SPELLINGS)),
    st.randoms(use_true_random=False),
)


@given(st.lists(written, min_size=1, max_size=3), st.sampled_from([";", ", ", "|", ","]), st.booleans())
def test_a_limit_has_one_meaning_however_it_is_written(
    drawn: list[tuple[Any, ...]], separator: str, at_the_end: bool
) -> None:
    """Every spelling of a period, with thousands set apart, several in a text, with or without a separator at the end."""
    parts, expected = [], {}
    for amount, number, per, multiples, times, period, chance in drawn:
        name = chance.choice([*SPELLINGS[period], SPELLINGS[period][-1].upper()])
        parts.append(number.format(amount) + per + times.format(multiples) + name)
        item = GRANULARITIES["day" if period == "week" else period](
            amount, (multiples if times else 1) * DAYS.get(period, 1)
        )
        expected[item.get_expiry()] = item
    text = separator.join(parts) + (separator if at_the_end else "")
    if len(expected) < len(drawn) or max(expected) > LONGEST_PERIOD:
        with pytest.raises(RuleError):
            limits_of(text)
    else:
        assert list(limits_of(text)) == list(expected.values())


@pytest.mark.parametrize(
    ("notation", "proposed"),
    [
        ("5 a day", ["5/day"]),
        ("once a day", ["1/day"]),
        ("twice per week", ["2/week"]),
        ("5x/day", ["5/day"]),
        ("5 daily", ["5/day"]),
        ("5 every 2 hours", ["5 per 2 hours"]),
        ("1.5/day", ["3 per 2 days"]),
        ("1.000/day", ["1000/day"]),
        ("1 000/day", ["1000/day"]),
        ("5 per 1.5h", ["10 per 3 hours"]),
        ("5/M", ["5/minute", "5/month"]),
        ("1/dya", ["1/day"]),
        ("1/fortnight", ["1 per 2 weeks"]),
        ("1/quarter", ["1 per 3 months"]),
        ("3/hour and 10/day", ["3/hour; 10/day"]),
        ("1/day\n5/hour", ["1/day; 5/hour"]),
        ("every 5 minutes", ["1 per 5 minutes"]),
        ("each 2 days", ["1 per 2 days"]),
        ("once every 5 minutes", ["1 per 5 minutes"]),
        ("5 every minute", ["5/minute"]),
        ("5 minutes", ["5/minute", "1 per 5 minutes"]),
        ("5d", ["5/day", "1 per 5 days"]),
        ("1.5 days", ["3 per 2 days", "2 per 3 days"]),
        ("1 day", ["1/day"]),
        ("5/minit", ["5/minute"]),
        ("every 5 per 2 days", []),
        ("per 5 minutes", []),
        ("in 5 minutes", []),
        ("/5 minutes", []),
        ("10001 days", ["10001/day"]),
        ("3/hour and 10 per 1 h", []),
        ("5/millisecond", []),
        ("5/weekday", []),
        ("5/midday", []),
        ("5/jour", []),
        ("1/day and often", []),
        ("0,500/day", []),
        ("-1/day", []),
        ("3/2/day", []),
        ("day 5", []),
        ("5 day day", []),
        ("5 2 1 day", []),
        ("5 per user", []),
        ("1.2.3/day", []),
        ("5/ms", []),
        ("0.001/day", []),
        (f"1/{'dya' * 30}", []),
    ],
)
def test_what_is_not_a_limit_is_answered_with_what_may_be_meant(notation: str, proposed: list[str]) -> None:
    """The message has the right text, ready to be copied; where nothing can be guessed it shows the notation."""
    with pytest.raises(RuleError) as caught:
        limits_of(notation)

    said = str(caught.value)
    assert all(limits_of(text) for text in proposed)
    assert said.endswith(f"Write {' or '.join(map(repr, proposed))}.") or not proposed
    assert bool(re.search(r"Write '", said)) == bool(proposed)


@given(
    st.lists(
        st.sampled_from([*"0159.,/' -", "per", "a", "day", "min", "M", "dya", "weekly", "and", "once", "\n"]),
        max_size=8,
    )
)
def test_what_is_proposed_can_be_used(words: list[str]) -> None:
    """Whatever the text, advice that is followed leads to no second error."""
    try:
        limits_of("".join(words))
    except RuleError as error:
        for text in re.findall(r"Write '([^']*)'(?: or '([^']*)')?\.", str(error)):
            assert all(limits_of(each) for each in text if each)


def test_items_are_taken_without_what_was_hung_on_them() -> None:
    """Items that are equal but hash differently, or have keys of their own, make equal rules of one hash."""
    rules = [
        Rule("news", "1/day"),
        Rule("news", RateLimitItemPerDay(1)),
        Rule("news", RateLimitItemPerDay(1, namespace="other")),
        Rule("news", Labelled(1)),
    ]

    assert len(set(rules)) == 1


def test_an_item_of_a_window_can_be_a_limit_again() -> None:
    """What a decision shows as the limit can be written into another rule."""
    from ratelimited_notify import Limiter

    shown = Limiter({"news": "1/day"}).hit("news", "ana").windows[0].item

    assert Rule("news", shown) == Rule("news", "1/day")


def test_reading_limits_leaves_limits_alone() -> None:
    """No granularity of `limits` is added or taken over."""
    from ratelimited_notify import Limiter

    before = dict(GRANULARITIES)
    Limiter({"news": "1/second; 1/minute; 1/hour; 1/day; 1/month; 1/year"}).hit("news", "ana")

    assert before == GRANULARITIES


# One rule.


def test_what_a_rule_says_by_default() -> None:
    """Per type and recipient, exact, enforced, and named after its type."""
    rule = Rule("news", "1/day")

    assert (rule.type, rule.by, rule.strategy, rule.name) == ("news", ("type", "recipient"), "moving-window", "news")
    assert (rule.on_limit, dict(rule.overrides), dict(rule.tiers), rule.exempt) == (None, {}, {}, frozenset())
    assert (rule.count_exempt, rule.enforce, rule.required) == (True, True, ())


@pytest.mark.parametrize(
    ("by", "expected", "name"),
    [
        ("recipient", ("recipient",), "news by recipient"),
        (("recipient", "tenant"), ("recipient", "tenant"), "news by recipient+tenant"),
        (["type", "recipient"], ("type", "recipient"), "news"),
        ((), (), "news by all"),
        ({"tenant", "recipient"}, ("recipient", "tenant"), "news by recipient+tenant"),
        (frozenset({"type", "tenant", "channel"}), ("channel", "tenant", "type"), "news by channel+tenant+type"),
        ((field for field in ["tenant"]), ("tenant",), "news by tenant"),
    ],
)
def test_what_a_rule_is_counted_by(by: Any, expected: tuple[str, ...], name: str) -> None:
    """One string is one field; a set is put in order, since the order is part of the name and differs from process to process."""
    rule = Rule("news", "1/day", by=by)

    assert (rule.by, rule.name) == (expected, name)


def test_texts_of_another_class_are_taken_by_their_content() -> None:
    """A member of a str enumeration is the text that it holds, in every place of a rule."""
    rule = Rule(
        Kind.NEWS, "1/day", name=Kind.NEWS, exempt=Kind.NEWS, tiers={Kind.NEWS: "2/day"}, by=["recipient", Kind.NEWS]
    )

    assert rule == Rule("news", "1/day", name="news", exempt="news", tiers={"news": "2/day"}, by=["recipient", "news"])
    texts = [rule.type, rule.name, *rule.exempt, *rule.tiers, *rule.by]
    assert {type(text) for text in texts} == {str}
    assert Rule(Kind.NEWS, "1/day", by="recipient").name == "news by recipient"


def test_the_name_does_not_hold_the_amount() -> None:
    """Editing a limit keeps its counters."""
    assert Rule("news", "1/day").name == Rule("news", "5/hour").name
    assert Rule("news", "1/day", name="daily").name == "daily"


@pytest.mark.parametrize(
    ("pattern", "matched", "unmatched"),
    [
        ("news", ["news"], ["News", "news.eu", "new", ""]),
        (
            "marketing.*",
            ["marketing.", "marketing.eu", "marketing.eu.fr", "marketing.\n"],
            ["marketing", "Marketing.eu"],
        ),
        ("*", ["news", "\n", "a/b"], []),
        ("alert-[0-9]", ["alert-5", "alert-[0-9]"], ["alert-x", "alert-55"]),
        ("alert-[!0-9]", ["alert-x"], ["alert-5"]),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("[", ["["], ["x"]),
        ("[z-a]", ["[z-a]"], ["z", "a"]),
    ],
)
def test_types_are_matched_as_globs_with_case(pattern: str, matched: list[str], unmatched: list[str]) -> None:
    """As `fnmatchcase` does, and a type that looks like a glob matches itself."""
    rule = Rule(pattern, "1/day")

    assert [type for type in matched if not rule.matches(type)] == []
    assert [type for type in unmatched if rule.matches(type)] == []


@pytest.mark.parametrize(
    ("options", "place", "said"),
    [
        ({"type": ""}, "type", "must be a non-empty string such as 'news'"),
        ({"type": 5}, "type", "must be a non-empty string"),
        ({"type": None}, "type", "must be a non-empty string"),
        ({"limit": "often"}, "limit", "'often' is not a limit"),
        ({"by": ""}, "by", "must be one string or several, and none may be empty"),
        ({"by": None}, "by", "must be one string or several"),
        ({"by": ["recipient", 5]}, "by", "must be one string or several"),
        ({"by": ["recipient", "recipient"]}, "by", "names a field twice"),
        ({"strategy": "leaky"}, "strategy", "use one of 'moving-window', 'fixed-window', 'sliding-window-counter'"),
        ({"strategy": None}, "strategy", "None is not known"),
        ({"name": ""}, "name", "must be a non-empty string"),
        ({"name": 5}, "name", "must be a non-empty string"),
        ({"on_limit": "ignore"}, "on_limit", "'ignore' is not known; use one of 'raise', 'drop', 'wait'"),
        ({"on_limit": "defer"}, "on_limit", "needs the queue of deferred notifications"),
        ({"on_limit": ["digest"]}, "on_limit", "is not known"),
        ({"overrides": {"ana": "often"}}, "overrides[0]", "it is not a limit"),
        ({"overrides": {"bo": "1/day", True: "1/day"}}, "overrides[1]", "must be a str, an int or a UUID"),
        ({"overrides": {"": "1/day"}}, "overrides[0]", "is empty"),
        ({"overrides": {5: "1/day", "5": "2/day"}}, "overrides[1]", "is a second override for the same recipient"),
        ({"overrides": ["ana"]}, "overrides", "must be a table of limits"),
        ({"overrides": {"ana": "1/day"}, "by": ()}, "overrides", "need a rule that counts by recipient"),
        (
            {"overrides": {"ana": "1/day"}, "by": "type"},
            "overrides",
            "counts by recipient or by one other field besides the type; it counts by none.",
        ),
        ({"overrides": {"acme": "1/day"}, "by": ("tenant", "channel")}, "overrides", "it counts by several."),
        ({"overrides": {5: "1/day", "5": "2/day"}, "by": "tenant"}, "overrides[1]", "for the same tenant"),
        ({"overrides": {1.5: "1/day"}, "by": ("type", "tenant")}, "overrides[0]", "The tenant is a float"),
        ({"tiers": {"gold": "1/day"}, "by": ()}, "tiers", "need a rule that counts by recipient or by another field"),
        (
            {"tiers": {"gold": "1/day"}, "by": "type"},
            "tiers",
            "need a rule that counts by recipient or by another field",
        ),
        ({"tiers": {"gold": "often"}}, "tiers.gold", "'often' is not a limit"),
        ({"tiers": {5: "1/day"}}, "tiers", "has a name that is empty or not a string: 5"),
        ({"tiers": {"": "1/day"}}, "tiers", "has a name that is empty or not a string: ''"),
        ({"tiers": "gold"}, "tiers", "must be a table of limits"),
        ({"exempt": ["critical", ""]}, "exempt", "none may be empty"),
        ({"exempt": 5}, "exempt", "must be one string or several"),
        ({"count_exempt": 1}, "count_exempt", "must be true or false"),
        ({"enforce": "no"}, "enforce", "must be true or false"),
        ({"required": ["tenant", ""]}, "required", "none may be empty"),
        ({"required": 5}, "required", "must be one string or several"),
    ],
)
def test_what_is_wrong_with_a_rule_has_its_place(options: dict[str, Any], place: str, said: str) -> None:
    """Each mistake is named by the argument that it is in, and nothing else is complained about."""
    with pytest.raises(RuleError) as caught:
        Rule(**{"type": "news", "limit": "1/day", **options})

    (problem,) = caught.value.problems
    assert problem.place == place
    assert said in problem.message


def test_all_that_is_wrong_with_a_rule_is_told_at_once() -> None:
    """Whoever mends the first mistake does not meet the second."""
    assert places(
        Rule,
        "",
        "often",
        by=[""],
        strategy="leaky",
        name="",
        on_limit="ignore",
        overrides={"ana": "often", "bo": "seldom"},
        tiers={"gold": "often"},
        exempt=5,
        count_exempt=1,
        enforce=0,
        required=5,
    ) == [
        "type", "strategy", "on_limit", "count_exempt", "enforce", "by", "limit", "name", "overrides[0]", "overrides[1]", "tiers.gold",
        "exempt", "required",
    ]  # fmt: skip


def test_places_and_messages_show_no_address() -> None:
    """Overrides are named by their number: an error ends up in logs."""
    said = problems(Rule, "news", "1/day", overrides={"ana@example.com": "often", ("bo@example.com",): "1/day"})

    assert not [text for text in said if "@" in text]
    assert "@" not in repr(Rule("news", "1/day", overrides={"ana@example.com": "5/day"}))


@pytest.mark.parametrize(
    "notation",
    [
        "ana@example.com",
        "5551234",
        5551234,
        "50/ana",
        "0/day; ana@example.com",
        "5" * 21 + "/day",
        "1 per 0 days ",
        "5551234999/day",
        "555/day; 5551/day",
        ["ana@example.com"],
    ],
)
def test_a_recipient_in_the_place_of_an_override_is_not_shown(notation: Any) -> None:
    """Swapped with its limit, or mistyped, a recipient stays out of logs; the place is enough to find it by."""
    (said,) = problems(Rule, "news", "1/day", overrides={"50/day": notation})

    assert said.startswith("overrides[0]: it ")
    assert not [shown for shown in ("ana", "555", "per 0") if shown in said]


def test_a_rule_does_not_change() -> None:
    """Rules are shared by threads, so they cannot be edited in place."""
    rule = Rule("news", "1/day", overrides={"ana": "2/day"})

    with pytest.raises(AttributeError):
        rule.name = "other"
    with pytest.raises(AttributeError):
        del rule.name
    with pytest.raises(TypeError):
        rule.overrides["bo"] = ()


def test_a_rule_is_not_changed_through_what_it_was_made_of() -> None:
    """Its tables are its own."""
    overrides = {"ana": "2/day"}
    rule = Rule("news", "1/day", overrides=overrides)
    overrides["bo"] = "3/day"

    assert list(rule.overrides) == ["ana"]


full = Rule(
    "marketing.*",
    "3/hour; 10/day",
    by=("recipient", "tenant"),
    strategy="fixed-window",
    name="marketing",
    on_limit="drop",
    overrides={"vip@example.com": "50/day", 5: None},
    tiers={"gold": "20/day"},
    exempt=["critical", "urgent"],
    count_exempt=False,
    enforce=False,
    required=["tenant"],
)


@pytest.mark.parametrize("copied", [lambda one: pickle.loads(pickle.dumps(one)), copy.deepcopy, copy.copy])
@pytest.mark.parametrize(
    "original",
    [full, Rule("news", None), RuleSet([full, Rule("news", "1/day")], fields=["ip"], default="5/hour"), RuleSet()],
)
def test_rules_and_rule_sets_can_be_copied_and_pickled(copied: Any, original: Rule | RuleSet) -> None:
    """They go to other processes: as equal, as immutable, and with one hash."""
    made = copied(original)

    assert made == original
    assert hash(made) == hash(original)
    with pytest.raises(AttributeError):
        setattr(made, "name" if isinstance(made, Rule) else "rules", ())


def test_rules_that_differ_are_not_equal() -> None:
    """Overrides and tiers count, though they are not hashed."""
    assert Rule("news", "1/day", overrides={"ana": "2/day"}) != Rule("news", "1/day", overrides={"ana": "3/day"})
    assert Rule("news", "1/day", tiers={"gold": "2/day"}) != Rule("news", "1/day")
    assert Rule("news", "1/day") == Rule("news", "1 per 1 day")


# Rule sets.


def test_a_mapping_is_a_rule_set() -> None:
    """The short form: types and their limits."""
    rules = RuleSet({"status": "2/minute", "news": None})

    assert rules == RuleSet([Rule("status", "2/minute"), Rule("news", None)])
    assert [rule.type for rule in rules] == ["status", "news"]
    assert len(rules) == 2
    assert hash(rules) == hash(RuleSet([Rule("status", "2/minute"), Rule("news", None)]))


def test_rule_sets_that_differ_are_not_equal() -> None:
    """Each part of a rule set counts."""
    different = [
        RuleSet(),
        RuleSet({"news": "1/day"}),
        RuleSet(fields=["ip"]),
        RuleSet(default="1/day"),
        RuleSet(unknown_type="raise"),
    ]

    assert len(set(different)) == len(different)
    assert RuleSet() != ()
    assert RuleSet() == RuleSet([])


def test_a_rule_set_does_not_change() -> None:
    """It is swapped as a whole, so threads see all of it or nothing."""
    rules = RuleSet({"news": "1/day"})

    with pytest.raises(AttributeError, match="make a new one to change 'default'"):
        rules.default = None
    with pytest.raises(AttributeError, match="make a new one without 'rules'"):
        del rules.rules


def test_a_rule_set_shows_what_it_holds() -> None:
    """Its repr tells two sets apart, and shows no recipient."""
    shown = repr(RuleSet([full], fields=["ip"], default="5/hour"))

    assert "'marketing.*'" in shown
    assert "'ip'" in shown
    assert "5 per 1 hour" in shown
    assert "vip@example.com" not in shown


@pytest.mark.parametrize(
    ("arguments", "options", "place", "said"),
    [
        (["news"], {}, "rules", "is a str; use a mapping from type to limit, or a list of rules"),
        ([5], {}, "rules", "is a int"),
        ([Rule("news", "1/day")], {}, "rules", "is a Rule"),
        ([["news"]], {}, "rules[0]", "is a str, not a Rule"),
        ([{"news": "often"}], {}, "rules['news'].limit", "'often' is not a limit"),
        ([{5: "1/day"}], {}, "rules[5].type", "must be a non-empty string"),
        ([], {"fields": "ip"}, "fields", "must be a list of names"),
        ([], {"fields": 5}, "fields", "must be a list of names"),
        ([], {"fields": ["ip", "an ip"]}, "fields[1]", "'an ip' is not a valid name for an argument"),
        ([], {"fields": ["class"]}, "fields[0]", "'class' is not a valid name"),
        ([], {"fields": [5]}, "fields[0]", "5 is not a valid name"),
        ([], {"fields": ["tenant"]}, "fields[0]", "'tenant' exists already"),
        ([], {"fields": ["cost"]}, "fields[0]", "'cost' exists already"),
        ([], {"fields": ["priority"]}, "fields[0]", "'priority' exists already"),
        ([], {"default": "often"}, "default", "'often' is not a limit"),
        ([], {"unknown_type": "drop"}, "unknown_type", "'drop' is not known; use 'send' or 'raise'"),
        ([], {"unknown_type": "raise", "default": "1/day"}, "unknown_type", "cannot be combined with a default"),
        ([[Rule("news", "1/day", by="ip")]], {}, "rules[0].by", "'ip' is not a field; use channel, dedupe_key, recipient"),
        ([[Rule("news", "1/day", required="ip")]], {}, "rules[0].required", "'ip' is not a field; use channel, dedupe_key, recipient"),
        ([[Rule("news", "1/day", by="tennant")]], {}, "rules[0].by", "or declare it: fields=['tennant']. Is it meant to be tenant?"),
        ([[Rule("news", "1/day", required="chanel")]], {}, "rules[0].required", "fields=['chanel']. Is it meant to be channel?"),
        ([[Rule("news", "1/day"), Rule("news", "2/day")]], {}, "rules[1]", "has the same name ('news') and period (86400 seconds) as rules[0]"),
        ([[Rule("a", "1/day", name="x"), Rule("b", "2 per 24 hours", name="x")]], {}, "rules[1]", "give one of them another name="),
        ([[Rule("news", "1/day"), Rule("news", "2/day", enforce=False)]], {}, "rules[1]", "give one of them another name="),
        ([[Rule("news", "1/day"), Rule("news", "2/day", strategy="fixed-window")]], {}, "rules[1]", "give one of them another name="),
        ([[Rule("news", "1/day"), Rule("news", "2/hour", overrides={"ana": "5/day"})]], {}, "rules[1]", "period (86400 seconds)"),
        ([[Rule("news", "1/day"), Rule("news", "2/hour", tiers={"gold": "5/day"})]], {}, "rules[1]", "period (86400 seconds)"),
        ([[Rule("x", "1/hour", name="default")]], {"default": "5/hour"}, "default", "as rules[0]"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_set_has_its_place(
    arguments: list[Any], options: dict[str, Any], place: str, said: str
) -> None:
    """Each mistake is named by the rule and the argument that it is in."""
    with pytest.raises(RuleError) as caught:
        RuleSet(*arguments, **options)

    (problem,) = caught.value.problems
    assert problem.place == place
    assert said in problem.message


def test_all_that_is_wrong_with_a_rule_set_is_told_at_once() -> None:
    """A set is validated as a whole."""
    rules = [Rule("news", "1/day", by="ip"), "news", Rule("x", "1/day"), Rule("x", "2/day")]

    assert places(RuleSet, rules, fields=["an ip", "class"], default="often; seldom", unknown_type="drop") == [
        "rules[1]", "fields[0]", "fields[1]", "default", "unknown_type", "rules[0].by", "rules[3]",
    ]  # fmt: skip


def test_rules_of_one_name_may_have_different_periods() -> None:
    """Windows are told apart by name and period."""
    RuleSet([Rule("news", "1/hour"), Rule("news", "5/day")])
    RuleSet([Rule("news", None), Rule("news", None)])


def test_declared_fields_are_fields() -> None:
    """What a rule set declares, its rules may count by."""
    rules = RuleSet([Rule("login", "5/hour", by="ip")], fields=["ip", "ip"])

    assert rules.fields == {"type", "recipient", "channel", "tenant", "dedupe_key", "ip"}


def test_which_types_a_rule_set_knows() -> None:
    """A cap over all types is for what comes in addition; a rule for every type, or any other glob, is a match."""
    rules = RuleSet([Rule("news", "1/day"), Rule("marketing.*", "1/day"), Rule("*", "20/day", by="recipient")])

    assert [rules.knows(type) for type in ("news", "marketing.eu", "other", "*")] == [True, True, False, False]
    assert not RuleSet([Rule("*", "1/day", by=())]).knows("anything")
    assert RuleSet({"*": "1/day"}).knows("anything")
    assert RuleSet([Rule("*", "1/day", by="type")]).knows("anything")
    assert RuleSet({"**": "1/day"}).knows("anything")
    assert RuleSet([Rule("**", "1/day", by=())]).knows("anything")


@pytest.mark.parametrize(
    ("rule", "used"),
    [
        (Rule("*", "20/day"), False),
        (Rule("**", "20/day", by="recipient"), False),
        (Rule("*", None), False),
        (Rule("*", "20/day", by=("type", "tenant")), False),
        (Rule("*", "20/day", by="recipient"), True),
        (Rule("*", "20/day", by=()), True),
        (Rule("?*", "20/day"), True),
    ],
)
def test_a_default_that_is_never_used_is_an_error(rule: Rule, used: bool) -> None:
    """A rule for every type leaves none to the default; a cap leaves all of them."""
    rules = [Rule("news", "1/day"), rule]
    if used:
        RuleSet(rules, default="5/hour")
        return
    assert problems(RuleSet, rules, default="5/hour") == [
        "default: is never used, because rules[1] is for every type. Remove one of them."
    ]
    RuleSet(rules, unknown_type="raise")


@pytest.mark.parametrize(
    ("type", "by", "cap"),
    [
        ("*", "recipient", True),
        ("*", (), True),
        ("*", ("type", "recipient"), False),
        ("**", (), False),
        ("n*", (), False),
    ],
)
def test_which_rules_are_caps(type: str, by: Any, cap: bool) -> None:
    """A cap is for exactly `*` and counts types together."""
    assert Rule(type, "1/day", by=by).is_cap == cap


def test_the_default_is_for_types_that_no_rule_matches() -> None:
    """It stands beside a rule for exactly `*`, and never beside another."""
    cap = Rule("*", "20/day", by="recipient")
    news = Rule("news", "1/day")
    rules = RuleSet([cap, news], default="5/hour")

    assert rules.matching("news") == (cap, news)
    assert rules.matching("other") == (cap, rules.default)
    assert rules.default is not None
    assert [str(item) for item in rules.default.limits] == ["5 per 1 hour"]
    assert RuleSet([cap]).matching("other") == (cap,)


def test_a_rule_set_can_be_extended() -> None:
    """The rules of decorators stand beside those that are configured, by the same settings."""
    rules = RuleSet({"news": "1/day"}, fields=["ip"], default="5/hour")
    extended = rules.extended([Rule("status", "1/day", by="ip")])

    assert [rule.type for rule in extended] == ["news", "status"]
    assert (extended.fields, extended.default, extended.unknown_type) == (rules.fields, rules.default, "send")
    assert RuleSet(unknown_type="raise").extended([Rule("status", "1/day")]).unknown_type == "raise"


@given(st.text(st.characters(), min_size=1, max_size=40), st.text(st.characters(), min_size=1, max_size=40))
@example("[z-a]", "z")
@example("[[:alpha:]]", "x")
def test_any_text_is_a_usable_type(pattern: str, type: str) -> None:
    """No text that is accepted as a type fails later, when a notification is matched with it."""
    assume(wrong_type(pattern) is None)
    rules = RuleSet({pattern: "1/day"})

    assert rules.matching(pattern) == tuple(rules)
    assert rules.matching(type) in {(), tuple(rules)}
    assert rules.knows(pattern)


# Errors.


def test_a_rule_error_says_where_it_comes_from() -> None:
    """The file is named first, then each problem on a line of its own."""
    from ratelimited_notify.errors import Problem

    error = RuleError([Problem("rules[3].limit", "is missing."), Problem("", "is odd.")], "rules.toml")

    assert str(error) == "The rules in rules.toml cannot be used:\nrules[3].limit: is missing.\nis odd."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert pickle.loads(pickle.dumps(error)).problems == error.problems
    assert str(RuleError("all is odd")) == "all is odd"


# --- As people say it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("1/day", "1 per day"),
        ("3 per 1 hour", "3 per hour"),
        ("3 per 2 hours", "3 per 2 hours"),
        ("0/second", "0 per second"),
        ("3/hour; 10 per 7 days", "3 per hour; 10 per 7 days"),
        (None, "none"),
    ],
)
def test_limits_are_said_as_people_say_them(limit: str | None, expected: str) -> None:
    """A message says "1 per day", and can be written back as a limit."""
    assert limits_text(limits_of(limit)) == expected
    assert limit is None or limits_of(expected) == limits_of(limit)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (1e-6, "1 s"),
        (59, "59 s"),
        (59.000001, "1 min"),
        (61, "1 min 1 s"),
        (3599.5, "1 h"),
        (3601, "1 h 1 min"),
        (86_399, "1 day"),
        (86_281, "23 h 59 min"),
        (29 * 86_400 + 82_860, "30 days"),
        (86_400 + 7_200, "1 day 2 h"),
        (2 * 86_400 + 1, "2 days 1 h"),
    ],
)
def test_durations_are_rounded_up(seconds: float, expected: str) -> None:
    """After waiting as long as a message says you have waited long enough."""
    assert duration_text(seconds) == expected


@given(st.floats(min_value=0, max_value=1e9))
def test_no_duration_is_too_short(seconds: float) -> None:
    """Read back, it is no less than what it stands for, and at most one smaller unit more."""
    sizes = {"day": 86_400, "days": 86_400, "h": 3_600, "min": 60, "s": 1}
    words = duration_text(seconds).split()
    read = sum(int(number) * sizes[unit] for number, unit in zip(words[::2], words[1::2], strict=True))

    assert seconds <= read < seconds + (3_600 if read > 86_400 else 60 if read > 3_600 else 1) + 1
