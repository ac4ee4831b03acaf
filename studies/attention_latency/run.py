"""What does attention under a serving runtime take on a GPU whose attention was never measured?

Usage: python -m studies.attention_latency.run --aiconfigurator DIR [--rows 2500]

Writes `results/left_out.csv` (each device predicted by a model of the others: mean |error| of a
roofline, of the model of one launch that torch's runtimes keep, of the skeleton, with half of the
trees, with all of them; the share inside the interval that the other devices' errors give) and
`results/folds.csv` (devices that went in, on heads and lengths that did not).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.constants import CONSTANTS
from hwmodels.estimators.gpu.kernels import TERMS
from hwmodels.estimators.gpu.learned_attention import PHASES, PhaseName, load_attention
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures
from hwmodels.fit.attention import (
    GROUPS,
    Rows,
    errors_over_shapes,
    fit_phase,
    measured_kernels,
    read_attention,
    sampled,
)
from hwmodels.fit.left_out import Errors, joined

RESULTS = Path(__file__).parent / "results"
SHARES = {"skeleton": 0.0, "half of the trees": 0.5, "trees": 1.0}
SEED = 0


def left_out(table: pd.DataFrame, phase: PhaseName, kernels: tuple[str, ...]) -> pd.DataFrame:
    """Each device as the others predict it."""
    errors: dict[str, Errors] = {}
    tables = []
    for device in sorted(table["device"].unique()):
        model = fit_phase(table[table["device"] != device], phase, kernels, SEED)
        rows = Rows.of(table[table["device"] == device], phase)
        logs = {name: model.log_errors(rows, share) for name, share in SHARES.items()}
        logs = {**_baselines(rows), **logs}
        errors[device] = Errors(
            table=rows.table, log=logs["half of the trees"], weights=rows.weights
        )
        tables.append(_scored(rows, logs))
    inside = [_inside(errors, device) for device in sorted(errors)]
    return pd.concat([pd.concat(tables), pd.concat(inside)], axis=1).reset_index()


def _baselines(rows: Rows) -> Mapping[str, Floats]:
    """log(measured / predicted) of a roofline, and of the model of one launch."""
    light, launch = np.zeros(len(rows.table)), np.zeros(len(rows.table))
    for part in rows.parts:
        device = load_device(part.device)
        terms = TERMS["attention"](part.kernels, device, GpuFigures.of(device), CONSTANTS)
        light[part.index], launch[part.index] = terms.light_s, terms.latency_s
    return {
        "roofline": rows.measured - np.log(light),
        "one launch": rows.measured - np.log(launch),
    }


def _scored(rows: Rows, logs: Mapping[str, Floats]) -> pd.DataFrame:
    frame = rows.table[GROUPS].assign(
        **{name: np.abs(np.exp(-log) - 1) for name, log in logs.items()}
    )
    found = 100 * frame.groupby(GROUPS).mean()
    sized = found.round(1).assign(rows=frame.groupby(GROUPS).size())
    return sized.assign(bias=_bias(rows, logs["half of the trees"]))


def _bias(rows: Rows, log: Floats) -> pd.Series:
    """Predicted over measured - 1 in the geometric mean, in %."""
    mean = rows.table[GROUPS].assign(log=log).groupby(GROUPS)["log"].mean()
    return (100 * (np.exp(-mean) - 1)).round(1)


def _inside(errors: Mapping[str, Errors], device: str) -> pd.DataFrame:
    """Share of a device's rows in the interval that errors of the others give."""
    others = [one for name, one in errors.items() if name != device]
    low, high = joined(others).ends
    own = errors[device]
    held = own.table[GROUPS].assign(held=(own.log >= low) & (own.log <= high))
    share = (100 * held.groupby(GROUPS)["held"].mean()).round(1)
    return pd.DataFrame({"inside": share, "width": round(float(np.exp(high - low)), 2)})


def folds(table: pd.DataFrame, phase: PhaseName, kernels: tuple[str, ...]) -> pd.DataFrame:
    """Devices that went in, on shapes that did not."""
    model = fit_phase(table, phase, kernels, SEED)
    found = errors_over_shapes(table, phase, model, SEED)
    frame = found.table[GROUPS].assign(error=np.abs(np.exp(-found.log) - 1))
    grouped = frame.groupby(GROUPS)["error"]
    return (
        (100 * grouped.agg(["mean", "median"])).round(1).assign(rows=grouped.size()).reset_index()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2500, help="of a group, at most")
    given = parser.parse_args()
    table = sampled(read_attention(given.aiconfigurator), SEED, given.rows)
    kernels = tuple(measured_kernels(table))
    RESULTS.mkdir(exist_ok=True)
    for name, score in (("left_out", left_out), ("folds", folds)):
        found = pd.concat([score(table, phase, kernels) for phase in PHASES])
        found.to_csv(RESULTS / f"{name}.csv", index=False, lineterminator="\n")
        print(found.to_string(index=False))
    for phase in PHASES:
        ends = load_attention().phases[phase].ends
        print(
            phase,
            {name: round(float(np.exp(high - low)), 2) for name, (low, high) in ends.items()},
        )


if __name__ == "__main__":
    main()
