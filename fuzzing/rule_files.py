"""Files of rules in TOML, YAML and JSON."""

from __future__ import annotations

import json
from functools import partial

from target import Target

from ratelimited_notify import Limiter, NotifyError, RuleError
from ratelimited_notify.rules.document import rule_set_of
from ratelimited_notify.sources.formats import document_in, kind_of_file
from ratelimited_notify.sources.formats.lines import line_finder
from ratelimited_notify.sources.formats.notation import noted

_SHOWN = 20


def read(content: bytes, ending: str) -> None:
    """What the command and a limiter do with a file: rules and a decision, or problems with their lines."""
    try:
        rules = rule_set_of(document_in(content, ending))
    except RuleError as error:
        line_of = line_finder(content, ending)
        for problem in error.problems[:_SHOWN]:
            shown = noted(problem, kind_of_file(ending))
            line = line_of(shown.place, shown.message)
            assert line is None or line > 0
        return
    try:
        limiter = Limiter(rules, tier_of=lambda _: "gold")
    except NotifyError:
        return
    with limiter:
        try:
            limiter.hit("news", "ana@example.com", tenant="acme")
        except NotifyError:
            return


_DOCUMENT = {
    "fields": ["ip"],
    "default": "5/hour",
    "unknown_type": "send",
    "rules": [
        {"type": "status", "limit": "2/minute"},
        {
            "type": "marketing.*",
            "limit": ["3/hour", "10/day"],
            "by": "recipient",
            "strategy": "fixed-window",
            "name": "cap",
        },
        {"type": "sms", "limit": "none", "by": ["recipient", "ip"], "exempt": ["critical"], "enforce": False},
        {
            "type": "news",
            "limit": "1/day",
            "overrides": {"vip@example.com": "50/day"},
            "tiers": {"gold": "20/day; 5/hour"},
        },
    ],
}

_TOML = b"""
fields = ["ip"]
default = '5/hour'
[[rules]]
type = "marketing.*"
limit = ["3/hour", "10/day"]
by = "recipient"
required = \"\"\"tenant\"\"\"
[rules.overrides]
"vip@example.com" = "none"
[[rules]] # another
type = "news"
limit = "1/day"
tiers = { gold = "20/day; 5/hour", "s.i" = "1/hour" }
"""

_YAML = b"""
fields: [ip]
default: 5/hour
rules:
- type: marketing.*
  limit: [3/hour, "10/day"]
  overrides: {vip@example.com: none}
- {type: news, limit: '1/day', tiers: {gold: 20/day; 5/hour}}
- type: sms   # and others
  limit: >
    1/day
  required: |-
    tenant
"""

_JSON = (json.dumps(_DOCUMENT).encode(), json.dumps(_DOCUMENT, indent=1).encode())

_WORDS = tuple(
    b"type limit by strategy name overrides tiers exempt required rules fields default none 1/day recipient".split()
)

TARGETS = (
    Target(
        "rules in TOML",
        partial(read, ending=".toml"),
        (_TOML, b"", b"[[rules]]\ntype='news'\nlimit='1/day'\n"),
        (
            *_WORDS,
            *b"[[ ]] = { } ' \" ''' \"\"\" . , # inf nan 1979-05-27T07:32:00Z 0x_1 \\u0000 \\UFFFFFFFF a.b".split(),
        ),
    ),
    Target(
        "rules in YAML",
        partial(read, ending=".yaml"),
        (_YAML, *_JSON),
        (
            *_WORDS,
            *b"- : ? & * ! !!python/object/apply:os.system !!python/name:os.system !!int &a *a <<: | > |- %YAML --- ...".split(),
            b"%TAG ! tag:yaml.org,2002:python/\n---\n",
            b"!!python/object/new:eval ['1']",
            b"\n  ",
            b"? ",
            b"- ",
        ),
    ),
    Target(
        "rules in JSON",
        partial(read, ending=".json"),
        _JSON,
        (*_WORDS, *b'[ ] { } " : , NaN Infinity null \\u0000 \\ud800 1e400'.split()),
    ),
)
