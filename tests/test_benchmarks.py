"""The pages that say what was measured: made of the figures that a run kept, and never typed."""

from __future__ import annotations

import json
import re
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


def _tables(markdown: str) -> list[list[list[str]]]:
    """The tables of a page, as lists of rows of cells, the headings first."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in markdown.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            tables.append([])
            inside = True
        if not line.startswith("| ---"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return tables


def _written(page: Any) -> str:
    return str(page.pages()[page.DOCS / "benchmarks.md"])


def _times(cell: str) -> float | None:
    """How many times as fast a cell says that this library is."""
    found = re.match(r"([\d.,]+)×", cell)
    return float(found[1].replace(",", "")) if found else None


def test_the_short_table_is_made_of_the_figures_of_the_full_one(page: Any) -> None:
    """What most readers read says the same as what it is an extract of."""
    short, comparisons, _ = _tables(_written(page))
    full = {(row[0], row[1]): [row[2], *row[4:6]] for row in comparisons[1:]}
    rows = {row.name: row for row in page.ROWS}
    figures = {each["row"]: each for each in json.loads(page.FIGURES.read_text())["figures"]}

    for name, cells in zip(page.SHORT, short[1:], strict=True):
        people = figures[name]["people"]
        work = rows[name].work.format(people=f"{people:,}" if people else "")
        same = full[work, rows[name].against]
        for shown, exact in zip(cells[1:], same, strict=True):
            assert (shown == page.NOT_MEASURED) == (exact == "-")
            if shown != page.NOT_MEASURED:
                assert _times(shown) == pytest.approx(_times(exact), rel=0.05)
                assert shown.endswith("(slower)") == exact.endswith("(slower)")


def test_more_is_better_in_every_comparison(page: Any) -> None:
    """Ratios of times are turned round, the other libraries' columns too, and ratios of speeds are not."""
    figures = {
        "memory-one": page.Figure("memory-one", 0.5, 0.4, 0.8, {"throttled-py": 0.25, "pyrate-limiter": 2.0}),
        "redis-hit-many": page.Figure("redis-hit-many", 25.0, 10.0, 40.0, people=7),
    }
    _, first, second = _tables("".join(page.comparisons(figures)))[0]

    assert first[2:] == ["2×", "1.25× to 2.50×", "4×", "0.50× (slower)", "at least 2×", "yes"]
    assert second[2:] == ["25×", "10× to 40×", "-", "-", "at least 20×", "yes"]
    assert [row[1:] for row in _tables("".join(page.short_table(figures)))[0][1:]] == [
        ["2.0×", "4.0×", "0.50× (slower)"],
        ["25×", page.NOT_MEASURED, page.NOT_MEASURED],
    ]


def test_every_column_is_explained(page: Any) -> None:
    """Each heading of the full tables says above its table how it is read."""
    written = _written(page)
    _, comparisons, amounts = _tables(written)
    explained = set(re.findall(r"^- \*\*(.+?)\*\*: ", written, re.MULTILINE))

    assert set(comparisons[0]) | set(amounts[0]) <= explained
    assert all(heading.startswith(page.FASTER) for heading in _tables(written)[0][0][1:])


def test_what_is_slower_is_said(page: Any) -> None:
    """Every comparison with another library that this one loses has a line of its own."""
    written = _written(page)
    _, comparisons, _ = _tables(written)
    lost = [
        row[0]
        for row in comparisons[1:]
        for cell, other in zip([row[2], *row[4:6]], [row[1], *page.PEERS], strict=True)
        if cell.endswith("(slower)") and ("limits" in other or other in page.PEERS)
    ]
    said = written.partition("## Where it is slower")[2].partition("\n## ")[0]

    assert re.findall(r"^- (.+): 0\.\d+× as fast as ", said, re.MULTILINE) == lost


def test_amounts_have_units(page: Any) -> None:
    """No bare number stands in the table of amounts."""
    _, _, amounts = _tables(_written(page))

    assert [row for row in amounts[1:] if not re.fullmatch(r"[\d.,]+ [a-zµ ]+", row[1])] == []


def test_the_picture_names_its_unit(page: Any) -> None:
    """The title, the scale and every bar say that it is times as fast, and which way is better."""
    drawn = page.pages()[page.DOCS / "benchmarks.svg"]
    said = re.findall(r"<text [^>]*>(.*?)</text>", drawn)
    numbers = [text for text in said if re.match(r"[\d./]+\D?", text) and not text.startswith("1,000")]
    short, _, _ = _tables(_written(page))

    assert page._UNIT in said
    assert page._UNIT.startswith("times as fast (×)")
    assert [text for text in numbers if "×" not in text] == []
    assert [cell for row in short[1:] for cell in row[1:] if cell != page.NOT_MEASURED and cell not in said] == []
