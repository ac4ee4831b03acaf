"""What energy does a kernel take, on shapes, kernels and a device that were not measured?

Usage: python -m studies.gpu_energy.run --torch-energy ENERGY.csv.gz --aiconfigurator DIR

Writes `results/h100.csv` (by kernel and number type: mean |error| of the energy of a call at the
measured time and alone, on shapes and on kernels that were left out of the fit),
`results/b200.csv` (the same of a device whose watts nothing was fitted to, by the window that they
were read in, and the share in the interval of the H100's shapes), `results/readings.csv` (how well
the B200's watts repeat) and `results/long.csv` (what long calls draw). Prints the README's tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.energy import energy_j
from hwmodels.fit.energy import DEVICE, Calls, calls_of, fit_energy, read_energy
from hwmodels.fit.measurement import AICONFIGURATOR_TYPES, RUNTIMES

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PROFILE = HERE.parent / "profile_h100" / "results" / "ops.csv.gz"
FOLDS = 5
TAIL = 0.05
"""Share of the errors beyond each end of the interval."""
LEFT_OUT = "b200-sxm"
POWERED = ("trtllm/1.3.0rc15", "vllm/0.22.0")
"""The tables that have watts."""
WHOLE_WINDOW_US = 100
"""Calls from which on the collector reads for a second; shorter ones it reads for at most 0.3 s,
or 15,000 calls (collector/helper.py, github.com/ai-dynamo/aiconfigurator)."""
SAME_TIME, NEIGHBOUR_TIME = 0.05, 0.03
"""Largest |log ratio| of the times of a pair."""
ROWS = 1500
KINDS = {
    "gemm": "GEMM", "bmm": "GEMM", "attention": "attention", "conv2d": "convolution",
    "softmax": "rows", "layernorm": "rows", "rmsnorm": "rows", "reduce_mean": "rows",
    "quant_fp8": "quantising", "cast_fp8": "quantising",
}  # fmt: skip
OTHER = "pointwise, look-up"


def left_out_errors(calls: Calls, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors of calls that a fit to the other groups predicts: at measured times, and alone."""
    device = load_device(DEVICE)
    given, alone = np.zeros((2, len(calls.table)))
    for group in np.unique(groups):
        held = np.flatnonzero(groups == group)
        fitted = fit_energy(calls.take(np.flatnonzero(groups != group)))
        rows = calls.take(held)
        measured = rows.table["joules"].to_numpy(dtype=float)
        given[held] = fitted.joules(rows, device, rows.measured_s) / measured - 1
        alone[held] = fitted.joules(rows, device, rows.predicted_s) / measured - 1
    return given, alone


def h100(calls: Calls) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors of every call, shapes left out and kernels left out; and their means by group."""
    table = calls.table
    shapes = table["op"] + table["shape"]
    fold = pd.util.hash_pandas_object(shapes, index=False).to_numpy() % FOLDS
    given, alone = left_out_errors(calls, fold)
    kind = table["op"].map(KINDS).fillna(OTHER)
    kernel, kernel_alone = left_out_errors(calls, kind.to_numpy(dtype=str))
    errors = table.assign(
        kind=kind, given=given, alone=alone, kernel_given=kernel, kernel_alone=kernel_alone
    )
    groups = [
        *((f"{name}, all", rows) for name, rows in errors.groupby("table")),
        *((str(name), rows) for name, rows in errors.groupby("kind")),
        *((f"GEMM {name}", rows) for name, rows in errors[kind == "GEMM"].groupby("dtype")),
    ]
    columns = ("given", "alone", "kernel_given", "kernel_alone")
    means = pd.DataFrame(
        {
            "group": name,
            "rows": len(rows),
            **{column: percent(rows[column].abs().mean()) for column in columns},
            "bias": percent(rows["given"].median()),
        }
        for name, rows in groups
    )
    return errors, means


def ends(errors: pd.DataFrame) -> tuple[float, float]:
    """The interval of measured over predicted energy that holds 90 % of left-out shapes."""
    ratio = 1 / (1 + errors["given"])
    return float(ratio.quantile(TAIL)), float(ratio.quantile(1 - TAIL))


def powered(folder: Path) -> dict[str, pd.DataFrame]:
    return {
        name: pd.read_parquet(
            folder / "b200_sxm" / "gemm" / name / "gemm_perf.parquet"
        ).assign(joules=lambda table: table["power"] * table["latency"] * 1e-3)
        for name in POWERED
    }  # fmt: skip


def b200(tables: dict[str, pd.DataFrame], interval: tuple[float, float]) -> pd.DataFrame:
    """A device as the H100's constants and its own file predict it."""
    device = load_device(LEFT_OUT)
    found = []
    for name, table in tables.items():
        framework = name.split("/")[0]
        broken = (table["gemm_dtype"] == "fp8_block") & (framework == "vllm")
        kept = table[~broken & (table["power"] > 0)]
        whole = kept["latency"] * 1e3 >= WHOLE_WINDOW_US
        for dtype in sorted(kept["gemm_dtype"].unique()):
            for window, chosen in (("whole", whole), ("short", ~whole)):
                group = kept[chosen & (kept["gemm_dtype"] == dtype)]
                group = group.sample(min(ROWS, len(group)), random_state=0)
                scores = scored(group, RUNTIMES[framework], device, interval)
                found.append({"table": name, "dtype": dtype, "window": window, **scores})
    return pd.DataFrame(found)


def scored(
    table: pd.DataFrame, runtime: str, device: Device, interval: tuple[float, float]
) -> dict[str, float]:
    shapes = [
        json.dumps({"M": int(m), "N": int(n), "K": int(k)})
        for m, n, k in table[["m", "n", "k"]].to_numpy()
    ]
    calls = calls_of(
        pd.DataFrame(
            {
                "op": "gemm", "shape": shapes, "runtime": runtime, "calls": np.nan,
                "dtype": table["gemm_dtype"].map(AICONFIGURATOR_TYPES).to_numpy(),
                "seconds": table["latency"].to_numpy() * 1e-3,
            }
        ),
        device,
    )  # fmt: skip
    measured = table["joules"].to_numpy()
    given = joules(calls, device, calls.measured_s) / measured - 1
    alone = joules(calls, device, calls.predicted_s) / measured - 1
    low, high = interval
    inside = (1 / (1 + given) >= low) & (1 / (1 + given) <= high)
    return {
        "rows": len(table),
        "given": percent(np.abs(given).mean()),
        "alone": percent(np.abs(alone).mean()),
        "bias": percent(np.median(given)),
        "inside": percent(inside.mean()),
    }


def joules(calls: Calls, device: Device, kernel_s: np.ndarray) -> np.ndarray:
    """Energy of every call as shipped."""
    each = energy_j(calls.kernels, calls.terms, kernel_s, device)
    return np.bincount(calls.row, each, len(calls.table))


def readings(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Deviation of energies of equal and of neighbouring GEMMs that take equal times."""
    return pd.DataFrame(_readings(tables))


def _readings(tables: dict[str, pd.DataFrame]) -> Iterator[dict[str, object]]:
    first, second = (table[table["gemm_dtype"] == "bfloat16"] for table in tables.values())
    twice = first.merge(second, on=list("mnk"), suffixes=("", "_other"))
    yield from _spread("equal GEMMs in both tables", "bfloat16", twice, SAME_TIME)
    for name, table in tables.items():
        for dtype, rows in table.groupby("gemm_dtype"):
            shifted = rows.assign(m=rows["m"] + 1)
            beside = rows.merge(shifted, on=list("mnk"), suffixes=("", "_other"))
            yield from _spread(f"M and M + 1 rows, {name}", str(dtype), beside, NEIGHBOUR_TIME)


def _spread(
    name: str, dtype: str, pairs: pd.DataFrame, same_time: float
) -> Iterator[dict[str, object]]:  # fmt: skip
    pairs = pairs[np.abs(np.log(pairs["latency"] / pairs["latency_other"])) < same_time]
    ratio = pairs["joules"] / pairs["joules_other"]
    deviation = (np.abs(ratio - 1) + np.abs(1 / ratio - 1)) / 2
    whole = pairs["latency"] * 1e3 >= WHOLE_WINDOW_US
    for window, chosen in (("whole", whole), ("short", ~whole)):
        if chosen.sum():
            yield {
                "pairs": name, "dtype": dtype, "window": window, "count": int(chosen.sum()),
                "differ": percent(deviation[chosen].mean()),
            }  # fmt: skip


def long_calls(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Watts of calls of a millisecond and more, which draw what the board draws under load."""
    joined = pd.concat([table.assign(table=name) for name, table in tables.items()])
    groups = joined[joined["latency"] >= 1].groupby(["table", "gemm_dtype"])["power"]
    return groups.agg(["size", "median", "max"]).round(0).reset_index()


def percent(share: float) -> float:
    return round(100 * float(share), 1)


def markdown(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The lines of a README's table."""
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    rows = table.to_numpy(dtype=object)
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


H100_NAMES = (
    "H100", "rows", "measured time", "alone", "kernel left out, measured time",
    "kernel left out, alone", "median error",
)  # fmt: skip
B200_NAMES = (
    "B200, table", "type", "window", "rows", "measured time", "alone", "median error", "inside",
)  # fmt: skip


def published() -> list[str]:
    """The README's tables, from `results/`."""
    read = (("h100", H100_NAMES), ("b200", B200_NAMES))
    return [markdown(pd.read_csv(RESULTS / f"{name}.csv"), names) for name, names in read]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-energy", type=Path, required=True)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    given = parser.parse_args()
    errors, means = h100(read_energy(given.torch_energy, PROFILE))
    interval = ends(errors)
    tables = powered(given.aiconfigurator)
    results = {"h100": means, "b200": b200(tables, interval), "readings": readings(tables),
               "long": long_calls(tables)}  # fmt: skip
    for name, table in results.items():
        table.to_csv(RESULTS / f"{name}.csv", index=False, lineterminator="\n")
    print(*published(), sep="\n\n")
    print(*(results[name].to_string(index=False) for name in ("readings", "long")), sep="\n\n")
    print("interval", [round(end, 3) for end in interval])


if __name__ == "__main__":
    main()
