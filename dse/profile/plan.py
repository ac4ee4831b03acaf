"""The plan of a measurement: operators by queue; a queue an operator, number type, runtime."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from dse.profile.shapes import Shape, shapes
from hwmodels.devices.device import FLAGS, Device
from hwmodels.operators.lower import SIZES_OF_OP
from hwmodels.operators.number_type import NUMBER_TYPES
from hwmodels.operators.optable import OpTable, checked_table, runtimes_of

EAGER, COMPILED = "torch-eager", "torch-compile"
PROCESSOR, ONNX_RUNTIME = "torch-cpu", "onnxruntime-cpu"
"""Runtimes of processors."""
FLOATS = ("bf16", "fp16", "fp32")
MULTIPLIED = (*FLOATS, "tf32")
"""Number types of dense contractions."""
NARROW = (
    "fp8", "fp8_precise", "fp8_dynamic", "int8", "w8a8_int8_dynamic", "w4a16", "w8a16",
)  # fmt: skip
"""Further ones of GEMMs."""
TYPES: Mapping[str, tuple[str, ...]] = {
    "gemm": (*MULTIPLIED, *NARROW),
    "bmm": MULTIPLIED,
    "conv2d": MULTIPLIED,
    "cast_fp8": ("bf16",),
    "quant_fp8": ("bf16",),
}
"""Number types by operator; the others take `FLOATS`."""
COMPILED_GEMMS = ("fp8_dynamic", "w8a8_int8_dynamic")
"""GEMMs with work around them that a compiler fuses; plain ones call the same library."""
SAME_WHEN_COMPILED = ("bmm", "attention", "conv2d", "embedding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One thing to measure."""

    op: str
    sizes: tuple[tuple[str, int], ...]
    """In the order of the table's documentation; `causal` is a bool."""
    dtype: str
    runtime: str = EAGER

    @classmethod
    def of(cls, op: str, shape: Shape, dtype: str, runtime: str = EAGER) -> Operator:
        """With the sizes of a shape in their usual order."""
        sizes = [(name, shape[name]) for name in SIZES_OF_OP[op]]
        sizes += [(name, bool(shape[name])) for name in FLAGS if name in shape]
        return cls(op=op, sizes=tuple(sizes), dtype=dtype, runtime=runtime)

    @property
    def shape(self) -> dict[str, int]:
        """The sizes by name."""
        return dict(self.sizes)

    @property
    def queue(self) -> tuple[str, str, str]:
        """The part that shares a time budget."""
        return self.op, self.dtype, self.runtime


Queues = Mapping[tuple[str, str, str], tuple[Operator, ...]]


def queues(operators: Iterable[Operator]) -> Queues:
    """Operators by queue, in their order."""
    found: dict[tuple[str, str, str], list[Operator]] = {}
    for operator in operators:
        found.setdefault(operator.queue, []).append(operator)
    return {key: tuple(waiting) for key, waiting in found.items()}


def standard_plan(*, tf32: bool = True, seed: int = 0) -> tuple[Operator, ...]:
    """Every operator of the table in every number type, eager and compiled, most common first.

    `tf32`: a device without it would silently run float32.
    """
    pairs = [(op, dtype) for op in SIZES_OF_OP for dtype in TYPES.get(op, FLOATS)]
    pairs = [pair for pair in pairs if tf32 or pair[1] != "tf32"]
    order = (*MULTIPLIED, *NARROW)
    pairs.sort(key=lambda pair: order.index(pair[1]))
    eager = [Operator.of(op, s, dtype) for op, dtype in pairs for s in shapes(op, seed)]
    compiled = [
        Operator.of(op, s, dtype, COMPILED)
        for op, dtype in pairs
        if dtype in COMPILED_GEMMS or op not in (*SAME_WHEN_COMPILED, "gemm")
        for s in shapes(op, seed)
    ]
    return (*eager, *compiled)


def listed_plan(table: OpTable, runtime: str = EAGER) -> tuple[Operator, ...]:
    """The operators of a table, each once; rows without a runtime run in the one given."""
    runtimes = runtimes_of(table, runtime)
    rows = zip(table.ops, table.shapes, table.dtypes, runtimes, strict=True)
    return tuple(dict.fromkeys(Operator.of(op, dict(s), dtype, run) for op, s, dtype, run in rows))


def plan_table(operators: Iterable[Operator], device: Device) -> OpTable:
    """Those of the operators that a device multiplies as they are, as a table without times."""
    native = [one for one in operators if _is_native(one, device)]
    frame = pd.DataFrame(
        {
            "op": [one.op for one in native],
            "shape": [json.dumps(one.shape) for one in native],
            "dtype": [one.dtype for one in native],
            "runtime": [one.runtime for one in native],
        }
    )
    return checked_table(frame, source="standard operators", timed=False)


def _is_native(operator: Operator, device: Device) -> bool:
    number = NUMBER_TYPES[operator.dtype]
    return device.rate(number.weight_element, number.input_element) is not None
