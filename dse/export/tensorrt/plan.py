"""A Q/DQ plan under TensorRT's rules.

Source: NVIDIA TensorRT documentation, "Working with Quantized Types" (schemes, explicit
quantization); the operator that quantizes activations to FP4 is TensorRT's own, as ModelOpt's
ONNX exporter writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.export.base import Inexpressible, Recipe
from dse.export.hugging_face.rows import NV_GROUP, is_nvfp4
from dse.export.onnx_qdq.constant import Codes
from dse.export.onnx_qdq.element import BLOCKED_OPSET
from dse.export.onnx_qdq.plan import DynamicBlocks, Pair, Placement, Plan, Sum
from dse.export.onnx_qdq.plan import plan_of as qdq_plan

FLOAT4_OPSET = 23
LARGEST_BLOCK = 128
"""Of integer matrices; longer rows with one scale are left as channels, which have no int4."""
KNOWN = (
    "int8:static and e4m3_tensor:static activations, nvfp4:static ones with nvfp4 weights; int8 "
    "and e4m3 weights per tensor or channel, int4 in groups, nvfp4; bf16 and fp16 are written"
)
ELEMENTS = ("int8", "int4", "float8_e4m3fn", "float4_e2m1fn")


def plan_of(recipe: Recipe) -> Plan:
    """The plan of a recipe, with what TensorRT would not take."""
    found = recipe.once(qdq_plan)
    dynamic = {
        key: blocks
        for key, quantize in recipe.bound.items()
        if recipe.constant(key) is None and (blocks := _blocks(quantize)) is not None
    }
    placements = {**found.placements, **dynamic}
    refused = [one for one in found.refused if one.site not in dynamic]
    for key, placement in placements.items():
        try:
            placements[key] = _taken(placement)
        except Inexpressible as why:
            refused.append(recipe.refusal(key, why.reason, why.instead))
    opset = max(found.opset, FLOAT4_OPSET) if dynamic else found.opset
    return replace(found, placements=placements, refused=tuple(refused), opset=opset)


def dynamic_sites(placements: Mapping[str, Placement]) -> list[str]:
    """Sites that TensorRT's own operator quantizes."""
    return sorted(key for key, one in placements.items() if isinstance(one, DynamicBlocks))


def _blocks(quantize: Quantize) -> DynamicBlocks | None:
    """An activation in FP4 whose tensor scale is calibrated and whose block scales are dynamic."""
    if not isinstance(quantize, Emulator) or not is_nvfp4(quantize.quantizer.format):
        return None
    state = quantize.fixed
    plain = quantize.quantizer.rounding == "nearest_even" and not quantize.quantizer.transforms
    if state is None or state.tensor_scale is None or not plain:
        return None
    axis = quantize.axes[0] if quantize.axes else -1
    return DynamicBlocks(level=float(state.tensor_scale), block=NV_GROUP, axis=axis)


def _taken(placement: Placement) -> Placement:
    """A placement as TensorRT takes it.

    Raises:
        Inexpressible: it takes none like it.
    """
    match placement:
        case Pair():
            _check_activation(placement)
        case Sum(then=Pair() as then):
            _check_activation(then)
        case Codes():
            placement = _in_blocks(placement)
            _check_weight(placement)
            if placement.level is None and not placement.scale.all():
                # The parser wants positive scales; codes under a scale of zero are zeros.
                ones = np.where(placement.scale == 0, 1, placement.scale)
                return replace(placement, scale=ones.astype(placement.scale.dtype))
        case _:
            pass
    return placement


def _in_blocks(codes: Codes) -> Codes:
    """Scales of groups as long as a row, which stand as those of channels, as blocks."""
    plain = codes.codes.dtype.name == "int4" and codes.codes.ndim == 2 and codes.scale.ndim == 1
    other = 1 - codes.axis
    if not plain or codes.codes.shape[other] > LARGEST_BLOCK:
        return codes
    return replace(
        codes,
        scale=np.expand_dims(codes.scale, other),
        axis=other,
        block=codes.codes.shape[other],
        opset=max(codes.opset, BLOCKED_OPSET),
    )


def _check_activation(pair: Pair) -> None:
    if pair.zero_point.any():
        raise Inexpressible("TensorRT quantizes symmetrically, without zero points", instead=KNOWN)
    if pair.zero_point.dtype.name not in ("int8", "float8_e4m3fn"):
        raise Inexpressible(
            f"TensorRT quantizes activations to int8, e4m3 and e2m1, not "
            f"{pair.zero_point.dtype.name}",
            instead=KNOWN,
        )


def _check_weight(codes: Codes) -> None:
    element = codes.codes.dtype.name
    if codes.zero_point is not None and codes.zero_point.astype(np.float32).any():
        raise Inexpressible("TensorRT quantizes symmetrically, without zero points", instead=KNOWN)
    if element not in ELEMENTS:
        raise Inexpressible(
            f"TensorRT reads weights in int8, int4, e4m3 and e2m1, not {element}", instead=KNOWN
        )
    if element == "float4_e2m1fn" and (codes.level is None or codes.block != NV_GROUP):
        raise Inexpressible(
            "TensorRT's FP4 has e4m3 scales for 16 elements and one of the tensor", instead=KNOWN
        )
    if element == "int4" and (not codes.block or codes.codes.ndim != 2):
        raise Inexpressible("TensorRT's int4 matrices have scales in blocks", instead=KNOWN)
    if element in ("int8", "float8_e4m3fn") and codes.block:
        raise Inexpressible(
            f"TensorRT's DequantizeLinear has no blocks of {element}; its MXFP8 has an operator "
            "of its own, with activations by a rule of its own",
            instead=KNOWN,
        )
