"""Figures of a device that contradict each other: a wrong prefix shows as an absurd ratio."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator

from hwmodels.circuits.dram import DRAM
from hwmodels.circuits.node import supply_v
from hwmodels.devices.check_cpu import absurd_processor, bandwidth_of_all
from hwmodels.devices.device import Device, Memory
from hwmodels.devices.npu import Npu
from hwmodels.devices.spatial import CORES, SpatialArray
from hwmodels.errors import CircuitError
from hwmodels.tensors import TENSORS

# Least operations per cycle and core, by kind of device and role of the unit: a tensor core has
# 256 (TF32 of an RTX 3090) to 3e4 (FP4 of a B200), a vector unit 128 or 256, a processor has 1.
LEAST_PER_CYCLE = {("gpu", "matrix"): 64.0, ("gpu", "vector"): 16.0}
# Most: a 256x256 systolic array at 8 bit (TPU v6e, two a chip: 2.6e5), with room to double twice.
MOST_PER_CYCLE = 2.0**20
# Operations per byte of main memory at the fastest rate: 512 (Ethos-U55 from flash), 590 (H100
# FP8), 1875 (GB300 FP4); below 1 no compute unit would be worth its name.
OPS_PER_BYTE = (1.0, 2e4)
# Fastest main memory of any shipped or announced accelerator is below 40 TB/s; what holds its
# weights in on-chip SRAM (Groq: 80 TB/s) names that memory `sram`.
DRAM_BANDWIDTH = (1e8, 4e13)
# Dense power efficiency at the fastest rate, op/s per watt: 1e8 (CPUs of the 2000s) to 1e14.
OPS_PER_JOULE = (1e8, 1e14)


TECHNOLOGIES = (None, "sram", "registers", *DRAM)
# Most that the fastest rate may differ from array shape x cores x clock: datasheets round both.
SHAPE_TOLERANCE = 1.05


def absurd_figures(device: Device) -> list[str]:
    """One sentence for each figure that cannot be true beside the others."""
    return [
        *_names(device),
        *_rates(device),
        *_clocks(device),
        *_arrays(device),
        *_process(device),
        *_memories(device),
        *_power(device),
        *_npu(device),
        *absurd_processor(device),
    ]


def _names(device: Device) -> Iterator[str]:
    """Entries of one name, of which whoever asks by name would find the first alone."""
    for section in ("units", "memories", "links"):
        names = Counter(entry.name for entry in getattr(device, section))
        for name, count in names.items():
            if count > 1:
                yield f"{section}: {count} entries are named {name!r}; give each its own name"
    for index, unit in enumerate(device.units):
        rates = Counter(
            (weight, input_, rate.accumulator)
            for rate in unit.rates
            for weight, input_ in itertools.product(rate.weight, rate.input)
        )
        for (weight, input_, accumulator), count in rates.items():
            if count > 1:
                yield (
                    f"units.{index}.rates: {count} of them are for {weight} with {input_} into "
                    f"{accumulator}; keep one"
                )


def _rates(device: Device) -> Iterator[str]:
    for unit_index, unit in enumerate(device.units):
        low, high = LEAST_PER_CYCLE.get((device.kind, unit.role), 1.0), MOST_PER_CYCLE
        for index, rate in enumerate(unit.rates):
            per_cycle = rate.ops_per_s.value / (unit.count.value * unit.clock_hz.value)
            if not low <= per_cycle <= high:
                yield (
                    f"units.{unit_index}.rates.{index}: {rate.ops_per_s.value:.3g} op/s over "
                    f"{unit.count.value:g} cores at {unit.clock_hz.value:.3g} Hz is "
                    f"{per_cycle:.3g} op/cycle a core; expected {low:g} to {high:g}"
                )


def _clocks(device: Device) -> Iterator[str]:
    for index, unit in enumerate(device.units):
        if unit.sustained_hz is not None and unit.sustained_hz.value > unit.clock_hz.value:
            yield (
                f"units.{index}.sustained: {unit.sustained_hz.value:.4g} Hz is above the clock, "
                f"{unit.clock_hz.value:.4g} Hz, at which the rates hold; leave it out"
            )


def _arrays(device: Device) -> Iterator[str]:
    """Arrays that contradict the rates (each of the two alone prices a network), or memories."""
    for index, unit in enumerate(device.units):
        where = f"units.{index}"
        if unit.array is not None and device.kind != "array":
            yield f"{where}.array: only devices of kind 'array' have one, this is {device.kind!r}"
            continue
        if unit.array is None:
            if device.kind == "array" and unit.role == "matrix":
                yield (
                    f"{where}.array: missing; the matrix unit of a spatial array needs its axes, "
                    "e.g. array: {axes: [{name: rows, size: ..., unrolls: [C]}, ...]}"
                )
            continue
        peak = 2 * unit.array.places * unit.count.value * unit.clock_hz.value
        rates = [rate.ops_per_s.value for rate in unit.rates]
        if not any(1 / SHAPE_TOLERANCE <= rate / peak <= SHAPE_TOLERANCE for rate in rates):
            axes = " x ".join(f"{axis.size.value:g}" for axis in unit.array.axes)
            yield (
                f"{where}.array and {where}.rates contradict each other: {axes} multipliers on "
                f"{unit.count.value:g} cores at {unit.clock_hz.value:.3g} Hz are {peak:.4g} op/s, "
                f"the rates are {', '.join(f'{rate:.4g}' for rate in rates)} op/s; one operation "
                "is one multiply or one add, and one rate must be that of the array"
            )
        yield from _levels(device, unit.array)


def _process(device: Device) -> Iterator[str]:
    """A node that energies and areas of an array's circuits are not known at."""
    if device.kind == "array" and device.process_nm is not None:
        try:
            supply_v(device.process_nm.value)
        except CircuitError as error:
            yield f"process: {error}; leave it out, and give each memory its `energy`"


def _levels(device: Device, array: SpatialArray) -> Iterator[str]:
    axes = {CORES, *(axis.name for axis in array.axes)}
    main = device.main_memory
    for index, memory in enumerate(device.memories):
        for problem in (*_words(memory, axes), *_beside(memory, main)):
            yield f"memories.{index}.{problem}"
    if missing := [name for name in TENSORS if name not in main.holds]:
        yield (
            f"memories.0.holds: {', '.join(missing)} missing: every tensor has a home in the "
            "first memory of the file; levels nearer to the array follow it"
        )


def _words(memory: Memory, axes: Collection[str]) -> Iterator[str]:
    """Words of a level that mean nothing on an array of these axes."""
    if unknown := [name for name in memory.per if name not in axes]:
        yield (f"per: unknown axes {', '.join(unknown)}; the array has {', '.join(sorted(axes))}")
    tensors = {
        field: given if isinstance(given, tuple) else ()
        for field, given in (
            ("double_buffered", memory.double_buffered), ("streamed", memory.streamed),
            ("waits_for_room", memory.waits_for_room),
        )
    }  # fmt: skip
    given = {"per": memory.per, "holds": memory.holds, **tensors}
    for field, names in given.items():
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            yield f"{field}: {', '.join(twice)} twice; keep one"
    for field, named in tensors.items():
        if strange := [name for name in named if name not in memory.holds]:
            yield (
                f"{field}: {', '.join(strange)} never is in {memory.name}, which holds "
                f"{', '.join(memory.holds)}"
            )
    if not memory.holds:
        yield (
            f"holds: empty, so that no tensor ever is in {memory.name}; leave the memory out, or "
            "say which pass through it"
        )
    if memory.technology not in TECHNOLOGIES:
        yield (
            f"technology: unknown {memory.technology!r}; expected "
            f"{', '.join(str(name) for name in TECHNOLOGIES if name)}"
        )


def _room(memory: Memory) -> Iterator[str]:
    """Tensors that wait for room although nothing of them ever does."""
    waiting, doubled, streamed = map(
        memory.named, (memory.waits_for_room, memory.double_buffered, memory.streamed)
    )
    if always := [name for name in waiting if name in doubled]:
        yield (
            f"waits_for_room: {', '.join(always)} has two halves in {memory.name} whatever is "
            "mapped (`double_buffered`, true unless the file says otherwise), so that nothing "
            "waits for room; say `double_buffered: false`, or leave it out"
        )
    elif whole := [name for name in waiting if name not in streamed]:
        yield (
            f"waits_for_room: {', '.join(whole)} is not `streamed` in {memory.name}: the array "
            "waits for its whole tiles anyway; say `streamed` of it too, or leave it out"
        )


def _beside(memory: Memory, main: Memory) -> Iterator[str]:
    """Figures of a level that its own capacity contradicts, or its place beside main memory."""
    size = memory.capacity_bytes.value
    if memory.word_bytes is not None and memory.word_bytes.value > size:
        yield f"word: {memory.word_bytes.value:g} B is more than {memory.name} holds ({size:g} B)"
    if memory is main:
        if split := [name for name in main.per if name != CORES]:
            yield (
                f"per: {', '.join(split)}: main memory, the first one of the file, stands once, "
                "or once a core"
            )
        if main.write_bandwidth_bytes_per_s is not None:
            yield (
                f"write_bandwidth: reads and writes share the port of {main.name}, the first "
                "memory of the file; give `bandwidth` alone"
            )
        fields = (("streamed", main.streamed), ("waits_for_room", main.waits_for_room))
        for field in (name for name, given in fields if given):
            yield (
                f"{field}: tiles come to a memory from one behind it, and none is behind "
                f"{main.name}, the first one of the file; say it of the level that takes them in"
            )
        return
    yield from _room(memory)
    if memory.run_lengths is not None:
        yield (
            "run_lengths: only main memory, the first one of the file, stores codes, not "
            f"{memory.name}"
        )
    if size > main.capacity_bytes.value:
        yield (
            f"capacity: {size:.4g} B of {memory.name} are more than {main.name} holds, which is "
            f"the first memory of the file and behind all others "
            f"({main.capacity_bytes.value:.4g} B)"
        )


def _memories(device: Device) -> Iterator[str]:
    main = device.main_memory
    bandwidth = main.bandwidth_bytes_per_s.value
    if main.name == "dram" and not DRAM_BANDWIDTH[0] <= bandwidth <= DRAM_BANDWIDTH[1]:
        yield (
            f"memories.0.bandwidth: {bandwidth:.3g} B/s; no DRAM has more than "
            f"{DRAM_BANDWIDTH[1]:.0e} B/s or less than {DRAM_BANDWIDTH[0]:.0e} B/s"
        )
    fastest = max(rate.ops_per_s.value for unit in device.units for rate in unit.rates)
    balance = fastest / bandwidth
    if not OPS_PER_BYTE[0] <= balance <= OPS_PER_BYTE[1]:
        yield (
            f"memories.0.bandwidth: {balance:.3g} operations a byte at the fastest rate "
            f"({fastest:.3g} op/s, {bandwidth:.3g} B/s); expected {OPS_PER_BYTE[0]:g} to "
            f"{OPS_PER_BYTE[1]:g}: check the prefix of the bandwidth and of the rate"
        )
    cache = device.memory("l2")
    if cache and bandwidth_of_all(cache, device) < bandwidth:
        yield (
            f"memories.l2.bandwidth: {bandwidth_of_all(cache, device):.3g} B/s is below the "
            f"main memory's {bandwidth:.3g} B/s"
        )
    if cache and cache.capacity_bytes.value >= main.capacity_bytes.value:
        yield (
            f"memories.l2.capacity: {cache.capacity_bytes.value:.3g} B is not below the main "
            f"memory's {main.capacity_bytes.value:.3g} B"
        )


def _npu(device: Device) -> Iterator[str]:
    """Words of the section of an NPU that the rest of the file contradicts."""
    npu = device.npu
    if (npu is None) == (device.kind == "npu"):
        yield (
            f"npu: a device of kind {device.kind!r} "
            f"{'needs the' if npu is None else 'has no'} section `npu`"
        )
    if npu is None:
        return
    names = [memory.name for memory in device.memories]
    if strange := [port.memory for port in npu.ports if port.memory not in names]:
        yield (f"npu.ports: {strange[0]!r} is none of the memories, which are {', '.join(names)}")
    ported = [port.memory for port in npu.ports]
    for where, name in (("npu.arena", npu.arena), ("memories.0", device.main_memory.name)):
        if name not in ported:
            yield f"{where}: the memory {name!r} has no port; npu.ports: {', '.join(ported)}"
    weights = {one for rate in device.unit("matrix").rates for one in rate.weight}
    if missing := sorted(weights - {*npu.weights.elements}):
        yield (
            f"npu.weights.elements: the array multiplies weights in {', '.join(missing)}, which "
            f"the decoder lacks; it has {', '.join(npu.weights.elements)}"
        )
    widths = {rate.widest_input_bits for rate in device.unit("matrix").rates}
    if strange_bits := sorted({one.bits for one in npu.steps} - widths):
        yield (
            f"npu.steps: the array takes no inputs of {strange_bits[0]} bits; its rates are for "
            f"{', '.join(map(str, sorted(widths)))}"
        )
    for index, port in enumerate(npu.ports):
        memory = device.memory(port.memory)
        if memory is not None and port.burst > memory.capacity_bytes.value:
            yield f"npu.ports.{index}.burst: {port.burst} B are more than {memory.name} holds"
    yield from _ignored(device, npu)
    yield from _least_block(npu)
    yield from _walked_rates(device, npu)


def _ignored(device: Device, npu: Npu) -> Iterator[str]:
    """Figures of units that an NPU's cycles do not follow from, other than those they do."""
    array = device.unit("matrix")
    if array.count.value not in (1, npu.blocks.cores):
        yield (
            f"units.{array.name}.count: {array.count.value:g} arrays, and npu.blocks.cores: "
            f"{npu.blocks.cores}, of which cycles follow; expected 1, or as many as cores"
        )
    for unit in (one for one in device.units if one.role == "vector"):
        where, clock = f"units.{unit.name}", array.clock_hz.value
        if unit.clock_hz.value != clock:
            yield (
                f"{where}.clock: {unit.clock_hz.value:.4g} Hz; npu.output says its cycles at the "
                f"clock of {array.name}, {clock:.4g} Hz: give it that, and npu.output the cycles"
            )
        fastest = max(rate.ops_per_s.value for rate in unit.rates)
        scaled = 2 * clock / npu.output.product
        if not 1 / SHAPE_TOLERANCE <= fastest / scaled <= SHAPE_TOLERANCE:
            yield (
                f"{where}.rates: {fastest:.4g} op/s; npu.output.product, of which cycles follow, "
                f"is {npu.output.product:g} cycles for the multiply and the add of a result, "
                f"{scaled:.4g} op/s at {clock:.4g} Hz"
            )


def _walked_rates(device: Device, npu: Npu) -> Iterator[str]:
    """Rates that the steps over a micro-block contradict."""
    unit = device.unit("matrix")
    for one in (step for step in npu.steps if step.walk == "depth"):
        macs = npu.macs_per_cycle(one.bits)
        walked = 2 * macs * unit.clock_hz.value
        fitting = [
            rate.ops_per_s.value for rate in unit.rates if rate.widest_input_bits == one.bits
        ]
        if fitting and not 1 / SHAPE_TOLERANCE <= max(fitting) / walked <= SHAPE_TOLERANCE:
            yield (
                f"npu.steps: walking by depth over inputs of {one.bits} bits is {macs:g} MACs a "
                f"cycle, {walked:.4g} op/s, and the fastest rate for them {max(fitting):.4g} op/s"
            )


def _least_block(npu: Npu) -> Iterator[str]:
    """Buffers that do not even hold one micro-block and the inputs under it."""
    for one in npu.steps:
        layout = npu.buffers.layout(one.bits)
        assert layout is not None, "the section checks its layouts"
        micro = npu.blocks.micro[0]
        deep = one.block_inputs or micro[2]
        inputs = math.prod(micro[:2]) * -(-deep // layout.input_channels) * layout.input_channels
        if not npu.buffers.hold(inputs * one.bits // 8, math.prod(micro), layout):
            yield (
                f"npu.buffers: not even a micro-block of {' x '.join(map(str, micro))} outputs "
                f"with {deep} input channels of {one.bits} bits fits; make them larger"
            )
            return


def _power(device: Device) -> Iterator[str]:
    idle, limit = device.power.idle_w.value, device.power.limit_w.value
    if idle >= limit:
        yield f"power.idle: {idle:g} W is not below power.limit {limit:g} W"
    fastest = max(rate.ops_per_s.value for unit in device.units for rate in unit.rates)
    low, high = OPS_PER_JOULE
    if not low <= fastest / limit <= high:
        yield (
            f"power.limit: {fastest / limit:.3g} operations a joule at {limit:g} W; expected "
            f"{low:.0e} to {high:.0e}"
        )
