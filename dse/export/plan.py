"""What stands at each site of a Q/DQ model, decided and checked before a model is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from torch import Tensor

from dse.errors import ExportError
from dse.execute.emulate import Emulator, static_state
from dse.execute.operators.step import Quantize
from dse.execute.program.program import Program
from dse.execute.quantizers import Shift
from dse.export.constant import Codes, codes_of
from dse.export.element import BASE_OPSET, ElementType, element_type

SHOWN_SITES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValues:
    """A constant as values of an ONNX float type, read through a cast unless it is float32."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """An output that a constant is added to."""

    addend: npt.NDArray[np.float32]
    then: CastPair | Pair | None


Placement = Codes | StoredValues | CastPair | Pair | Sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What stands at each site, and the opset that it needs."""

    placements: Mapping[str, Placement]
    opset: int


def plan_of(program: Program, bound: Mapping[str, Quantize]) -> Plan:
    """The plan of what `dse.execute.quantizers.bound` says.

    Raises:
        ExportError: see `export_qdq`.
    """
    nodes = {node.name: node for node in program.graph.nodes}
    placements: dict[str, Placement] = {}
    refused: dict[str, list[str]] = {}
    opset = BASE_OPSET
    for key, quantize in bound.items():
        name, _, operand = key.rpartition("/")
        constant = None
        if operand.startswith("in"):
            constant = program.constant(nodes[name].inputs[int(operand[2:])])
        try:
            placements[key], needed = _placement(quantize, constant)
            opset = max(opset, needed)
        except ExportError as error:
            refused.setdefault(str(error), []).append(key)
    if refused:
        raise ExportError(_refusal(refused))
    return Plan(placements=placements, opset=opset)


def _refusal(refused: Mapping[str, list[str]]) -> str:
    lines = []
    for reason, keys in refused.items():
        rest = len(keys) - SHOWN_SITES
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(f"  {reason} ({', '.join(keys[:SHOWN_SITES])}{more})")
    return "\n".join([
        "ONNX Q/DQ cannot express this assignment:", *lines,
        "choose another trial, or restrict the space's candidates to int2, int4, int8, int16, "
        "e4m3 and e5m2 (activations static, per tensor), bf16 and fp16",
    ])  # fmt: skip


def _placement(quantize: Quantize, constant: Tensor | None) -> tuple[Placement, int]:
    """What stands at one site, and the opset it needs."""
    if isinstance(quantize, Shift):
        return _shifted(quantize, constant)
    if not isinstance(quantize, Emulator):
        raise ExportError(f"{type(quantize).__name__} has no Q/DQ")
    element = _element(quantize)
    if constant is not None:
        if quantize.quantizer.format.scale is None:
            values = quantize(constant.float()).numpy()
            return StoredValues(values=values, type=element.type), element.opset
        codes = codes_of(constant, quantize, element)
        return codes, max(codes.opset, element.opset)
    if quantize.quantizer.rounding != "nearest_even":
        raise ExportError(f"{quantize.quantizer.name}: QuantizeLinear rounds to nearest even")
    if quantize.quantizer.format.scale is None:
        return CastPair(type=element.type), element.opset
    return _pair(quantize, element), element.opset


def _shifted(shift: Shift, constant: Tensor | None) -> tuple[Placement, int]:
    """A corrected mean: in the bias itself, or added to the output."""
    if constant is not None:
        values = shift(constant.float())
        if shift.then is None or not isinstance(shift.then, Emulator):
            return StoredValues(values=values.numpy(), type=ir.DataType.FLOAT), BASE_OPSET
        return _placement(shift.then, constant + shift.shift)
    then, opset = None, BASE_OPSET
    if shift.then is not None:
        placement, opset = _placement(shift.then, None)
        assert isinstance(placement, CastPair | Pair), "an activation is not stored"
        then = placement
    return Sum(addend=shift.shift.float().numpy(), then=then), opset


def _element(emulator: Emulator) -> ElementType:
    quantizer, format = emulator.quantizer, emulator.quantizer.format
    found = element_type(format.element)
    if found is None:
        raise ExportError(f"{quantizer.name}: ONNX has no type for {format.element.name}")
    narrow = format.scale is not None and format.scale.encoding.bits < 16
    if format.tensor_scale is not None or narrow:
        raise ExportError(f"{quantizer.name}: scales of fewer than 16 bits are not exported yet")
    if quantizer.transforms:
        raise ExportError(f"{quantizer.name}: transforms have no Q/DQ")
    return found


def _pair(emulator: Emulator, element: ElementType) -> Pair:
    quantizer = emulator.quantizer
    if emulator.statistics is None:
        raise ExportError(f"{quantizer.name}: an activation's scale must be static in Q/DQ")
    state = static_state(quantizer, emulator.statistics)
    assert state.scales is not None, "a static format with a scale has one"
    zero = 0.0 if state.zero_points is None else state.zero_points.item()
    return Pair(scale=state.scales.item(), zero_point=np.array(zero).astype(element.type.numpy()))
