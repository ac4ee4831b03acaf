"""`dse formats`: number formats and the schemes made of them, with sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dse.cli.catalogue import Name
from dse.cli.screen import JsonFlag, Rows, Screen

if TYPE_CHECKING:
    from hwmodels.formats.quantizer import Format


def formats(context: typer.Context, name: Name = None, *, json: JsonFlag = False) -> None:
    """Number formats and schemes, or all about one."""
    from hwmodels.formats import catalog  # noqa: PLC0415

    screen: Screen = context.obj
    if name is not None and catalog.is_scheme(name):
        _scheme(screen, name, as_json=json)
    elif name is not None:
        _quantizer(screen, name, as_json=json)
    else:
        _all_formats(screen, as_json=json)


COMMANDS = (formats,)


def _all_formats(screen: Screen, *, as_json: bool) -> None:
    from hwmodels.formats import catalog  # noqa: PLC0415

    found = tuple(catalog.FORMATS.values())
    columns = ("format", "bits_per_element", "element", "granularity", "scale", "source")
    rows = tuple(
        (
            one.name,
            one.bits_per_element,
            one.element.name,
            f"{one.granularity} {one.group}" if one.group else one.granularity,
            one.scale.encoding.name if one.scale else "",
            one.source,
        )
        for one in found
    )
    schemes = Rows(
        columns=("scheme", "weight", "input", "source"),
        rows=tuple(
            (
                one.name,
                (one.weight or one.other).name,
                (one.input or one.other).name,
                one.source,
            )
            for one in catalog.SCHEMES.values()
        ),
    )
    listed = Rows(columns=columns, rows=rows)
    if as_json:
        screen.json({"formats": listed.records(), "schemes": schemes.records()})
        return
    screen.table(listed)
    screen.result("")
    screen.table(schemes)


def _scheme(screen: Screen, name: str, *, as_json: bool) -> None:
    from hwmodels.formats import catalog  # noqa: PLC0415

    scheme = catalog.scheme(name)
    operands = {"weight": scheme.weight, "input": scheme.input, "everything else": scheme.other}
    if not as_json:
        screen.result(f"{scheme.name}: {scheme.source}\n")
    screen.table(
        Rows(
            columns=("operand", "quantizer", "bits_per_element", "timing", "statistic"),
            rows=tuple(
                (operand, q.name, q.format.bits_per_element, q.timing, q.statistic)
                for operand, given in operands.items()
                for q in (given or scheme.other,)
            ),
        ),
        as_json=as_json,
    )


def _quantizer(screen: Screen, name: str, *, as_json: bool) -> None:
    from hwmodels.formats import catalog  # noqa: PLC0415

    quantizer = catalog.quantizer(name)
    form, element = quantizer.format, quantizer.format.element
    facts = (
        ("format", form.name),
        ("bits per element", form.bits_per_element),
        ("element", f"{element.name} ({element.kind}, {element.bits} bits)"),
        ("largest", element.max),
        ("smallest normal", element.min_normal),
        ("smallest", element.min_subnormal),
        ("granularity", f"{form.granularity} {form.group or ''}".strip()),
        ("scale", f"{form.scale.encoding.name}, {form.scale.rule}" if form.scale else "none"),
        ("tensor scale", form.tensor_scale.name if form.tensor_scale else "none"),
        ("zero point", form.zero_point.name if form.zero_point else "none"),
        ("offset", form.offset.name if form.offset else "none"),
        ("scale of scales", _super_scale(form)),
        ("statistic", quantizer.statistic),
        ("timing", quantizer.timing),
        ("rounding", quantizer.rounding),
        ("source", form.source or element.source),
    )
    if as_json:
        screen.json({key.replace(" ", "_"): value for key, value in facts})
        return
    rows = tuple((key, f"{v:g}" if isinstance(v, float) else str(v)) for key, v in facts)
    screen.table(Rows(columns=("", "value"), rows=rows))


def _super_scale(form: Format) -> str:
    if form.super_scale is None:
        return "none"
    return f"{form.super_scale.name} for {form.super_group} elements"
