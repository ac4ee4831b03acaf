"""The tensor types of GGUF, and which formats they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Encoding, Format


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """A type of blocks."""

    name: str
    """In gguf-py and on llama-quantize's command line (there in any case)."""
    format: Format
    """Its values; how scales are chosen is a writer's own affair."""
    elements: int
    """Elements of a block: rows are divided into such."""


def _type(format: str, name: str = "", elements: int = 0) -> TensorType:
    found = catalog.format(format)
    return TensorType(
        name=name or format.upper(),
        format=found,
        elements=elements or found.super_group or found.group,
    )


TYPES = (
    *(_type(name) for name in (
        "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0", "iq4_nl", "iq4_xs",
        "q3_k", "q2_k", "mxfp4",
    )),
    _type("nvfp4_ggml", "NVFP4", elements=64),
)  # fmt: skip
PLAIN: Mapping[str, str] = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
"""Types without scales, by element."""
HELD = (
    "q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, iq4_xs, q3_k, q2_k, mxfp4, "
    "nvfp4_ggml, int8_g32, int5_g32, int4_g32, bf16 and fp16 are written"
)
"""Formats that have a type, for refusals."""


def type_of(format: Format) -> TensorType | None:
    """The type that has the values of a format; None where there is none."""
    return next((one for one in TYPES if _holds(one.format, format)), None)


def _holds(wide: Format, format: Format) -> bool:
    """Whether the numbers of a format are numbers of another one, byte for byte as many."""
    same = ("granularity", "group", "offset", "super_group", "super_scale", "zero_point")
    return (
        format.scale is not None
        and format.tensor_scale is None
        and all(getattr(wide, field) == getattr(format, field) for field in same)
        and wide.scale is not None
        and _includes(wide.scale.encoding, format.scale.encoding)
        and _includes(wide.element, format.element)
    )


def _includes(wide: Encoding, narrow: Encoding) -> bool:
    """Whether an encoding has all values of another one of its width."""
    if wide.kind == narrow.kind == "int":
        return wide.bits == narrow.bits and wide.signed == narrow.signed
    unsigned = wide.replaced(signed=True)  # scales that are never negative need no sign
    return any(
        one.replaced(name="", source="") == narrow.replaced(name="", source="")
        for one in (wide, unsigned)
    )
