from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import moocore
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.report.figures.format_map import format_map_view
from dse.report.figures.hover import hover
from dse.report.figures.label import Box, positions
from dse.report.figures.pareto import pareto_view, staircase
from dse.report.figures.sensitivity import heat_view, rank_view
from dse.report.figures.time import compared
from dse.report.quantities.breakdown import breakdown, region_role, support
from dse.run.entries import MeasuredPoint
from dse.run.search_run import SearchRun

Pair = tuple[float, float]


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, unique=True))
def test_the_staircase_is_what_moocore_calls_nondominated(pairs: list[Pair]) -> None:
    points = [
        MeasuredPoint(trial=i, source="sampler", columns={"c": x, "report_quality_loss": y})
        for i, (x, y) in enumerate(pairs)
    ]
    kept = {point.trial for point in staircase(points, "c")}
    assert kept == set(np.flatnonzero(moocore.is_nondominated(np.array(pairs))))


def test_parts_add_up_to_the_latency_of_the_phase(run: SearchRun, finished: Path) -> None:
    trials = pd.read_csv(finished / "trials.csv", index_col="trial")
    for point in (run.front[0], run.front[-1], run.uniforms[0]):
        found = breakdown(run, point, target="h100", phase="decode")
        expected = trials.loc[point.trial, "h100.decode.latency_s"]
        assert found.total_s == pytest.approx(expected)
        assert sum(found.by_bound.values()) == pytest.approx(expected)


def test_what_is_not_native_is_counted_by_region_with_its_reason(run: SearchRun) -> None:
    found = {(one.choice, one.target): one for one in support(run)}
    assert found["w4a4_nvfp4", "b200"].native
    on_hopper = found["w4a4_nvfp4", "h100"]
    assert on_hopper.statuses == {"upcast": 128}
    assert on_hopper.notes == ("no nvfp4 GEMM on h100-sxm: run in bf16",)


@pytest.mark.parametrize(
    ("region", "role"),
    [("blocks.3/gate_up", "gate_up"), ("conv_7", "conv"), ("head", "head")],
)
def test_the_role_of_a_region_that_is_not_searched(region: str, role: str) -> None:
    assert region_role(region) == role


def test_the_map_shows_the_choice_of_every_variable_at_every_front_point(run: SearchRun) -> None:
    cells = format_map_view(run).figure.data[0].z
    choices = run.manifest.choices
    for column, point in enumerate(run.front):
        for row, variable in enumerate(run.searched):
            assert choices[int(cells[row][column])] == run.choices[point.trial][variable.name]


def test_every_cost_of_every_target_has_a_button(run: SearchRun) -> None:
    costs, scales = pareto_view(run).buttons
    assert [button.label for button in costs] == [
        "latency on b200", "latency on h100", "energy on b200", "energy on h100", "weights",
    ]  # fmt: skip
    assert len(scales) == 2


def test_a_button_moves_every_trace_to_its_own_column(run: SearchRun) -> None:
    view = pareto_view(run)
    restyle, relayout, _ = json.loads(view.buttons[0][1].arguments)
    assert len(restyle["x"]) == len(view.figure.data)
    front = [p for p in run.front if p.source != "uniform"]
    assert restyle["x"][2] == pytest.approx([1e3 * p.columns["h100.latency_s"] for p in front])
    assert relayout["xaxis.title.text"] == "predicted latency on h100 (ms)"


def test_hover_text_cannot_smuggle_markup(run: SearchRun) -> None:
    point = MeasuredPoint(trial=1, source="<b>x</b>", columns={"report_quality_loss": 0.1})
    assert "<b>x</b>" not in hover(run, point)


def test_the_ranking_starts_with_the_most_sensitive_variable(
    run: SearchRun, finished: Path
) -> None:
    table = pd.read_csv(finished / "sensitivity.csv")
    worst = table["variable"][table["loss"].argmax()]
    view = rank_view(run)
    assert view is not None
    first = view.figure.layout.yaxis.ticktext[0]
    assert first == next(v.label for v in run.manifest.variables if v.name == worst)


def test_an_infinite_loss_is_told_beside_the_map(run: SearchRun) -> None:
    """Weights that hold Inf, or scales that overflow, make a choice's loss infinite."""
    worst = max(run.sensitivity, key=lambda score: score.loss)
    spoilt = [replace(s, loss=math.inf) if s == worst else s for s in run.sensitivity]
    changed = replace(run, sensitivity=tuple(spoilt))
    view, ranking = heat_view(changed), rank_view(changed)
    assert view is not None
    assert ranking is not None
    (cells,) = view.figure.data
    texts = [text for line in cells.text for text in line]
    assert any(text.endswith("loss inf") for text in texts)
    assert len(cells.y) == len({s.variable for s in run.sensitivity if s.loss > 0})


def test_the_recommended_point_is_compared_with_reference_and_best_uniform(run: SearchRun) -> None:
    assert run.recommended is not None
    titles = [run.title(point) for point in compared(run)]
    assert titles == ["bf16", "fp8", run.title(run.recommended)]


def test_names_of_close_points_do_not_overlap() -> None:
    points = [(100.0, 100.0), (103.0, 112.0), (108.0, 92.0)]
    texts = ["mxfp4", "nvfp4", "fp8"]
    frame = Box(0, 0, 700, 400)
    placed = positions(points, texts, [(130.0, 100.0)], frame=frame)
    assert len(set(placed)) == 3


def test_names_stay_inside_the_frame() -> None:
    corner = positions([(2.0, 2.0)], ["w8a8_fp8"], [], frame=Box(0, 0, 700, 400))
    assert corner == ["top right"]
