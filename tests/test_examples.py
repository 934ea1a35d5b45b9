"""Every program in examples/ runs as it stands, and prints what it is there to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"

SHOWN = {
    "decorated.py": [
        "to ana@example.com: building",
        "to ana@example.com: testing",
        "not sent (deploying): 'status' refused by rule 'status' (2 per minute), try again in 1 min",
        "to ben@example.com: building",
    ],
    "campaign.py": [
        "marketing.spring: 1000 sent, {} refused",
        "marketing.shoes: 1000 sent, {} refused",
        "marketing.hats: 1000 sent, {} refused",
        "marketing.socks: 0 sent, {'marketing': 1000} refused",
        "ordinary mail after the alarms: <Delivery suppressed: 'news' refused by rule 'everything' (5 per day), try again in 1 day>",
    ],
    "alerts.py": [
        "page oncall: disk full on web-1",
        "suppressed (web-1): 'alert' refused by rule 'alert by recipient+dedupe_key' (1 per hour), try again in 1 h",
        "page oncall: disk full on web-2",
        "suppressed (web-1): 'alert' refused by rule 'alert by recipient+dedupe_key' (1 per hour), try again in 1 h",
    ],
    "live_rules.py": [
        "news to Ana: sent suppressed",
        "changed: news: 1 per day -> 3 per day, counts kept",
        "news to Ana: sent sent",
        "not used: 'lots' is not a limit. Write it like '5/day', '1 per 2 hours' or '3/hour; 10/day'. For no limit, write None, or 'none' in a file.",
        "news to Ana: suppressed suppressed",
        "changed: news: 3 per day -> 2 per day, counts kept",
        "news to Ana: suppressed suppressed",
        "changed: news: 2 per day -> 1 per hour, counting starts anew",
        "news to Ana: sent suppressed",
    ],
    "one_time_codes.py": [
        "the carrier refused; nothing is used up",
        "again at once: sent",
        "too soon: 60 s",
        "one asker, many numbers: 'code' refused by rule 'code by ip' (3 per hour), try again in 1 h",
    ],
    "service.py": [
        "acme ['sent', 'sent', 'sent', 'sent', 'suppressed']",
        "globex ['sent', 'sent', 'sent', 'sent', 'suppressed']",
        "again: 'reminder' refused by rule 'reminder by tenant+recipient' (1 per hour), try again in 1 h",
    ],
}


def test_every_example_is_shown() -> None:
    """No example goes untested."""
    expected = sorted(path.name for path in EXAMPLES.glob("*.py"))

    assert expected == sorted(SHOWN)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_example_prints_what_it_shows(name: str) -> None:
    """The program runs without a warning and prints these lines."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RATELIMITED_NOTIFY")}

    printed = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=EXAMPLES.parent,
    )

    assert SHOWN[name] == printed.stdout.splitlines()
