"""Figures of an array that its file leaves out: circuits at its process (`Device.process_nm`).

Energies of memories and of multiplying, and the area of multipliers and memories, by
`hwmodels.circuits`; a figure in the file counts before any of these. The area of control, wires
and vector units is not in them.
"""

from __future__ import annotations

import math
from functools import lru_cache

from hwmodels.circuits.design import mac_design
from hwmodels.circuits.dram import DRAM, dram_energy_per_bit_j
from hwmodels.circuits.mac import MacDesign, mac_area_um2, mac_energy_j
from hwmodels.circuits.registers import LARGEST_BYTES as LARGEST_REGISTERS
from hwmodels.circuits.registers import register_file
from hwmodels.circuits.sram import LARGEST_BYTES as LARGEST_BANK
from hwmodels.circuits.sram import Sram, sram
from hwmodels.devices.device import ComputeUnit, Device, Memory, Rate
from hwmodels.devices.spatial import CORES
from hwmodels.errors import CircuitError, WorkError
from hwmodels.formats import catalog
from hwmodels.formats.accumulator import accumulator
from hwmodels.formats.quantizer import Format
from hwmodels.work.kernel import Kernel

SMALLEST_SRAM = 1024
"""Bytes below which a memory is a register file."""


def level_joules(device: Device, memory: Memory) -> tuple[float, float]:
    """Joules a byte that is read and written: the file's, else those of the process, else 0.

    Raises:
        CircuitError: A memory that no circuit model holds for.
    """
    if memory.energy_per_byte_j is not None:
        read = memory.energy_per_byte_j.value
        write = memory.write_energy_per_byte_j
        return read, read if write is None else write.value
    if memory.technology is not None and memory.technology in DRAM:
        joules = 8 * dram_energy_per_bit_j(memory.technology)
        return joules, joules
    if device.process_nm is None or memory is device.main_memory:
        return 0.0, 0.0
    node = device.process_nm.value
    width = _width_bits(device, memory)
    if _is_registers(memory):
        registers = register_file(memory.capacity_bytes.value, width, node)
        return registers.read_j * 8 / width, registers.write_j * 8 / width
    banks = _banks(memory, width, node)
    return banks.read_j_per_byte, banks.write_j_per_byte


def multiply_j(kernel: Kernel, device: Device) -> float:
    """Joules of one multiply-accumulate of a kernel, at its formats and accumulator.

    Raises:
        CircuitError: A process outside of what logic is known for.
    """
    if device.power.per_op or device.process_nm is None:
        return 2 * device.energy_per_op_j(kernel.input_element)
    return _multiply_j(
        _multiplied(kernel.weight_format, kernel.weight_element),
        _multiplied(kernel.input_format, kernel.input_element),
        kernel.accumulator,
        _lanes(device.unit("matrix")),
        device.process_nm.value,
    )


def device_area_mm2(device: Device) -> float | None:
    """The area of a device: its file's, else that of its parts; None where neither is known.

    Raises:
        CircuitError: As `area_by_part`.
    """
    if device.area_mm2 is not None:
        return device.area_mm2.value
    return sum(area_by_part(device).values()) or None


def area_by_part(device: Device) -> dict[str, float]:
    """Square millimetres of an array's multipliers and of each memory on the chip.

    Empty without a process: nothing is known of it then. The multipliers are those of the widest
    pair of elements, which the others share.

    Raises:
        CircuitError: A part that no circuit model holds for.
    """
    unit = device.unit("matrix")
    if device.process_nm is None or unit.array is None:
        return {}
    node = device.process_nm.value
    lanes = _lanes(unit)
    own = 2 * unit.array.places * unit.count.value * unit.clock_hz.value
    each = max(
        mac_area_um2(_rate_design(rate, lanes), node) * rate.ops_per_s.value / own
        for rate in unit.rates
    )
    found = {unit.name: each * unit.array.places * unit.count.value * 1e-6}
    sizes = {axis.name: axis.size.value for axis in unit.array.axes} | {CORES: unit.count.value}
    for memory in device.memories[1:]:
        instances = math.prod(sizes[axis] for axis in memory.per)
        found[memory.name] = _area_mm2(device, memory, node) * instances
    return found


def _area_mm2(device: Device, memory: Memory, node: float) -> float:
    width = _width_bits(device, memory)
    if _is_registers(memory):
        return register_file(memory.capacity_bytes.value, width, node).area_um2 * 1e-6
    count = math.ceil(memory.capacity_bytes.value / LARGEST_BANK)
    return _banks(memory, width, node).area_mm2 * count


def _width_bits(device: Device, memory: Memory) -> int:
    """Bits of a word: those that one instance moves in a cycle, at most all that it holds."""
    clock = device.unit("matrix").clock_hz.value
    bits = round(8 * memory.bandwidth_bytes_per_s.value / clock)
    return max(min(bits, math.floor(8 * memory.capacity_bytes.value)), 1)


def _is_registers(memory: Memory) -> bool:
    if memory.technology is not None:
        return memory.technology == "registers"
    small = memory.capacity_bytes.value <= LARGEST_REGISTERS
    return memory.capacity_bytes.value < SMALLEST_SRAM or (bool(memory.per) and small)


def _banks(memory: Memory, width: int, node: float) -> Sram:
    """One bank of a memory, which is as wide as all of it: larger ones are banks in depth."""
    try:
        return sram(min(memory.capacity_bytes.value, LARGEST_BANK), width, node)
    except CircuitError as error:
        raise CircuitError(
            f"memories: {memory.name}: {error}; or give its `energy` in the device file"
        ) from None


def _lanes(unit: ComputeUnit) -> int:
    """Products that are added before they are accumulated: the places of an adder tree."""
    array = unit.array
    if array is None or array.movement == "systolic":
        return 1
    reducing = [axis.size.value for axis in array.axes if axis.unrolls[0] in ("C", "FY", "FX")]
    return max(round(math.prod(reducing)), 1)


def _rate_design(rate: Rate, lanes: int) -> MacDesign:
    return mac_design(
        catalog.format(rate.weight[0]),
        catalog.format(rate.input[0]),
        accumulated=accumulator(rate.accumulator),
        lanes=lanes,
    )


def _multiplied(stored: Format | None, element: str) -> Format:
    """The format that the array multiplies: that in memory, unless it is widened on the way."""
    if stored is not None and stored.element.name == element:
        return stored
    return catalog.format(element)


@lru_cache(maxsize=1024)
def _multiply_j(weight: Format, other: Format, into: str, lanes: int, node: float) -> float:
    try:
        design = mac_design(weight, other, accumulated=accumulator(into), lanes=lanes)
        return mac_energy_j(design, node)
    except CircuitError as error:
        raise WorkError(f"{weight.name} x {other.name} into {into}: {error}") from None
