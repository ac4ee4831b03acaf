"""Chip files with one thing wrong: each is refused as it is read, by the field's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwmodels.devices.load import load_device
from hwmodels.devices.vary import DeviceFile
from hwmodels.errors import DeviceError
from tests.hwmodels.devices.changed import Content, changed


def _put(path: str, value: object) -> Callable[[Content], None]:
    """A change of one entry; numbers in the path are places in lists."""

    def change(content: Content) -> None:
        *outer, last = [int(one) if one.isdigit() else one for one in path.split(".")]
        here: Any = content
        for step in outer:
            here = here[step]
        here[last] = value

    return change


def _twice(path: str) -> Callable[[Content], None]:
    """The first entry of a list once more."""

    def change(content: Content) -> None:
        here: Any = content
        for step in path.split("."):
            here = here[int(step) if step.isdigit() else step]
        here.append(dict(here[0]))

    return change


ARRAY: dict[str, tuple[Callable[[Content], None], str]] = {
    "a core and a half": (
        _put("units.0.count.value", 1.5),
        r"units\.0\.count: value: expected a whole number, got 1.5",
    ),
    "rows and a half": (
        _put("units.0.array.axes.0.size.value", 31.5),
        r"axes\.0\.size: value: expected a whole number, got 31.5",
    ),
    "no core": (
        _put("units.0.count.value", 0),
        r"units\.0\.count\.value: expected greater than 0",
    ),
    "less than no rows": (
        _put("units.0.array.axes.0.size.value", -4),
        r"axes\.0\.size\.value: expected greater than 0",
    ),
    "a version that is no number": (
        _put("architecture.version", float("nan")),
        r"architecture\.version: expected a finite",
    ),
    "a version below zero": (
        _put("architecture.version", -1),
        r"architecture\.version: expected greater than 0",
    ),
    "a version that is a flag": (
        _put("architecture.version", True),
        r"architecture\.version: expected a number, got true",
    ),
    "an element that nobody knows": (
        _put("units.1.rates.0.elements.0", "itn8"),
        r"units\.1\.rates\.0\.elements\.0: unknown element 'itn8'; did you mean 'int8'",
    ),
    "an accumulator that nobody knows": (
        _put("units.0.rates.0.accumulator", "flot32"),
        r"units\.0\.rates\.0\.accumulator: .*did you mean \'fp32\'",
    ),
    "two rates of one pair": (
        _twice("units.0.rates"),
        r"units\.0\.rates: 2 of them are for int8 with int8 into int32",
    ),
    "two memories of one name": (
        _twice("memories"),
        "memories: 2 entries are named 'dram'; give each its own name",
    ),
    "two units of one name": (_twice("units"), "units: 2 entries are named 'mac_array'"),
    "a memory without a name": (
        _put("memories.1.name", " "),
        r"memories\.1\.name: expected a name",
    ),
    "an axis without a name": (
        _put("units.0.array.axes.1.name", ""),
        r"axes\.1\.name: expected a name, got ''",
    ),
    "an axis named as the cores": (
        _put("units.0.array.axes.1.name", "cores"),
        "'cores' is the axis of the unit's cores",
    ),
    "a loop twice on an axis": (
        _put("units.0.array.axes.0.unrolls", ["C", "K", "C"]),
        r"axes\.0\.unrolls: C twice",
    ),
    "a memory that holds nothing": (_put("memories.1.holds", []), r"memories\.1\.holds: empty"),
    "a tensor held twice": (
        _put("memories.1.holds", ["input", "input"]),
        r"memories\.1\.holds: input twice",
    ),
    "an axis twice": (_put("memories.3.per", ["rows", "rows"]), r"memories\.3\.per: rows twice"),
    "a main memory a row": (_put("memories.0.per", ["rows"]), r"memories\.0\.per: rows: main mem"),
    "a scratchpad beyond main memory": (
        _put("memories.1.capacity.unit", "GiB"),
        r"memories\.1\.capacity: .* scratchpad are more",
    ),
    "halves of what is not held": (
        _put("memories.1.double_buffered", ["output"]),
        r"memories\.1\.double_buffered: output never is in scratchpad, which holds input, weight",
    ),
    "a node that nobody knows": (
        _put("process.value", 1.5),
        r"process: node 1.5 nm: .* leave it out",
    ),
    "an array on a GPU": (_put("kind", "gpu"), r"units\.0\.array: only devices of kind 'array'"),
    "a highest value without a limit": (
        _put("launch.high", 1e30),
        r"launch: high 1e\+30 us is outside the physical limits",
    ),
    "a measurement of no rows": (
        _put(
            "measurements",
            [
                {
                    "op": "gemm",
                    "shape": {"m": 0, "n": 8, "k": 8},
                    "dtype": "int8",
                    "runtime": "free",
                    "median_us": 3,
                }
            ],
        ),
        r"measurements\.0\.shape: m: expected greater than 0, got 0",
    ),
}
NPU: dict[str, tuple[Callable[[Content], None], str]] = {
    "cycles without an end": (
        _put("npu.output.add", 1e30),
        r"npu\.output\.add: expected less than or equal to 1000000",
    ),
    "more arrays than cores": (
        _put("units.0.count.value", 4),
        r"units\.mac_array\.count: 4 arrays, and npu\.blocks\.cores: 1, of which cycles follow",
    ),
    "an output unit that nothing waits for": (
        _put("units.1.clock.value", 250),
        r"units\.output_unit\.clock: 2\.5e\+08 Hz; npu\.output says its cycles at the clock of",
    ),
    "a rate that nothing is computed at": (
        _put("units.1.rates.0.value", 8),
        r"units\.output_unit\.rates: 8e\+09 op/s; npu\.output\.product, of which cycles follow",
    ),
    "a size that is a flag": (
        _put("npu.blocks.depth", True),
        r"npu\.blocks\.depth: expected a number, got true",
    ),
    "half a bank": (
        _put("npu.buffers.bank", 0.5),
        r"npu\.buffers\.bank: expected a valid integer",
    ),
    "blocks smaller than a step": (
        _put("npu.blocks.largest", [1, 1, 1]),
        "largest: not even a micro-block of 2 x 2 x 8",
    ),
    "a row that is no micro-block": (
        _put("npu.blocks.row", [1, 4, 16]),
        "micro-blocks of one size, in `row` too, got 32 and 64",
    ),
    "bricks of millions": (
        _put("npu.brick", 10**9),
        r"npu\.brick: expected less than or equal to 1024",
    ),
    "a burst beyond its memory": (
        _put("npu.ports.0.burst", 10**12),
        r"npu\.ports\.0\.burst: 10+ B are more than sram holds",
    ),
    "two ports of one memory": (_twice("npu.ports"), "ports: the memory sram has two entries"),
    "two layouts of one width": (
        _twice("npu.buffers.layouts"),
        r"buffers\.layouts: 8 bits has two entries",
    ),
    "sums narrower than inputs": (
        _put("npu.buffers.layouts.0.accumulator_bits", 7),
        r"layouts\.0: accumulator_bits: 7 bits hold no sums of inputs of 8 bits",
    ),
    "a granule wider than a step": (
        _put("npu.steps.0.granule", 64),
        r"steps\.0: granule: 64 channels are more than a step's 32",
    ),
    "weights that no decoder takes": (
        _put("npu.weights.elements.0", "int88x"),
        r"elements\.0: unknown element 'int88x'",
    ),
}
CPU: dict[str, tuple[Callable[[Content], None], str]] = {
    "registers of a byte": (
        _put("cpu.vector_bytes", 1),
        r"cpu\.vector_bytes: expected greater than or equal to 8",
    ),
    "products without an end": (
        _put("cpu.instructions.0.macs", 1e30),
        r"instructions\.0\.macs: expected less than or equal",
    ),
    "a sum that nobody knows": (
        _put("cpu.instructions.0.accumulator", "int3.2"),
        r"instructions\.0\.accumulator: .*did you mean \'int32\'",
    ),
}
CASES = [
    pytest.param(device, *case, id=f"{device}: {name}")
    for device, cases in (("edge-array", ARRAY), ("ethos-u55", NPU), ("zen4-2c", CPU))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("device", "change", "message"), CASES)
def test_a_chip_with_one_thing_wrong_is_refused_by_the_field(
    tmp_path: Path, device: str, change: Callable[[Content], None], message: str
) -> None:
    with pytest.raises(DeviceError, match=message) as raised:
        load_device(changed(device, tmp_path, change))
    assert "mine.yaml: " in str(raised.value)


@pytest.mark.parametrize("key", ["units.mac_array.count", "units.mac_array.array.axes.rows.size"])
def test_a_variation_takes_whole_cores_and_rows(key: str) -> None:
    with pytest.raises(DeviceError, match=r"value: expected a whole number, got 1\.5"):
        DeviceFile("edge-array").varied({key: "1.5"})


def test_an_element_of_a_chip_may_be_spelled_out(tmp_path: Path) -> None:
    content = _put("units.1.rates.0.elements.0", "int7")
    chip = load_device(changed("edge-array", tmp_path, content))
    assert chip.unit("vector").rates[0].weight[0] == "int7"
