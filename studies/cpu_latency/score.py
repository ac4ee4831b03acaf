"""Errors of predictions on real layers, by runtime and number type: `results/test.csv`.

`--device` is `zen4-2c` by default, whose constants were fitted to `results/fit.csv`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.load import load_device
from hwmodels.operators.optable import read_optable

HERE = Path(__file__).parent


def scored(table: Path, device: str) -> pd.DataFrame:
    """Rows with their predictions and relative errors."""
    found = predict_ops(read_optable(table, timed=True), load_device(device), "torch-cpu")
    return found.assign(error=(found["predicted_us"] / found["median_us"] - 1).abs())


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Median and 90th percentile of the error, rank correlation, share inside the interval."""
    times = rows["median_us"]
    inside = (times >= rows["low_us"]) & (times <= rows["high_us"])
    return {
        "rows": len(rows),
        "median_error": float(rows["error"].median()),
        "p90_error": float(np.quantile(rows["error"], 0.9)),
        "spearman": float(spearmanr(times, rows["predicted_us"]).statistic),
        "inside": float(inside.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=HERE / "results" / "test.csv")
    parser.add_argument("--device", default="zen4-2c")
    arguments = parser.parse_args()
    rows = scored(arguments.table, arguments.device)
    groups = {"all": rows}
    for (runtime, dtype), part in rows.groupby(["runtime", "dtype"]):
        groups[f"{runtime} {dtype}"] = part
        layers = part[part["op"].isin(["gemm", "conv2d"])]
        groups[f"{runtime} {dtype}, products and convolutions"] = layers
    print(pd.DataFrame({name: summary(part) for name, part in groups.items() if len(part) > 2}).T
          .round(3).to_string())  # fmt: skip


if __name__ == "__main__":
    main()
