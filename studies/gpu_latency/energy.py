"""Energy of a call, given its measured time, against board energy of an H100 and a B200.

    python studies/gpu_latency/energy.py --h100-torch DIR --aiconfigurator DIR

Before the B200's errors: how well its energies repeat. `twice` are equal bf16 GEMMs under two
frameworks (the same cuBLAS kernels) whose times agree within 5 %; `neighbours` are GEMMs of M and
M + 1 rows under one framework whose times agree within 3 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.energy import energy_j
from hwmodels.fit.measurement import AICONFIGURATOR_TYPES
from hwmodels.operators.number_type import NUMBER_TYPES

POWERED = ("trtllm/1.3.0rc15", "vllm/0.22.0")
DTYPES = {POWERED[0]: ("bfloat16", "fp8", "nvfp4"), POWERED[1]: ("bfloat16", "nvfp4")}
SAME_TIME, NEIGHBOUR_TIME = 0.05, 0.03
"""Largest |log ratio| of the times of a pair."""
ROWS = 5_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--h100-torch", type=Path, required=True)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    arguments = parser.parse_args()
    h100(pd.read_csv(arguments.h100_torch / "energy.csv.gz"))
    tables = {
        name: pd.read_parquet(
            arguments.aiconfigurator / "b200_sxm" / "gemm" / name / "gemm_perf.parquet"
        ).assign(joules=lambda table: table["power"] * table["latency"] * 1e-3)
        for name in POWERED
    }
    repeatability(tables)
    for name, table in tables.items():
        b200(name, table)


def h100(table: pd.DataFrame) -> None:
    table = table[table["op"] != "idle"]
    contracts = table["op"].isin(["gemm", "attention"])
    predicted = joules(
        load_device("h100-sxm"),
        [NUMBER_TYPES[name].input_element for name in table["dtype"]],
        seconds=table["us_per_call"].to_numpy() * 1e-6,
        ops=np.where(contracts, table["flops"], 0.0),
        moved=table["bytes"].to_numpy(dtype=float),
    )
    report("h100-sxm", predicted * 1e3 / table["mJ_per_call"].to_numpy())


def repeatability(tables: dict[str, pd.DataFrame]) -> None:
    """Energies of equal and of neighbouring GEMMs, where their times are equal."""
    first, second = (table[table["gemm_dtype"] == "bfloat16"] for table in tables.values())
    twice = first.merge(second, on=list("mnk"), suffixes=("", "_other"))
    spread("twice bfloat16", twice, SAME_TIME)
    for name, table in tables.items():
        for dtype in DTYPES[name]:
            rows = table[table["gemm_dtype"] == dtype]
            beside = rows.merge(
                rows.assign(m=rows["m"] + 1), on=list("mnk"), suffixes=("", "_other")
            )
            spread(f"neighbours {name} {dtype}", beside, NEIGHBOUR_TIME)


def spread(name: str, pairs: pd.DataFrame, same_time: float) -> None:
    """The mean deviation of the pairs' energies, each from the other."""
    pairs = pairs[np.abs(np.log(pairs["latency"] / pairs["latency_other"])) < same_time]
    ratio = pairs["joules"] / pairs["joules_other"]
    deviation = (np.abs(ratio - 1).mean() + np.abs(1 / ratio - 1).mean()) / 2
    print(f"b200-sxm {name}: {len(pairs)} pairs, energies differ by {deviation:.3f}")


def b200(name: str, table: pd.DataFrame) -> None:
    table = table[table["power"] > 0]
    for dtype in DTYPES[name]:
        group = table[table["gemm_dtype"] == dtype]
        group = group.sample(min(ROWS, len(group)), random_state=0)
        number = NUMBER_TYPES[AICONFIGURATOR_TYPES[dtype]]
        m, n, k = (group[size].to_numpy(dtype=float) for size in "mnk")
        predicted = joules(
            load_device("b200-sxm"),
            [number.input_element] * len(group),
            seconds=group["latency"].to_numpy() * 1e-3,
            ops=2 * m * n * k,
            moved=m * k * number.input_bytes + n * k * number.weight_bytes + 2 * m * n,
        )
        report(f"b200-sxm {name} {dtype}", predicted / group["joules"].to_numpy())


def joules(
    device: Device, elements: list[str], *, seconds: np.ndarray, ops: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    per_op = np.array([device.energy_per_op_j(element) for element in elements])
    return energy_j(device, latency_s=seconds, ops=ops, per_op_j=per_op, dram_bytes=moved)


def report(name: str, ratio: np.ndarray) -> None:
    print(f"{name}: {len(ratio)} rows, MAPE {np.abs(ratio - 1).mean():.3f}, "
          f"median ratio {np.median(ratio):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
