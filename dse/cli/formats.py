"""`dse formats`: number formats and the schemes made of them, with sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.catalogue import Name
from dse.cli.circuits import REFERENCE, SOURCE, circuit_facts, circuit_lines, circuit_table
from dse.cli.screen import JsonFlag, Rows, Screen, Value

if TYPE_CHECKING:
    from hwmodels.formats.quantizer import Format


NODE_NM = 16.0
"""Node at which circuits are shown unless another is asked for."""


@dataclass(frozen=True, slots=True)
class _Circuit:
    """The circuit that is asked for beside a format."""

    other: str | None
    accumulator: str | None
    node_nm: float


NOT_ASKED = _Circuit(None, None, NODE_NM)


def formats(
    context: typer.Context,
    name: Name = None,
    *,
    circuits: Annotated[
        bool, typer.Option("--circuits", help="Multiply-accumulate circuits of all formats.")
    ] = False,
    other: Annotated[
        str | None,
        typer.Option("--input", metavar="FORMAT", help="Circuit of NAME with another input."),
    ] = None,
    accumulator: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of circuits: int20, fp16, e6m9:zero, …")
    ] = None,
    node: Annotated[float, typer.Option(metavar="NM", help="Process node of circuits.")] = NODE_NM,
    json: JsonFlag = False,
) -> None:
    """Number formats and schemes, or all about one, its circuit included."""
    from hwmodels.formats import catalog  # noqa: PLC0415

    screen: Screen = context.obj
    if circuits:
        if name is not None or other is not None:
            raise typer.BadParameter("--circuits lists all formats; leave NAME and --input out")
        _circuits(screen, node, accumulator, as_json=json)
        return
    asked = _Circuit(other, accumulator, node)
    if asked != NOT_ASKED and (name is None or catalog.is_scheme(name)):
        raise typer.BadParameter("--input, --accumulator and --node go with one format")
    if name is not None and catalog.is_scheme(name):
        _scheme(screen, name, as_json=json)
    elif name is not None:
        _quantizer(screen, name, asked, as_json=json)
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


def _circuits(screen: Screen, node_nm: float, accumulator: str | None, *, as_json: bool) -> None:
    rows, without = circuit_table(node_nm, accumulator)
    screen.table(rows, as_json=as_json)
    if not as_json:
        screen.remark(f"\nOver {REFERENCE} with int32, at {node_nm:g} nm; {SOURCE}.")
        screen.remark(f"No circuit with this accumulator: {', '.join(without)}.")


def _circuit(form: Format, asked: _Circuit) -> dict[str, Value]:
    """Facts of the circuit; where the format has none and nothing was asked for, why."""
    from hwmodels.errors import CircuitError  # noqa: PLC0415
    from hwmodels.formats import catalog  # noqa: PLC0415

    other = form if asked.other is None else catalog.quantizer(asked.other).format
    try:
        return circuit_facts(form, other, node_nm=asked.node_nm, accumulator=asked.accumulator)
    except CircuitError as error:
        if asked != NOT_ASKED:
            raise
        return {"mac_source": str(error)}


def _quantizer(screen: Screen, name: str, asked: _Circuit, *, as_json: bool) -> None:
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
    circuit = _circuit(form, asked)
    if as_json:
        if "mac_source" not in circuit:
            circuit |= {"mac_node_nm": asked.node_nm, "mac_source": SOURCE}
        screen.json({**{key.replace(" ", "_"): value for key, value in facts}, **circuit})
        return
    rows = tuple((key, f"{v:g}" if isinstance(v, float) else str(v)) for key, v in facts)
    rows += circuit_lines(circuit, asked.node_nm)
    screen.table(Rows(columns=("", "value"), rows=rows))


def _super_scale(form: Format) -> str:
    if form.super_scale is None:
        return "none"
    return f"{form.super_scale.name} for {form.super_group} elements"
