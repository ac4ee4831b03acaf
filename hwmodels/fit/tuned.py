"""`python -m hwmodels.fit.tuned --aiter TABLE.csv.gz -o TUNED.npz`.

Rebuilds what is learned of products that a tuner has picked (`estimators/gpu/learned_tuned`) from
aiter's tuned tables of an MI300X: constants, the efficiency of products with block scales (logged,
for `runtimes/aiter.yaml`), trees, and the interval: of measured shapes from leaving each model's
file out, of other devices what the GEMMs of four left-out GPUs have, of other types half way
between, as no such pair is read.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.errors import MeasurementError
from hwmodels.estimators.gpu.constants import SkeletonConstants
from hwmodels.estimators.gpu.features import gemm_features
from hwmodels.estimators.gpu.kernels import gemms_of, rates
from hwmodels.estimators.gpu.learned_tuned import (
    ARTEFACT,
    Standing,
    TunedArtefact,
    save_tuned,
    type_of,
)
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.skeleton import Floats, Gemms, GpuFigures, Terms, gemm_terms
from hwmodels.estimators.gpu.trees import Trees
from hwmodels.fit.left_out import ends_of, halfway
from hwmodels.fit.simplex import least
from hwmodels.fit.skeleton import FITTED, LEAST_OVERLAP
from hwmodels.fit.skeleton import SHARES as BELOW_ONE
from hwmodels.fit.trees import Growth, grown
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel

LOG = logging.getLogger("hwmodels.fit.tuned")
RUNTIME = "aiter"
DEVICE = "mi300x"
MEASURED = {"gfx": "gfx942", "cu_num": "304"}
"""Rows that are read; all others of the table are another device's, and are not."""
TYPES = {
    ("a8w8_blockscale", ""): "fp8_block",
    ("a8w8", "torch.int8"): "w8a8_int8_dynamic",
}
"""Number types by `kind` and `q_dtype_w`."""
BLOCK = "fp8_block"
ROWS_PER_GROUP = 300
"""Rows of a type and a range of M (a factor of 4); a table has ten times more of the largest."""
RARE_SHARE = 0.3
"""Weight of all types but the one that nearly all rows have."""
EVALUATIONS, SIMPLEXES, STEP = 350, 2, 0.3
RIDGE = 0.005
"""Loss of a constant that is off its start by a factor of e."""
START_BLOCK = 0.7
SOFTWARE_EFFICIENCY = 0.94
"""Share of the rate at the clock under load that AMD's best products reach (source `maf` of the
device's file). Not fitted: block scales, which nearly all rows have, would be told apart from it
by 32 rows alone."""
TUNED = tuple(name for name in FITTED if name != "compute_efficiency")
"""Constants that are fitted."""
LEAST_ROWS = 500
"""Rows below which a type gets constants, but no trees."""
CORRECTION = Growth(trees=60, leaves=8, depth=4, leaf_rows=30, rate=0.1)


def main() -> None:
    """Reads, fits, writes; logs the efficiency of block scales."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m hwmodels.fit.tuned", description=__doc__)
    parser.add_argument("--aiter", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=ARTEFACT)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = TunedRows.of(sampled(read_aiter(given.aiter), given.seed))
    LOG.info("%d rows", len(rows.table))
    model = fit_tuned(rows, given.seed)
    LOG.info("%s", {name: getattr(model.constants, name) for name in TUNED})
    LOG.info("%s: efficiency of products with block scales %.3f", RUNTIME, model.block)
    ends = intervals(*errors_over_files(rows, given.seed))
    LOG.info("%s", ends)
    architecture = load_device(DEVICE).architecture
    save_tuned(
        TunedArtefact(
            device=DEVICE, family=architecture.family, version=architecture.version,
            types=model.types, constants=model.constants, trees=model.trees, ends=ends,
        ),
        given.output,
    )  # fmt: skip
    LOG.info("wrote %s, %d bytes", given.output, given.output.stat().st_size)


def read_aiter(path: Path) -> pd.DataFrame:
    """The rows of the device, columns `dtype, m, n, k, latency_s, file`.

    Raises:
        MeasurementError: No such rows, or a kind of product that nobody expects there.
    """
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if all(row[column] == value for column, value in MEASURED.items())
        ]
    if not rows:
        raise MeasurementError(f"{path}: no rows with {MEASURED}")
    unknown = {(row["kind"], row["q_dtype_w"]) for row in rows} - TYPES.keys()
    if unknown:
        raise MeasurementError(f"{path}: kinds {sorted(unknown)}; expected {sorted(TYPES)}")
    return pd.DataFrame(
        {
            "dtype": [TYPES[row["kind"], row["q_dtype_w"]] for row in rows],
            **{name.lower(): [int(float(row[name])) for row in rows] for name in "MNK"},
            "latency_s": [float(row["us"]) * 1e-6 for row in rows],
            "file": [Path(row["src"]).name for row in rows],
        }
    )


def sampled(table: pd.DataFrame, seed: int, most: int = ROWS_PER_GROUP) -> pd.DataFrame:
    """At most so many rows of every type and range of M, shuffled."""
    shuffled = table.sample(frac=1.0, random_state=seed)
    ranges = np.floor(np.log2(shuffled["m"]) / 2).astype(int)
    kept = shuffled.assign(range=ranges).groupby(["dtype", "range"]).head(most)
    return kept.reset_index(drop=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedRows:
    """Measured products as arrays."""

    table: pd.DataFrame
    kernels: tuple[Kernel, ...]
    gemms: Gemms
    device: Device

    @classmethod
    def of(cls, table: pd.DataFrame) -> TunedRows:
        """The rows of a sampled table, at the whole rate of the unit."""
        device, runtime = load_device(DEVICE), load_runtime(RUNTIME)
        kernels: list[Kernel] = []
        for entry in table.to_dict("records"):
            shape = {name: int(entry[name.lower()]) for name in "MNK"}
            compute = compute_elements(entry["dtype"], device)
            kernels.extend(operator_kernels("gemm", shape, entry["dtype"], runtime, compute))
        gemms = gemms_of(kernels, device)
        return cls(
            table=table,
            kernels=tuple(kernels),
            gemms=replace(gemms, ops_per_s=rates(kernels, device)),
            device=device,
        )

    def take(self, rows: NDArray[np.intp]) -> TunedRows:
        """Some of the rows."""
        names = Gemms.__dataclass_fields__
        return TunedRows(
            table=self.table.iloc[rows].reset_index(drop=True),
            kernels=tuple(self.kernels[row] for row in rows),
            gemms=Gemms(**{name: getattr(self.gemms, name)[rows] for name in names}),
            device=self.device,
        )

    @property
    def measured(self) -> Floats:
        """Logarithms of seconds."""
        return np.asarray(np.log(self.table["latency_s"].to_numpy(dtype=float)))

    @property
    def weights(self) -> Floats:
        """Ranges of M of a type count equally, all types but the first `RARE_SHARE`."""
        counts = self.table.groupby(["dtype", "range"])["m"].transform("size")
        each = 1 / counts.to_numpy(dtype=float)
        block = (self.table["dtype"] == BLOCK).to_numpy(dtype=bool)
        shares = {True: 1 - RARE_SHARE, False: RARE_SHARE}
        found = np.zeros(len(each))
        for of_block, share in shares.items():
            rows = block == of_block
            if rows.any():
                found[rows] = share * each[rows] / each[rows].sum()
        return np.asarray(found / found.sum(), dtype=float)

    def account(self, constants: SkeletonConstants, block: float) -> tuple[Terms, Floats]:
        """The skeleton's terms, and the trees' inputs."""
        scaled = np.where(self.table["dtype"] == BLOCK, block, 1.0)
        gemms = replace(self.gemms, ops_per_s=self.gemms.ops_per_s * scaled)
        gpu = GpuFigures.of(self.device)
        terms = gemm_terms(gemms, gpu, constants)
        return terms, gemm_features(gemms, terms, gpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedModel:
    """The parts learned from some rows."""

    constants: SkeletonConstants
    block: float
    """Share of the unit's rate that products with block scales reach, over that of others."""
    types: tuple[str, ...]
    trees: Trees

    def log_errors(self, rows: TunedRows, share: float) -> Floats:
        """log(measured / predicted), with a share of the trees in types that they know."""
        terms, features = rows.account(self.constants, self.block)
        known = np.array([type_of(kernel) in self.types for kernel in rows.kernels])
        correction = share * known * self.trees.predict(features)
        predicted = np.maximum(terms.latency_s * np.exp(correction), terms.light_s)
        return rows.measured - np.log(predicted)


def fit_tuned(rows: TunedRows, seed: int = 0) -> TunedModel:
    """Constants, then trees on log(measured / skeleton)."""
    constants, block = fit_constants(rows)
    names = np.array([type_of(kernel) for kernel in rows.kernels])
    types = tuple(sorted(one for one in set(names) if (names == one).sum() >= LEAST_ROWS))
    chosen = np.isin(names, types)
    terms, features = rows.account(constants, block)
    target = rows.measured - np.log(terms.latency_s)
    trees = grown(features[chosen], target[chosen], rows.weights[chosen], CORRECTION, seed)
    return TunedModel(constants=constants, block=block, types=types, trees=trees)


def fit_constants(rows: TunedRows) -> tuple[SkeletonConstants, float]:
    """The constants with the least mean |log ratio|, drawn towards those of other libraries."""
    known = replace(load_artefact().constants, compute_efficiency=SOFTWARE_EFFICIENCY)
    start = np.log([*(getattr(known, name) for name in TUNED), START_BLOCK])
    measured, weights = rows.measured, rows.weights

    def loss(logs: Floats) -> float:
        terms, _ = rows.account(*_constants(known, logs))
        errors = np.abs(np.log(terms.latency_s) - measured)
        return float(weights @ errors) + RIDGE * float(((logs - start) ** 2).sum())

    best = least(loss, start, step=STEP, evaluations=EVALUATIONS, simplexes=SIMPLEXES)
    return _constants(known, best)


def _constants(known: SkeletonConstants, logs: Floats) -> tuple[SkeletonConstants, float]:
    *values, block = (float(value) for value in np.exp(logs))
    found = {
        name: min(value, 1.0) if name in BELOW_ONE else value
        for name, value in zip(TUNED, values, strict=True)
    }
    found["overlap"] = max(found["overlap"], LEAST_OVERLAP)
    return replace(known, **found), min(block, 1.0)  # type: ignore[arg-type]


def errors_over_files(rows: TunedRows, seed: int = 0) -> tuple[Floats, Floats]:
    """log(measured / predicted) and weights of rows with trees, each from the other files."""
    parts = list(_left_out(rows, seed))
    return np.concatenate([log for log, _ in parts]), np.concatenate([one for _, one in parts])


def _left_out(rows: TunedRows, seed: int) -> Iterator[tuple[Floats, Floats]]:
    block = (rows.table["dtype"] == BLOCK).to_numpy(dtype=bool)
    for file in sorted(rows.table["file"][block].unique()):
        held = (rows.table["file"] == file).to_numpy(dtype=bool)
        model = fit_tuned(rows.take(np.flatnonzero(~held)), seed)
        yield model.log_errors(rows.take(np.flatnonzero(held)), 1.0), rows.weights[held]


def intervals(errors: Floats, weights: Floats) -> Mapping[Standing, tuple[float, float]]:
    """Ends that hold `COVERAGE` of the errors; another device's are those of unseen GEMMs."""
    near = ends_of(errors, weights)
    unseen = load_artefact().learned.unseen
    far = (unseen.low, unseen.high)
    return {"seen": near, "other type": halfway(near, far), "other device": far}


if __name__ == "__main__":
    main()
