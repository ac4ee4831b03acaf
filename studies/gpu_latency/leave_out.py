"""Each device left out in turn: errors, cells, regimes, intervals, choice of format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import baseline
import choice
import kinship
import numpy as np
import pandas as pd
from few import few_shot
from real import standing, weighted_mape
from score import interval_errors, interval_scores, scores

from hwmodels.estimators.gpu.overhead import has_overhead
from hwmodels.estimators.gpu.residual import regimes
from hwmodels.fit.few_shot import forecast
from hwmodels.fit.residual import Model
from hwmodels.fit.spread import DeviceFits
from hwmodels.operators.number_type import NUMBER_TYPES

Row = tuple[str, dict[str, object]]


def devices(
    table: pd.DataFrame, whole: pd.DataFrame, gemms: pd.DataFrame, fits: DeviceFits | None = None
) -> Iterator[Row]:
    """Tables of every device left out, and of all their rows together.

    `whole` is the table that `table` is a share of; `gemms` are those of real networks, whose
    nearest shapes are looked up in it.
    """
    fits = fits or DeviceFits(table)
    real = standing(whole, gemms)
    names = sorted(table["device"].unique())
    pooled = []
    for device in names:
        others = [name for name in names if name != device]
        model = fits.whole(others)
        kept = table[table["device"] != device].reset_index(drop=True)
        held = table[table["device"] == device].reset_index(drop=True)
        real_held = real[real["device"] == device].reset_index(drop=True)
        yield from zero_shot(device, model, kept, held, real_held)
        found = forecast(model, (), held)
        held = held.assign(seconds=found.latency_s, low=found.low_s, high=found.high_s)
        real_held = real_held.assign(seconds=model.latency_s(real_held))
        yield from by_cell(device, kept, held)
        yield from by_regime(device, model, held)
        errors = interval_errors(held, found)
        pooled.append(errors)
        yield "intervals", {"left_out": device, **interval_scores(errors)}
        for row in choice.scores(device, kept, held, real_held):
            yield "choice", row
        yield from few_shot(device, model, held)
    yield "intervals", {"left_out": "all rows", **interval_scores(pd.concat(pooled))}
    for row in kinship.grid(fits, table):
        yield "kinship", row


def zero_shot(
    device: str, model: Model, kept: pd.DataFrame, held: pd.DataFrame, real: pd.DataFrame
) -> Iterator[Row]:
    """Baselines, the skeleton alone, and with what related devices say."""

    def guesses(rows: pd.DataFrame) -> dict[str, np.ndarray]:
        account = model.account(rows)
        return {
            "roofline": baseline.roofline(rows),
            "boosted trees": baseline.boosted_trees(kept, rows),
            "boosted trees, L2": baseline.boosted_trees(kept, rows, with_cache=True),
            "skeleton": model.skeleton_s(rows, account),
            "by kinship": model.latency_s(rows, account),
        }

    everywhere, in_networks = guesses(held), guesses(real)
    for name, seconds in everywhere.items():
        yield "zero_shot", {
            "device": device, "model": name,
            **scores(held, seconds), "mape_real": weighted_mape(real, in_networks[name]),
        }  # fmt: skip


def by_cell(device: str, kept: pd.DataFrame, held: pd.DataFrame) -> Iterator[Row]:
    """Errors by runtime and number type, and what the model had to learn them from."""
    known = {tuple(pair) for pair in kept[["runtime", "dtype"]].drop_duplicates().to_numpy()}
    for key, rows in held.groupby(["runtime", "dtype"]):
        runtime, dtype = map(str, cast("tuple[str, str]", key))
        elsewhere = dtype in set(kept["dtype"])
        learned = "measured" if (runtime, dtype) in known else "other runtimes"
        ratio = rows["seconds"] / rows["latency_s"]
        yield "cells", {
            "device": device, "runtime": runtime, "dtype": dtype, "rows": len(rows),
            "learned_from": learned if elsewhere or not has_overhead(NUMBER_TYPES[dtype])
            else "analytic only",
            "bias": ratio.map(np.log).median(),
            "mape": 100 * (ratio - 1).abs().mean(),
            "inside": float(rows["latency_s"].between(rows["low"], rows["high"]).mean()),
        }  # fmt: skip


def by_regime(device: str, model: Model, held: pd.DataFrame) -> Iterator[Row]:
    """Errors by what the skeleton takes for the bound of each row."""
    regime = regimes(model.account(held).features)
    for name in ("launch", "memory", "compute"):
        rows = held[regime == name]
        yield "regimes", {
            "device": device, "regime": name, "rows": len(rows),
            **scores(rows, rows["seconds"].to_numpy()),
        }  # fmt: skip
