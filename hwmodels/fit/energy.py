"""`python -m hwmodels.fit.energy --torch-energy LOOPS.csv.gz --profile OPS.csv.gz -o OUT.json`.

Fits the energy of kernels (`estimators/gpu/energy`) to board energy of an H100: operators in loops
of a second or more, read from NVML's counter. Times are those of the loops. What every device
shares is written; the figures of the device itself, joules an operation and a byte, are logged for
its file (`h100-sxm.yaml`), from which other devices' are scaled.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.energy import (
    ARTEFACT,
    Draw,
    EnergyConstants,
    Load,
    busy_share,
    cache_bytes,
    save_energy,
)
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.kernels import TERMS, gemms_of
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures, Terms, gemm_terms
from hwmodels.fit.simplex import least
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel

LOG = logging.getLogger("hwmodels.fit.energy")
DEVICE = "h100-sxm"
"""The device of both tables."""
RUNTIME = "torch-eager"
IDLE = "idle"
ONE_INPUT = {"add": "relu", "add_l2": "relu"}
"""Operators of `--torch-energy` that read one tensor, as its column `bytes` says, and what this
project calls such a kernel."""
ELEMENTS = ("e4m3", "int8", "bf16", "tf32", "fp32")
"""Elements with an energy of their own; fp16 costs what bf16 does."""
SAME_ENERGY = {"fp16": "bf16", "e5m2": "e4m3"}
START = EnergyConstants(
    active_share=0.4, cache_energy_j=15e-12, core_bytes=32768.0, core_rows=3.0
)  # fmt: skip
START_DRAM_J = 50e-12
START_OP_J = {"e4m3": 0.65e-12, "int8": 0.8e-12, "bf16": 1e-12, "tf32": 2.6e-12, "fp32": 17e-12}
EVALUATIONS, SIMPLEXES, STEP = 2000, 2, 0.3
RIDGE = 0.003
"""Loss of a constant that is off its start by a factor of e."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Measured calls of operators, and their kernels one after the other as arrays."""

    table: pd.DataFrame
    """Columns `op, dtype, shape, runtime, seconds, joules`."""
    kernels: tuple[Kernel, ...]
    terms: Terms
    row: NDArray[np.intp]
    """Call of each kernel."""
    predicted_s: Floats
    """Of each kernel."""

    @property
    def measured_s(self) -> Floats:
        """Seconds of each kernel: the call's, shared as predicted."""
        predicted = np.bincount(self.row, self.predicted_s, len(self.table))
        share = self.table["seconds"].to_numpy(dtype=float) / predicted
        return np.asarray(self.predicted_s * share[self.row])

    def take(self, rows: NDArray[np.intp]) -> Calls:
        """Some of the calls."""
        kept = np.flatnonzero(np.isin(self.row, rows))
        names = Terms.__dataclass_fields__
        return Calls(
            table=self.table.iloc[rows].reset_index(drop=True),
            kernels=tuple(self.kernels[index] for index in kept),
            terms=Terms(**{name: getattr(self.terms, name)[kept] for name in names}),
            row=np.searchsorted(rows, self.row[kept]),
            predicted_s=self.predicted_s[kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyFit:
    """The fitted parts."""

    constants: EnergyConstants
    dram_j: float
    op_j: Mapping[str, float]
    """By element."""

    def joules(self, calls: Calls, device: Device, kernel_s: Floats) -> Floats:
        """Energy of every call whose kernels take so long."""
        load = Load(
            op_j=_operations(calls.kernels) @ np.array([self.op_j[name] for name in ELEMENTS]),
            dram_bytes=calls.terms.dram_bytes,
            cache_bytes=cache_bytes(calls.kernels, calls.terms),
            busy=busy_share(
                calls.kernels, calls.terms, device.unit("matrix").count.value, self.constants
            ),
        )
        draw = replace(Draw.of(device, self.constants), dram_j=self.dram_j)
        each = load.joules(draw, kernel_s)
        return np.asarray(np.bincount(calls.row, each, len(calls.table)), dtype=float)


def main() -> None:
    """Reads, fits, writes; logs the figures of the device."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m hwmodels.fit.energy", description=__doc__)
    parser.add_argument("--torch-energy", type=Path, required=True)
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=ARTEFACT)
    given = parser.parse_args()
    found = fit_energy(read_energy(given.torch_energy, given.profile))
    LOG.info("%s: pJ/B of main memory %.3g", DEVICE, found.dram_j * 1e12)
    for element, joules in found.op_j.items():
        LOG.info("%s: pJ/op %s %.3g", DEVICE, element, joules * 1e12)
    LOG.info("%s", found.constants)
    save_energy(found.constants, given.output)


def read_energy(torch_energy: Path | None, profile: Path) -> Calls:
    """The calls of both tables, or of the second one alone."""
    tables = [_own(torch_energy)] if torch_energy else []
    table = pd.concat([*tables, _profiled(profile)], ignore_index=True)
    return calls_of(table, load_device(DEVICE))


def calls_of(table: pd.DataFrame, device: Device) -> Calls:
    """Calls of operators `op, dtype, shape, runtime` on a device, and what is predicted of them.

    `calls` is the number of calls, each on operands of its own, that a loop cycles through: where
    they all fit the last-level cache they are found there. Without it caches are as cold or warm
    as the runtime's tables (`operator_kernels`).
    """
    gpu = GpuFigures.of(device)
    kernels: list[Kernel] = []
    row: list[int] = []
    for index, entry in enumerate(table.to_dict("records")):
        runtime = load_runtime(entry["runtime"])
        compute = compute_elements(entry["dtype"], device)
        shape = json.loads(entry["shape"])
        found = operator_kernels(entry["op"], shape, entry["dtype"], runtime, compute)
        if entry["calls"] * sum(kernel.bytes for kernel in found) < gpu.cache_bytes:
            found = tuple(
                replace(one, inputs_are_cold=False, weight_is_cold=False) for one in found
            )
        kernels.extend(found)
        row.extend([index] * len(found))
    of_kernel = np.array(row, dtype=np.intp)
    runtimes = table["runtime"].to_numpy()[of_kernel]
    predicted = np.zeros(len(kernels))
    for name in dict.fromkeys(runtimes):
        chosen = np.flatnonzero(runtimes == name)
        group = [kernels[index] for index in chosen]
        costs = GpuEstimator().estimate(group, device, load_runtime(name))
        predicted[chosen] = [cost.latency_s for cost in costs]
    return Calls(
        table=table,
        kernels=tuple(kernels),
        terms=_terms_of(kernels, device, gpu),
        row=of_kernel,
        predicted_s=predicted,
    )


def _own(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    table = table[table["op"] != IDLE]
    return pd.DataFrame(
        {
            "table": "loops",
            "op": table["op"].replace(ONE_INPUT),
            "dtype": table["dtype"],
            "shape": table["shape"],
            "runtime": RUNTIME,
            "calls": 1,
            "seconds": table["us_per_call"] * 1e-6,
            "joules": table["mJ_per_call"] * 1e-3,
        }
    )


def _profiled(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    table = table[table["energy_mj"].notna()]
    joules = table["energy_mj"] * 1e-3
    columns = {name: table[name] for name in ("op", "dtype", "shape", "runtime", "calls")}
    return pd.DataFrame(
        {"table": "profile", **columns, "seconds": joules / table["watts"], "joules": joules}
    )


def _terms_of(kernels: Sequence[Kernel], device: Device, gpu: GpuFigures) -> Terms:
    """The skeleton's account of kernels of any kind."""
    names, constants = Terms.__dataclass_fields__, load_artefact().constants
    parts = {name: np.zeros(len(kernels)) for name in names}
    for kind in dict.fromkeys(kernel.kind for kernel in kernels):
        index = [at for at, kernel in enumerate(kernels) if kernel.kind == kind]
        group = [kernels[at] for at in index]
        found = (
            gemm_terms(gemms_of(group, device), gpu, constants)
            if kind == "gemm"
            else TERMS[kind](group, device, gpu, constants)
        )
        for name in names:
            parts[name][index] = getattr(found, name)
    return Terms(**parts)


def _operations(kernels: Sequence[Kernel]) -> Floats:
    """Operations by element, shape (kernels, elements)."""
    found = np.zeros((len(kernels), len(ELEMENTS)))
    for index, kernel in enumerate(kernels):
        if kernel.macs:
            name = SAME_ENERGY.get(kernel.input_element, kernel.input_element)
            found[index, ELEMENTS.index(name)] = 2 * kernel.macs
    return found


def fit_energy(calls: Calls, device: Device | None = None) -> EnergyFit:
    """The constants with the least mean |log ratio| at the measured times."""
    board = device or load_device(DEVICE)
    seconds = calls.measured_s
    measured = np.log(calls.table["joules"].to_numpy(dtype=float))
    start = np.log(
        [START.active_share, START.cache_energy_j, START.core_bytes, START.core_rows, START_DRAM_J,
         *(START_OP_J[name] for name in ELEMENTS)]
    )  # fmt: skip

    def loss(logs: Floats) -> float:
        errors = np.abs(np.log(_fit(logs).joules(calls, board, seconds)) - measured)
        return float(errors.mean()) + RIDGE * float(((logs - start) ** 2).sum())

    best = least(loss, start, step=STEP, evaluations=EVALUATIONS, simplexes=SIMPLEXES)
    return _fit(best)


def _fit(logs: Floats) -> EnergyFit:
    values = [float(value) for value in np.exp(logs)]
    share, cached, core_bytes, core_rows, dram, *operations = values
    return EnergyFit(
        constants=EnergyConstants(
            active_share=share, cache_energy_j=cached, core_bytes=core_bytes, core_rows=core_rows
        ),
        dram_j=dram,
        op_j=dict(zip(ELEMENTS, operations, strict=True)),
    )


if __name__ == "__main__":
    main()
