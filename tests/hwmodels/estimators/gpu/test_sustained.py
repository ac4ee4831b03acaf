"""Boards whose power limit holds the clock below that of their rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.devices.quantity import SourcedValue
from hwmodels.errors import DeviceError
from hwmodels.operators.optable import OpTable, read_optable

COMPUTING = '"{""M"": 8192, ""K"": 8192, ""N"": 8192}"'
MOVING = '"{""M"": 1, ""K"": 8192, ""N"": 8192}"'


@pytest.fixture
def table(tmp_path: Path) -> OpTable:
    """A large product and a vector's, in bf16 and in fp32."""
    path = tmp_path / "ops.csv"
    rows = [f"gemm,{shape},{kind}" for kind in ("bf16", "fp32") for shape in (COMPUTING, MOVING)]
    path.write_text("\n".join(["op,shape,dtype", *rows]) + "\n")
    return read_optable(path, timed=False)


def _held(share: float, role: str) -> Device:
    """An L40S, which no learned part is undone for, that keeps up a share of its clock."""
    device = replace(load_device("l40s"), name="held")
    return replace(
        device,
        units=tuple(
            replace(unit, sustained_hz=replace(unit.clock_hz, value=share * unit.clock_hz.value))
            if unit.role == role
            else unit
            for unit in device.units
        ),
    )


def _times(table: OpTable, device: Device) -> list[float]:
    return predict_ops(table, device, "torch-eager")["predicted_us"].tolist()


def test_the_whole_clock_changes_nothing(table: OpTable) -> None:
    plain = replace(load_device("l40s"), name="held")
    assert _times(table, _held(1.0, "matrix")) == pytest.approx(_times(table, plain))


def test_half_the_clock_doubles_what_computes_on_that_unit_alone(table: OpTable) -> None:
    before = _times(table, replace(load_device("l40s"), name="held"))
    matrix, vector = _times(table, _held(0.5, "matrix")), _times(table, _held(0.5, "vector"))
    assert matrix[0] == pytest.approx(2 * before[0], rel=0.15)
    assert matrix[1] == pytest.approx(before[1], rel=0.05)
    assert matrix[2:] == pytest.approx(before[2:])
    assert vector[:2] == pytest.approx(before[:2])
    assert vector[2] == pytest.approx(2 * before[2], rel=0.15)
    assert vector[3] == pytest.approx(before[3], rel=0.05)


def test_the_interval_reaches_down_to_a_board_that_has_rested(table: OpTable) -> None:
    plain, held = (
        predict_ops(table, device, "torch-eager")
        for device in (replace(load_device("l40s"), name="held"), _held(0.8, "matrix"))
    )
    width = held["predicted_us"] / held["low_us"]
    assert width[0] > 1.05 * (plain["predicted_us"] / plain["low_us"])[0]
    assert held["low_us"][0] < plain["predicted_us"][0]


def test_a_sustained_clock_above_the_clock_is_refused(tmp_path: Path) -> None:
    text = Path("hwmodels/devices/l4.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("sustained: {value: 977, ", "sustained: {value: 2100, "))
    with pytest.raises(DeviceError, match=r"units\.1\.sustained: 2\.1e\+09 Hz is above the clock"):
        load_device(path)


def test_devices_with_a_power_limit_far_below_their_rates_say_so() -> None:
    for name in ("l4", "t4"):
        for unit in load_device(name).units:
            assert isinstance(unit.sustained_hz, SourcedValue)
            assert 0.4 < unit.sustained_share < 0.8
            assert "github.com" in unit.sustained_hz.source or "nvidia" in unit.sustained_hz.source


def test_a_pcie_board_is_slower_than_its_sxm_twin_by_its_memory(tmp_path: Path) -> None:
    """Where only the skeleton speaks: a long sum of two tensors."""
    path = tmp_path / "ops.csv"
    path.write_text('op,shape,dtype\nadd,"{""rows"": 16384, ""cols"": 16384}",bf16\n')
    moving = read_optable(path, timed=False)
    pcie, sxm = load_device("a100-pcie-80gb"), load_device("a100-sxm-80gb")
    ratio = (
        sxm.main_memory.bandwidth_bytes_per_s.value / pcie.main_memory.bandwidth_bytes_per_s.value
    )
    assert ratio == pytest.approx(2039 / 1935)
    assert _times(moving, pcie)[0] == pytest.approx(ratio * _times(moving, sxm)[0], rel=0.02)
