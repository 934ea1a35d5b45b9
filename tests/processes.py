"""An unconfigured process, for tests of state that the whole process shares."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ratelimited_notify.decorator.configuration import DecoratorLimits, configuration
from ratelimited_notify.pytest_plugin import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


@contextmanager
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove configuration, environment variables and limits on decorators, and restore them at the end."""
    for name in ("RULES", "STORAGE", "DISABLED"):
        monkeypatch.delenv(f"RATELIMITED_NOTIFY_{name}", raising=False)
    declared = configuration._declared
    with configuration.overriding(Clock()):
        configuration._override = None
        configuration._declared = DecoratorLimits()
        configuration.reset()
        yield
    configuration._declared = declared
