"""The plan of a Q/DQ model, site by site, decided and checked before a model is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import Tensor

from dse.execute.emulate import Emulator, Tied
from dse.execute.operators.dtype import BY_NAME
from dse.execute.operators.step import Quantize
from dse.execute.quantizers import Shift
from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.onnx_qdq.constant import Codes, codes_of
from dse.export.onnx_qdq.element import BASE_OPSET, TYPED_OPSET, ElementType, element_type

BYTE = ("int8", "uint8")
STATIC = (
    "static formats per tensor are written (w8a8_int8_static, uint8:static, int8:static, "
    "e4m3_tensor:static), and bf16 or fp16"
)
ELEMENTS = (
    "int2, int4, int8, int16 (and unsigned), e2m1, e2m3, e3m2, e4m3, e5m2, bf16 and fp16 have one"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValues:
    """A constant as values of an ONNX float type, cast where the model's own is another."""

    values: npt.NDArray[np.float32]
    type: ir.DataType


@dataclass(frozen=True, slots=True, kw_only=True)
class CastPair:
    """An activation that passes through a 16-bit float."""

    type: ir.DataType


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An activation that passes QuantizeLinear and DequantizeLinear."""

    scale: float
    zero_point: npt.NDArray[np.generic]
    """A scalar in the numpy dtype of the ONNX type, which it decides."""
    bare: bool = False
    """Whether an attribute says the type instead, and no zero point is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """An output that a constant is added to."""

    addend: npt.NDArray[np.float32]
    then: CastPair | Pair | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicBlocks:
    """An activation that an operator of TensorRT quantizes to NVFP4 while the network runs.

    No plan of plain Q/DQ has one; the target `tensorrt` puts it in.
    """

    level: float
    """The calibrated scale of the tensor; block scales are worked out under it."""
    block: int
    axis: int


Placement = Codes | StoredValues | CastPair | Pair | Sum | DynamicBlocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Placements of all sites, and the opset that they need."""

    placements: Mapping[str, Placement]
    types: Mapping[str, ir.DataType]
    """The model's own type at each site: what its readers expect."""
    opset: int
    refused: tuple[Refusal, ...] = ()
    """Sites that have no place; the placements are whole only without."""


def plan_of(recipe: Recipe) -> Plan:
    """The plan of what stands at the sites of a recipe."""
    placements: dict[str, Placement] = {}
    types: dict[str, ir.DataType] = {}
    refused: list[Refusal] = []
    opset = BASE_OPSET
    given = recipe.assignment.as_dict()
    for key, quantize in recipe.bound.items():
        constant = recipe.constant(key)
        types[key] = _type_at(recipe, key, constant)
        try:
            placement, needed = _placement(quantize, constant)
        except Inexpressible as why:
            asked = given[key].name if key in given else "a corrected mean"
            refused.append(Refusal(reason=why.reason, instead=why.instead, site=key, format=asked))
            continue
        if _changes(placement, types[key]):
            placements[key] = placement
            opset = max(opset, needed)
    return Plan(placements=placements, types=types, opset=opset, refused=tuple(refused))


def without_zero_points(plan: Plan) -> Plan:
    """The plan with zero points of 0 left out, but for those of 8-bit integers.

    Optimising, ONNX Runtime drops a Relu before a QuantizeLinear with a zero point, as if its
    type began at 0 (1.32 computes other values in 8-bit floats), and does not open a file of
    opset 19 with a Clip before one.
    """
    placements = {key: _bare(placement) for key, placement in plan.placements.items()}
    if placements == plan.placements:
        return plan
    return replace(plan, placements=placements, opset=max(plan.opset, TYPED_OPSET))


def _bare(placement: Placement) -> Placement:
    if isinstance(placement, Sum) and isinstance(placement.then, Pair):
        return replace(placement, then=_bare_pair(placement.then))
    return _bare_pair(placement) if isinstance(placement, Pair) else placement


def _bare_pair(pair: Pair) -> Pair:
    if pair.zero_point.dtype.name in BYTE:
        return pair
    return replace(pair, bare=not pair.zero_point.astype(np.float32).any())


def _type_at(recipe: Recipe, key: str, constant: Tensor | None) -> ir.DataType:
    """The type that a site has in the model."""
    if constant is not None:
        return _OF_TORCH[constant.dtype]
    known = recipe.program.analysis.flat.graph.types.get(recipe.value(key))
    return _OF_TORCH[BY_NAME[known.dtype].carrier] if known else ir.DataType.FLOAT


_OF_TORCH = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
}


def _changes(placement: Placement, type: ir.DataType) -> bool:
    """Whether anything is written: a 16-bit model already is what its own format says."""
    return not (isinstance(placement, CastPair) and placement.type == type)


def _placement(quantize: Quantize, constant: Tensor | None) -> tuple[Placement, int]:
    """Placement of one site, and the opset it needs.

    Raises:
        Inexpressible: Q/DQ has no way to say it.
    """
    if isinstance(quantize, Shift):
        return _shifted(quantize, constant)
    if isinstance(quantize, Tied):
        raise Inexpressible(
            "a look-up reads the copy of its table that a product stores",
            instead="gguf and mlx write one copy; search for a target that keeps two",
        )
    if not isinstance(quantize, Emulator):
        raise Inexpressible("is no quantizer of ours", instead="a format of the catalogue is")
    element = _element(quantize)
    if constant is not None:
        if quantize.quantizer.format.scale is None:
            values = quantize(constant.float()).numpy()
            return StoredValues(values=values, type=element.type), element.opset
        codes = codes_of(constant, quantize, element)
        return codes, codes.opset
    if quantize.quantizer.rounding != "nearest_even":
        raise Inexpressible(
            "QuantizeLinear rounds activations to nearest even only",
            instead="the same format without a rounding of its own is written",
        )
    if quantize.quantizer.format.scale is None:
        if element.type.is_integer():  # a Cast would cut fractions off, and wrap
            zero = np.array(0).astype(element.type.numpy())
            return Pair(scale=1.0, zero_point=zero), element.opset
        return CastPair(type=element.type), element.opset
    return _pair(quantize, element), element.opset


def _shifted(shift: Shift, constant: Tensor | None) -> tuple[Placement, int]:
    """A corrected mean: in the bias itself, or added to the output."""
    if constant is not None:
        if isinstance(shift.then, Emulator):
            return _placement(shift.then, constant + shift.shift.to(constant.dtype))
        values = shift(constant)
        stored = StoredValues(values=values.float().numpy(), type=_OF_TORCH[values.dtype])
        return stored, BASE_OPSET
    then, opset = None, BASE_OPSET
    if shift.then is not None:
        placement, opset = _placement(shift.then, None)
        assert isinstance(placement, CastPair | Pair), "an activation is not stored"
        then = placement
    return Sum(addend=shift.shift.float().numpy(), then=then), opset


def _element(emulator: Emulator) -> ElementType:
    quantizer, format = emulator.quantizer, emulator.quantizer.format
    if quantizer.transforms:
        raise Inexpressible(
            f"{quantizer.transforms[0].partition('(')[0]} computes around the codes, and Q/DQ has "
            "nodes for codes and scales only",
            instead="the same format without transforms is written",
        )
    found = element_type(format.element)
    if found is None:
        raise Inexpressible(f"ONNX has no type for {format.element.name}", instead=f"{ELEMENTS}")
    return found


def _pair(emulator: Emulator, element: ElementType) -> Pair:
    quantizer = emulator.quantizer
    if emulator.statistics is not None and not emulator.statistics.sample.numel():
        raise Inexpressible(
            "calibration saw no value there: its branch did not run, so that its scale is unknown",
            instead="data that take the branch, or a choice whose activations are no static "
            "formats, is written",
        )
    state = emulator.fixed
    if state is None or quantizer.format.tensor_scale is not None:
        raise Inexpressible(
            "its scales are worked out while the network runs; only those that calibration gave "
            "are written (ONNX's one operator for that, DynamicQuantizeLinear, has one scale a "
            "tensor and uint8 codes: no scales a token or block)",
            instead=STATIC,
        )
    assert state.scales is not None, "a static format with a scale has one"
    zero = 0.0 if state.zero_points is None else state.zero_points.item()
    return Pair(scale=state.scales.item(), zero_point=np.array(zero).astype(element.type.numpy()))
