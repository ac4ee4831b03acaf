"""Layers of experts under vLLM and TensorRT-LLM against public tables: errors and coverage.

Usage: python -m studies.moe_latency.run --aiconfigurator DIR    (five minutes)

Writes `results/errors.csv` and the README's table. A row is a whole expert layer (gate and up,
activation, down, weighted sum) with the given tokens. `gemm` prices the experts that are hit as
GEMMs, `rows` has trees of other rows of the same devices and models, `models` of other models,
`left_out` of other devices; `inside` is the share in the interval that the other devices' errors
give.
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hwmodels.estimators.gpu.trees import Trees
from hwmodels.fit.experts import (
    GROUPS,
    Layers,
    errors_of,
    errors_over_devices,
    errors_over_models,
    errors_over_rows,
    fit_trees,
    measured_kernels,
    read_experts,
    sampled,
)
from hwmodels.fit.left_out import Errors, joined

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
README = FOLDER / "README.md"
SEED = 0
NAMES = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8 block", "int4_wo": "int4 weights",
    "nvfp4": "nvfp4", "w4a16_mxfp4": "mxfp4, 16-bit inputs",
    "w4a8_mxfp4_mxfp8": "mxfp4, mxfp8 inputs",
}  # fmt: skip
DEVICES = {
    "a100-sxm-80gb": "A100", "h100-sxm": "H100", "b200-sxm": "B200", "l40s": "L40S",
}  # fmt: skip
COLUMNS = ("gemm", "rows", "models", "left_out")


def compared(layers: Layers) -> pd.DataFrame:
    """Mean |error| in % by device, runtime and number type, with the coverage of intervals."""
    kernels = tuple(measured_kernels(layers))
    nothing = _no_trees(layers, kernels)
    left_out = {
        str(errors.table["device"].iloc[0]): errors
        for errors in errors_over_devices(layers, kernels, SEED)
    }
    found = {
        "gemm": errors_of(layers, nothing, kernels, "seen"),
        "rows": errors_over_rows(layers, kernels, SEED),
        "models": errors_over_models(layers, kernels, SEED),
        "left_out": joined(left_out.values()),
    }
    tables = [_scored(errors, name) for name, errors in found.items()]
    seen = joined([found["rows"], found["models"]])
    tables += [_inside(found[name], seen.ends, f"{name}_inside") for name in ("rows", "models")]
    parts = []
    for device, errors in left_out.items():
        others = joined(one for name, one in left_out.items() if name != device)
        parts.append(_inside(errors, others.ends, "left_out_inside"))
    sizes = layers.table.groupby(GROUPS).size().rename("count")
    return pd.concat([sizes, *tables, pd.concat(parts)], axis=1).reset_index()


def by_split(layers: Layers) -> pd.DataFrame:
    """The error of rows left out, by split and by the distribution of tokens."""
    errors = errors_over_rows(layers, tuple(measured_kernels(layers)), SEED)
    table = errors.table.assign(
        error=100 * np.abs(np.exp(-errors.log) - 1),
        split=np.where(errors.table["expert_parts"] > 1, "experts", "tensor or none"),
    )
    by = table.groupby(["split", "skew"])["error"]
    return by.agg(["mean", "size"]).round(1).reset_index()


def _no_trees(layers: Layers, kernels: tuple[str, ...]) -> Trees:
    """Trees that correct nothing."""
    whole = fit_trees(layers.chosen(np.arange(len(layers.table)) < 200), kernels, SEED)
    return Trees(
        **{
            name: getattr(whole, name)
            for name in ("roots", "feature", "threshold", "left", "right")
        },
        value=np.zeros_like(whole.value),
        offset=0.0,
        depth=whole.depth,
    )


def _scored(errors: Errors, name: str) -> pd.Series:
    error = errors.table.assign(error=100 * np.abs(np.exp(-errors.log) - 1))
    return error.groupby(GROUPS)["error"].mean().round(1).rename(name)


def _inside(errors: Errors, ends: tuple[float, float], name: str) -> pd.Series:
    low, high = ends
    held = errors.table.assign(held=100.0 * ((errors.log >= low) & (errors.log <= high)))
    return held.groupby(GROUPS)["held"].mean().round(1).rename(name)


def rendered(table: pd.DataFrame) -> str:
    """The README's table."""
    lines = [
        "| device | number type | as GEMMs | other rows (inside) | other models (inside) | "
        "device left out (inside) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(row) for row in table.to_dict("records")]
    mean: dict[Hashable, Any] = {
        name: table[name].mean() for name in table.columns if name not in GROUPS
    }
    lines.append(_line({**mean, "device": "mean", "runtime": "", "dtype": ""}))
    return "\n".join(lines)


def _line(row: Mapping[Hashable, Any]) -> str:
    device = DEVICES.get(str(row["device"]), str(row["device"]))
    runtime = ", TensorRT-LLM" if row["runtime"] == "tensorrt-llm" else ""
    cells = [
        f"{row[name]:.0f} %" + ("" if name == "gemm" else f" ({row[f'{name}_inside']:.0f})")
        for name in COLUMNS
    ]
    dtype = NAMES.get(str(row["dtype"]), str(row["dtype"]))
    return f"| {' | '.join([device + runtime, dtype, *cells])} |"


def with_table(text: str, table: str) -> str:
    """A README whose lines that start with a bar are the table."""
    lines = text.split("\n")
    bars = [index for index, line in enumerate(lines) if line.startswith("|")]
    return "\n".join([*lines[: bars[0]], *table.split("\n"), *lines[bars[-1] + 1 :]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True, metavar="DIR")
    given = parser.parse_args(arguments)
    layers = Layers.of(sampled(read_experts(given.aiconfigurator), SEED))
    table, splits = compared(layers), by_split(layers)
    for name, found in (("errors", table), ("splits", splits)):
        found.to_csv(RESULTS / f"{name}.csv", index=False, lineterminator="\n")
        print(found.to_string(index=False))
    text = README.read_text(encoding="utf-8")
    table = pd.read_csv(RESULTS / "errors.csv")
    README.write_text(with_table(text, rendered(table)), encoding="utf-8")


if __name__ == "__main__":
    main()
