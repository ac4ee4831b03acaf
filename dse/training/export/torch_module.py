"""A file of plain torch that computes what a method computes, for those without this package."""

from __future__ import annotations

import inspect
from dataclasses import replace

from dse.training.export import plain
from dse.training.export.layers import Layers, beyond, layers_of
from dse.training.export.plain import Grid
from dse.training.method import Method, Operand
from hwmodels.formats.quantizer import Format, Quantizer

GROUPS = {"tensor": -1, "token": 0, "channel": 0}
ROUNDINGS = {"nearest_even": False, "stochastic": True}


def can_express(method: Method) -> tuple[str, ...]:
    """One line for each part of a method that the file cannot compute."""
    found = list(beyond(method))
    for layers in layers_of(method):
        for key, operand in layers.operands.items():
            if _grid(operand) is None and not _is_plain_wide(operand):
                found.append(
                    f"{layers.where}: {key}: {_words(operand)}: expected a float or a symmetric "
                    "integer, scales of a tensor, a row or a group in fp32, e8m0 or e4m3, and "
                    "nothing around rounding"
                )
    return tuple(dict.fromkeys(found))


def write(method: Method, name: str) -> str:
    """The file's text; only of what `can_express` finds nothing against."""
    source = inspect.getsource(plain)
    opening = '"""Linear layers'
    head = f'"""Method {name}: linear layers'
    layers = "\n".join(_entry(one) for one in layers_of(method))
    settings = f"LAYERS = {{\n{layers}\n}}\n"
    said = f"\n# From: {method.source}.\n# By pattern of names; the first that fits.\n{settings}"
    return source.replace(opening, head, 1) + said


def _entry(layers: Layers) -> str:
    lines = [f"        {key!r}: {_grid(one)!r}," for key, one in layers.operands.items()]
    return "\n".join([f"    {layers.pattern!r}: {{", *lines, "    },"])


def _is_plain_wide(operand: Operand) -> bool:
    return operand == Operand(format="fp32")


def _grid(operand: Operand) -> Grid | None:
    """The grid of an operand; None for float32 and what the file has not."""
    plain_one = replace(operand, of="original")
    if plain_one != Operand(format=operand.format) or _is_plain_wide(operand):
        return None
    quantizer = operand.quantizer
    format, element = quantizer.format, quantizer.format.element
    scales, group = _scales(format), GROUPS.get(format.granularity, format.group)
    if not _is_simple(quantizer) or scales is None or format.granularity == "block":
        return None
    whole = element.kind == "int"
    return Grid(
        exponent_bits=0 if whole else element.exponent_bits,
        mantissa_bits=0 if whole else element.mantissa_bits,
        bias=element.bias,
        top=element.max,
        scales=scales,
        group=group,
        stochastic=ROUNDINGS[quantizer.rounding],
        forward=operand.of == "forward",
    )


def _is_simple(quantizer: Quantizer) -> bool:
    format = quantizer.format
    element = format.element
    return (
        quantizer.rounding in ROUNDINGS
        and quantizer.statistic == "absmax"
        and quantizer.timing == "dynamic"
        and not quantizer.transforms
        and format.zero_point is None
        and element.subnormals
        and (element.kind == "float" or (element.kind == "int" and element.signed))
    )


def _scales(format: Format) -> str | None:
    """The scales as `Grid` names them; None for others."""
    scale, tensor = format.scale, format.tensor_scale
    if scale is None:
        return "none"
    name = scale.encoding.name
    if name == "fp32" and tensor is None:
        return "fp32"
    if name == "e8m0" and tensor is None and scale.rule in ("rceil", "floor"):
        return f"e8m0-{scale.rule}"
    return "e4m3" if name == "e4m3" and tensor is not None else None


def _words(operand: Operand) -> str:
    around = {
        key: getattr(operand, key)
        for key in ("hadamard", "scales", "headroom", "gradient", "scale_gradient", "smooth")
        if getattr(operand, key) != getattr(Operand(format="fp32"), key)
    }
    said = ", ".join(f"{key}: {value}" for key, value in around.items())
    return f"{operand.format} with {said}" if said else operand.format
