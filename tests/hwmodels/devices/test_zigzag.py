"""ZigZag's architecture files, read and written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hwmodels.devices.device import Device, Memory
from hwmodels.devices.load import load_device
from hwmodels.devices.zigzag import device_text, zigzag_text
from hwmodels.errors import DeviceError
from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.nest import Nest
from hwmodels.estimators.array.schedule import Task, schedule

SMALL = """
name: Small One
memories:
  reg:
    size: 16
    r_cost: 0.04
    w_cost: 0.06
    area: 0
    latency: 1
    operands: [I2]
    ports:
      - {name: r_port_1, type: read, bandwidth_min: 8, bandwidth_max: 8, allocation: ["I2, tl"]}
      - {name: w_port_1, type: write, bandwidth_min: 8, bandwidth_max: 8, allocation: ["I2, fh"]}
    served_dimensions: []
  sram:
    size: 1048576
    r_cost: 16
    latency: 1
    operands: [I1, O]
    ports: [{name: rw_port_1, type: read_write, bandwidth_min: 64, bandwidth_max: 128}]
    served_dimensions: [D1, D2]
    force_double_buffering: true
  dram:
    size: 8000000000
    r_cost: 800
    w_cost: 900
    latency: 1
    operands: [I1, I2, O]
    ports: [{name: rw_port_1, type: read_write, bandwidth_min: 64, bandwidth_max: 64}]
    served_dimensions: [D1, D2]
operational_array:
  unit_energy: 0.5
  dimensions: [D1, D2]
  sizes: [4, 8]
"""
MAPPING = """
- name: default
  spatial_mapping: {D1: ["K, 4"], D2: ["C, 8"]}
  memory_operand_links: {O: O, W: I2, I: I1}
"""


def written(folder: Path, text: str, name: str = "accelerator.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, mapping: str | None = None) -> Device:
    """The device of an accelerator's text."""
    spatial = written(folder, mapping, "mapping.yaml") if mapping else None
    found = device_text(written(folder, text), spatial, clock_mhz=500)
    return load_device(written(folder, found, "chip.yaml"))


def test_sizes_widths_and_costs_have_the_units_of_a_device_file(tmp_path: Path) -> None:
    device = read(tmp_path, SMALL, MAPPING)
    assert device.name == "small-one"
    dram, sram, register = device.memories
    assert (dram.capacity_bytes.value, sram.capacity_bytes.value) == (1e9, 131072)
    assert dram.bandwidth_bytes_per_s.value == pytest.approx(8 * 500e6)  # 64 bits a cycle
    assert register.bandwidth_bytes_per_s.value == pytest.approx(500e6)
    assert register.write_bandwidth_bytes_per_s is not None  # a port of its own
    assert register.write_bandwidth_bytes_per_s.value == pytest.approx(500e6)
    assert sram.write_bandwidth_bytes_per_s is None
    assert sram.energy_per_byte_j is not None
    assert sram.energy_per_byte_j.value == pytest.approx(16e-12 / 16)  # of 128 bits
    assert dram.write_energy_per_byte_j is not None
    assert dram.write_energy_per_byte_j.value == pytest.approx(900e-12 / 8)
    assert dram.word_bytes is not None
    assert sram.word_bytes is not None
    assert (dram.word_bytes.value, sram.word_bytes.value) == (8, 8)  # the narrowest access
    assert (register.per, sram.per) == (("D1", "D2"), ())
    assert (register.holds, sram.holds) == (("weight",), ("input", "output"))
    assert (register.double_buffered, sram.double_buffered) == (False, True)
    assert [one.streamed for one in device.memories] == [False, False, True]
    assert [one.waits_for_room for one in device.memories] == [False, False, True]
    array = device.unit("matrix").array
    assert array is not None
    assert [axis.unrolls for axis in array.axes] == [("K",), ("C",)]
    assert 2 * device.energy_per_op_j("int8") == pytest.approx(0.5e-12)
    assert all(figure.kind == "assumed" for figure in device.figures)


def test_a_tile_moves_whole_words(tmp_path: Path) -> None:
    """A row of one byte from a memory of eight: the widths of both are the file's."""
    hierarchy = Hierarchy.of(read(tmp_path, SMALL, MAPPING))
    nest = Nest(sizes=(1, 1, 4, 8, 1, 1, 1, 1))
    moved = {
        (one.level, one.tensor): one.read_bytes + one.write_bytes
        for one in schedule(hierarchy, Task(nest=nest)).cost.traffic
    }
    assert (moved["dram", "weight"], moved["dram", "input"], moved["dram", "output"]) == (32, 8, 8)


def test_a_systolic_array_has_its_rows_first(tmp_path: Path) -> None:
    device = read(tmp_path, SMALL + "  systolic_dimensions: [D1, D2]\n", MAPPING)
    array = device.unit("matrix").array
    assert array is not None
    assert (array.movement, array.stationary) == ("systolic", "weight")
    assert [(axis.name, axis.size.value) for axis in array.axes] == [("D2", 8), ("D1", 4)]


def test_what_is_written_reads_as_the_same_hierarchy(tmp_path: Path) -> None:
    device = read(tmp_path, SMALL, MAPPING)
    again = read(tmp_path, zigzag_text(device))
    for ours, theirs in zip(device.memories, again.memories, strict=True):
        assert ours.capacity_bytes.value == theirs.capacity_bytes.value
        assert ours.bandwidth_bytes_per_s.value == pytest.approx(
            theirs.bandwidth_bytes_per_s.value
        )
        assert ours.word_bytes is not None
        assert theirs.word_bytes is not None
        assert ours.word_bytes.value == theirs.word_bytes.value
        assert (ours.holds, ours.double_buffered) == (theirs.holds, theirs.double_buffered)
        assert ours.waits_for_room == theirs.waits_for_room
        assert _written(ours) == pytest.approx(_written(theirs))
        assert len(ours.per) == len(theirs.per)


def _written(memory: Memory) -> float | None:
    found = memory.write_bandwidth_bytes_per_s
    return None if found is None else found.value


def test_a_port_that_does_both_makes_one_of_all(tmp_path: Path) -> None:
    """So does main memory, whose bandwidth is that of reads and writes together."""
    both = SMALL.replace("w_port_1, type: write", "w_port_1, type: read_write")
    main = SMALL.replace(
        "[{name: rw_port_1, type: read_write, bandwidth_min: 64, bandwidth_max: 64}]",
        "[{type: read, bandwidth_max: 64}, {type: write, bandwidth_max: 64}]",
    )
    for text, place, bits in ((both, 2, 16), (main, 0, 128)):
        memory = read(tmp_path, text, MAPPING).memories[place]
        assert memory.write_bandwidth_bytes_per_s is None
        assert memory.bandwidth_bytes_per_s.value == pytest.approx(bits / 8 * 500e6)


def test_cores_are_one_more_dimension() -> None:
    found = yaml.safe_load(zigzag_text(load_device("groq-lpu")))
    assert found["operational_array"]["dimensions"] == ["D1", "D2", "D3"]
    assert found["operational_array"]["sizes"] == [320, 320, 4]
    assert found["memories"]["weight_register"]["served_dimensions"] == []


@pytest.mark.parametrize(
    ("change", "mapping", "message"),
    [
        (("sizes: [4, 8]", "sizes: [4]"), None, r"2 dimensions \(D1, D2\) and 1 sizes"),
        (("operands: [I2]", "operands: [I7]"), None, r"memories\.reg\.operands: unknown operand"),
        (("  dimensions", "  is_imc: true\n  dimensions"), None, r"compute in memory"),
        (("size: 16", "size: 0"), None, r"memories\.reg\.size"),
        (
            ("min: 64, bandwidth_max: 128", "min: 256, bandwidth_max: 128"),
            None,
            r"bandwidth_min 256 is above bandwidth_max 128",
        ),
        (("", ""), MAPPING.replace("K, 4", "Z, 4"), r"mapping\.yaml: D1: loop 'Z' is none"),
        (("", ""), MAPPING.replace("W: I2, ", ""), r"memory_operand_links: expected I, W and O"),
        (("", ""), "[]", r"mapping\.yaml: expected a list of layers, got none"),
    ],
)
def test_a_file_that_is_none_of_zigzags_is_refused_by_name(
    tmp_path: Path, change: tuple[str, str], mapping: str | None, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        read(tmp_path, SMALL.replace(*change) if change[0] else SMALL, mapping)


def test_of_a_key_that_stands_twice_the_last_counts_as_in_zigzags_reader(tmp_path: Path) -> None:
    twice = SMALL.replace("size: 16", "size: 99\n    size: 16")
    assert read(tmp_path, twice).memories[-1].capacity_bytes.value == 2


def test_main_memory_is_one_whatever_it_serves(tmp_path: Path) -> None:
    """ZigZag's `ascend_like.yaml` leaves two dimensions out, and prices one memory."""
    apart = SMALL.replace(
        "served_dimensions: [D1, D2]\noperational", "served_dimensions: [D1]\noperational"
    )
    assert apart != SMALL
    assert read(tmp_path, apart).memories[0].per == ()


def test_a_device_without_an_array_is_no_accelerator() -> None:
    with pytest.raises(DeviceError, match=r"h100-sxm: only devices with an `array`"):
        zigzag_text(load_device("h100-sxm"))


@pytest.mark.parametrize(
    ("bits", "served", "name"), [(16, "[D2]", "int16"), (24, "[]", "int24"), (64, "[]", "int32"),
                                 (16, "[D1, D2]", "int32")]
)  # fmt: skip
def test_sums_are_as_wide_as_the_registers_at_the_places(
    tmp_path: Path, bits: int, served: str, name: str
) -> None:
    register = f"""
  sums:
    size: {bits}
    latency: 1
    operands: [O]
    ports: [{{type: read_write, bandwidth_max: 64}}]
    served_dimensions: {served}
"""
    device = read(tmp_path, SMALL.replace("\n  sram:", f"{register}  sram:"), MAPPING)
    (rate,) = device.unit("matrix").rates
    assert rate.accumulator == name


def test_the_loops_of_its_products_are_rows_columns_and_what_is_summed(tmp_path: Path) -> None:
    mapping = MAPPING.replace("K, 4", "D1, 4").replace("C, 8", "D2, 8")
    array = read(tmp_path, SMALL, mapping).unit("matrix").array
    assert array is not None
    assert [axis.unrolls for axis in array.axes] == [("K",), ("C",)]
