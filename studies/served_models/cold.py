"""Does what warm tables teach of GEMMs hold for cold weights? Trees of warm rows on cold ones.

Usage: python -m studies.served_models.cold --aiconfigurator DIR --torch-ops OPS.csv.gz

An H100's trees are fitted to warm rows of serving runtimes alone (bf16 and fp8), and asked for the
rows that torch was timed at with flushed caches. Writes `results/cold.csv`: mean |error| without
trees, with all of their correction, and with the share that `estimators/gpu/coldness.py` leaves;
the slope of measured on predicted deviation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.coldness import holding_share
from hwmodels.estimators.gpu.kinship import Kin
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.estimators.gpu.skeleton import Floats, GpuFigures
from hwmodels.fit.measurement import read_aiconfigurator, read_torch_ops
from hwmodels.fit.predict import predict
from hwmodels.fit.residual import fit_model
from hwmodels.operators.lower import compute_elements, op_kernels

RESULTS = Path(__file__).parent / "results"
DEVICE = "h100-sxm"
WARM = ("bf16", "fp8_dynamic")
COLD = ("bf16", "fp8")
ROWS = 9000
SEED = 0
RUNTIMES = ("tensorrt-llm", "vllm", "sglang")


def shares(table: pd.DataFrame, runtime: str) -> Floats:
    """The share of a correction that counts for each row's GEMM as a network reads it."""
    device = load_device(DEVICE)
    kernels = [
        op_kernels(
            "gemm",
            {"M": int(row["m"]), "N": int(row["n"]), "K": int(row["k"])},
            row["dtype"],
            compute_elements(row["dtype"], device),
            cold=True,
        )[-1]
        for row in table.to_dict("records")
    ]
    return holding_share(kernels, runtime, GpuFigures.of(device), load_artefact().constants)


def compared(warm: pd.DataFrame, cold: pd.DataFrame) -> pd.DataFrame:
    """Errors on cold rows by runtime whose trees are asked, and by what the table's cache held."""
    constants = load_artefact().constants
    model = fit_model(warm, SEED, constants)
    account = predict(cold, constants)
    missed = np.log(cold["latency_s"].to_numpy(dtype=float) / account.gemm_s)
    found = []
    for runtime in RUNTIMES:
        learned = model.learned.correction(account.features, runtime, Kin.of(load_device(DEVICE)))
        share = shares(cold, runtime)
        for held, rows in (("held", share < 1), ("not held", share == 1), ("all", share >= 0)):
            found.append(
                {
                    "runtime": runtime,
                    "weights": held,
                    "rows": int(rows.sum()),
                    "no_trees": _error(missed[rows]),
                    "trees": _error((missed - learned)[rows]),
                    "by_share": _error((missed - share * learned)[rows]),
                    "slope": round(
                        float(learned[rows] @ missed[rows] / (learned[rows] @ learned[rows])), 2
                    ),
                }
            )
    return pd.DataFrame(found)


def _error(log: Floats) -> float:
    return round(100 * float(np.abs(np.exp(-log) - 1).mean()), 1)


def main() -> None:
    """Print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True, metavar="DIR")
    parser.add_argument("--torch-ops", type=Path, required=True)
    given = parser.parse_args()
    warm = read_aiconfigurator(given.aiconfigurator)
    warm = warm[(warm["device"] == DEVICE) & warm["dtype"].isin(WARM)]
    cold = read_torch_ops(given.torch_ops)
    table = compared(
        warm.sample(ROWS, random_state=SEED).reset_index(drop=True),
        cold[cold["dtype"].isin(COLD)].reset_index(drop=True),
    )
    table.to_csv(RESULTS / "cold.csv", index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
