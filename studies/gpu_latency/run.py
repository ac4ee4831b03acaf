"""Leave one device out over measured GEMMs: skeleton, residual, intervals, choice, few samples.

    python studies/gpu_latency/run.py --aiconfigurator DIR -o studies/gpu_latency/results

prints and writes the tables that README.md cites. Nothing of the left-out device is used before it
is reported: constants, trees, intervals and the choice between skeleton alone and skeleton times
residual come from the other three, the latter two by leaving each of these out in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor

from hwmodels.device_file import load_device
from hwmodels.estimators.gpu_residual import Spread, regimes
from hwmodels.fit.few_shot import adapt, adapted_latency_s
from hwmodels.fit.measurement import read_aiconfigurator
from hwmodels.fit.predict import device_rate
from hwmodels.fit.residual import Model, fit_model, spread_of
from hwmodels.number_type import NUMBER_TYPES

BASELINE_ROWS = 25_000
SAMPLES = (0, 3, 10, 30, 100)
SEEDS = 10
NOTICEABLE = 0.10
"""Choices of a format count where the fastest and the slowest differ by more than this."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.12)
    arguments = parser.parse_args()
    table = read_aiconfigurator(arguments.aiconfigurator)
    table = table[sampled_shapes(table, arguments.share)].reset_index(drop=True)
    results: dict[str, list[dict[str, object]]] = {
        name: [] for name in ("zero_shot", "groups", "intervals", "choice", "few_shot")
    }
    for device in sorted(table["device"].unique()):
        study_device(device, table, results)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, rows in results.items():
        frame = pd.DataFrame(rows)
        frame.to_csv(arguments.output / f"{name}.csv", index=False, float_format="%.4g")
        print(f"\n## {name}\n{frame.to_string(index=False, float_format='{:.3g}'.format)}")


def sampled_shapes(table: pd.DataFrame, share: float) -> np.ndarray:
    """A share of the shapes, the same on every device and in every format."""
    hashed = pd.util.hash_pandas_object(table[["m", "n", "k"]], index=False).to_numpy()
    return hashed % 1000 < share * 1000


def study_device(
    device: str, table: pd.DataFrame, results: dict[str, list[dict[str, object]]]
) -> None:
    """Adds one left-out device to all tables."""
    held = table[table["device"] == device].reset_index(drop=True)
    kept = table[table["device"] != device].reset_index(drop=True)
    model = fit_model(kept)
    inner = inner_errors(kept)
    chosen = min(("skeleton", "product"), key=lambda name: np.abs(inner[name]).mean())
    account = model.account(held)
    guesses = {
        "roofline": roofline(held),
        "boosted trees": baseline(kept, held),
        "skeleton": account.skeleton_s,
        "product": model.latency_s(held),
    }
    for name, seconds in guesses.items():
        results["zero_shot"].append(
            {"device": device, "model": name, "chosen": name == chosen, **scores(held, seconds)}
        )
    results["groups"] += by_group(device, held, guesses[chosen])
    spread = spread_of(inner[chosen], inner["regime"], inner["device"])
    results["intervals"].append(
        {"device": device, **interval_scores(held, guesses[chosen], account.features, spread)}
    )
    results["choice"] += choice_scores(device, kept, held, guesses[chosen])
    results["few_shot"] += few_shot(device, model, held)


def inner_errors(kept: pd.DataFrame) -> dict[str, np.ndarray]:
    """log(measured / predicted) of each training device by a model of the others."""
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("skeleton", "product", "regime", "device")
    }
    for device in sorted(kept["device"].unique()):
        held = kept[kept["device"] == device].reset_index(drop=True)
        model = fit_model(kept[kept["device"] != device].reset_index(drop=True))
        account = model.account(held)
        measured = held["latency_s"].to_numpy()
        parts["skeleton"].append(np.log(measured / account.skeleton_s))
        parts["product"].append(np.log(measured / model.latency_s(held)))
        parts["regime"].append(regimes(account.features))
        parts["device"].append(held["device"].to_numpy(dtype=str))
    return {name: np.concatenate(values) for name, values in parts.items()}


def scores(held: pd.DataFrame, seconds: np.ndarray) -> dict[str, float]:
    measured = held["latency_s"].to_numpy()
    error = np.abs(seconds / measured - 1)
    plain = (held["dtype"] == "bf16").to_numpy()
    return {
        "mape_all": 100 * error.mean(),
        "mape_bf16": 100 * error[plain].mean(),
        "median_abs_log": 100 * float(np.median(np.abs(np.log(seconds / measured)))),
        "within_10": 100 * float((error <= 0.1).mean()),
        "spearman": float(spearmanr(seconds, measured).statistic),
    }


def by_group(device: str, held: pd.DataFrame, seconds: np.ndarray) -> list[dict[str, object]]:
    frame = held.assign(log=np.log(seconds / held["latency_s"]))
    return [
        {
            "device": device, "runtime": runtime, "dtype": dtype, "rows": len(rows),
            "bias": rows["log"].median(), "mean_abs_log": rows["log"].abs().mean(),
        }
        for (runtime, dtype), rows in frame.groupby(["runtime", "dtype"])
    ]  # fmt: skip


def roofline(table: pd.DataFrame) -> np.ndarray:
    """Peak rate and peak bandwidth, the larger time."""
    compute, memory, _ = light(table)
    return np.maximum(compute, memory)


def light(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds of computing and of moving at peak, and the peak rate."""
    compute, memory, rates = (np.zeros(len(table)) for _ in range(3))
    for (device, dtype), rows in table.groupby(["device", "dtype"]):
        number = NUMBER_TYPES[str(dtype)]
        m, n, k = (rows[size].to_numpy(dtype=float) for size in ("m", "n", "k"))
        rate = device_rate(str(device), number)
        bandwidth = load_device(str(device)).main_memory.bandwidth_bytes_per_s.value
        moved = m * k * number.input_bytes + n * k * number.weight_bytes + 2 * m * n
        compute[rows.index] = 2 * m * n * k / rate
        memory[rows.index] = moved / bandwidth
        rates[rows.index] = rate
    return compute, memory, rates


def baseline(kept: pd.DataFrame, held: pd.DataFrame) -> np.ndarray:
    """Untuned boosted trees on log(latency / roofline): sizes, dtype and device figures."""
    types = sorted(NUMBER_TYPES)

    def inputs(table: pd.DataFrame) -> np.ndarray:
        compute, memory, rates = light(table)
        devices = [load_device(name) for name in table["device"]]
        return np.column_stack(
            [
                *(np.log2(table[size]) for size in ("m", "n", "k")),
                table["dtype"].map(types.index),
                np.log(rates),
                [d.main_memory.bandwidth_bytes_per_s.value for d in devices],
                [d.unit("matrix").count.value for d in devices],
                np.log(compute / memory),
            ]
        )

    rows = kept.sample(min(BASELINE_ROWS, len(kept)), random_state=0).reset_index(drop=True)
    target = np.log(rows["latency_s"].to_numpy() / roofline(rows))
    trees = HistGradientBoostingRegressor(random_state=0).fit(inputs(rows), target)
    return roofline(held) * np.exp(trees.predict(inputs(held)))


def interval_scores(
    held: pd.DataFrame, seconds: np.ndarray, features: np.ndarray, spread: Spread
) -> dict[str, float]:
    kinds = regimes(features)
    low = np.array([spread.low[kind] for kind in kinds])
    high = np.array([spread.high[kind] for kind in kinds])
    log = np.log(held["latency_s"].to_numpy() / seconds)
    miss = np.maximum(low - log, 0) + np.maximum(log - high, 0)
    return {
        "coverage": float(((log >= low) & (log <= high)).mean()),
        "median_high_over_low": float(np.median(np.exp(high - low))),
        "interval_score": float(np.mean(high - low + 2 / 0.1 * miss)),
    }


def choice_scores(
    device: str, kept: pd.DataFrame, held: pd.DataFrame, seconds: np.ndarray
) -> list[dict[str, object]]:
    """Time lost by picking the format that is predicted the fastest, beside a threshold rule."""
    rows = []
    guessed = held.assign(guess=seconds)
    for runtime, group in guessed.groupby("runtime"):
        threshold = best_threshold(kept[kept["runtime"] == runtime])
        measured = pivot(group, "latency_s")
        predicted = pivot(group, "guess").reindex(measured.index)
        if measured.shape[1] < 2 or measured.empty:
            continue
        narrow = [name for name in measured if name != "bf16"]
        best = measured.min(axis=1)
        matters = measured.max(axis=1) > best * (1 + NOTICEABLE)
        ours = picked(measured, predicted.idxmin(axis=1))
        sizes = np.array([m * n * k for m, n, k in measured.index], dtype=float)
        rule = np.where(sizes > threshold, narrow[0], "bf16")
        theirs = picked(measured, pd.Series(rule, index=measured.index))
        bits = picked(measured, pd.Series(narrow[-1], index=measured.index))
        rows.append(
            {
                "device": device, "runtime": runtime, "formats": " ".join(measured.columns),
                "shapes": int(matters.sum()),
                "right": float((ours == best)[matters].mean()),
                "regret": float((ours.sum() - best.sum()) / best.sum()),
                "threshold_right": float((theirs == best)[matters].mean()),
                "threshold_regret": float((theirs.sum() - best.sum()) / best.sum()),
                "narrowest_regret": float((bits.sum() - best.sum()) / best.sum()),
            }
        )  # fmt: skip
    return rows


CHOSEN_FROM = ("bf16", "fp8_dynamic", "nvfp4")


def pivot(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Shapes by format; shapes that were measured in every format of the runtime."""
    rows = table[table["dtype"].isin(CHOSEN_FROM)]
    return rows.pivot_table(index=["m", "n", "k"], columns="dtype", values=column).dropna()


def picked(measured: pd.DataFrame, choice: pd.Series) -> pd.Series:
    columns = measured.columns.get_indexer(choice)
    values = measured.to_numpy()[np.arange(len(measured)), columns]
    return pd.Series(values, index=measured.index)


def best_threshold(kept: pd.DataFrame) -> float:
    """The M N K above which fp8 is best taken to be faster than bf16, on other devices."""
    tables = [pivot(rows, "latency_s") for _, rows in kept.groupby("device")]
    tables = [table for table in tables if {"bf16", "fp8_dynamic"} <= set(table)]
    if not tables:
        return 2.0**33
    both = pd.concat(tables)
    sizes = np.array([m * n * k for m, n, k in both.index], dtype=float)
    candidates = 2.0 ** np.arange(10, 46)
    lost = [np.where(sizes > c, both["fp8_dynamic"], both["bf16"]).sum() for c in candidates]
    return float(candidates[int(np.argmin(lost))])


def few_shot(device: str, model: Model, held: pd.DataFrame) -> list[dict[str, object]]:
    """`k` samples of each runtime and dtype, drawn at random; scored on the rest."""
    rows = []
    evaluated = held.sample(min(4000, len(held)), random_state=1)
    pool = held.drop(evaluated.index)
    evaluated = evaluated.reset_index(drop=True)
    for count in SAMPLES:
        found = []
        for seed in range(SEEDS if 0 < count <= 30 else 1 if count == 0 else 3):
            if count == 0:
                seconds = model.latency_s(evaluated)
            else:
                shuffled = pool.sample(frac=1.0, random_state=seed)
                drawn = shuffled.groupby(["runtime", "dtype"]).head(count).reset_index(drop=True)
                seconds = adapted_latency_s(model, adapt(model, drawn), evaluated)
            found.append(scores(evaluated, seconds))
        frame = pd.DataFrame(found)
        rows.append(
            {
                "device": device, "samples_per_group": count, "seeds": len(frame),
                **frame.mean().to_dict(), "mape_all_sd": frame["mape_all"].std(ddof=0),
            }
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
