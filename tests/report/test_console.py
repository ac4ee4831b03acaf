from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dse.report.console import print_front
from dse.report.records import front_rows
from dse.run.search_run import SearchRun


def printed(folder: Path, width: int) -> list[str]:
    stream = io.StringIO()
    print_front(folder, Console(file=stream, width=width))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_nothing_is_cut_or_wider_than_the_terminal(finished: Path, width: int) -> None:
    lines = [line for line in printed(finished, width) if not line.startswith("report:")]
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_the_recommended_row_is_marked(finished: Path, run: SearchRun) -> None:
    marked = [line for line in printed(finished, 100) if line.startswith("★")]
    assert len(marked) == 1
    assert run.recommended is not None
    assert f"#{run.recommended.trial} " in marked[0]


def test_every_uniform_assignment_has_a_row(finished: Path, run: SearchRun) -> None:
    starts = {line.split()[0] for line in printed(finished, 100) if line.startswith("  ")}
    assert {run.title(point) for point in run.uniforms} <= starts


def test_a_long_front_says_how_much_it_leaves_out(finished: Path, run: SearchRun) -> None:
    lines = printed(finished, 100)
    rule = next(i for i, line in enumerate(lines) if line.startswith("─"))
    note = next(i for i, line in enumerate(lines) if " more in " in line)
    shown = sum(" ms " in line for line in lines[rule:note])
    beside = sum(point not in run.front for point in run.uniforms)
    assert int(lines[note].split()[0]) == len(run.front) - (shown - beside)


def test_programs_get_every_column_of_the_front(finished: Path, run: SearchRun) -> None:
    rows = front_rows(finished)
    assert [row["trial"] for row in rows] == [point.trial for point in run.front]
    assert sum(bool(row["recommended"]) for row in rows) == 1
    assert all(len(dict(row["choices"])) == 24 for row in rows)  # type: ignore[arg-type]
