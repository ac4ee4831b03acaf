"""Energy of a call, given its measured time, against board energy of an H100 and a B200.

python studies/gpu_latency/energy.py --h100-torch DIR --aiconfigurator DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.device import Device
from hwmodels.device_file import load_device
from hwmodels.energy import energy_j, energy_per_op_j
from hwmodels.fit.measurement import AICONFIGURATOR_TYPES
from hwmodels.number_type import NUMBER_TYPES

POWERED = ("trtllm/1.3.0rc15", "vllm/0.22.0")
ROWS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--h100-torch", type=Path, required=True)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    arguments = parser.parse_args()
    h100(pd.read_csv(arguments.h100_torch / "energy.csv.gz"))
    b200(arguments.aiconfigurator / "b200_sxm" / "gemm")


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


def b200(folder: Path) -> None:
    tables = [pd.read_parquet(folder / name / "gemm_perf.parquet") for name in POWERED]
    rows = pd.concat(tables)
    rows = rows[(rows["power"] > 0) & (rows["gemm_dtype"] != "fp8_block")]
    rows = rows.sample(ROWS, random_state=0)
    for dtype, group in rows.groupby("gemm_dtype"):
        number = NUMBER_TYPES[AICONFIGURATOR_TYPES[str(dtype)]]
        m, n, k = (group[size].to_numpy(dtype=float) for size in ("m", "n", "k"))
        seconds = group["latency"].to_numpy() * 1e-3
        predicted = joules(
            load_device("b200-sxm"),
            [number.input_element] * len(group),
            seconds=seconds,
            ops=2 * m * n * k,
            moved=m * k * number.input_bytes + n * k * number.weight_bytes + 2 * m * n,
        )
        report(f"b200-sxm {dtype}", predicted / (group["power"].to_numpy() * seconds))


def joules(
    device: Device, elements: list[str], *, seconds: np.ndarray, ops: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    per_op = np.array([energy_per_op_j(device, element) for element in elements])
    return energy_j(device, latency_s=seconds, ops=ops, per_op_j=per_op, dram_bytes=moved)


def report(name: str, ratio: np.ndarray) -> None:
    print(f"{name}: {len(ratio)} rows, MAPE {np.abs(ratio - 1).mean():.3f}, "
          f"median ratio {np.median(ratio):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
