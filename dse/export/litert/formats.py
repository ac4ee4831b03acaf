"""Quantizers that LiteRT's kernels have, checked before a network is built."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dse.execute.emulate import Emulator, Tied
from dse.execute.operators.step import Quantize
from dse.execute.quantizers import Shift
from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.hugging_face.rows import is_element, refuse_transforms

PRODUCTS = ("Conv", "Gemm", "MatMul")
INTEGERS = (
    "int8 and int4 weights, per output channel or tensor, and static 8-bit activations per tensor "
    "are written (w8a8_int8_static), and full precision"
)


def refused(recipe: Recipe) -> Iterator[Refusal]:
    """Formats that LiteRT has no kernels for, site by site."""
    for key, quantize in recipe.bound.items():
        try:
            _check(recipe, key, quantize)
        except Inexpressible as why:
            yield recipe.refusal(key, why.reason, why.instead)


def _check(recipe: Recipe, key: str, quantize: Quantize | None) -> None:
    if isinstance(quantize, Shift):
        quantize = quantize.then
    if quantize is None:
        return
    if isinstance(quantize, Tied):
        raise Inexpressible(
            "a look-up reads the copy of its table that a product stores",
            instead="gguf and mlx write one copy; search for a target that keeps two",
        )
    if not isinstance(quantize, Emulator):
        raise Inexpressible("is no quantizer of ours", instead="a format of the catalogue is")
    refuse_transforms(quantize.quantizer)
    constant = recipe.constant(key)
    format = quantize.quantizer.format
    if format.scale is None:
        if constant is None and not is_element(format.element, "fp32"):
            raise Inexpressible(
                f"LiteRT's kernels take activations in float32 and integers, not {format.name}",
                instead=INTEGERS,
            )
        if constant is not None and np.ndim(constant) > 1 and not _is_plain(quantize):
            raise Inexpressible(
                f"LiteRT's kernels take no weights in {format.name}", instead=INTEGERS
            )
        return
    kinds = (
        ("int8", "int8a", "int4", "int4a") if constant is not None else ("int8", "int8a", "uint8")
    )
    if not any(is_element(format.element, name) for name in kinds):
        what = "weights" if constant is not None else "activations"
        raise Inexpressible(f"LiteRT's kernels take no {what} in {format.name}", instead=INTEGERS)
    _check_scales(quantize, is_weight=constant is not None)


def _is_plain(quantize: Emulator) -> bool:
    return any(is_element(quantize.quantizer.format.element, name) for name in ("fp32", "fp16"))


def _check_scales(quantize: Emulator, *, is_weight: bool) -> None:
    quantizer, format = quantize.quantizer, quantize.quantizer.format
    assert format.scale is not None, "the caller has asked"
    if not is_element(format.scale.encoding, "fp32") or format.tensor_scale is not None:
        raise Inexpressible("LiteRT's scales are in float32, in one level", instead=INTEGERS)
    if is_weight:
        plain = format.granularity in ("tensor", "channel") and format.zero_point is None
        if not plain:
            raise Inexpressible(
                "LiteRT's weights have a scale per output channel or per tensor, and no zero "
                "points",
                instead=INTEGERS,
            )
        return
    if format.granularity != "tensor" or quantize.fixed is None:
        raise Inexpressible(
            "its scales are worked out while the network runs; LiteRT's integer kernels take "
            "those that calibration gave, one per tensor",
            instead=INTEGERS,
        )
    if quantizer.rounding != "nearest_even":
        raise Inexpressible(
            "LiteRT rounds activations to nearest only",
            instead="the same format without a rounding of its own is written",
        )
