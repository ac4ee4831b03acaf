"""Options applied to a method: single fields of operands, rules, the optimizer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import cast

from dse.errors import SpaceError
from dse.training.method import Method, Operand
from dse.training.roles import passes_of
from dse.training.search.described import PLACES, Described, format_name
from dse.training.search.schema import MethodVariable, OperandChange, Option
from hwmodels.errors import HardwareError
from hwmodels.formats import catalog
from hwmodels.formats.compose import encoding_named
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.quantizer import (
    HISTORY,
    Encoding,
    Format,
    Granularity,
    Quantizer,
    Scale,
    ScaleRule,
)

NONE = "none"
_BLOCK = re.compile(r"(?:(?P<rows>\d+)x)?(?P<group>\d+)")
_DELAYED = re.compile(r"delayed(?P<steps>\d*)")
AROUND = tuple(one.name for one in fields(Operand) if one.name != "format")
"""Fields of an operand beside its format."""


def places_of(key: str) -> tuple[str, ...]:
    """The places of a role, alone or narrowed to a pass."""
    role, _, pass_ = key.partition("@")
    return tuple(f"{role}@{name}" for name in ([pass_] if pass_ else passes_of(role)))


def applied(one: Described, variable: MethodVariable, option: Option) -> Described:
    """A method with an option of a variable.

    Raises:
        SpaceError: a change that an operand does not take.
        HardwareError: a format, an encoding that nobody knows.
    """
    operands = dict(one.operands)
    for place, change in _changes(variable, option):
        before = operands[place]
        if not variable.elements or _element(before) in variable.elements:
            operands[place] = changed(before, change)
    return Described(operands=operands, rest=_rest(one.rest, option))


def _changes(variable: MethodVariable, option: Option) -> Iterator[tuple[str, OperandChange]]:
    keyed: Mapping[str, OperandChange] = {
        **dict.fromkeys(variable.at, option), **option.roles
    }  # fmt: skip
    for key, change in keyed.items():
        for place in places_of(key):
            if place in PLACES:
                yield place, change


def _element(operand: Operand | None) -> str | None:
    return None if operand is None else operand.quantizer.format.element.name


def _rest(method: Method, option: Option) -> Method:
    update = option.update.model_dump(exclude_none=True)
    scale = option.loss_scale.model_dump(exclude_none=True)
    return replace(
        method,
        rules=method.rules if option.rules is None else option.rules,
        update=replace(method.update, **update),
        loss_scale=replace(method.loss_scale, **scale),
    )


def changed(operand: Operand | None, change: OperandChange) -> Operand | None:
    """An operand with what a change says; None where it is left to others.

    Raises:
        SpaceError: a change that the operand does not take.
        HardwareError: a format, an encoding that nobody knows.
    """
    if change.format == NONE:
        return None
    if change.format is not None:
        operand = Operand(format=change.format)
    if operand is None:
        return None
    before = catalog.quantizer(operand.format)
    after = _rounded(_scaled(before, change), change)
    around = {key: value for key in AROUND if (value := getattr(change, key)) is not None}
    name = operand.format if after == before else format_name(after)
    return replace(operand, format=name, **around)


def _scaled(quantizer: Quantizer, change: OperandChange) -> Quantizer:
    """The quantizer with another element, block, scale."""
    format = quantizer.format
    if change.element is not None:
        format = replace(format, element=_encoding(change.element))
    if change.block is not None:
        format = _blocked(format, change.block)
    if change.scale is not None:
        format = replace(format, scale=_scale(format, change.scale))
    if change.tensor_scale is not None:
        level = None if change.tensor_scale == NONE else _encoding(change.tensor_scale)
        format = replace(format, tensor_scale=level)
    return quantizer.replaced(format=format)


def _rounded(quantizer: Quantizer, change: OperandChange) -> Quantizer:
    if change.rounding is not None:
        quantizer = quantizer.replaced(rounding=change.rounding)
    if change.timing is None:
        return quantizer
    match = _DELAYED.fullmatch(change.timing)
    if match is None:
        return quantizer.replaced(timing=change.timing, history=HISTORY)
    steps = int(match["steps"] or HISTORY)
    return quantizer.replaced(timing="delayed", history=steps)


def _blocked(format: Format, block: str) -> Format:
    match = _BLOCK.fullmatch(block)
    scale = format.scale or Scale(encoding=ENCODINGS["fp32"])
    if match is None:
        return replace(
            format, granularity=cast("Granularity", block), group=0, block_rows=0, scale=scale
        )
    rows = int(match["rows"] or 0)
    return replace(
        format,
        granularity="block" if rows else "group",
        group=int(match["group"]),
        block_rows=rows,
        scale=scale,
    )


def _scale(format: Format, text: str) -> Scale:
    name, _, rule = text.partition("-")
    encoding = _encoding(name)
    default = "floor" if encoding.kind == "exponent" else "nearest"
    before = format.scale or Scale(encoding=encoding)
    return replace(before, encoding=encoding, rule=cast("ScaleRule", rule or default))


def _encoding(name: str) -> Encoding:
    found = encoding_named(name, ENCODINGS)
    if found is None:
        raise SpaceError(f"unknown encoding {name!r}; see: dse formats")
    return found


def problem_of(change: OperandChange) -> str:
    """The fault of a change, whatever operand it is for; empty where there is none.

    An operand that has all of it already tells most: blocks, timings and encodings that nobody
    knows.
    """
    try:
        trial = changed(Operand(format="e2m1@g16/e4m3+fp32"), change)
        if trial is not None:
            _ = trial.quantizer
    except (SpaceError, HardwareError) as error:
        return str(error)
    return ""
