"""Measured GEMMs as arrays: the tables that constants and residual are fitted to.

A row is one GEMM on one device under one runtime: sizes, element and bytes of both operands,
whether the time holds a dynamic quantisation of the activation, whether caches were cold. Sources:
`aiconfigurator` (warm caches, fp8 and nvfp4 rows with quantisation) and `h100_torch` (cold).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from hwmodels.errors import MeasurementError
from hwmodels.operators.number_type import NUMBER_TYPES

SYSTEMS = {
    "a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm", "l40s": "l40s", "b200_sxm": "b200-sxm",
}  # fmt: skip
RUNTIMES = {"trtllm": "tensorrt-llm", "sglang": "sglang", "vllm": "vllm"}
COLD_RUNTIME = "torch-eager"
# vLLM's fp8_block rows were not graph-captured (data SOURCE.md, caveat 4). SGLang's int8 and
# torch's int4 weight-only kernels are 4 to 20 times slower than any other runtime's: they say
# nothing about devices (torch's has its own `tile` in `runtimes/torch-eager.yaml`).
BROKEN = (("vllm", "fp8_block"), ("sglang", "int8_wo"))
BROKEN_COLD = ("w4a16",)

VERSION_PARTS, VERSION_BASE = 4, 1000

AICONFIGURATOR_TYPES = {
    "bfloat16": "bf16", "fp8": "fp8_dynamic", "fp8_block": "fp8_block", "nvfp4": "nvfp4",
    "int8_wo": "w8a16", "int4_wo": "w4a16", "sq": "w8a8_int8_dynamic",
}  # fmt: skip

COLUMNS = ("device", "runtime", "dtype", "m", "n", "k", "latency_s", "cold")


def read_aiconfigurator(folder: Path, *, older: bool = False) -> pd.DataFrame:
    """All GEMM rows below `<folder>/<system>/gemm/`, in `COLUMNS`.

    Of several versions of a runtime the newest that has a number type counts: TensorRT-LLM
    1.3.0rc15 and rc20 differ by half in fp8_block on one B200. `older`: what is older instead.

    Raises:
        MeasurementError: No tables there.
    """
    paths = sorted(folder.glob("*/gemm/*/*/*.parquet"))
    if not paths:
        raise MeasurementError(f"{folder}: no <system>/gemm/<framework>/<version>/*.parquet")
    frames = [_aiconfigurator_table(path, path.relative_to(folder).parts) for path in paths]
    table = pd.concat(frames, ignore_index=True)
    return of_newest(table, ["device", "runtime", "dtype"], older=older)


def of_newest(table: pd.DataFrame, group: list[str], *, older: bool = False) -> pd.DataFrame:
    """The rows of each group's newest `release`, or the older ones; without that column."""
    newest = table.groupby(group)["release"].transform("max")
    kept = table[(table["release"] < newest) == older].drop(columns="release")
    return kept.reset_index(drop=True)


def release(version: str) -> int:
    """A number that orders versions: `1.3.0rc20` after `1.3.0rc15`, `0.5.10` after `0.5.6`."""
    parts = [int(part) for part in re.findall(r"\d+", version)][:VERSION_PARTS]
    parts += [0] * (VERSION_PARTS - len(parts))
    return int(sum(part * VERSION_BASE**place for place, part in enumerate(reversed(parts))))


def _aiconfigurator_table(path: Path, parts: tuple[str, ...]) -> pd.DataFrame:
    system, _, framework, version, *_ = parts
    table = pd.read_parquet(path, columns=["gemm_dtype", "m", "n", "k", "latency"])
    broken = [dtype for name, dtype in BROKEN if name == framework]
    table = table[~table["gemm_dtype"].isin(broken) & (table["latency"] > 0)]
    return pd.DataFrame(
        {
            "device": SYSTEMS[system],
            "runtime": RUNTIMES[framework],
            "dtype": table["gemm_dtype"].map(AICONFIGURATOR_TYPES),
            "m": table["m"],
            "n": table["n"],
            "k": table["k"],
            "latency_s": table["latency"] * 1e-3,
            "cold": False,
            "release": release(version),
        }
    )


def read_torch_ops(path: Path) -> pd.DataFrame:
    """The GEMM rows of an operator table measured with cold caches on an H100, in `COLUMNS`."""
    table = pd.read_csv(path)
    known = [name for name in NUMBER_TYPES if name not in BROKEN_COLD]
    gemms = table[(table["op"] == "gemm") & table["dtype"].isin(known)]
    shapes = gemms["shape"].map(json.loads)
    return pd.DataFrame(
        {
            "device": "h100-sxm",
            "runtime": COLD_RUNTIME,
            "dtype": gemms["dtype"],
            **{size.lower(): [shape[size] for shape in shapes] for size in ("M", "N", "K")},
            "latency_s": gemms["median_us"] * 1e-6,
            "cold": True,
        }
    ).reset_index(drop=True)
