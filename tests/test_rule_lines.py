"""On which line of a rules file a problem is."""

from __future__ import annotations

import tracemalloc

import pytest

from ratelimited_notify.sources.formats.lines import line_finder

TOML = '''# [[rules]] in a comment
fields = [
  "ip",
  "x = [",
]
default = "nonsense"

[[rules]]  # the first
type = "a"
name = """
[[rules]]
limit = 3
"""
limit = "often"

[ [ignored] ]

[[rules]]
"type" = "b"
limit = [
  "1/day", # ]
  "2/week",
]
overrides."vip@example.com" = "5/day"
overrides.other = "6/day"
tiers = { gold = "1/day" }
[[rules]]
type = "c"
limit = "1/day"
[rules.overrides]
"one = two" = "1/day"
"[three]" = "2/day"
[rules.tiers]
gold = "x"
'''.replace("[ [ignored] ]\n", "")

JSON = """{
  "fields": ["ip", "x\\"]"],
  "default": "nonsense",
  "rules": [
    {"type": "a",
     "limit": "often"},
    {
      "type": "b", "limit": ["1/day",
        "2/week"],
      "overrides": {
        "vip@example.com": "5/day",
        "other": "6/day"}
    }
  ]
}"""

YAML = """fields: [ip,
  x]
default: nonsense
rules:
  - type: a
    limit: often
  -
    type: b
    limit:
      - 1/day
      - 2/week
    overrides:
      vip@example.com: 5/day
      other: 6/day
"""


@pytest.mark.parametrize(
    ("content", "ending", "places"),
    [
        (TOML, ".toml", {"fields[1]": 2, "default": 6, "rules[0]": 8, "rules[0].type": 9, "rules[0].limit": 14, "rules[0].by": 8, "rules[1].type": 17, "rules[1].limit": 19, "rules[1].overrides": 23, "rules[1].overrides[0]": 23, "rules[1].overrides[1]": 24, "rules[1].tiers.gold": 25, "rules[2].overrides[0]": 30, "rules[2].overrides[1]": 31, "rules[2].tiers.gold": 33, "unknown_type": None, "": None}),
        (JSON, ".json", {"fields[1]": 2, "default": 3, "rules[0]": 5, "rules[0].limit": 6, "rules[0].by": 5, "rules[1]": 7, "rules[1].type": 8, "rules[1].limit": 8, "rules[1].limit[1]": 9, "rules[1].overrides[1]": 12, "x": None}),
        (YAML, ".yaml", {"fields[1]": 2, "default": 3, "rules[0]": 5, "rules[0].limit": 6, "rules[1].by": 8, "rules[1].type": 8, "rules[1].limit": 9, "rules[1].overrides[1]": 14, "x": None}),
    ],
    ids=["TOML", "JSON", "YAML"],
)  # fmt: skip
def test_a_place_has_a_line(content: str, ending: str, places: dict[str, int | None]) -> None:
    """That of the key, or that where the rule begins; in every notation."""
    line_of = line_finder(content.encode(), ending)

    assert {place: line_of(place, "") for place in places} == places


@pytest.mark.parametrize("content", [b"\xff", b"[[", b"{", b"]]]]", b"a: [", b"", b"'''", b'"""', b'{"a": }, ]'])
@pytest.mark.parametrize("ending", [".toml", ".json", ".yaml"])
def test_what_cannot_be_parsed_has_the_line_of_its_message(content: bytes, ending: str) -> None:
    """The parser said it."""
    line_of = line_finder(content, ending)

    assert line_of("", "The file is not valid: nonsense (at line 12, column 3)") == 12
    assert line_of("", "The file is not valid: nonsense (at line 7)") == 7
    assert line_of("rules[3].limit", "nonsense") is None or content in (b"", b"[[", b"{")


@pytest.mark.parametrize(("deep", "ending"), [("[" * 100_000, ".json"), ("a." * 100_000 + "a = 1", ".toml")])
def test_what_is_nested_deeply_costs_no_more(deep: str, ending: str) -> None:
    """Not the square of the depth, which would be gigabytes."""
    tracemalloc.start()
    try:
        line_finder(deep.encode(), ending)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
