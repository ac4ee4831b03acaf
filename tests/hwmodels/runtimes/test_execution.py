"""Accumulators of products: what a device or a kernel has, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.errors import DeviceError, WorkError
from hwmodels.formats.accumulator import sum_quantizer
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.work.cost import CostEstimate
from hwmodels.work.work import Op, Operand, OperandName, RegionWork, Work
from tests.sums_chip import sums_device

M, K, N = 64, 512, 256
INPUT = Operand(name="input", value="x", shape=(M, K), contraction_axes=(1,))
WEIGHT = Operand(name="weight", value="w", shape=(K, N), contraction_axes=(0,), is_weight=True)
OUTPUT = Operand(name="output", value="y", shape=(M, N))
REGION = RegionWork(
    name="fc",
    kind="gemm",
    role="fc1",
    ops=(
        Op(
            name="fc", kind="gemm", sizes={"M": M, "K": K, "N": N},
            operands=(INPUT, WEIGHT, OUTPUT),
        ),
    ),
    reads=(INPUT, WEIGHT),
    writes=(OUTPUT,),
)  # fmt: skip
WORK = Work(name="fc", regions=(REGION,), outputs=("y",))


def priced(
    device: Device, total: str | None, *, runtime: str = "free", element: str = "int8"
) -> CostEstimate:
    choice: dict[OperandName, Quantizer] = {
        "input": quantizer(f"{element}:static" if element == "int8" else element),
        "weight": quantizer(element),
    }
    if total is not None:
        choice["sum"] = sum_quantizer(total)
    phase = PhaseWork(name="call", share=1.0, work=WORK)
    table = CostTable.build([phase], {"fc": (choice,)}, device, load_runtime(runtime))
    return table.total({})


def test_rate_energy_and_bytes_follow_the_accumulator(tmp_path: Path) -> None:
    chip = sums_device(tmp_path)
    wide, same_rate, narrow = (
        priced(chip, name) for name in ("int32", "int20:saturate", "int14:saturate")
    )
    assert same_rate.latency_s == wide.latency_s
    assert narrow.latency_s < wide.latency_s
    assert narrow.energy_j < same_rate.energy_j < wide.energy_j


def test_who_names_none_gets_the_widest(tmp_path: Path) -> None:
    chip = sums_device(tmp_path)
    assert priced(chip, None) == priced(chip, "int32")


def test_an_accumulator_that_a_unit_lacks_is_refused(tmp_path: Path) -> None:
    chip = sums_device(tmp_path)
    with pytest.raises(WorkError, match="int8 x int8 into int32, int20:saturate, int14:saturate"):
        priced(chip, "int16")


def test_the_accumulator_of_a_kernel_is_fixed() -> None:
    a100 = load_device("a100-sxm-80gb")
    fixed = r"sums into int32, which is fixed; leave @int16 out for this target"
    with pytest.raises(WorkError, match=fixed):
        priced(a100, "int16", runtime="tensorrt-llm")


def test_a_device_file_is_read_with_names_of_accumulators_only(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"rates\.0\.accumulator: accumulator 'wide'"):
        sums_device(tmp_path, {"wide": 0.512})
