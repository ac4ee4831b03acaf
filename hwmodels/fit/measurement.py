"""Measured GEMMs as arrays: the tables that constants and residual are fitted to.

A row is one GEMM on one device under one runtime: sizes, element and bytes of both operands,
whether the time holds a dynamic quantisation of the activation, whether caches were cold. Sources:
`aiconfigurator` (warm caches, fp8 and nvfp4 rows with quantisation) and `h100_torch` (cold).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwmodels.errors import MeasurementError

Floats = NDArray[np.float64]

SYSTEMS = {
    "a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm", "l40s": "l40s", "b200_sxm": "b200-sxm",
}  # fmt: skip
RUNTIMES = {"trtllm": "tensorrt-llm", "sglang": "sglang", "vllm": "vllm"}
COLD_RUNTIME = "torch-eager"
# vLLM's fp8_block rows were not graph-captured (data SOURCE.md, caveat 4). SGLang's int8 and
# torch's int4 weight-only kernels are 4 to 20 times slower than any other runtime's: they say
# nothing about devices (torch's has its own `efficiency` in `runtimes/torch-eager.yaml`).
BROKEN = (("vllm", "fp8_block"), ("sglang", "int8_wo"))
BROKEN_COLD = ("w4a16",)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberType:
    """What a dtype of a measurement table multiplies and moves."""

    input_element: str
    weight_element: str
    input_bytes: float
    weight_bytes: float
    """Bytes of a stored element, scales of groups included."""
    output_bytes: float = 2.0
    quantizes: int = 0
    """Kernels of dynamic activation quantisation that the time holds."""


NUMBER_TYPES = {
    "fp32": NumberType(
        input_element="fp32", weight_element="fp32", input_bytes=4, weight_bytes=4, output_bytes=4
    ),
    "tf32": NumberType(
        input_element="tf32", weight_element="tf32", input_bytes=4, weight_bytes=4, output_bytes=4
    ),
    "bf16": NumberType(
        input_element="bf16", weight_element="bf16", input_bytes=2, weight_bytes=2
    ),
    "fp16": NumberType(
        input_element="fp16", weight_element="fp16", input_bytes=2, weight_bytes=2
    ),
    "fp8": NumberType(input_element="e4m3", weight_element="e4m3", input_bytes=1, weight_bytes=1),
    "fp8_dynamic": NumberType(
        input_element="e4m3", weight_element="e4m3", input_bytes=1, weight_bytes=1, quantizes=1
    ),
    "fp8_block": NumberType(
        input_element="e4m3", weight_element="e4m3", input_bytes=1 + 4 / 128,
        weight_bytes=1 + 4 / 128**2, quantizes=1,
    ),
    "nvfp4": NumberType(
        input_element="e2m1", weight_element="e2m1", input_bytes=0.5625, weight_bytes=0.5625,
        quantizes=1,
    ),
    "int8": NumberType(
        input_element="int8", weight_element="int8", input_bytes=1, weight_bytes=1, output_bytes=4
    ),
    "w8a8_int8_dynamic": NumberType(
        input_element="int8", weight_element="int8", input_bytes=1, weight_bytes=1
    ),
    "w8a16": NumberType(
        input_element="bf16", weight_element="bf16", input_bytes=2, weight_bytes=1
    ),
    "w4a16": NumberType(
        input_element="bf16", weight_element="bf16", input_bytes=2, weight_bytes=0.5 + 2 / 128
    ),
}  # fmt: skip
"""By the names of the operator table (docs/design.md, section 6)."""
AICONFIGURATOR_TYPES = {
    "bfloat16": "bf16", "fp8": "fp8_dynamic", "fp8_block": "fp8_block", "nvfp4": "nvfp4",
    "int8_wo": "w8a16", "int4_wo": "w4a16", "sq": "w8a8_int8_dynamic",
}  # fmt: skip

COLUMNS = ("device", "runtime", "dtype", "m", "n", "k", "latency_s", "cold")


def read_aiconfigurator(folder: Path) -> pd.DataFrame:
    """All GEMM rows below `<folder>/<system>/gemm/`, in `COLUMNS`.

    Raises:
        MeasurementError: No tables there.
    """
    paths = sorted(folder.glob("*/gemm/*/*/*.parquet"))
    if not paths:
        raise MeasurementError(f"{folder}: no <system>/gemm/<framework>/<version>/*.parquet")
    frames = [_aiconfigurator_table(path, path.relative_to(folder).parts) for path in paths]
    return pd.concat(frames, ignore_index=True)


def _aiconfigurator_table(path: Path, parts: tuple[str, ...]) -> pd.DataFrame:
    system, _, framework, *_ = parts
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
