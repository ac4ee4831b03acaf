"""Speed-ups of a run folder with their intervals: console, page and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.report.answer import answer
from dse.report.card import cards
from dse.report.figures.hover import hover
from dse.report.html import write_report
from dse.report.quantities.unit import speedup_text, spread_text
from dse.report.records import front_rows
from dse.report.table import front_table
from dse.run.entries import MeasuredPoint, PointSpeedup
from dse.run.read import read_run
from dse.run.search_run import SearchRun
from dse.run.write import write_speedups
from hwmodels.tables.speedup import Speedup
from tests.report.test_console import printed

COLUMN, ELSEWHERE = "b200.latency_s", "h100.latency_s"
SURE, UNSURE = 0.0001, 0.5
"""Half-widths of the ratios to uniform assignments, and of two points of the front."""


def pair(run: SearchRun) -> tuple[MeasuredPoint, MeasuredPoint]:
    """The two fastest mixed assignments of the front."""
    first, second, *_ = (point for point in run.front if point.source != "uniform")
    return first, second


def told(run: SearchRun) -> list[PointSpeedup]:
    """Speed-ups over every uniform assignment; of two points of the front, a tie."""
    shown = {point.trial: point for point in (*run.front, *run.uniforms)}.values()

    def entry(
        point: MeasuredPoint, base: MeasuredPoint, column: str, base_column: str, half: float
    ) -> PointSpeedup:
        found = Speedup.of(base.columns[base_column] / point.columns[column], half)
        return PointSpeedup(
            column=column, trial=point.trial, base_column=base_column, base=base.trial,
            speedup=found.factor, low=found.low, high=found.high,
        )  # fmt: skip

    pairs = [
        entry(point, base, column, base_column, SURE)
        for point in shown
        for base in run.uniforms
        for column, base_column in ((COLUMN, COLUMN), (ELSEWHERE, ELSEWHERE), (COLUMN, ELSEWHERE))
        if (point.trial, column) != (base.trial, base_column)
    ]
    first, second = pair(run)
    return [*pairs, entry(first, second, COLUMN, COLUMN, UNSURE)]


@pytest.fixture(name="told_run")
def told_run_fixture(folder: Path) -> SearchRun:
    write_speedups(folder, told(read_run(folder)))
    return read_run(folder)


def factor(run: SearchRun) -> float:
    """Of the recommended point over the reference."""
    point = run.recommended
    assert point is not None
    assert run.reference is not None
    return run.reference.columns[COLUMN] / point.columns[COLUMN]


def test_a_speedup_reads_both_ways(told_run: SearchRun) -> None:
    first, second = pair(told_run)
    there = told_run.speedup(first, second, COLUMN)
    back = told_run.speedup(second, first, COLUMN)
    assert there is not None
    assert back is not None
    assert back.factor == pytest.approx(1 / there.factor)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))
    assert told_run.speedup(first, first, COLUMN) == Speedup(factor=1.0, low=1.0, high=1.0)


def test_points_that_are_not_told_apart_are_tied_and_the_slower_one_is_marked(
    told_run: SearchRun,
) -> None:
    first, second = pair(told_run)
    assert told_run.tied(first, COLUMN) == (second,)
    assert told_run.tied(second, COLUMN) == (first,)
    table = front_table(told_run)
    place = table.headings.index("b200 latency")
    marked = [index for index, row in enumerate(table.rows) if "≈" in row.cells[place].detail]
    assert table.tied
    assert marked == [told_run.front.index(second)]


def test_every_ratio_of_the_console_has_its_interval(told_run: SearchRun) -> None:
    lines = printed(told_run.folder, 140)
    rows = [line for line in lines if " ms " in line and "×" in line and "Predicted" not in line]
    assert all(line.count("×") - line.count("1.00×") <= line.count("×±0.01%") for line in rows)
    assert sum("×±0.01%" in line for line in rows) > 10
    assert "≈ may be as fast as a faster point of the front" in lines
    assert any("× against bf16, ± the ends of its 90 % interval" in line for line in lines)
    faster = speedup_text(Speedup.of(factor(told_run), SURE))
    assert f"{faster} faster than bf16" in answer(told_run)


@pytest.mark.parametrize("width", [80, 100])
def test_in_a_narrow_terminal_speedups_stand_below_latencies(
    told_run: SearchRun, width: int
) -> None:
    lines = printed(told_run.folder, width)
    assert max(len(line) for line in lines if str(told_run.folder) not in line) <= width
    assert sum(line.count("×±0.01%") for line in lines) > 10


def test_the_page_has_the_intervals_and_the_ties(told_run: SearchRun) -> None:
    page = write_report(told_run.folder).read_text(encoding="utf-8")
    assert f"{factor(told_run):.2f}×±0.01%" in page
    assert "nine times in ten" in page
    first, second = pair(told_run)
    assert f"not told apart in latency from {told_run.title(first)}" in hover(told_run, second)
    (card,) = [one for one in cards(told_run) if one.label == "latency on b200"]
    assert speedup_text(Speedup.of(factor(told_run), SURE)) in card.detail


def test_json_has_the_speedup_with_its_ends_and_the_ties(told_run: SearchRun) -> None:
    rows = {row["trial"]: row for row in front_rows(told_run.folder)}
    point, (first, second) = told_run.recommended, pair(told_run)
    assert point is not None
    found = Speedup.of(factor(told_run), SURE)
    row = rows[point.trial]
    assert row["b200.speedup"] == pytest.approx(found.factor)
    assert row["b200.speedup_low"] == pytest.approx(found.low)
    assert row["b200.speedup_high"] == pytest.approx(found.high)
    assert rows[first.trial]["b200.tied_with"] == [second.trial]
    assert rows[first.trial]["h100.tied_with"] == []


def test_a_folder_of_an_earlier_version_has_ratios_alone(run: SearchRun) -> None:
    assert not front_table(run).tied
    assert "b200.speedup" not in front_rows(run.folder)[0]
    assert f"{factor(run):.2f}× faster than bf16" in answer(run)


def test_gains_that_may_be_none_are_called_ties(told_run: SearchRun) -> None:
    wide = [
        one.model_copy(update={"low": one.speedup / 9, "high": one.speedup * 9})
        for one in told_run.speedups
    ]
    write_speedups(told_run.folder, wide)
    assert "tied with bf16 at " in answer(read_run(told_run.folder))


@pytest.mark.parametrize(
    ("found", "long", "short"),
    [
        (Speedup.of(1.924, 0.0392), "1.92× (1.85 to 2.00)", "1.92×±4%"),
        (Speedup.of(1.0, 0.0), "1.00×", "1.00×"),
        (Speedup.of(1.5, 0.1597), "1.50× (1.28 to 1.76)", "1.50×±17%"),
        (Speedup.of(1.5, 0.003), "1.50×", "1.50×±0.3%"),
    ],
)
def test_intervals_as_text(found: Speedup, long: str, short: str) -> None:
    assert (speedup_text(found), spread_text(found)) == (long, short)
