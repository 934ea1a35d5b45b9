"""The pages that tell what was measured: made of the figures that a run kept, and never typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module that writes the pages."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import page

    yield page
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and BENCHMARKS in Path(sys.modules[name].__file__ or "").parents
        ):
            del sys.modules[name]


def test_the_pages_say_what_was_measured(page: Any) -> None:
    """Each page and picture is what `make bench` makes of the figures that it kept."""
    written = {path: path.read_text() for path in page.pages()}

    assert page.pages() == written


def test_everything_that_is_to_be_reached_was_measured(page: Any) -> None:
    """No row is left out of the table, and none is in it that nobody asked for."""
    measured = [each["row"] for each in json.loads(page.FIGURES.read_text())["figures"]]

    assert sorted(measured) == sorted(row.name for row in page.ROWS)
