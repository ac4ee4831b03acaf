"""A few samples of a device that was left out: errors and intervals on its other rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from score import interval_errors, interval_scores, scores

from hwmodels.adapt.next_measurements import Block
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.gemm_correction import LEAST_NOISE_SD, NOISE_SHARE, covariance
from hwmodels.estimators.gpu.kinship import Kin
from hwmodels.fit.few_shot import adapt, forecast
from hwmodels.fit.residual import Model, runs

SAMPLES = (0, 10, 100)
SEEDS = 3
SCORED_ROWS = 1000
POOL = 500
"""Rows of which some are suggested."""


def few_shot(
    device: str, model: Model, held: pd.DataFrame
) -> Iterator[tuple[str, dict[str, object]]]:
    """`k` samples over all runtimes and number types; scored on the rest.

    Suggested ones are those that leave the least doubt about a pool, as `dse fit` takes them;
    random ones are the first of a shuffled table.
    """
    scored = held.sample(min(SCORED_ROWS, len(held) // 3), random_state=1)
    pool = held.drop(scored.index).reset_index(drop=True)
    scored = scored.reset_index(drop=True)
    for count in SAMPLES:
        for drawn in ("suggested", "random") if count else ("none",):
            found = []
            for seed in range(SEEDS if count else 1):
                rows = pool.sample(frac=1.0, random_state=seed).reset_index(drop=True)
                if drawn == "suggested":
                    rows = suggested(model, rows.head(POOL), count)
                samples = adapt(model, rows.head(count)) if count else ()
                predicted = forecast(model, samples, scored)
                intervals = interval_scores(interval_errors(scored, predicted))
                found.append({**scores(scored, predicted.latency_s), **intervals})
            frame = pd.DataFrame(found)
            yield "few_shot", {
                "device": device, "samples": count, "drawn": drawn, "seeds": len(frame),
                **{str(name): mean for name, mean in frame.mean().items()},
                "mape_all_sd": frame["mape_all"].std(ddof=0),
                "mape_worst": frame["mape_all"].max(),
            }  # fmt: skip


def suggested(model: Model, pool: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows of a pool that leave the least doubt about the GEMMs of all of it."""
    features = model.account(pool).features
    runtimes = pool["runtime"].to_numpy(dtype=str)
    sd, noise = np.zeros(len(pool)), np.zeros(len(pool))
    for device, runtime, rows in runs(pool):
        kin = Kin.of(load_device(device))
        doubt = model.learned.doubt(features[rows], runtime, kin, np.zeros(len(rows)))
        sd[rows], noise[rows] = doubt.device_sd, NOISE_SHARE * doubt.noise_sd
    block = Block(
        rows=list(range(len(pool))),
        doubt=covariance(features, runtimes, features, runtimes) * np.outer(sd, sd),
        noise=np.maximum(noise, LEAST_NOISE_SD) ** 2,
    )
    block.look()
    return pool.iloc[[block.take() for _ in range(count)]].reset_index(drop=True)
