"""Energy of a kernel: what a board draws anyway, and what cores, operations and bytes add.

    E = min(P_idle t + P_active u (t - t_launch) + e_op n_op + e_dram D + e_cache H, P_limit t)
    P_active = a (P_limit - P_idle)

u is the share of the cores that hold work, D the bytes of main memory, H those that the last-level
cache has, n_op operations (two a multiply-accumulate), e_op by element. A core that only waits for
memory, or walks along a row, draws nearly as much as one that multiplies: without that term what
it spends is booked on the bytes, twice what they cost. The limit caps the average power; the time
is taken as measured under that limit. Idle power, limit, e_op and e_dram are the device's; the
others are `EnergyConstants`, of the device that was measured best, an H100
(`python -m hwmodels.fit.energy`, errors in `studies/gpu_energy`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hwmodels.devices.device import Device
from hwmodels.estimators.gpu.kernels import array
from hwmodels.estimators.gpu.skeleton import Floats, Terms
from hwmodels.work.kernel import MULTIPLYING, Kernel
from hwmodels.work.loops import RowLoops

ARTEFACT = Path(__file__).parent / "energy.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyConstants:
    """Everything about energy that no device file has."""

    active_share: float
    """a: share of the power between idle and limit that busy cores draw, whatever they do."""
    cache_energy_j: float
    """e_cache, joules a byte."""
    core_bytes: float
    """Bytes of a pointwise kernel that keep one core busy."""
    core_rows: float
    """Rows that keep one core busy where blocks work on rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Figures of a board, in watts, joules and seconds."""

    idle_w: float
    active_w: float
    limit_w: float
    dram_j: float
    cache_j: float
    launch_s: float

    @classmethod
    def of(cls, device: Device, constants: EnergyConstants) -> Draw:
        """The figures of a device; main memory without one costs nothing."""
        idle, limit = device.power.idle_w.value, device.power.limit_w.value
        dram = device.main_memory.energy_per_byte_j
        return cls(
            idle_w=idle,
            active_w=constants.active_share * max(limit - idle, 0.0),
            limit_w=limit,
            dram_j=dram.value if dram else 0.0,
            cache_j=constants.cache_energy_j,
            launch_s=device.launch_s.value,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Kernels as their energy sees them, each of shape (kernels,)."""

    op_j: Floats
    """Energy of their operations."""
    dram_bytes: Floats
    cache_bytes: Floats
    busy: Floats
    """Share of the cores that hold work, in (0, 1]."""

    def joules(self, draw: Draw, latency_s: Floats) -> Floats:
        """Joules of the kernels, by the equation of this module."""
        active_s = self.busy * np.maximum(latency_s - draw.launch_s, 0.0)
        bytes_j = self.dram_bytes * draw.dram_j + self.cache_bytes * draw.cache_j
        used = draw.idle_w * latency_s + draw.active_w * active_s + self.op_j + bytes_j
        return np.minimum(used, draw.limit_w * latency_s)


def energy_j(
    kernels: Sequence[Kernel], terms: Terms, latency_s: Floats, device: Device
) -> Floats:  # fmt: skip
    """Joules of kernels that take so long, with the shipped constants."""
    constants = load_energy()
    load = Load(
        op_j=2 * array(kernels, lambda one: one.macs * device.energy_per_op_j(one.input_element)),
        dram_bytes=terms.dram_bytes,
        cache_bytes=cache_bytes(kernels, terms),
        busy=busy_share(kernels, terms, device.unit("matrix").count.value, constants),
    )
    return load.joules(Draw.of(device, constants), latency_s)


def cache_bytes(kernels: Sequence[Kernel], terms: Terms) -> Floats:
    """Bytes that the last-level cache has of what kernels read and write."""
    moved = array(kernels, lambda kernel: kernel.bytes)
    return np.maximum(moved - terms.dram_bytes, 0.0)


def busy_share(
    kernels: Sequence[Kernel], terms: Terms, cores: float, constants: EnergyConstants
) -> Floats:
    """Share of the cores that hold a block of each kernel: of what multiplies, that of its tiles.

    Other kernels have a block for some rows that each reduces alone, or else for some bytes.
    """
    multiplies = np.array([kernel.kind in MULTIPLYING for kernel in kernels])
    rows = array(kernels, _rows_of_blocks) / constants.core_rows
    moved = array(kernels, lambda kernel: kernel.bytes) / constants.core_bytes
    blocks = np.where(rows > 0, rows, moved)
    return np.where(multiplies, terms.fill, np.minimum(blocks / cores, 1.0))


def _rows_of_blocks(kernel: Kernel) -> float:
    """Rows of a kernel whose blocks work on whole rows; 0 of others."""
    by_row = kernel.kind in ("rowwise", "reduce") and isinstance(kernel.loops, RowLoops)
    return kernel.loops.rows if by_row else 0  # type: ignore[union-attr]


@cache
def load_energy(path: Path = ARTEFACT) -> EnergyConstants:
    """The constants of a file."""
    return EnergyConstants(**json.loads(path.read_text(encoding="utf-8")))


def save_energy(constants: EnergyConstants, path: Path) -> None:
    """Writes the constants; equal ones give equal files."""
    path.write_text(json.dumps(asdict(constants), indent=1) + "\n", encoding="utf-8")
