"""Places where programs do something else with a Q/DQ file than the emulator did, said aloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.export.base import Check, Recipe
from dse.export.onnx_qdq.constant import Codes
from dse.export.onnx_qdq.plan import BYTE, Pair, Placement, Plan
from dse.graph.ir.attribute import integer
from dse.graph.ir.graph import Node

STORED = ("int2", "uint2", "int4", "uint4", *BYTE)
SATURATION = (
    "%d products of 8-bit integers (%s): on x86 CPUs with AVX2 or AVX-512 but without VNNI, ONNX "
    "Runtime's default fusion adds pairs of them in 16 bits, which saturate, so the quantized "
    "model can lose accuracy there that neither the emulator nor the file has; compare it on the "
    "CPU that will run it, or switch the fusion off (ORT_DISABLE_ALL)"
)
ROUNDED = (
    "%d products with weights of integers alone (%s): ONNX Runtime's default fusion on a CPU "
    "(MatMulNBits) rounds their inputs to 8 bits, which neither the emulator nor the file does; "
    "the session option session.qdq_matmulnbits_accuracy_level=1 leaves them in float32"
)
SHOWN = 3
"""Products or sites that a message names."""


def saturating(plan: Plan) -> tuple[str, ...]:
    """Nodes that multiply activations of 8-bit integers with weights of int8.

    Fused, ONNX Runtime multiplies unsigned activations with signed weights by VPMADDUBSW there;
    unsigned weights do not saturate. Source: ONNX Runtime, Quantize ONNX models, "When and why do
    I need to try U8U8?".
    """
    activations, weights = set(), set()
    for key, placement in plan.placements.items():
        node = key.rpartition("/")[0]
        if _is_byte(placement):
            activations.add(node)
        elif isinstance(placement, Codes) and placement.codes.dtype == np.int8:
            weights.add(node)
    return tuple(sorted(activations & weights))


def rounded_inputs(recipe: Recipe, plan: Plan) -> tuple[str, ...]:
    """Matrix products whose inputs ONNX Runtime rounds by itself.

    By default it makes a MatMulNBits of accuracy level 4, which multiplies integers of 8 bits, of
    a stored matrix of integers of 2 to 8 bits and a MatMul, or a Gemm that does not transpose it;
    not where the input is an integer of 8 bits already. Seen in ONNX Runtime 1.32.
    """
    nodes = recipe.program.analysis.flat.graph.by_name
    return tuple(
        sorted(
            name
            for key, placement in plan.placements.items()
            for name, _, operand in [key.rpartition("/")]
            if isinstance(placement, Codes)
            and operand == "in1"
            and plan.types[key] == ir.DataType.FLOAT
            and placement.codes.ndim == 2
            and placement.codes.dtype.name in STORED
            and _multiplies_as_stored(nodes[name])
            and not _is_byte(plan.placements.get(f"{name}/in0"))
        )
    )


def _multiplies_as_stored(node: Node) -> bool:
    plain = node.op_type == "Gemm" and not integer(node, "transB", 0)
    return plain or node.op_type == "MatMul"


def _is_byte(placement: Placement | None) -> bool:
    return isinstance(placement, Pair) and placement.zero_point.dtype.name in BYTE


def below_range(recipe: Recipe, feeds: Mapping[str, Tensor]) -> Iterator[Check]:
    """Number of values of symmetric integer activations that fall below their range.

    QuantizeLinear knows no symmetric range: it writes -128 where the emulator, and hardware with a
    symmetric one, says -127. A Clip before it would be exact, and end the fusion of the pair into
    integer kernels that the file is written for.
    """
    counters = {key: _Counter(q, _limit(q)) for key, q in _symmetric(recipe).items()}
    if not counters:
        return
    with torch.inference_mode():
        recipe.program.run(feeds, {**recipe.bound, **counters})
    low = sum(counter.below for counter in counters.values())
    total = sum(counter.seen for counter in counters.values())
    note = (
        f"{low} of {total} values fall below it: QuantizeLinear takes them one step further than "
        "the emulator (-128 for -127); affine formats (w8a8_int8_static) mean the same in both"
        if low
        else "no value of the samples falls below it"
    )
    yield Check(
        checker="dse", compared=f"symmetric range of {len(counters)} activations", note=note
    )


def as_written(recipe: Recipe) -> Mapping[str, Quantize]:
    """The quantizers as QuantizeLinear has them, with the code below a symmetric range."""
    return {
        **recipe.bound,
        **{key: _Written(q, _limit(q)) for key, q in _symmetric(recipe).items()},
    }


def _symmetric(recipe: Recipe) -> Mapping[str, Quantize]:
    """Those of activations in integers whose range is symmetric."""
    return {
        key: quantize
        for key, quantize in recipe.bound.items()
        if recipe.constant(key) is None and _is_symmetric(quantize)
    }


def _is_symmetric(quantize: Quantize) -> bool:
    if not isinstance(quantize, Emulator) or quantize.fixed is None:
        return False
    element = quantize.quantizer.format.element
    if quantize.quantizer.format.scale is None:
        return False
    return element.kind == "int" and element.signed and element.symmetric


def _limit(quantize: Quantize) -> float:
    """The magnitude from which QuantizeLinear writes the code that a symmetric range has not."""
    assert isinstance(quantize, Emulator), "only quantizers of ours are symmetric"
    state = quantize.fixed
    assert state is not None, "and static ones"
    assert state.scales is not None, "a static format with a scale has one"
    codes: float = 2.0 ** (quantize.quantizer.format.element.bits - 1)
    return (codes - 0.5) * float(state.scales.item())


@dataclass(eq=False)
class _Counter:
    """A quantizer that counts what falls below its range; equal only to itself."""

    quantize: Quantize
    limit: float
    below: int = 0
    seen: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.below += int((x < -self.limit).sum())
        self.seen += x.numel()
        return self.quantize(x)


@dataclass(frozen=True)
class _Written:
    """A quantizer of a symmetric range that has the code below it, too."""

    quantize: Quantize
    limit: float
    """Half a step above that code's value, without the sign."""

    def __call__(self, x: Tensor) -> Tensor:
        code = 2.0 ** (self._bits - 1)
        lowest = -self.limit * code / (code - 0.5)
        return torch.where(x < -self.limit, lowest, self.quantize(x))

    @property
    def _bits(self) -> int:
        assert isinstance(self.quantize, Emulator), "only quantizers of ours are symmetric"
        return self.quantize.quantizer.format.element.bits
