from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from dse.report.answer import answer
from dse.report.console import print_front
from dse.report.quantities.baseline import rivals
from dse.report.quantities.unit import digits
from dse.report.records import front_rows
from dse.run.read import read_run
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


def bounded(folder: Path, *constraints: str) -> Path:
    """The run with bounds: MX and NVFP4 formats have no kernels on its h100."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "constraints": constraints}), encoding="utf-8")
    return folder


def test_rows_that_break_a_constraint_are_marked(folder: Path) -> None:
    assert not any("✗" in line for line in printed(folder, 100))
    lines = printed(bounded(folder, "h100.native_share>=1", "b200.peak_bytes<=1e99"), 100)
    run = read_run(folder)
    marked = {line.split()[1] for line in lines if line.startswith("✗ ") and " ms " in line}
    broken = {
        run.title(point)
        for point in (*run.front, *run.uniforms)
        if point.columns["h100.native_share"] < 1
    }
    assert marked <= broken
    assert {run.short[name] for name in ("w8a8_mxfp8", "w4a4_mxfp4", "w4a4_nvfp4")} <= marked
    assert "✗ breaks h100.native_share>=1" in lines
    assert "w8a8_mxfp8 everywhere" not in answer(run)


def test_a_uniform_assignment_that_breaks_a_constraint_is_no_rival(folder: Path) -> None:
    run = read_run(folder)
    worst = max(run.uniforms, key=lambda point: point.loss or 0.0)
    free = {one.name for one in rivals(run, worst)}
    assert len(free - {"bf16", "w8a8_fp8_dynamic"}) > 1
    run = read_run(bounded(folder, "h100.native_share>=1"))
    assert {one.name for one in rivals(run, worst)} == free & {"bf16", "w8a8_fp8_dynamic", ""}


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


def loaded(folder: Path) -> Path:
    """The run with what requests find on b200 as its objective."""
    for name in ("trials.csv", "front.csv"):
        rows = pd.read_csv(folder / name)
        rate = 4.0 / rows["b200.latency_s"]
        rows["b200.sustained_rate"] = rate
        rows["b200.load_cost_per_mtok"] = 1.5 / rate
        rows.to_csv(folder / name, index=False)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["objectives"] = ["quality_loss", "b200.load_cost_per_mtok"]
    load = {"bounds": ["ttft_p99_s<=1", "tpot_p99_s<=0.05"]}
    manifest["space"]["scenario"] = {"load": load}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_an_objective_that_every_run_lacks_has_a_column_of_its_own(folder: Path) -> None:
    assert not any("Mtok" in line for line in printed(folder, 160))
    lines = printed(loaded(folder), 160)
    assert "Mtok under" in " ".join(lines[:4])
    row = next(line for line in lines if line.startswith("★"))
    run = read_run(folder)
    assert run.recommended is not None
    paid = run.recommended.columns["b200.load_cost_per_mtok"]
    assert f"{digits(paid)} USD" in row


def test_the_answer_says_how_many_requests_keep_the_bounds(folder: Path) -> None:
    run = read_run(loaded(folder))
    assert run.recommended is not None
    assert run.reference is not None
    own, whole = (one.columns["b200.sustained_rate"] for one in (run.recommended, run.reference))
    said = (
        f"On b200 ttft_p99_s<=1 and tpot_p99_s<=0.05 hold for {digits(own)} requests a second "
        f"({digits(whole)} in bf16)."
    )
    assert said in answer(run)
    assert "Predicted cost per Mtok under load: " in answer(run)
    assert "cheaper than bf16" in answer(run)
