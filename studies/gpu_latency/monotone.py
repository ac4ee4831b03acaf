"""Does a residual that must obey physics do better on a GPU that it never saw?

    python studies/gpu_latency/monotone.py --aiconfigurator DIR -o studies/gpu_latency/results

A GEMM takes at least the time at the speed of light, so what it takes over the skeleton can only
rise with the light's share of the skeleton's time. scikit-learn's histogram trees, with and
without that as a constraint, on the same skeleton; the shipped trees have no constraints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from run import sampled_shapes
from sklearn.ensemble import HistGradientBoostingRegressor

from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.samples import LEAST_GEMM
from hwmodels.fit.measurement import read_aiconfigurator
from hwmodels.fit.residual import CORRECTION, Model, fit_model

RISING = ("compute_light", "memory_light")
SHARE = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    table = read_aiconfigurator(arguments.aiconfigurator)
    table = table[sampled_shapes(table, SHARE)].reset_index(drop=True)
    rows = [errors(table, device) for device in sorted(table["device"].unique())]
    frame = pd.DataFrame(rows)
    frame.to_csv(arguments.output / "monotone.csv", index=False, float_format="%.4g")
    print(frame.to_string(index=False, float_format="%.2f"))


def errors(table: pd.DataFrame, device: str) -> dict[str, object]:
    """Mean error in percent on a device left out, without trees and with both kinds."""
    kept = table[table["device"] != device].reset_index(drop=True)
    held = table[table["device"] == device].reset_index(drop=True)
    model = fit_model(kept)
    predicted = {
        "skeleton": model.skeleton_s(held),
        "free": corrected(model, kept, held, ()),
        "monotone": corrected(model, kept, held, RISING),
    }
    measured = held["latency_s"].to_numpy()
    return {
        "device": device,
        **{name: 100 * np.abs(s / measured - 1).mean() for name, s in predicted.items()},
    }


def corrected(
    model: Model, kept: pd.DataFrame, held: pd.DataFrame, rising: tuple[str, ...]
) -> np.ndarray:
    """Seconds of `held` with trees that rise along some features."""
    known, asked = model.account(kept), model.account(held)
    left = kept["latency_s"].to_numpy() - known.overhead_s(kept, model.overheads)
    weights = 1 / kept.groupby(["device", "runtime", "dtype"])["k"].transform("size")
    trees = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=CORRECTION.trees,
        max_depth=CORRECTION.depth,
        min_samples_leaf=CORRECTION.leaf_rows,
        learning_rate=CORRECTION.rate,
        monotonic_cst=[int(name in rising) for name in FEATURES],
        random_state=0,
    )
    target = np.log(np.maximum(left / known.gemm_s, LEAST_GEMM))
    trees.fit(known.features, target, sample_weight=weights)
    gemm = asked.gemm_s * np.exp(trees.predict(asked.features))
    return np.maximum(gemm + asked.overhead_s(held, model.overheads), asked.light_s)


if __name__ == "__main__":
    main()
