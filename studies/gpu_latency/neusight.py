"""Operators of NeuSight's test split in fp32, on GPUs that the shipped estimator never saw.

    python studies/gpu_latency/neusight.py --neusight DIR -o studies/gpu_latency/results

NeuSight (Lee et al. 2025, arXiv:2407.13853) is trained on the training split of these very GPUs;
its published errors are on others. Ours come from the device files alone, then with `SAMPLES`
rows of each kind, scored on the others. The training split is not used: its operators are small,
and their times are those of eager PyTorch's launches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.adapt.few_shot import with_measurements
from hwmodels.adapt.prediction import predict_ops
from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.operators.measured import measurements_of
from hwmodels.operators.optable import OpTable, read_optable

DEVICES = {
    "NVIDIA A100-PCIE-40GB": "a100-sxm-40gb", "Tesla T4": "t4",
    "Tesla V100-PCIE-32GB": "v100-sxm2",
}  # fmt: skip
"""The devices that a file is shipped for, or one for a sibling with another board."""
KINDS = {
    "linear": ("linear", {"linear": "gemm"}),
    "bmm": ("bmm", {"bmm": "bmm"}),
    "elementwise": ("elem", {name: name for name in ("add", "mul", "relu", "gelu")}),
    "softmax": ("softmax", {"softmax": "softmax"}),
    "layer norm": ("ln", {"ln": "layernorm"}),
}
"""By kind: file of the test split, of the training split, and names of operators."""
SIZES = {"gemm": "MNK", "bmm": "BMNK"}
RUNTIME = "torch-eager"
SAMPLES = 30
SEEDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neusight", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [
        row
        for kind, (name, ops) in KINDS.items()
        for row in of_kind(
            kind,
            operators(arguments.neusight / f"nvidia_test_{name}.csv.gz", ops),
            arguments.output,
        )
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(arguments.output / "neusight.csv", index=False, float_format="%.4g")
    print(frame.to_string(index=False, float_format="%.1f"))


def operators(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """Rows of a file in the columns of an operator table; linear layers have no batch."""
    frame = pd.read_csv(path)
    frame = frame[frame["OPName"].isin(names) & frame["Device"].isin(DEVICES)]
    ops = frame["OPName"].map(names)
    shapes = [
        {size: int(row[size]) for size in SIZES[op]}
        if op in SIZES
        else {"rows": int(row["B"]), "cols": int(row["H"])}
        for op, (_, row) in zip(ops, frame.iterrows(), strict=True)
    ]
    table = pd.DataFrame(
        {
            "op": ops, "shape": [json.dumps(shape) for shape in shapes], "dtype": "fp32",
            "median_us": frame["Latency"] * 1e3, "gpu": frame["Device"].map(DEVICES),
        }
    )  # fmt: skip
    return table.drop_duplicates(["op", "shape", "gpu"])


def of_kind(kind: str, table: pd.DataFrame, folder: Path) -> list[dict[str, object]]:
    """Errors on each device, without samples and with some."""
    found = []
    for name in DEVICES.values():
        device = load_device(name)
        rows = table[table["gpu"] == name]
        fitted = []
        for seed in range(SEEDS):
            drawn = rows.sample(SAMPLES, random_state=seed)
            others = table_of(rows.drop(drawn.index), folder)
            fitted.append(errors(others, knowing(device, drawn, folder)))
        found.append(
            {
                "kind": kind, "device": name, "rows": len(rows),
                "mape": errors(table_of(rows, folder), device),
                f"mape_{SAMPLES}_samples": float(np.mean(fitted)),
            }
        )  # fmt: skip
    return found


def table_of(rows: pd.DataFrame, folder: Path) -> OpTable:
    path = folder / "neusight-rows.csv"
    rows.to_csv(path, index=False)
    table = read_optable(path, timed=True)
    path.unlink()
    return table


def knowing(device: Device, rows: pd.DataFrame, folder: Path) -> Device:
    """The device with measurements."""
    table = table_of(rows, folder)
    return with_measurements(device, measurements_of(table, range(len(table.ops)), RUNTIME))


def errors(table: OpTable, device: Device) -> float:
    """Mean absolute error in percent."""
    frame = predict_ops(table, device, RUNTIME)
    return 100 * float((frame["predicted_us"] / frame["median_us"] - 1).abs().mean())


if __name__ == "__main__":
    main()
