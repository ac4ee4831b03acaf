"""Grouped GEMMs of mixtures of experts against vLLM's fused layers: error by device and format.

Usage: python studies/moe_latency/run.py --aiconfigurator DIR

A row is a whole expert layer (gate and up, activation, down, weighted sum) with the given tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.devices.load import load_device
from hwmodels.errors import HardwareError
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.plans.conversion import kernels_of
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.price import kernel_costs
from hwmodels.work.work import Op, Operand, OperandName, RegionWork

FOLDER = Path(__file__).parent
DEVICES = {
    "a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm", "b200_sxm": "b200-sxm", "l40s": "l40s",
}  # fmt: skip
Formats = Mapping[OperandName, Quantizer]
FORMATS: dict[str, Formats] = {
    "bfloat16": {},
    "fp8": {
        "weight": catalog.quantizer("e4m3_tensor:static"),
        "input": catalog.quantizer("e4m3_tensor:static"),
    },
    "fp8_block": {
        "weight": catalog.quantizer("e4m3@b128x128/fp32"),
        "input": catalog.quantizer("e4m3@g128/fp32"),
    },
    "int4_wo": {"weight": catalog.quantizer("int4_g128")},
    "nvfp4": {"weight": catalog.quantizer("nvfp4"), "input": catalog.quantizer("nvfp4")},
    "w4a16_mxfp4": {"weight": catalog.quantizer("mxfp4")},
    "w4a8_mxfp4_mxfp8": {
        "weight": catalog.quantizer("mxfp4"),
        "input": catalog.quantizer("mxfp8"),
    },
}
GROUP = 40
"""Rows drawn of each device, format and distribution of tokens."""
MEMORY_ROWS = 16
"""Rows an expert up to which reading its weights rules."""


def measurements(folder: Path) -> pd.DataFrame:
    """Layers whose experts are all on one GPU (no expert parallelism), a sample of each group."""
    found = []
    for path in sorted(folder.glob("*/moe/vllm/*/*.parquet")):
        table = pd.read_parquet(path)
        table = table[(table.moe_ep_size == 1) & table.moe_dtype.isin(list(FORMATS))]
        found.append(table.assign(device=DEVICES[path.relative_to(folder).parts[0]]))
    groups = pd.concat(found).groupby(["device", "moe_dtype", "distribution"])
    return pd.concat(
        group.sample(min(GROUP, len(group)), random_state=0) for _, group in groups
    ).reset_index(drop=True)


def expert_layer(row: pd.Series) -> tuple[RegionWork, RegionWork]:
    """Gate and up with their activation, and down with the weighted sum, of one GPU."""
    tokens, topk, experts = int(row.num_tokens), int(row.topk), int(row.num_experts)
    hidden, inner = int(row.hidden_size), int(row.inter_size) // int(row.moe_tp_size)
    rows = tokens * topk
    act = _pointwise("act", "silu_mul", ("g", "u"), (rows, inner), "h")
    combine = _pointwise("sum", "sum", ("d",), (rows, hidden), "y")
    up = (
        _grouped("gate", "x", "g", (experts, topk, rows), (hidden, inner)),
        _grouped("up", "x", "u", (experts, topk, rows), (hidden, inner)),
        act,
    )
    down = (_grouped("down", "h", "d", (experts, topk, rows), (inner, hidden)), combine)
    return _region("experts_gate_up", up), _region("experts_down", down)


def _grouped(
    name: str, read: str, write: str, routing: tuple[int, int, int], widths: tuple[int, int]
) -> Op:
    (experts, topk, rows), (k, n) = routing, widths
    shape = (rows // topk, k) if read == "x" else (rows, k)
    return Op(
        name=name,
        kind="grouped_gemm",
        sizes={"E": experts, "M": rows, "K": k, "N": n, "topk": topk},
        operands=(
            Operand(name="input", value=read, shape=shape, contraction_axes=(1,)),
            Operand(
                name="weight",
                value=f"{name}.w",
                shape=(experts, k, n),
                contraction_axes=(1,),
                is_weight=True,
            ),
            Operand(name="output", value=write, shape=(rows, n)),
        ),
    )


def _pointwise(
    name: str, detail: str, reads: tuple[str, ...], shape: tuple[int, int], write: str
) -> Op:
    inputs = tuple(Operand(name="input", value=value, shape=shape) for value in reads)
    output = Operand(name="output", value=write, shape=shape)
    return Op(
        name=name,
        kind="elementwise",
        sizes={"rows": shape[0], "cols": shape[1]},
        operands=(*inputs, output),
        detail=detail,
    )


def _region(role: str, ops: tuple[Op, ...]) -> RegionWork:
    written = {o.value: o for op in ops for o in op.operands if o.name == "output"}
    read = {o.value: o for op in ops for o in op.operands if o.name != "output"}
    return RegionWork(
        name=role,
        kind="grouped_gemm",
        role=role,
        ops=ops,
        reads=tuple(o for value, o in read.items() if value not in written),
        writes=tuple(o for value, o in written.items() if value not in read),
    )


def predicted(rows: pd.DataFrame, device_name: str) -> np.ndarray:
    """Seconds of each row; NaN where no kernel takes its sizes."""
    device, runtime = load_device(device_name), load_runtime("vllm")
    kernels, owner = [], []
    refused = np.zeros(len(rows), dtype=bool)
    for index, (_, row) in enumerate(rows.iterrows()):
        for region in expert_layer(row):
            plan = plan_region(region.quantized(FORMATS[row.moe_dtype]), device, runtime)
            refused[index] |= plan.status in ("substituted", "emulated")
            mine = [*kernels_of(plan.conversions), *plan.kernels]
            kernels += mine
            owner += [index] * len(mine)
    costs = kernel_costs(kernels, device, runtime)
    seconds = np.bincount(owner, [cost.latency_s for cost in costs], len(rows))
    return np.where(refused, np.nan, seconds)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """MAPE and signed median of each device, format, distribution and regime."""
    rows = rows.dropna(subset="predicted_s")
    error = rows.predicted_s / (rows.latency * 1e-3) - 1
    per_expert = rows.num_tokens * rows.topk / rows.num_experts
    frame = rows.assign(
        error=error, size=error.abs(), regime=np.where(per_expert <= MEMORY_ROWS, "few", "many")
    )
    by = frame.groupby(["device", "moe_dtype", "distribution", "regime"])
    return (
        pd.DataFrame(
            {
                "rows": by["size"].size(),
                "mape": by["size"].mean().round(3),
                "median": by["error"].median().round(3),
            }
        )
        .reset_index()
        .sort_values(["device", "moe_dtype", "distribution", "regime"])
    )


def main() -> None:
    """Print and write the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True, metavar="DIR")
    rows = measurements(parser.parse_args().aiconfigurator)
    parts = []
    for device, mine in rows.groupby("device"):
        try:
            parts.append(mine.assign(predicted_s=predicted(mine, str(device))))
        except HardwareError as error:
            print(f"{device}: {error}")
    table = summary(pd.concat(parts))
    table.to_csv(FOLDER / "results" / "errors.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
