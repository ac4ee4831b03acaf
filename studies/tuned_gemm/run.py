"""What do the best kernels of aiter's tuner take on an MI300X?

Usage: python -m studies.tuned_gemm.run --aiter TABLE.csv.gz

Writes `results/left_out.csv`: by type and rows M, mean |error| on files (networks) that were left
out, of a roofline, of the GEMM model of other runtimes, of the constants alone and of the trees
upon them; the share in the interval that the other files give. Int8, which has one file, is
predicted by the block-scaled rows alone. Prints the README's table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.learned_tuned import load_tuned
from hwmodels.fit.tuned import BLOCK, TunedRows, fit_tuned, intervals, read_aiter, sampled
from hwmodels.runtimes.load import load_runtime

RESULTS = Path(__file__).parent / "results"
RANGES = (1, 64, 512, 4096, 32768)
"""Lower ends of ranges of M."""
BEFORE = "vllm"
"""The runtime whose GEMM model was the best there was for these rows."""
SEED = 0
NAMES = (
    "type", "M from", "rows", "roofline", "as vLLM's", "constants", "with trees", "bias", "inside",
)  # fmt: skip


def errors(rows: TunedRows) -> pd.DataFrame:
    """log(measured / predicted) of every row, predicted by other files or the other type."""
    table = rows.table
    whole = [replace(kernel, efficiency=1.0) for kernel in rows.kernels]
    costs = GpuEstimator().estimate(whole, rows.device, load_runtime(BEFORE))
    before = [cost.latency_s for cost in costs]
    found = table.assign(
        light=np.zeros(len(table)), before=rows.measured - np.log(before),
        constants=0.0, trees=0.0, low=0.0, high=0.0,
    )  # fmt: skip
    parts = {}
    for file in sorted(table["file"].unique()):
        held = np.flatnonzero(table["file"] == file)
        rest = rows.take(np.flatnonzero(table["file"] != file))
        model = fit_tuned(rest, SEED)
        own = rows.take(held)
        terms, _ = own.account(model.constants, model.block)
        parts[file] = (held, model.log_errors(own, 1.0), own.weights)
        found.loc[held, "light"] = own.measured - np.log(terms.light_s)
        found.loc[held, "constants"] = model.log_errors(own, 0.0)
        found.loc[held, "trees"] = parts[file][1]
    block = set(table["file"][table["dtype"] == BLOCK])
    for file, (held, _, _) in parts.items():
        others = [one for name, one in parts.items() if name != file and name in block]
        ends = intervals(
            np.concatenate([log for _, log, _ in others]),
            np.concatenate([weights for *_, weights in others]),
        )
        low, high = ends["seen" if file in block else "other type"]
        found.loc[held, ["low", "high"]] = low, high
    return found


def scored(found: pd.DataFrame) -> pd.DataFrame:
    lower = np.array(RANGES)[np.searchsorted(RANGES, found["m"], side="right") - 1]
    rows = []
    for dtype, of_type in found.assign(lower=lower).groupby("dtype"):
        groups = [("all", of_type), *of_type.groupby("lower")]
        for name, group in groups:
            held = (group["trees"] >= group["low"]) & (group["trees"] <= group["high"])
            rows.append(
                {
                    "type": dtype,
                    "from": name,
                    "rows": len(group),
                    **{
                        column: percent(np.abs(np.exp(-group[column]) - 1).mean())
                        for column in ("light", "before", "constants", "trees")
                    },
                    "bias": percent(np.exp(-group["trees"].median()) - 1),
                    "inside": percent(held.mean()),
                }
            )
    return pd.DataFrame(rows)


def percent(share: float) -> float:
    return round(100 * float(share), 1)


def published() -> str:
    """The README's table, from `results/`."""
    table = pd.read_csv(RESULTS / "left_out.csv")
    lines = [f"| {' | '.join(NAMES)} |", "|" + "---|" * len(NAMES)]
    rows = table.to_numpy(dtype=object)
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiter", type=Path, required=True)
    given = parser.parse_args()
    rows = TunedRows.of(sampled(read_aiter(given.aiter), SEED))
    scored(errors(rows)).to_csv(RESULTS / "left_out.csv", index=False, lineterminator="\n")
    print(published())
    ends = load_tuned().ends
    print({name: round(float(np.exp(high - low)), 2) for name, (low, high) in ends.items()})


if __name__ == "__main__":
    main()
