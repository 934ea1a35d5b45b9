"""The commands about rules: check, show, diff."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from command import invoke
from ratelimited_notify import Limiter, Rule, RuleError, RuleSet
from ratelimited_notify.rules.difference import differences

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

RULES = """
fields = ["ip"]
default = "9/day"
[[rules]]
type = "news"
limit = "1/day"
overrides = {"vip@example.com" = "5/day", "off@example.com" = "none"}
tiers = {gold = "3/day"}
exempt = ["critical"]
[[rules]]
type = "n*"
limit = "9/week"
by = "tenant"
[[rules]]
type = "*"
limit = "20/day"
by = "recipient"
enforce = false
count_exempt = false
exempt = ["critical"]
[[rules]]
type = "secured"
limit = "none"
required = "tenant"
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def test_check_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    """Neither when it reads the rules, nor when it looks for the line of the problem."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    results: list[Result] = []
    checking = threading.Thread(target=lambda: results.append(invoke("rules", "check", pipe)), daemon=True)
    checking.start()
    checking.join(20)

    assert [result.exit_code for result in results] == [1]
    assert "it is a pipe or a device" in results[0].stderr


def test_check_for_programs(rules: Path, tmp_path: Path) -> None:
    """One object, whatever is found."""
    fine = invoke("rules", "check", "--json", rules)
    rules.write_text(RULES.replace("n*", "n|s") + '[[rules]]\ntype = "[b-a]"\nlimit = "1/day"\n')
    doubtful = invoke("rules", "check", "--json", f"file:{rules}")
    rules.write_text('[[rules]]\ntype = "news"\nlimit = "often"\n')
    wrong = invoke("rules", "check", "--json", rules)
    missing = invoke("rules", "check", "--json", tmp_path / "nowhere")

    assert (fine.exit_code, json.loads(fine.stdout)) == (
        0,
        {
            "problems": [],
            "warnings": [],
            "notes": [
                {"line": 8, "path": "rules[0].tiers", "message": "need tier_of= on the limiter of the program."},
            ],
            "rules": 4,
        },
    )
    assert doubtful.exit_code == 0
    assert [(each["line"], each["path"]) for each in json.loads(doubtful.stdout)["warnings"]] == [
        (11, "rules[1].type"),
        (26, "rules[4].type"),
    ]
    assert "no other type matches" in json.loads(doubtful.stdout)["warnings"][1]["message"]
    assert (wrong.exit_code, missing.exit_code, wrong.stderr, missing.stderr) == (1, 1, "", "")
    assert [(each["line"], each["path"]) for each in json.loads(wrong.stdout)["problems"]] == [(3, "rules[0].limit")]
    assert json.loads(missing.stdout)["problems"][0]["message"].startswith("The file cannot be read")


@pytest.mark.parametrize(
    ("arguments", "shown", "status"),
    [
        (["news"], ["news 1 per day type and recipient is for this type", "matches n*; does not apply: the notification has no tenant", "is for every type; shadow mode"], 0),
        (["news", "--to", "vip@example.com"], ["5 per day", "the override for this recipient"], 0),
        (["news", "--to", "off@example.com"], ["none", "the override for this recipient"], 0),
        (["news", "--tier", "gold", "--field", "tenant=acme", "--field", "ip=::1"], ["3 per day", "the tier gold", "9 per 7 days tenant matches n*"], 0),
        (["news", "--priority", "critical"], ["is for this type; exempt, counted", "is for every type; exempt, not counted"], 0),
        (["other"], ["default 9 per day", "the default, because no other rule matches"], 0),
        (["secured"], ["none", "is for this type; an error, because a required field is missing"], 0),
    ],
    ids=str,
)  # fmt: skip
def test_show_says_which_rules_apply_and_why(rules: Path, arguments: list[str], shown: list[str], status: int) -> None:
    """In the order in which they count; and nothing that the caller did not write."""
    result = invoke("rules", "show", *arguments, "--rules", rules)
    text = " ".join(result.stdout.split())

    assert result.exit_code == status, result.output
    for each in shown:
        assert all(word in text for word in each.split()), each
    assert ("vip" in result.output) is ("vip@example.com" in arguments and False)


def test_show_says_that_nothing_limits_it(tmp_path: Path) -> None:
    """And what happens then."""
    path = tmp_path / "rules.toml"
    for setting, said in (("send", "it is sent without a limit"), ("raise", "it is an error")):
        path.write_text(f'unknown_type = "{setting}"\n[[rules]]\ntype = "news"\nlimit = "1/day"\n')
        result = invoke("rules", "show", "other", "--rules", path)

        assert (result.exit_code, f"Nothing limits it: {said}." in result.stdout) == (1, True)


@pytest.mark.parametrize("wrong", ["ip", "=x", "ip=", "unknown=1"])
def test_show_says_what_is_wrong_with_a_field(rules: Path, wrong: str) -> None:
    """It has a name that is declared, and a value."""
    result = invoke("rules", "show", "news", "--rules", rules, "--field", wrong)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert invoke("rules", "show", "", "--rules", rules).exit_code == 2


def test_diff_says_what_changes(rules: Path, tmp_path: Path) -> None:
    """In words; nothing where nothing changes, and no address."""
    other = tmp_path / "other.toml"
    other.write_text(RULES.replace("1/day", "2/day").replace('"vip@', '"new@').replace("9/week", "9/hour"))
    result = invoke("rules", "diff", rules, other)

    assert (result.exit_code, result.stdout.splitlines()) == (
        1,
        [
            "news: 1 per day -> 2 per day, counts kept; overrides: 1 added, 1 removed",
            "n* by tenant: 9 per 7 days -> 9 per hour, counting starts anew",
        ],
    )
    same = invoke("rules", "diff", rules, rules)
    assert (same.exit_code, same.stdout) == (0, "Nothing changes.\n")
    assert invoke("rules", "diff", rules, tmp_path / "x").exit_code == 2


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (Rule("a", "1/day"), Rule("a", "1/day; 2/week"), ["a: 1 per day -> 1 per day; 2 per 7 days, counts kept where the period is the same"]),
        (Rule("a", "1/day; 2/week"), Rule("a", "5/day"), ["a: 1 per day; 2 per 7 days -> 5 per day, counts kept"]),
        (Rule("a", "1/day"), Rule("a", None), ["a: 1 per day -> none, counts kept"]),
        (Rule("a", "1/day"), Rule("a", "1/day", strategy="fixed-window"), ["a: strategy: moving-window -> fixed-window; counting starts anew"]),
        (Rule("a", "1/day", name="x"), Rule("b*", "2/day", name="x", by="recipient"), ["x: type: a -> b*; 1 per day -> 2 per day, counting starts anew; by: type and recipient -> recipient"]),
        (Rule("a", "1/day"), Rule("a", "1/day", on_limit="drop", enforce=False, exempt="high", required="tenant"), ["a: on_limit: none -> drop; exempt: none -> high; enforce: true -> false; required: nothing -> tenant"]),
        (Rule("a", "1/day", tiers={"x": "1/day"}), Rule("a", "1/day", tiers={"x": "2/day", "y": None}), ["a: tiers: 1 added, 1 changed"]),
        (Rule("a", "1/day", name="x"), Rule("a", "1/day", name="y"), ["x: removed (1 per day)", "y: added (1 per day)"]),
    ],
    ids=str,
)  # fmt: skip
def test_differences_of_one_rule(before: Rule, after: Rule, changes: list[str]) -> None:
    """What it says about the counts is what happens to them: they belong to name, period, strategy and fields."""
    assert list(differences(RuleSet([before]), RuleSet([after]))) == changes


def test_differences_of_rule_sets() -> None:
    """Rules of one name, the default, fields, and the order."""
    one, other = Rule("a", "1/day", name="x"), Rule("b", "1/hour", name="x")
    before = RuleSet([one, other, Rule("c", "1/day")], fields=["ip"], default="1/day")

    assert list(differences(before, before)) == []
    assert list(differences(before, RuleSet([Rule("c", "1/day"), one, other], fields=["ip"], default="1/day"))) == [
        "the order of the rules has changed"
    ]
    assert list(differences(before, RuleSet([one, Rule("c", "1/day")], fields=["device"], unknown_type="raise"))) == [
        "x: the rule for 'b' by type and recipient removed (1 per hour)",
        "default: 1 per day -> none",
        "fields added: device",
        "fields removed: ip",
        "unknown_type: send -> raise",
    ]


@pytest.mark.parametrize("name", ["empty.toml", "empty.yaml", "empty.json"])
def test_check_warns_of_rules_that_are_none(tmp_path: Path, name: str) -> None:
    """They can be used, and limit nothing; a default limits."""
    path = tmp_path / name
    path.write_text("{}" if name.endswith("json") else "")
    result = invoke("rules", "check", path)
    warnings = json.loads(invoke("rules", "check", path, "--json").stdout)["warnings"]

    assert result.exit_code == 0
    assert "warning: There are no rules, so nothing is limited." in result.stderr
    assert [(each["line"], each["path"], "allow_empty=True" in each["message"]) for each in warnings] == [
        (None, "", True)
    ]
    path.write_text(
        '{"default": "1/day"}' if name.endswith("json") else "default: 1/day" if "yaml" in name else 'default = "1/day"'
    )
    assert invoke("rules", "check", path).stderr == ""


def test_check_notes_what_the_program_needs(rules: Path) -> None:
    """It is no warning: the rules are meant as they are written."""
    rules.write_text(RULES + '[[rules]]\ntype = "sms"\nlimit = "1/day"\non_limit = "wait"\n')
    result = invoke("rules", "check", rules)

    assert (result.exit_code, result.stderr.splitlines()) == (
        0,
        [
            "note: line 8, rules[0].tiers: need tier_of= on the limiter of the program.",
            "note: line 28, rules[4].on_limit: needs max_wait= on the notifier, or on the decorated function.",
        ],
    )


def test_differences_of_rules_that_share_a_name() -> None:
    """Each is compared with the one of its type, and what happens to its counts is told."""
    one, other = Rule("a", "1/day", name="x"), Rule("b", "1/hour", name="x")

    assert list(differences(RuleSet([one, other]), RuleSet([Rule("a", "2/day", name="x"), other]))) == [
        "x: the rule for 'a' by type and recipient: 1 per day -> 2 per day, counts kept"
    ]
    twice = [Rule("a", "1/day", name="x"), Rule("a", "1/hour", name="x")]
    assert list(differences(RuleSet([one]), RuleSet(twice))) == ["x: added (1 per hour)"]


ADVICE = {
    "toml": ('[[rules]]\ntype = 5\nlimit = "1/day"\noverrides = "x"\ntiers = 5\n', ['as in type = "news"', 'overrides = { "+491701" = "50/day" }', 'tiers = { gold = "20/day" }']),
    "yaml": ("rules:\n  - type: 5\n    limit: 1/day\n    overrides: x\n    tiers: 5\n", ['as in type: "news".', 'overrides: {"+491701": "50/day"}.', 'tiers: {"gold": "20/day"}.']),
    "json": ('{"rules": [{"type": 5, "limit": "1/day", "overrides": "x", "tiers": 5}]}', ['as in "type": "news".', '"overrides": {"+491701": "50/day"}.', '"tiers": {"gold": "20/day"}.']),
}  # fmt: skip


@pytest.mark.parametrize("ending", ADVICE)
def test_advice_is_in_the_notation_of_the_file(tmp_path: Path, ending: str) -> None:
    """In what the command says, and in what a limiter raises; and nothing is in the words of msgspec."""
    text, wanted = ADVICE[ending]
    path = tmp_path / f"rules.{ending}"
    path.write_text(text)
    said = [invoke("rules", "check", path).stderr, invoke("rules", "check", path, "--json").stdout.replace('\\"', '"')]
    for rules in (path, f"file:{path}"):
        with pytest.raises(RuleError) as caught:
            Limiter(rules)
        said.append(str(caught.value))
    path.write_text('{"rules": 5}' if ending == "json" else "rules: 5" if ending == "yaml" else "rules = 5")
    said.append(invoke("rules", "check", path).stderr)

    for each in said[:-1]:
        assert all(advice in each for advice in wanted), each
        assert (
            "rules[0].type: is a number. Write a string, as in " in each.replace(": rules[0]", "rules[0]")
            or '"is a number.' in each
        )
        assert "`" not in each
        assert "$" not in each
    assert {
        "toml": "each rule as a [[rules]] table.",
        "yaml": "a list, as in rules: [{...}].",
        "json": 'a list, as in "rules": [{...}].',
    }[ending] in said[-1]
