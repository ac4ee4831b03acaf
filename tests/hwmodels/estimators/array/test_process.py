"""Figures that an array's file leaves out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.circuits.design import mac_design
from hwmodels.circuits.mac import mac_energy_j
from hwmodels.circuits.sram import sram
from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.devices.quantity import SourcedValue
from hwmodels.errors import CircuitError, WorkError
from hwmodels.estimators.array.estimator import ArrayEstimator
from hwmodels.estimators.array.nest import partial_bytes
from hwmodels.estimators.array.process import area_by_part, device_area_mm2, level_joules
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ProductLoops


def bare(node: float = 28.0) -> Device:
    """Gemmini without energies, at a process."""
    device = load_device("gemmini")
    memories = [
        replace(one, energy_per_byte_j=None, technology="lpddr5" if index == 0 else None)
        for index, one in enumerate(device.memories)
    ]
    process = SourcedValue(value=node, unit="nm", source="assumed here", kind="assumed")
    return replace(
        device,
        memories=tuple(memories),
        process_nm=process,
        power=replace(device.power, per_op=()),
    )


def kernel(weight: str, accumulated: str = "int32") -> Kernel:
    stored = catalog.format(weight)
    return Kernel(
        kind="gemm",
        loops=ProductLoops(m=64, n=64, k=64),
        input_format=stored,
        weight_format=stored,
        output_format=stored,
        weight_element="int8",
        input_element="int8",
        accumulator=accumulated,
        input_bytes=64 * 64,
        weight_bytes=64 * 64,
        write_bytes=64 * 64,
    )


def test_memories_without_energies_have_those_of_circuits_at_the_process() -> None:
    device = bare()
    dram, scratchpad, _, register = device.memories
    assert level_joules(device, dram)[0] == pytest.approx(8 * 4.5e-12)
    known = sram(256 * 1024, 256, 28.0)  # 32 GB/s at 1 GHz are 32 bytes a cycle
    assert level_joules(device, scratchpad) == (known.read_j_per_byte, known.write_j_per_byte)
    assert level_joules(device, register)[1] < known.write_j_per_byte / 10
    file = load_device("gemmini").memories[1]
    assert level_joules(load_device("gemmini"), file)[0] == pytest.approx(3e-12)


def test_a_narrower_accumulator_and_a_smaller_node_take_less_energy() -> None:
    runtime = load_runtime("free")
    costs = {
        name: ArrayEstimator().estimate([one], device, runtime)[0].spatial
        for name, one, device in (
            ("int32", kernel("int8"), bare()),
            ("int16", kernel("int8", "int16"), bare()),
            ("at 7 nm", kernel("int8"), bare(7.0)),
        )
    }
    found = {name: one.compute_energy_j for name, one in costs.items() if one}
    design = mac_design(catalog.format("int8"), accumulated=accumulator("int32"), lanes=1)
    assert found["int32"] == pytest.approx(64**3 * mac_energy_j(design, 28.0))
    assert found["int16"] < found["int32"]
    assert found["at 7 nm"] < found["int32"] / 2


def test_the_area_is_that_of_multipliers_and_memories() -> None:
    parts = area_by_part(bare())
    assert set(parts) == {"mac_array", "scratchpad", "accumulator", "weight_register"}
    assert parts["scratchpad"] == pytest.approx(sram(256 * 1024, 256, 28.0).area_mm2)
    assert device_area_mm2(bare()) == pytest.approx(sum(parts.values()))
    assert sum(area_by_part(bare(7.0)).values()) < sum(parts.values()) / 2
    assert device_area_mm2(load_device("gemmini")) is None  # no process, no figure


def test_a_memory_that_no_circuit_holds_for_is_named() -> None:
    device = bare()
    wide = replace(
        device.memories[1],
        bandwidth_bytes_per_s=replace(device.memories[1].bandwidth_bytes_per_s, value=1e14),
    )
    odd = replace(device, memories=(device.memories[0], wide, *device.memories[2:]))
    with pytest.raises(CircuitError, match=r"memories: scratchpad: .*or give its `energy`"):
        level_joules(odd, wide)


@pytest.mark.parametrize(
    ("name", "wide"), [("int32", 4), ("int20", 2.5), ("int16:saturate", 2), ("int40", 5),
                       ("fp32", 4), ("fp16", 2), ("fp16:chunk8", 2)]
)  # fmt: skip
def test_a_partial_sum_takes_the_bytes_of_its_accumulator(name: str, wide: float) -> None:
    assert partial_bytes(name, "int8", "int8") == wide


def test_a_partial_sum_in_a_quire_takes_what_the_products_ask_for() -> None:
    assert partial_bytes("quire", "posit8_2", "posit8_2") == 16
    assert partial_bytes("quire", "posit8_2", "posit8_0") == (32 + 2 * (24 + 6)) / 8
    with pytest.raises(WorkError, match="no quire holds"):
        partial_bytes("quire", "nf4", "bf16")
