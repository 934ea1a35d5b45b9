"""With --cov, coverage is measured only in the test files that cover the modules whose every branch must be taken (Makefile).

Measuring makes all Python code more than twice as slow, that of the tests too. A branch counts only if one of these files takes
it: if you test such a module in another file, add the file here.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coverage import Coverage

MEASURING = {
    "test_async_notifier.py",
    "test_batches.py",
    "test_callables.py",
    "test_clear.py",
    "test_cli_rules.py",
    "test_configure.py",
    "test_decision.py",
    "test_decorator.py",
    "test_delivered.py",
    "test_doubts.py",
    "test_events.py",
    "test_exceeded.py",
    "test_failed.py",
    "test_given_back.py",
    "test_headers.py",
    "test_insurance.py",
    "test_insurance_model.py",
    "test_large_rule_sets.py",
    "test_limiter.py",
    "test_limiter_of.py",
    "test_limiter_options.py",
    "test_memory_shortcut.py",
    "test_notifier.py",
    "test_otel.py",
    "test_pauses.py",
    "test_plan.py",
    "test_refund.py",
    "test_rule_lines.py",
    "test_rules.py",
    "test_rules_checked.py",
    "test_rules_file.py",
    "test_sources.py",
    "test_watched_asyncio.py",
    "test_watchers.py",
}

_PACKAGES = ("rules", "decorator", "limiter", "notifier")
"""Where these modules are."""

_measuring: list[Coverage] = []
"""What is stopped and started again; empty without --cov, and with a context for each test, in which it must not stop."""


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Measure what the modules do when they are imported, and nothing while tests are collected."""
    coverage = sys.modules.get("coverage")
    running = coverage and coverage.Coverage.current()
    if not running or session.config.getoption("cov_context"):
        return
    for name in _PACKAGES:
        package = importlib.import_module(f"ratelimited_notify.{name}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    running.stop()
    _measuring.append(running)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Measure this test, or do not."""
    for measuring in _measuring:
        running = type(measuring).current() is measuring
        if running != (item.path.name in MEASURING):
            measuring.stop() if running else measuring.start()
