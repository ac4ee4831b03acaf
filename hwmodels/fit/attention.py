"""`python -m hwmodels.fit.attention --aiconfigurator DIR -o ARTEFACT.npz`.

Rebuilds what is learned of attention under serving runtimes (`estimators/gpu/learned_attention`):
constants and trees of both phases on all devices; the interval of what was measured from folds
over shapes, that of what was not from leaving each device out, and that of another device of a
measured generation between the two, as no such pair was measured.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor

from hwmodels.devices.load import load_device
from hwmodels.errors import MeasurementError
from hwmodels.estimators.gpu.constants import CONSTANTS
from hwmodels.estimators.gpu.learned_attention import (
    ARTEFACT,
    PHASES,
    AttentionArtefact,
    Phase,
    PhaseName,
    attention_kernel,
    paged_calls,
    phase_of,
    save_attention,
)
from hwmodels.estimators.gpu.paged_attention import PagedAttentions, PagedConstants, paged_terms
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures
from hwmodels.estimators.gpu.standing import SHARES, Standing, written
from hwmodels.estimators.gpu.trees import Trees, with_name
from hwmodels.fit.left_out import Errors, halfway, joined
from hwmodels.fit.measurement import RUNTIMES, SYSTEMS, of_newest, release
from hwmodels.fit.simplex import least
from hwmodels.fit.trees import exported
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel

LOG = logging.getLogger("hwmodels.fit.attention")
VERSION = "1"
TABLES = ("context", "generation", "encoder")
TRITON = "triton"
"""Kernels that stand in where the one that a runtime picks has no variant (data's kernel_source):
other code, in one row in thirty."""
FOLDS = 3
ROWS_PER_GROUP = 2500
ROWS_FOR_CONSTANTS = 500
EVALUATIONS = 400
SIMPLEXES = 2
STEP = 0.3
RIDGE = 0.005
"""Loss of a constant that is off its default by a factor of e."""
TREES, DEPTH, LEAF_ROWS, LEARNING_RATE = 200, 5, 30, 0.1
GROUPS = ["device", "runtime", "table", "dtype"]


def main() -> None:
    """Reads, fits, writes; logs what it does."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m hwmodels.fit.attention", description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=ARTEFACT)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = sampled(read_attention(given.aiconfigurator), given.seed)
    LOG.info("%d rows of %d devices", len(table), table["device"].nunique())
    save_attention(fit_attention(table, given.seed), given.output)
    LOG.info("wrote %s, %d bytes", given.output, given.output.stat().st_size)


def read_attention(folder: Path) -> pd.DataFrame:
    """All attention rows below `<folder>/<system>/`, as operators beside `table` and `latency_s`.

    Of several versions of a runtime the newest counts. Rows of the encoder are not causal.

    Raises:
        MeasurementError: No tables there.
    """
    paths = sorted(folder.glob("*/*attention*/*/*/*_attention_perf.parquet"))
    if not paths:
        raise MeasurementError(
            f"{folder}: no <system>/attention/<framework>/<version>/*_attention_perf.parquet"
        )
    table = pd.concat([_read(path, path.relative_to(folder).parts) for path in paths])
    return of_newest(table, ["device", "runtime", "table"])


def _read(path: Path, parts: tuple[str, ...]) -> pd.DataFrame:
    system, _, framework, version, file = parts
    kind = file.split("_")[0]
    table = pd.read_parquet(path)
    table = table[(table["latency"] > 0) & ~table["kernel_source"].str.contains(TRITON)]
    keys = table["isl"] + table.get("step", 0)
    cache = table.get("kv_cache_dtype", pd.Series("bfloat16", index=table.index))
    found = pd.DataFrame(
        {
            "device": SYSTEMS[system],
            "runtime": RUNTIMES[framework],
            "table": kind,
            "dtype": np.where(cache == "fp8", "bf16_kv_fp8", "bf16"),
            "B": table["batch_size"],
            "H": table["num_heads"],
            "HK": table.get("num_key_value_heads", table["num_heads"]),
            "S": 1 if kind == "generation" else table["isl"],
            "L": keys,
            "D": table["head_dim"],
            "window": table.get("window_size", pd.Series(0, index=table.index)),
            "causal": kind == "context",
            "latency_s": table["latency"] * 1e-3,
            "release": release(version),
        }
    )
    return found.drop_duplicates(found.columns.difference(["latency_s"]).tolist())


def sampled(table: pd.DataFrame, seed: int, most: int = ROWS_PER_GROUP) -> pd.DataFrame:
    """At most so many rows of every group, shuffled."""
    shuffled = table.sample(frac=1.0, random_state=seed)
    return shuffled.groupby(GROUPS).head(most).reset_index(drop=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows of one device and one kernel as arrays."""

    index: NDArray[np.intp]
    device: str
    kernel: str
    gpu: GpuFigures
    kernels: tuple[Kernel, ...]
    calls: PagedAttentions


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Measured calls of one phase."""

    table: pd.DataFrame
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, table: pd.DataFrame, phase: PhaseName) -> Rows:
        """The rows of a phase, numbered anew."""
        kernels, names, kept = [], [], []
        for row, entry in enumerate(table.to_dict("records")):
            device, runtime = load_device(entry["device"]), load_runtime(entry["runtime"])
            shape = {name: int(entry[name]) for name in ("B", "H", "HK", "S", "L", "D", "causal")}
            if entry["window"]:
                shape["window"] = int(entry["window"])
            dtype = entry["dtype"]
            compute = compute_elements(dtype, device)
            (kernel,) = operator_kernels("attention", shape, dtype, runtime, compute)
            if phase_of(kernel) == phase:
                own = attention_kernel(kernel, device, runtime)
                assert own is not None, "measured runtimes name their kernels"
                kernels.append(kernel)
                names.append((entry["device"], own))
                kept.append(row)
        parts = []
        for key in dict.fromkeys(names):
            index = np.array([at for at, name in enumerate(names) if name == key], dtype=np.intp)
            device = load_device(key[0])
            chosen = tuple(kernels[at] for at in index)
            parts.append(
                Part(
                    index=index,
                    device=key[0],
                    kernel=key[1].name,
                    gpu=GpuFigures.of(device),
                    kernels=chosen,
                    calls=paged_calls(chosen, device, key[1]),
                )
            )
        return cls(table=table.iloc[kept].reset_index(drop=True), parts=tuple(parts))

    @property
    def measured(self) -> Floats:
        """Logarithms of seconds, shape (rows,)."""
        return np.asarray(np.log(self.table["latency_s"].to_numpy(dtype=float)))

    @property
    def weights(self) -> Floats:
        """Groups of a device count equally, and devices do."""
        counts = self.table.groupby(GROUPS)["B"].transform("size").to_numpy(dtype=float)
        groups = self.table[GROUPS].drop_duplicates().groupby("device").size()
        weights = 1 / counts / self.table["device"].map(groups).to_numpy(dtype=float)
        return cast("Floats", weights / weights.sum())

    def account(
        self, constants: PagedConstants, kernels: tuple[str, ...]
    ) -> tuple[Floats, Floats, Floats]:
        """The skeleton's seconds, the speed of light, and the trees' inputs."""
        seconds, light = np.zeros(len(self.table)), np.zeros(len(self.table))
        inputs: list[Floats] = []
        for part in self.parts:
            terms, features = paged_terms(part.calls, part.gpu, constants, CONSTANTS)
            seconds[part.index], light[part.index] = terms.latency_s, terms.light_s
            inputs.append(with_name(features, part.kernel, kernels))
        stacked = np.zeros((len(self.table), inputs[0].shape[1]))
        for part, columns in zip(self.parts, inputs, strict=True):
            stacked[part.index] = columns
        return seconds, light, stacked


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseModel:
    """One phase as it was learned from some rows."""

    constants: PagedConstants
    trees: Trees
    kernels: tuple[str, ...]

    def log_errors(self, rows: Rows, share: float) -> Floats:
        """log(measured / predicted) with a share of the trees."""
        seconds, light, inputs = rows.account(self.constants, self.kernels)
        predicted = np.maximum(seconds * np.exp(share * self.trees.predict(inputs)), light)
        return rows.measured - np.log(predicted)


def fit_phase(
    table: pd.DataFrame,
    phase: PhaseName,
    kernels: tuple[str, ...],
    seed: int = 0,
    constants: PagedConstants | None = None,
) -> PhaseModel:
    """Constants (unless given), then trees on log(measured / skeleton)."""
    rows = Rows.of(table, phase)
    found = constants or fit_constants(Rows.of(sampled(table, seed, ROWS_FOR_CONSTANTS), phase))
    seconds, _, inputs = rows.account(found, kernels)
    boosted = GradientBoostingRegressor(
        loss="huber",
        n_estimators=TREES,
        max_depth=DEPTH,
        min_samples_leaf=LEAF_ROWS,
        learning_rate=LEARNING_RATE,
        subsample=0.3,
        max_features=0.4,
        random_state=seed,
    )
    weights = rows.weights * len(rows.table)
    boosted.fit(inputs, rows.measured - np.log(seconds), sample_weight=weights)
    return PhaseModel(constants=found, trees=exported(boosted), kernels=kernels)


def fit_constants(rows: Rows) -> PagedConstants:
    """The constants with the least mean |log ratio|, drawn towards their defaults."""
    start = np.log(list(PagedConstants().to_json().values()))
    measured, weights = rows.measured, rows.weights

    def loss(logs: Floats) -> float:
        seconds, _, _ = rows.account(_constants(logs), ())
        errors = np.abs(np.log(seconds) - measured)
        return float(weights @ errors) + RIDGE * float(((logs - start) ** 2).sum())

    best = least(loss, start, step=STEP, evaluations=EVALUATIONS, simplexes=SIMPLEXES)
    return _constants(best)


def _constants(logs: Floats) -> PagedConstants:
    return PagedConstants(
        **dict(zip(PagedConstants().to_json(), map(float, np.exp(logs)), strict=True))
    )


def measured_kernels(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """By kernel: the devices that it was measured on, with their architectures."""
    found: dict[str, dict[str, str]] = {}
    for phase in PHASES:
        for part in Rows.of(sampled(table, 0, 1), phase).parts:
            text = written(load_device(part.device).architecture)
            found.setdefault(part.kernel, {})[part.device] = text
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def fit_attention(table: pd.DataFrame, seed: int = 0) -> AttentionArtefact:
    """The artefact of a table."""
    measured = measured_kernels(table)
    kernels = tuple(measured)
    phases: dict[PhaseName, Phase] = {}
    for phase in PHASES:
        model = fit_phase(table, phase, kernels, seed)
        LOG.info("%s %s", phase, model.constants)
        ends = intervals(
            errors_over_shapes(table, phase, model, seed),
            errors_over_devices(table, phase, kernels, seed),
        )
        LOG.info("%s %s", phase, ends)
        phases[phase] = Phase(constants=model.constants, trees=model.trees, ends=ends)
    return AttentionArtefact(version=VERSION, kernels=kernels, measured=measured, phases=phases)


def errors_over_shapes(
    table: pd.DataFrame, phase: PhaseName, model: PhaseModel, seed: int
) -> Errors:
    """Folds over heads and lengths; constants stay those of `model`."""
    keys = pd.util.hash_pandas_object(table[["H", "HK", "D", "L"]], index=False)
    fold = keys.to_numpy() % FOLDS
    return joined(
        _errors(
            table[fold == index],
            phase,
            fit_phase(table[fold != index], phase, model.kernels, seed, model.constants),
            SHARES["seen"],
        )
        for index in range(FOLDS)
    )


def errors_over_devices(
    table: pd.DataFrame, phase: PhaseName, kernels: tuple[str, ...], seed: int
) -> Errors:
    """Each device as a model of the others predicts it."""
    return joined(
        _errors(
            table[table["device"] == device],
            phase,
            fit_phase(table[table["device"] != device], phase, kernels, seed),
            SHARES["unseen"],
        )
        for device in sorted(table["device"].unique())
    )


def _errors(table: pd.DataFrame, phase: PhaseName, model: PhaseModel, share: float) -> Errors:
    rows = Rows.of(table, phase)
    return Errors(table=rows.table, log=model.log_errors(rows, share), weights=rows.weights)


def intervals(seen: Errors, unseen: Errors) -> Mapping[Standing, tuple[float, float]]:
    """Ends that hold `COVERAGE` of the errors; a sibling's lie half way, in log units.

    How much of what is unknown of a new device a sibling shares, no pair of measured devices
    tells: half of it is an assumption.
    """
    near, far = seen.ends, unseen.ends
    return {"seen": near, "sibling": halfway(near, far), "unseen": far}


if __name__ == "__main__":
    main()
