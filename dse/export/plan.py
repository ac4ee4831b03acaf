"""What Q/DQ stands where, decided and checked before a model is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from torch import Tensor

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.execute.program import Program
from dse.export.constant import Codes, codes_of
from dse.export.element import BASE_OPSET, ElementType, element_type
from dse.numerics import calibrated_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Of each site exactly one of `codes`, `casts` and `pairs` knows what stands there."""

    codes: Mapping[str, Codes]
    """Constants with scales, by site."""
    casts: Mapping[str, tuple[Tensor | None, ir.DataType]]
    """Sites of formats without scales: the values of a constant, None for an activation."""
    pairs: Mapping[str, tuple[Emulator, Codes]]
    """Activations with scales: what is shared, and scale and zero point."""
    opset: int

    @classmethod
    def of(cls, program: Program, emulators: Mapping[str, Emulator]) -> Plan:
        """The plan of emulators by site; raises `ExportError`, see `export_qdq`."""
        nodes = {node.name: node for node in program.graph.nodes}
        codes: dict[str, Codes] = {}
        casts: dict[str, tuple[Tensor | None, ir.DataType]] = {}
        pairs: dict[str, tuple[Emulator, Codes]] = {}
        refused: dict[str, list[str]] = {}
        opset = BASE_OPSET
        for key, emulator in emulators.items():
            name, _, operand = key.rpartition("/")
            constant = None
            if operand.startswith("in"):
                constant = program.constant(nodes[name].inputs[int(operand[2:])])
            try:
                element = _element(emulator)
                opset = max(opset, element.opset)
                if emulator.quantizer.format.scale is None:
                    values = None if constant is None else emulator(constant.float())
                    casts[key] = values, element.type
                    continue
                if constant is None:
                    pairs[key] = emulator, _activation(emulator, element)
                else:
                    codes[key] = codes_of(constant, emulator, element)
                    opset = max(opset, codes[key].opset)
            except ExportError as error:
                refused.setdefault(str(error), []).append(key)
        if refused:
            raise ExportError(_refusal(refused))
        return cls(codes=codes, casts=casts, pairs=pairs, opset=opset)


def _refusal(refused: Mapping[str, list[str]]) -> str:
    lines = [
        f"  {reason} ({', '.join(keys[:3])}" + (f" and {len(keys) - 3} more)" if keys[3:] else ")")
        for reason, keys in refused.items()
    ]
    return "\n".join([
        "ONNX Q/DQ cannot express this assignment:", *lines,
        "choose another trial, or restrict the space's candidates to int2/4/8/16, e4m3, e5m2 "
        "with static activations, bf16, fp16",
    ])  # fmt: skip


def _element(emulator: Emulator) -> ElementType:
    quantizer = emulator.quantizer
    found = element_type(quantizer.format.element)
    if found is None:
        raise ExportError(
            f"{quantizer.name}: ONNX has no type for {quantizer.format.element.name}"
        )
    if quantizer.format.tensor_scale is not None or (
        quantizer.format.scale is not None and quantizer.format.scale.encoding.bits < 16
    ):
        raise ExportError(f"{quantizer.name}: scales of fewer than 16 bits are not exported yet")
    if quantizer.transforms:
        raise ExportError(f"{quantizer.name}: transforms have no Q/DQ")
    return found


def _activation(emulator: Emulator, element: ElementType) -> Codes:
    """Scale and zero point of a static activation; it has no codes of its own."""
    quantizer = emulator.quantizer
    if emulator.statistics is None:
        raise ExportError(f"{quantizer.name}: an activation's scale must be static in Q/DQ")
    state = calibrated_state(emulator.statistics.values, quantizer, axes=(0,))
    assert state.scales is not None, "a static format with a scale has one"
    if quantizer.rounding != "nearest_even":
        raise ExportError(f"{quantizer.name}: QuantizeLinear rounds to nearest even")
    zero = np.zeros(1) if state.zero_points is None else state.zero_points.numpy()
    dtype = element.type.numpy()
    return Codes(
        codes=np.zeros(0, dtype),
        scale=state.scales.float().numpy().reshape(()),
        zero_point=zero.reshape(()).astype(dtype),
    )
