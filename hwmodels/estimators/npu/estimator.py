"""NPUs that compute in blocks: cycles, traffic and energy of kernels (Arm's Ethos-U and others).

A kernel is compiled to operations (`lowering`), each of which runs in the blocks that fit the
buffers and move least (`blocks`), as a pipeline of reading, computing and writing (`schedule`).
What the NPU does not multiply runs on the device's host, if that does. The interval is what the
model was off by against the vendor's own estimator, on networks and devices that no constant was
chosen on (`studies/npu_vela`); nobody has compared either with silicon here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hwmodels.devices.device import ComputeUnit, Device, DeviceKind, Memory
from hwmodels.errors import WorkError
from hwmodels.estimators.npu.lowering import is_padded, operations_of, too_far
from hwmodels.estimators.npu.schedule import Schedule, schedules
from hwmodels.estimators.npu.system import System, system_of
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tensors import TensorName
from hwmodels.work.cost import Bound
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import ConvolutionLoops
from hwmodels.work.spatial_cost import LevelTraffic, SpatialCost

LOW, HIGH = 0.7, 1.9
"""Factors that hold 99 in 100 of the vendor's cycles over ours, on networks that were left out."""
COMPUTES = 0.999
"""Share of the cycles from which on computing is what takes them."""
HOST = 4.0
"""Half-width, as a factor, of what runs on the host: its rate is an order of magnitude."""


class NpuEstimator:
    """Latency, energy and traffic of kernels on block-wise NPUs."""

    @property
    def kinds(self) -> frozenset[DeviceKind]:
        """NPUs, whose files have the section `npu`."""
        return frozenset({"npu"})

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        """Costs in the order given.

        Raises:
            WorkError: Elements that no unit of the device multiplies, or an operation without a
                block that fits.
        """
        return tuple(_cost(kernel, device) for kernel in kernels)


def on_host(kernel: Kernel, device: Device) -> bool:
    """Whether the device's host runs a kernel, and not its NPU; False where nothing does."""
    try:
        return _unit(kernel, device).role == "host"
    except WorkError:
        return False


def _cost(kernel: Kernel, device: Device) -> KernelCost:
    unit = _unit(kernel, device)
    if unit.role == "host":
        return _on_host(kernel, unit, device)
    system = system_of(device)
    try:
        runs = schedules(operations_of(kernel, system.npu), system, kernel.slack_cycles)
    except WorkError as problem:
        raise WorkError(f"{device.name}: {problem}") from None
    return _priced(kernel, runs, system, device)


def _unit(kernel: Kernel, device: Device) -> ComputeUnit:
    """The unit that runs a kernel: the array, the output unit beside it, or the host."""
    pair = (kernel.weight_element, kernel.input_element)
    if _steps_too_far(kernel, device):
        hosts = [unit for unit in device.units if unit.role == "host"]
        if not hosts:
            assert isinstance(kernel.loops, ConvolutionLoops), "it steps"
            steps = " x ".join(map(str, kernel.loops.stride))
            what = f"convolutions of stride {steps} that are padded or have a kernel a channel"
            raise WorkError(_lacking(device, f"unit for {what}"))
        return hosts[0]
    if kernel.macs:
        for unit in device.units:
            if any(rate.accepts(*pair) for rate in unit.rates):
                return unit
        raise WorkError(_lacking(device, f"unit that multiplies {pair[0]} with {pair[1]}"))
    stored = kernel.output_format or kernel.input_format
    own = device.unit("vector")
    hosts = [unit for unit in device.units if unit.role == "host"]
    known = {element for rate in own.rates for element in rate.input}
    taken = kernel.input_format
    wide = taken is not None and taken.element.bits > _widest_bits(device)
    if not wide and (stored is None or stored.element.name in known or not hosts):
        return own
    if not hosts:
        assert taken is not None, "it is too wide"
        raise WorkError(_lacking(device, f"unit that takes {taken.element.name}"))
    return hosts[0]


def _steps_too_far(kernel: Kernel, device: Device) -> bool:
    """Whether it is a convolution that the NPU takes neither whole nor place by place."""
    npu, loops = device.npu, kernel.loops
    assert npu is not None, "devices of its kind have the section"
    if not isinstance(loops, ConvolutionLoops) or npu.blocks.stride_pads:
        return False
    alone = loops.groups == loops.in_channels and loops.groups > 1
    return too_far(loops, npu) and (alone or is_padded(loops))


def _widest_bits(device: Device) -> int:
    """Bits of the widest input that the NPU walks over."""
    assert device.npu is not None, "devices of its kind have the section"
    return max(one.bits for one in device.npu.steps)


def _lacking(device: Device, what: str) -> str:
    hosts = any(unit.role == "host" for unit in device.units)
    instead = "" if hosts else ", or add a unit of role `host` to its file for what is left over"
    return (
        f"{device.name} has no {what}; it has {', '.join(sorted(device.elements))}. Ask for a "
        f"format of those, such as --format w8a8_int8_static{instead}"
    )


def _on_host(kernel: Kernel, unit: ComputeUnit, device: Device) -> KernelCost:
    """An operation a multiplication, or one an element, on a processor of that rate."""
    fastest = max(rate.ops_per_s.value for rate in unit.rates)
    read = kernel.input_bytes + kernel.other_bytes
    count = 2 * kernel.macs or max(read, kernel.write_bytes)
    store = device.main_memory
    cold = kernel.weight_bytes if kernel.weight_is_cold else 0
    moved_s = cold / store.bandwidth_bytes_per_s.value
    latency_s = device.launch_s.value + max(count / fastest, moved_s)
    traffic = float(kernel.bytes)
    dynamic = 2 * kernel.macs * device.energy_per_op_j(kernel.input_element)
    if store.energy_per_byte_j is not None:
        dynamic += cold * store.energy_per_byte_j.value
    return KernelCost(
        latency_s=latency_s,
        low_s=max(latency_s / HOST, count / fastest if kernel.macs else 0.0, moved_s),
        high_s=latency_s * HOST,
        energy_j=_capped(dynamic, latency_s, device),
        traffic_bytes=traffic,
        bound="compute" if count / fastest >= moved_s else "memory",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """Operations of a kernel one after another."""

    cycles: float
    compute_cycles: float
    macs: float
    input_bytes: float
    output_bytes: float
    stored_bytes: float
    staged_bytes: float
    streamed_bytes: float

    @classmethod
    def of(cls, runs: Iterable[Schedule]) -> _Sum:
        total = dict.fromkeys(cls.__slots__, 0.0)
        for run in runs:
            found = {
                "cycles": run.cycles,
                "compute_cycles": run.compute_cycles,
                "macs": float(run.operation.macs),
                "input_bytes": run.traffic.input_bytes,
                "output_bytes": run.traffic.output_bytes,
                "stored_bytes": run.traffic.stored_bytes,
                "staged_bytes": run.traffic.staged_bytes,
                "streamed_bytes": run.traffic.streamed_bytes,
            }
            for name, value in found.items():
                total[name] += value * run.operation.repeats
        return cls(**total)


def _priced(
    kernel: Kernel, runs: Sequence[Schedule], system: System, device: Device
) -> KernelCost:
    done = _with_table(_Sum.of(runs), kernel, runs)
    store_cycles = done.stored_bytes / system.store.bytes_per_cycle
    table_cycles = 0.0 if any(run.operation.weights for run in runs) else store_cycles
    cycles = done.cycles + table_cycles
    launch_s = device.launch_s.value
    latency_s = launch_s + cycles / system.clock_hz
    spatial = _spatial(kernel, done, cycles, system, device)
    least_s = max(_peak_s(kernel, device), store_cycles / system.clock_hz, launch_s)
    bound: Bound = "compute" if done.compute_cycles >= COMPUTES * cycles else "memory"
    if kernel.kind == "quantize":
        bound = "conversion"
    elif launch_s > cycles / system.clock_hz:
        bound = "launch"
    return KernelCost(
        latency_s=latency_s,
        low_s=min(max(LOW * latency_s, least_s), latency_s),
        high_s=HIGH * latency_s,
        energy_j=_capped(spatial.energy_j, latency_s, device),
        traffic_bytes=sum(one.read_bytes + one.write_bytes for one in spatial.traffic),
        bound=bound,
        spatial=spatial,
    )


def _with_table(done: _Sum, kernel: Kernel, runs: Sequence[Schedule]) -> _Sum:
    """With the constants of a kernel that multiplies none: rows of a table, scales of a norm."""
    if any(run.operation.weights for run in runs) or not kernel.weight_is_cold:
        return done
    return replace(done, stored_bytes=done.stored_bytes + kernel.weight_bytes)


def _peak_s(kernel: Kernel, device: Device) -> float:
    rate = device.rate(kernel.weight_element, kernel.input_element) if kernel.macs else None
    return 2 * kernel.macs / rate.ops_per_s.value if rate is not None else 0.0


def _spatial(
    kernel: Kernel, done: _Sum, cycles: float, system: System, device: Device
) -> SpatialCost:
    rate = device.rate(kernel.weight_element, kernel.input_element) if kernel.macs else None
    arena, store = system.arena.memory, system.store.memory
    traffic = (
        _level(arena, "input", done.input_bytes, 0.0),
        _level(arena, "weight", done.streamed_bytes, done.staged_bytes),
        _level(arena, "output", 0.0, done.output_bytes),
        _level(store, "weight", done.stored_bytes, 0.0),
    )
    return SpatialCost(
        cycles=cycles,
        compute_cycles=min(done.compute_cycles, cycles),
        macs=done.macs,
        peak_macs_per_cycle=rate.ops_per_s.value / 2 / system.clock_hz if rate else 0.0,
        compute_energy_j=2 * kernel.macs * device.energy_per_op_j(kernel.input_element),
        traffic=tuple(one for one in traffic if one.read_bytes + one.write_bytes),
    )


def _level(memory: Memory, tensor: TensorName, read: float, written: float) -> LevelTraffic:
    energy = memory.energy_per_byte_j
    return LevelTraffic(
        level=memory.name,
        tensor=tensor,
        read_bytes=read,
        write_bytes=written,
        energy_j=(read + written) * (0.0 if energy is None else energy.value),
    )


def _capped(dynamic_j: float, latency_s: float, device: Device) -> float:
    power = device.power
    return min(power.idle_w.value * latency_s + dynamic_j, power.limit_w.value * latency_s)
