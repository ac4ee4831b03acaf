"""An H100 measured by `dse profile`: is it repeatable, and what do predictions err by on it?

    python studies/profile_h100/run.py -o studies/profile_h100/results

prints and writes the tables that README.md cites. `results/ops.csv.gz` and `results/repeat.csv.gz`
are the measurements; nothing else is read but the shipped device files and estimator.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.adapt.few_shot import with_measurements
from hwmodels.adapt.next_measurements import next_measurements
from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.operators.measured import measurements_of
from hwmodels.operators.optable import OpTable, read_optable

HERE = Path(__file__).parent
FIRST = HERE.parents[1] / "tests" / "data" / "h100_ops.csv.gz"
"""Another H100, measured with another program by the same protocol (data/h100_torch)."""
RUNTIME = "torch-eager"
SAMPLES = (3, 10, 30, 100)
SEEDS = 5
START = ("h100-sxm", "h100-pcie")
"""Device files to adapt: the device's own, and that of a slower sibling as a wrong beginning."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results")
    output: Path = parser.parse_args().output
    first = read_optable(FIRST, timed=True)
    again = read_optable(HERE / "results" / "repeat.csv.gz", timed=True)
    profiled = read_optable(HERE / "results" / "ops.csv.gz", timed=True)
    unseen = without(profiled, keys(first))
    print(f"{len(profiled.ops)} rows profiled, {len(unseen.ops)} of shapes never seen")
    tables = {
        "repeatability": repeatability(first, again),
        "unseen": unseen_errors(unseen),
        "few_shot": few_shot(unseen),
        "energy": energy(profiled),
    }
    for name, table in tables.items():
        table.to_csv(output / f"{name}.csv", index=False, float_format="%.3g")
        print(f"\n## {name}\n{table.to_string(index=False, float_format='{:.3g}'.format)}")


def keys(table: OpTable) -> list[tuple[object, ...]]:
    rows = zip(table.ops, table.shapes, table.dtypes, strict=True)
    return [(op, tuple(sorted(shape.items())), dtype) for op, shape, dtype in rows]


def without(table: OpTable, known: list[tuple[object, ...]]) -> OpTable:
    seen = set(known)
    return table.take(np.flatnonzero([key not in seen for key in keys(table)]))


def repeatability(first: OpTable, again: OpTable) -> pd.DataFrame:
    """Second time over first, by operator; small rows are those below 10 microseconds."""
    before = dict(zip(keys(first), first.frame["median_us"], strict=True))
    frame = pd.DataFrame(
        {
            "op": again.ops,
            "ratio": again.frame["median_us"] / [before[key] for key in keys(again)],
            "small": [before[key] < 10 for key in keys(again)],
        }
    )
    parts = {"all": frame, "all, 10 us and more": frame[~frame["small"]]}
    parts |= {str(op): rows for op, rows in frame.groupby("op")}
    return pd.DataFrame(
        {
            "rows": len(rows),
            "median_ratio": rows["ratio"].median(),
            "mean_deviation_%": 100 * (rows["ratio"] - 1).abs().mean(),
            "within_10_%": 100 * ((rows["ratio"] - 1).abs() <= 0.1).mean(),
            "op": name,
        }
        for name, rows in parts.items()
    )[["op", "rows", "median_ratio", "mean_deviation_%", "within_10_%"]]


def predicted(table: OpTable, device: Device) -> pd.DataFrame:
    """Relative errors, and whether the interval holds the time."""
    frame = predict_ops(table, device, RUNTIME)
    times = frame["median_us"]
    return frame.assign(
        error=frame["predicted_us"] / times - 1,
        inside=(times >= frame["low_us"]) & (times <= frame["high_us"]),
        width=frame["high_us"] / frame["low_us"],
    )


def unseen_errors(table: OpTable) -> pd.DataFrame:
    """The shipped estimator on shapes that were not in its tables, by runtime, operator, type."""
    frame = predicted(table, load_device("h100-sxm"))
    groups: list[tuple[tuple[str, ...], pd.DataFrame]] = [(("all", "", ""), frame)]
    groups += [((str(run), "all", ""), rows) for run, rows in frame.groupby("runtime")]
    by = ["runtime", "op", "dtype"]
    groups += [(tuple(map(str, key)), rows) for key, rows in frame.groupby(by)]
    return pd.DataFrame(
        {
            **dict(zip(by, key, strict=True)),
            "rows": len(rows),
            "median_error_%": 100 * rows["error"].abs().median(),
            "mean_error_%": 100 * rows["error"].abs().mean(),
            "bias_%": 100 * rows["error"].median(),
            "inside_%": 100 * rows["inside"].mean(),
            "high_over_low": rows["width"].median(),
        }
        for key, rows in groups
    )


def few_shot(table: OpTable) -> pd.DataFrame:
    """Errors on the rows that were not drawn, after fitting to k that were."""
    eager = table.take(np.flatnonzero(table.frame["runtime"] == RUNTIME))
    rows = []
    for name in START:
        device = load_device(name)
        rows.append({"device_file": name, "drawn": "none", "k": 0, **scores([(eager, device)])})
        for count in SAMPLES:
            for how in ("random", "suggested"):
                pairs = [
                    fitted(eager, drawn(eager, device, count, how=how, seed=seed), device)
                    for seed in range(SEEDS if how == "random" else 1)
                ]
                rows.append({"device_file": name, "drawn": how, "k": count, **scores(pairs)})
    return pd.DataFrame(rows)


def drawn(table: OpTable, device: Device, count: int, *, how: str, seed: int) -> np.ndarray:
    every = np.arange(len(table.ops))
    if how == "random":
        return np.random.default_rng(seed).permutation(every)[:count]
    return next_measurements(table, every, device, runtime=RUNTIME, count=count)


def fitted(table: OpTable, rows: np.ndarray, device: Device) -> tuple[OpTable, Device]:
    """What was not drawn, and the device that knows what was."""
    rest = table.take(np.setdiff1d(np.arange(len(table.ops)), rows))
    return rest, with_measurements(device, measurements_of(table, rows, RUNTIME))


def scores(pairs: list[tuple[OpTable, Device]]) -> dict[str, float]:
    """Means over draws, and the standard deviation of the first figure."""
    found = []
    for table, device in pairs:
        frame = predicted(table, device)
        gemms = frame["op"].isin(("gemm", "bmm"))
        found.append(
            {
                "median_error_%": 100 * frame["error"].abs().median(),
                "gemm_median_error_%": 100 * frame[gemms]["error"].abs().median(),
                "others_median_error_%": 100 * frame[~gemms]["error"].abs().median(),
                "inside_%": 100 * frame["inside"].mean(),
                "high_over_low": frame["width"].median(),
            }
        )
    frame = pd.DataFrame(found)
    means = {str(name): mean for name, mean in frame.mean().items()}
    return {**means, "sd": frame["median_error_%"].std(ddof=0)}


def energy(table: OpTable) -> pd.DataFrame:
    """Energy of a call with the predicted time, where it was measured."""
    rows = table.take(np.flatnonzero(table.frame["energy_mj"].notna()))
    frame = predict_ops(rows, load_device("h100-sxm"), RUNTIME)
    error = frame["predicted_energy_mj"] / frame["energy_mj"] - 1
    long = frame["median_us"] >= 10
    return pd.DataFrame(
        {
            "part": part,
            "rows": int(chosen.sum()),
            "median_error_%": 100 * error[chosen].abs().median(),
            "mean_error_%": 100 * error[chosen].abs().mean(),
            "bias_%": 100 * error[chosen].median(),
        }
        for part, chosen in (("10 us and more", long), ("below 10 us", ~long))
    )


if __name__ == "__main__":
    main()
