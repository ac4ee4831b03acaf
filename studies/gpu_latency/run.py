"""The protocol over measured GEMMs: devices, families, number types and cells left out.

    python studies/gpu_latency/run.py --aiconfigurator DIR -o studies/gpu_latency/results

prints and writes every table of GEMMs that README.md cites. Nothing of what is left out is used
before it is reported: constants, overheads, trees, intervals and the choice between skeleton and
skeleton times residual come from the rest, the latter two by leaving out each of its devices.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import baseline
import choice
import numpy as np
import pandas as pd
from score import interval_scores, scores

from hwmodels.estimators.gpu_overhead import has_overhead
from hwmodels.estimators.gpu_residual import regimes
from hwmodels.fit.few_shot import adapt, adapted_latency_s
from hwmodels.fit.measurement import read_aiconfigurator
from hwmodels.fit.residual import Model, fit_model, spread_of
from hwmodels.number_type import NUMBER_TYPES

SAMPLES = (0, 3, 10, 30, 100)
SEEDS = 10
SCORED_ROWS = 3000
SHAPE_FOLDS = 3
Rows = list[dict[str, object]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.08)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    arguments = parser.parse_args()
    table = read_aiconfigurator(arguments.aiconfigurator)
    table = table[sampled_shapes(table, arguments.share)].reset_index(drop=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for part in arguments.only:
        found: dict[str, Rows] = {}
        for name, row in PARTS[part](table):
            found.setdefault(name, []).append(row)
        for name, rows in found.items():
            frame = pd.DataFrame(rows)
            frame.to_csv(arguments.output / f"{name}.csv", index=False, float_format="%.4g")
            print(f"\n{name}\n{frame.to_string(index=False, float_format='%.3f')}", flush=True)


def sampled_shapes(table: pd.DataFrame, share: float) -> np.ndarray:
    """Rows of a fixed share of the shapes, the same on every device."""
    hashed = pd.util.hash_pandas_object(table[["m", "n", "k"]], index=False).to_numpy()
    return hashed % 1000 < 1000 * share


def split(table: pd.DataFrame, held: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is kept and what is left out."""
    return table[~held].reset_index(drop=True), table[held].reset_index(drop=True)


def devices(table: pd.DataFrame) -> Iterator[tuple[str, dict[str, object]]]:
    """Each device left out: models, groups, regimes, intervals, choice of format, few samples."""
    for device in sorted(table["device"].unique()):
        kept, held = split(table, (table["device"] == device).to_numpy())
        model = fit_model(kept)
        inner = inner_errors(kept)
        account = model.account(held)
        guesses = {
            "roofline": baseline.roofline(held),
            "boosted trees": baseline.boosted_trees(kept, held),
            "boosted trees, L2": baseline.boosted_trees(kept, held, with_cache=True),
            "skeleton": model.skeleton_s(held, account),
            "product": model.latency_s(held, account),
        }
        chosen = min(("skeleton", "product"), key=lambda name: np.abs(inner[name]).mean())
        for name, seconds in guesses.items():
            row = {"device": device, "model": name, "chosen": name == chosen}
            yield "zero_shot", {**row, **scores(held, seconds)}
        seconds = guesses[chosen]
        yield from by_cell(device, kept, held, seconds)
        for regime in ("launch", "memory", "compute"):
            rows = regimes(account.features) == regime
            yield "regimes", {
                "device": device, "regime": regime, "rows": int(rows.sum()),
                **scores(held[rows], seconds[rows]),
            }  # fmt: skip
        spread = spread_of(inner[chosen], inner["features"], inner["device"])
        yield (
            "intervals",
            {"device": device, **interval_scores(held, seconds, account.features, spread)},
        )
        for row in choice.scores(device, kept, held, seconds):
            yield "choice", row
        yield from few_shot(device, model, held)


def inner_errors(kept: pd.DataFrame) -> dict[str, np.ndarray]:
    """log(measured / predicted) of each kept device by a model of the others."""
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("skeleton", "product", "features", "device")
    }
    for device in sorted(kept["device"].unique()):
        others, held = split(kept, (kept["device"] == device).to_numpy())
        model = fit_model(others)
        account = model.account(held)
        measured = held["latency_s"].to_numpy()
        parts["skeleton"].append(np.log(measured / model.skeleton_s(held, account)))
        parts["product"].append(np.log(measured / model.latency_s(held, account)))
        parts["features"].append(account.features)
        parts["device"].append(held["device"].to_numpy(dtype=str))
    return {name: np.concatenate(values) for name, values in parts.items()}


def by_cell(
    device: str, kept: pd.DataFrame, held: pd.DataFrame, seconds: np.ndarray
) -> Iterator[tuple[str, dict[str, object]]]:
    """Errors by runtime and number type, and what the model had to learn them from."""
    known = {tuple(pair) for pair in kept[["runtime", "dtype"]].drop_duplicates().to_numpy()}
    frame = held.assign(log=np.log(seconds / held["latency_s"]), seconds=seconds)
    for (runtime, dtype), rows in frame.groupby(["runtime", "dtype"]):
        elsewhere = dtype in set(kept["dtype"])
        learned = "measured" if (runtime, dtype) in known else "other runtimes"
        yield "cells", {
            "device": device, "runtime": runtime, "dtype": dtype, "rows": len(rows),
            "learned_from": learned if elsewhere or not has_overhead(NUMBER_TYPES[dtype])
            else "analytic only",
            "bias": rows["log"].median(),
            "mape": 100 * (rows["seconds"] / rows["latency_s"] - 1).abs().mean(),
        }  # fmt: skip


def few_shot(
    device: str, model: Model, held: pd.DataFrame
) -> Iterator[tuple[str, dict[str, object]]]:
    """`k` samples of each runtime and number type, drawn at random; scored on the rest.

    Beside them a model of 70 % of the device's own shapes, scored on the same rows.
    """
    scored = held.sample(min(SCORED_ROWS, len(held)), random_state=1)
    pool = held.drop(scored.index).reset_index(drop=True)
    scored = scored.reset_index(drop=True)
    for count in SAMPLES:
        found = []
        for seed in range(SEEDS if count else 1):
            seconds = model.latency_s(scored)
            if count:
                shuffled = pool.sample(frac=1.0, random_state=seed)
                drawn = shuffled.groupby(["runtime", "dtype"]).head(count).reset_index(drop=True)
                seconds = adapted_latency_s(model, adapt(model, drawn), scored)
            found.append(scores(scored, seconds))
        frame = pd.DataFrame(found)
        yield "few_shot", {
            "device": device, "samples_per_group": count, "seeds": len(frame),
            **frame.mean().to_dict(), "mape_all_sd": frame["mape_all"].std(ddof=0),
        }  # fmt: skip
    own = fit_model(pool, constants=model.constants)
    yield "few_shot", {
        "device": device, "samples_per_group": -1, "seeds": 1,
        **scores(scored, own.latency_s(scored)), "mape_all_sd": 0.0,
    }  # fmt: skip


def types(table: pd.DataFrame) -> Iterator[tuple[str, dict[str, object]]]:
    """Each number type left out on every device."""
    for dtype in sorted(table["dtype"].unique()):
        kept, held = split(table, (table["dtype"] == dtype).to_numpy())
        model = fit_model(kept)
        account = model.account(held)
        for name, seconds in (
            ("skeleton", model.skeleton_s(held, account)),
            ("product", model.latency_s(held, account)),
        ):
            for device, rows in held.assign(seconds=seconds).groupby("device"):
                yield "types", {
                    "left_out": dtype, "device": device, "model": name,
                    **scores(rows, rows["seconds"].to_numpy()),
                }  # fmt: skip


def device_types(table: pd.DataFrame) -> Iterator[tuple[str, dict[str, object]]]:
    """One number type left out on one device: its bf16 and the type elsewhere are known."""
    pairs = table[table["dtype"] != "bf16"][["device", "dtype"]].drop_duplicates()
    for device, dtype in sorted(map(tuple, pairs.to_numpy())):
        held_rows = ((table["device"] == device) & (table["dtype"] == dtype)).to_numpy()
        kept, held = split(table, held_rows)
        seconds = fit_model(kept).latency_s(held)
        yield "device_types", {
            "device": device, "dtype": dtype,
            "learned_from": "measured" if dtype in set(kept["dtype"]) else "analytic only",
            **scores(held, seconds),
        }  # fmt: skip


_Part = Callable[[pd.DataFrame], Iterator[tuple[str, dict[str, object]]]]
PARTS: dict[str, _Part] = {"devices": devices, "types": types, "device_types": device_types}
"""What the tables are made of. A family is one device here: leaving it out is the same."""


if __name__ == "__main__":
    main()
