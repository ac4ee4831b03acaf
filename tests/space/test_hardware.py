"""Parameters of a device as variables: what a `hardware` section says, and what it cannot say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import SpaceError
from dse.space.hardware import HardwareSpace, hardware_of, with_hardware
from dse.space.load import parse_space, space_yaml, validated
from dse.space.problem import Choice, Problem, Variable
from hwmodels.devices.vary import DeviceFile

CAPACITY = "memories.scratchpad.capacity"
BANDWIDTH = "memories.dram.bandwidth"
ROWS = "units.mac_array.array.axes.rows.size"
STATIONARY = "units.mac_array.array.stationary"


def _content(variables: object, **hardware: object) -> dict[str, object]:
    return {
        "model": "zoo:fashion-resnet",
        "data": {"source": "zoo:fashion-resnet"},
        "targets": ["edge-array"],
        "candidates": [{"use": ["bf16"]}],
        "hardware": {"variables": variables, **hardware},
    }


def _hardware(variables: object, **hardware: object) -> HardwareSpace:
    space = validated(_content(variables, **hardware), origin="x.yaml")
    found = hardware_of(space, Path(), origin="x.yaml")
    assert found is not None
    return found


def test_quantities_rise_whatever_their_units_and_start_at_the_files_own_value() -> None:
    (found,) = _hardware({CAPACITY: ["1 MiB", "128 KiB", "65536 B"]}).parameters
    assert [one.label for one in found.options] == ["65536 B", "128 KiB", "1 MiB"]
    assert found.said == "128 KiB"
    assert found.options[found.start].label == "128 KiB"


def test_a_value_that_the_file_lacks_starts_at_the_nearest() -> None:
    (found,) = _hardware({CAPACITY: ["16 KiB", "100 KiB", "4 MiB"]}).parameters
    assert found.options[found.start].label == "100 KiB"


@pytest.mark.parametrize(
    ("scale", "labels"),
    [("linear", ["2 GB/s", "5 GB/s", "8 GB/s"]), ("log", ["2 GB/s", "4 GB/s", "8 GB/s"])],
)
def test_a_range_is_evenly_spaced_by_terms_or_factors(scale: str, labels: list[str]) -> None:
    spread = {"from": "2 GB/s", "to": "8000 MB/s", "steps": 3, "scale": scale}
    (found,) = _hardware({BANDWIDTH: spread}).parameters
    assert [one.label for one in found.options] == labels


def test_a_device_of_a_point_has_its_values_and_rates_that_follow() -> None:
    hardware = _hardware({ROWS: [32, 64], CAPACITY: ["128 KiB", "256 KiB"]})
    own = DeviceFile("edge-array").device
    device = hardware.device((1, 1))
    scratchpad = device.memory("scratchpad")
    assert scratchpad is not None
    assert scratchpad.capacity_bytes.value == 256 * 1024
    for before, after in zip(own.units[0].rates, device.units[0].rates, strict=True):
        assert after.ops_per_s.value == pytest.approx(2 * before.ops_per_s.value)


def test_options_set_what_belongs_together() -> None:
    flows = {
        "weight": {"set": {STATIONARY: "weight"}},
        "output": {"set": {STATIONARY: "output", CAPACITY: "256 KiB"}},
    }
    hardware = _hardware({"dataflow": {"options": flows}})
    array = hardware.device((1,)).units[0].array
    assert array is not None
    assert array.stationary == "output"
    assert hardware.start == (0,)
    assert hardware.labels((1,)) == {"dataflow": "output"}


def test_steps_go_to_the_next_quantity_and_to_every_other_word() -> None:
    flows = {name: {"set": {STATIONARY: name}} for name in ("weight", "output", "input")}
    hardware = _hardware({ROWS: [16, 32, 64], "dataflow": {"options": flows}})
    assert set(hardware.neighbours((0, 1))) == {(0, (1, 1)), (1, (0, 0)), (1, (0, 2))}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"memories.scratchpad.capcity": ["1 KiB", "2 KiB"]},
         r"capcity: its file has no such .*did you mean .*capacity"),
        ({CAPACITY: []}, r"expected either a list of values.*or a range.*or `options`"),
        ({CAPACITY: ["128 KiB"]}, r"expected two values or more to choose from, got 1"),
        ({CAPACITY: {"from": "1 KiB", "steps": 4}}, r"a range has `from`, `to` and `steps`"),
        ({CAPACITY: {"from": "8 KiB", "to": "1 KiB", "steps": 4}}, "expected a range that rises"),
        ({ROWS: {"from": 2, "to": 4, "steps": 9}}, "not as many whole numbers"),
        ({CAPACITY: ["1 MiB", "1024 KiB"]}, "1 MiB and 1024 KiB are one value"),
        ({CAPACITY: ["128 KiB", "1 GB/s"]}, r"capacity.*1 GB/s"),
        ({CAPACITY: ["128 KiB", "256 KiB"],
          "big": {"options": {"a": {"set": {CAPACITY: "1 MiB"}}, "b": {}}}},
         r"big both set memories.scratchpad.capacity|both set memories.scratchpad.capacity"),
    ],
)  # fmt: skip
def test_what_cannot_vary_is_refused_by_name(variables: object, words: str) -> None:
    with pytest.raises(SpaceError, match=f"(?s)x.yaml: hardware.*{words}"):
        _hardware(variables)


def test_with_several_targets_the_space_says_which_device_varies() -> None:
    content = _content({CAPACITY: ["128 KiB", "256 KiB"]}) | {"targets": ["edge-array", "gemmini"]}
    space = validated(content, origin="x.yaml")
    with pytest.raises(SpaceError, match=r"hardware.target: missing; which device varies\?"):
        hardware_of(space, Path(), origin="x.yaml")
    content["hardware"] = {"target": "gemini", **content["hardware"]}  # type: ignore[dict-item]
    space = validated(content, origin="x.yaml")
    with pytest.raises(SpaceError, match="unknown target 'gemini'; did you mean 'gemmini'"):
        hardware_of(space, Path(), origin="x.yaml")


def test_figures_that_would_not_follow_are_told() -> None:
    content = _content({CAPACITY: ["128 KiB", "256 KiB"]}) | {"targets": ["gemmini"]}
    found = hardware_of(validated(content, origin="x"), Path(), origin="x")
    assert found is not None
    assert any("scratchpad: its energy a byte is the file's" in one for one in found.remarks)
    assert not _hardware({CAPACITY: ["128 KiB", "256 KiB"]}).remarks


def test_a_space_with_hardware_is_the_same_once_written() -> None:
    content = _content(
        {
            CAPACITY: ["128 KiB", "256 KiB"],
            BANDWIDTH: {"from": "2 GB/s", "to": "8 GB/s", "steps": 3},
            "dataflow": {"options": {"a": {"set": {STATIONARY: "output"}}, "b": {"runs": ["x"]}}},
        }
    )
    space = validated(content, origin="x")
    assert parse_space(space_yaml(space), origin="x") == space


def _problem() -> Problem:
    choices = tuple(Choice(name=name, quantizers={}) for name in ("bf16", "int8"))
    return Problem(
        variables=(
            Variable(
                name="conv", kind="conv2d", role="conv", block=None, relative_depth=0.0,
                regions=("conv",), sites=(), choices=choices,
            ),
        )
    )  # fmt: skip


def test_hardware_multiplies_points_and_leaves_assignments_and_uniforms_alone() -> None:
    problem = with_hardware(_problem(), _hardware({ROWS: [16, 32, 64]}), origin="x")
    assert (problem.assignments, problem.size) == (2, 6)
    assert problem.uniforms == {"bf16": (0, 1), "int8": (1, 1)}
    assert problem.on_start((1, 2)) == (1, 1)
    assert problem.precision == _problem()


@pytest.mark.parametrize(
    ("runs", "words"),
    [(["int7"], "no candidate is named 'int7'"), (["w"], "no candidate is named 'w'")],
)
def test_hardware_runs_candidates_of_the_space_only(runs: list[str], words: str) -> None:
    hardware = _hardware({"scales": {"options": {"a": {"runs": runs}, "b": {}}}})
    with pytest.raises(SpaceError, match=rf"scales.options.a.runs: {words}"):
        with_hardware(_problem(), hardware, origin="x")
