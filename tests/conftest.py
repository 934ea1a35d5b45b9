"""Fixtures that all tests share, servers that are started once per run, and the Hypothesis profiles."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

import servers
from backends import backend as backend
from cluster_servers import cluster as cluster, watched as watched
from coverage_paused import (
    pytest_runtest_protocol as pytest_runtest_protocol,
    pytest_sessionstart as pytest_sessionstart,
)
from postgresql import PostgreSQL, postgresql_server
from ratelimited_notify.pytest_plugin import Clock
from servers import Memcached, Valkey, memcached_server, valkey_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server

# No deadlines: a loaded machine is not a defect. Examples may share function-scoped fixtures, as they share servers.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
settings.register_profile("default", max_examples=50, stateful_step_count=30, **_COMMON)
# Derandomized, so that a build fails because of its own change and keeps failing until the change is fixed. Developers'
# machines and the thorough profile use new random examples each time, and find new bugs.
settings.register_profile("ci", max_examples=60, stateful_step_count=30, derandomize=True, print_blob=True, **_COMMON)
# For every edit: whether the tests run at all, and find what is plainly wrong.
settings.register_profile("check", max_examples=5, stateful_step_count=10, derandomize=True, **_COMMON)
# For `make mutants`: whether a test fails, not on what smallest example, which would take minutes to find.
settings.register_profile("mutants", settings.get_profile("check"), phases=[Phase.explicit, Phase.generate])
settings.register_profile("thorough", max_examples=2000, stateful_step_count=60, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of our own."""
    parser.addoption("--no-servers", action="store_true", help="skip the tests that start a server, as make check does")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is collected."""
    servers.allowed = not config.getoption("--no-servers")
    # A shell starts background jobs with SIGINT ignored (`nohup make test &`), and processes that they start inherit that:
    # a test that sends one would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take long come first, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The Valkey server of this test run. All tests share it, so use separate keys or a separate database."""
    server = valkey_server()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    """The memcached server of this test run. All tests share it, so use separate keys."""
    server = memcached_server()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """The PostgreSQL server of this test run. All tests share it, so use separate databases."""
    server = postgresql_server()
    yield server
    server.remove()


@pytest.fixture
def start_valkey() -> Iterator[Callable[..., Valkey]]:
    """Start another Valkey for one test, with any command line options. The test may stop, pause or fill it."""
    yield from _started(valkey_server)


@pytest.fixture
def start_memcached() -> Iterator[Callable[..., Memcached]]:
    """Start another memcached for one test, with any command line options."""
    yield from _started(memcached_server)


@pytest.fixture
def start_postgresql() -> Iterator[Callable[..., PostgreSQL]]:
    """Start another PostgreSQL for one test, with any command line options. The test may stop, pause or restart it."""
    yield from _started(postgresql_server)


def _started(start: Callable[..., Server]) -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start_one(*options: str) -> Server:
        running.append(start(*options))
        return running[-1]

    yield start_one
    for server in running:
        server.remove()


@pytest.fixture(autouse=True)
def _nothing_was_logged() -> None:
    """Forget what earlier tests logged: a line about the same server would come only after ten seconds."""
    loaded = sys.modules.get("ratelimited_notify.limiter.failures")
    if loaded is not None:
        loaded._known.clear()


@pytest.fixture
def log_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the library limits its log lines. The test moves it."""
    clock = Clock()
    monkeypatch.setattr("ratelimited_notify.log.now", clock)
    return clock


@pytest.fixture(autouse=True)
def _no_exception_stays() -> Iterator[None]:
    """Check that no exception is still "being handled" after a test: it would be the context of all later ones."""
    yield
    assert sys.exc_info() == (None, None, None)
