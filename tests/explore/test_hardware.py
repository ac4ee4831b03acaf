"""Hardware as variables: one front over hardware and precision, each assignment measured once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from dse.errors import InfeasibleError, SpaceError
from dse.evaluate.varied_costs import VariedCosts
from dse.explore import Overrides, run_search
from dse.explore.loop import run
from dse.explore.measure.session import prepare
from dse.explore.problem.design import open_design
from dse.explore.problem.hardware import grid_of
from dse.explore.reprice import reprice
from dse.explore.solve.front import nondominated
from dse.explore.solve.surrogate import Surrogate
from dse.report.console import print_front
from dse.report.html import write_report
from dse.run.read import read_run
from dse.space.load import load_space, validated
from dse.space.schema import Space
from hwmodels.devices.vary import DeviceFile
from hwmodels.estimators.array.process import device_area_mm2

CAPACITY = "memories.scratchpad.capacity"
ROWS = "units.mac_array.array.axes.rows.size"
BANDWIDTH = "memories.dram.bandwidth"
OBJECTIVES = ["report_quality_loss", "latency_s", "area_mm2"]


def _space(**changes: object) -> Space:
    content: dict[str, object] = {
        "model": "zoo:fashion-resnet",
        "data": {"source": "zoo:fashion-resnet", "calibration": 16, "search": 32, "report": 32,
                 "batch": 32},
        "scenario": {"phases": {"frame": {"dims": {"batch": 1}}}},
        "targets": [{"name": "chip", "device": "edge-array"}],
        "hardware": {"variables": {ROWS: [16, 32], CAPACITY: ["128 KiB", "512 KiB"]}},
        "candidates": [{"use": ["bf16", "w8a8_int8_static"]}],
        "objectives": ["quality_loss", "latency_s", "area_mm2"],
        "search": {"trials": 6, "seed": 0, "sensitivity_samples": 32},
    }  # fmt: skip
    return validated(content | changes, origin="x.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "codesign"
    run(prepare(_space(), origin="x.yaml", folder=Path()), out)
    return out


def test_quality_is_measured_once_for_all_hardware(folder: Path) -> None:
    trials = pd.read_csv(folder / "trials.csv")
    assert trials.digest.nunique() == 6
    assert len(trials) > 6
    for _, same in trials.groupby("digest"):
        assert same.quality_loss.nunique() == 1
        assert same.report_quality_loss.nunique(dropna=False) == 1
        places = same[[f"hardware.{ROWS}", f"hardware.{CAPACITY}"]]
        assert len(places.drop_duplicates()) == len(places)


def test_the_front_is_of_everything_measured_on_every_hardware_point(folder: Path) -> None:
    front = pd.read_csv(folder / "front.csv")
    design = open_design(_space(), origin="x.yaml", folder=Path())
    assert isinstance(design.costs, VariedCosts)
    trials = pd.read_csv(folder / "trials.csv").dropna(subset=["report_quality_loss"])
    choices = pd.read_csv(folder / "choices.csv").set_index("trial")
    rows = []
    for _, trial in trials.drop_duplicates("digest").iterrows():
        named = choices.loc[trial.trial].to_dict()
        for rows_count in ("16", "32"):
            for capacity in ("128 KiB", "512 KiB"):
                hardware = {f"hardware.{ROWS}": rows_count, f"hardware.{CAPACITY}": capacity}
                point = design.problem.point({**named, **hardware})
                costs = design.total(point)
                rows.append([trial.report_quality_loss, costs["latency_s"], costs["area_mm2"]])
    every = np.array(rows)
    best = every[nondominated(every)]
    found = front[OBJECTIVES].to_numpy()
    # What is on it is not beaten, and nothing beats it by more than what is thinned away.
    for row in found:
        assert not ((every <= row).all(axis=1) & (every < row * (1 - 1e-9)).any(axis=1)).any()
    for row in best:
        assert (found <= row * 1.0101).all(axis=1).any()


def test_prices_are_those_of_the_varied_device_alone(folder: Path) -> None:
    front = pd.read_csv(folder / "front.csv")
    file = DeviceFile("edge-array")
    for _, point in front.iterrows():
        settings = {ROWS: int(point[f"hardware.{ROWS}"]), CAPACITY: point[f"hardware.{CAPACITY}"]}
        device = file.varied(settings)
        assert point.area_mm2 == pytest.approx(device_area_mm2(device))
        assert point.power_w == pytest.approx(point.energy_j / point.latency_s)


def test_a_point_names_its_hardware_wherever_it_is_named(folder: Path) -> None:
    chosen = json.loads((folder / "recommended.json").read_text())
    front = pd.read_csv(folder / "front.csv").set_index("trial")
    row = front.loc[chosen["trial"]]
    assert chosen["hardware"] == {
        ROWS: str(row[f"hardware.{ROWS}"]),
        CAPACITY: row[f"hardware.{CAPACITY}"],
    }
    listed = {one["trial"]: one for one in json.loads((folder / "front.json").read_text())}
    assert listed[chosen["trial"]]["hardware"] == chosen["hardware"]
    assert "hardware" not in " ".join(pd.read_csv(folder / "choices.csv").columns)
    found = read_run(folder)
    assert found.manifest.hardware is not None
    assert found.manifest.hardware.size == 4


def test_costs_are_those_of_the_recommended_hardware(folder: Path) -> None:
    found = read_run(folder)
    assert found.recommended is not None
    chosen = found.choices[found.recommended.trial]
    total = sum(
        cost.latency_s
        for cost in found.costs
        if cost.choice == (chosen.get(cost.variable) or "fixed")
    )
    assert total == pytest.approx(found.recommended.columns["latency_s"], rel=0.02)


def test_shadow_prices_are_differences_to_solutions_of_the_neighbours(folder: Path) -> None:
    found = read_run(folder)
    assert found.hardware is not None
    prices = {one.parameter: one for one in found.hardware.shadow_prices}
    assert set(prices) == {ROWS, CAPACITY}
    for price in prices.values():
        for change in price.changes:
            assert change.low <= change.ratio <= change.high
        latency = next(one for one in price.changes if one.column == "latency_s")
        # The loss is held: what is measured bounds what solving again can say.
        assert latency.at == "quality_loss"
        assert 0.1 < latency.ratio < 10
    file = DeviceFile("edge-array")
    before, after = found.hardware.recommended, prices[CAPACITY].after
    own = device_area_mm2(file.varied({ROWS: int(before[ROWS]), CAPACITY: before[CAPACITY]}))
    other = device_area_mm2(file.varied({ROWS: int(before[ROWS]), CAPACITY: after}))
    assert own is not None
    assert other is not None
    assert prices[CAPACITY].area_mm2 == pytest.approx(other - own)


def test_page_and_terminal_say_what_to_build_and_what_a_step_buys(folder: Path) -> None:
    page = write_report(folder).read_text(encoding="utf-8")
    console = Console(file=io.StringIO(), width=100)
    print_front(folder, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for found in (page, text):
        assert "Of 4 chips build the one with rows " in found.replace("\n", " ")
    for name in ("side-by-side", "chips", "shadow-prices"):
        assert f'id="plot-{name}"' in page
    assert "6 assignments on 4 chips" in text.replace("\n", " ")
    assert "latency at equal loss" in page


def test_more_trials_of_a_finished_run_measure_more_and_keep_what_was(folder: Path) -> None:
    before = pd.read_csv(folder / "trials.csv").set_index("trial")
    run_search(None, overrides=Overrides(trials=7), out=folder, resume=True)
    after = pd.read_csv(folder / "trials.csv").set_index("trial")
    assert after.digest.nunique() == 7
    pd.testing.assert_series_equal(after.loc[before.index].quality_loss, before.quality_loss)


def test_measurements_hold_under_another_limit_of_area(folder: Path, tmp_path: Path) -> None:
    area = pd.read_csv(folder / "front.csv").area_mm2.min()
    limit = Overrides(constraints=(f"area_mm2<={area * 1.001}",))
    found = reprice(folder, overrides=limit, out=tmp_path / "small")
    assert found.front
    assert all(record.costs["area_mm2"] <= area * 1.001 for record in found.front)
    assert read_run(tmp_path / "small").hardware is not None


def test_hardware_that_runs_some_choices_is_on_the_front_with_these_alone() -> None:
    scales = {"full": {}, "narrow": {"runs": ["w8a8_int8_static"]}}
    space = _space(hardware={"variables": {"unit": {"options": scales}}})
    design = open_design(space, origin="x.yaml", folder=Path())
    wide, narrow = design.problem.uniforms.values()
    on = design.costs.on(np.array([wide, narrow]), (1,))  # type: ignore[attr-defined]
    priced = design.totals(on, ["latency_s", "area_mm2"])
    assert np.isinf(priced[0, 0])
    assert np.isfinite(priced[1]).all()
    assert np.isfinite(priced[:, 1]).all()


INT20 = "int20:saturate"
NARROW = {
    "wide": {"runs": ["bf16", "w8a8"]},
    "narrow": {
        "set": {"units.mac_array.rates.int8.accumulator": INT20},
        "runs": ["bf16", "w8a8_sum20"],
    },
}


def test_a_narrower_accumulator_is_cheaper_hardware_for_the_choices_that_name_it() -> None:
    plain = {"name": "w8a8", "weight": "int8_channel", "activation": "int8:static"}
    space = _space(
        hardware={"variables": {"sum": {"options": NARROW}, ROWS: [16, 32]}},
        candidates=[
            {"use": ["bf16", plain, {**plain, "name": "w8a8_sum20", "accumulator": INT20}]}
        ],
    )
    design = open_design(space, origin="x.yaml", folder=Path())
    varied = design.varied
    assert varied is not None
    uniform = {name: np.array([point]) for name, point in design.problem.uniforms.items()}
    columns = ["latency_s", "energy_j", "area_mm2"]
    wide = design.totals(varied.on(uniform["w8a8"], (0, 1)), columns)[0]
    narrow = design.totals(varied.on(uniform["w8a8_sum20"], (1, 1)), columns)[0]
    assert narrow[1] < wide[1]
    for name, hardware in (("w8a8", (1, 1)), ("w8a8_sum20", (0, 1))):
        assert np.isinf(design.totals(varied.on(uniform[name], hardware), ["latency_s"])).all()
    # Uniform assignments stand on hardware that runs them.
    grid = grid_of(design, _surrogates(space))
    assert grid is not None
    assert varied.hardware.labels(
        varied.hardware_of(grid.running(design.problem.uniforms["w8a8_sum20"]))
    ) == {"sum": "narrow", ROWS: "32"}


def _surrogates(space: Space) -> list[Surrogate]:
    design = open_design(space, origin="x.yaml", folder=Path())
    losses = tuple(
        np.zeros(len(one.choices)) if one.is_hardware else np.linspace(0, 1e-3, len(one.choices))
        for one in design.problem.variables
    )
    return [Surrogate(losses=losses)]


def test_a_grid_with_more_points_than_allowed_is_sampled_alike_each_time() -> None:
    many = {ROWS: [8, 16, 32, 64], CAPACITY: ["64 KiB", "128 KiB", "256 KiB", "512 KiB"]}
    space = _space(hardware={"variables": many, "points": 5})
    design = open_design(space, origin="x.yaml", folder=Path())
    first, second = (grid_of(design, _surrogates(space)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert len(first.points) == 5
    assert len(np.unique(first.points, axis=0)) == 5
    np.testing.assert_array_equal(first.points, second.points)


def test_an_area_that_no_hardware_has_is_told_before_anything_is_priced() -> None:
    space = _space(constraints=["area_mm2<=0.01"])
    design = open_design(space, origin="x.yaml", folder=Path())
    with pytest.raises(InfeasibleError, match=r"least of 4 hardware points is .* relax it to"):
        grid_of(design, _surrogates(space))


def test_an_area_without_a_figure_behind_it_is_no_objective() -> None:
    space = _space(
        targets=[{"name": "chip", "device": "gemmini"}],
        hardware={"variables": {CAPACITY: ["128 KiB", "512 KiB"]}},
    )
    with pytest.raises(SpaceError, match=r"objectives.2: area_mm2: no figure behind it.*gemmini"):
        open_design(space, origin="x.yaml", folder=Path())
    with pytest.raises(SpaceError, match=r"objectives.2: area_mm2 is the same for every"):
        open_design(_space(hardware=None), origin="x.yaml", folder=Path())


def test_the_question_of_the_readme_is_answered_on_a_few_chips(tmp_path: Path) -> None:
    space = load_space("spaces/codesign.yaml")
    assert space.hardware is not None
    few = space.model_copy(
        update={
            "hardware": space.hardware.model_copy(update={"points": 4}),
            "data": space.data.model_copy(
                update={"calibration": 16, "search": 16, "report": 16, "batch": 16}
            ),
            "search": space.search.model_copy(update={"trials": 7}),
        }
    )
    run(prepare(few, origin="spaces/codesign.yaml", folder=Path("spaces")), tmp_path / "few")
    found = read_run(tmp_path / "few")
    assert found.hardware is not None
    assert (found.hardware.priced, found.hardware.size) == (4, 96)
    assert set(found.hardware.recommended) == set(space.hardware.variables)
    assert all(point.columns["area_mm2"] <= 1 for point in found.front)
    assert {one.parameter for one in found.hardware.shadow_prices} <= set(space.hardware.variables)
