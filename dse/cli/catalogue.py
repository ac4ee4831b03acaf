"""`dse formats`, `devices`, `runtimes`, `zoo`: what there is, with sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dse.cli.screen import JsonFlag, Rows, Screen

if TYPE_CHECKING:
    from hwmodels.quantity import SourcedValue

Name = Annotated[str | None, typer.Argument(help="One entry, with everything known about it.")]


def formats(context: typer.Context, name: Name = None, *, json: JsonFlag = False) -> None:
    """Number formats and schemes, or all about one."""
    from hwmodels import catalog  # noqa: PLC0415

    screen: Screen = context.obj
    if name is not None and name in catalog.SCHEMES:
        _scheme(screen, name, as_json=json)
    elif name is not None:
        _quantizer(screen, name, as_json=json)
    else:
        _all_formats(screen, as_json=json)


def devices(context: typer.Context, name: Name = None, *, json: JsonFlag = False) -> None:
    """Devices, or all figures of one with their sources."""
    from hwmodels.device_file import device_names, load_device  # noqa: PLC0415

    screen: Screen = context.obj
    if name is not None:
        _device(screen, name, as_json=json)
        return
    found = [load_device(known) for known in device_names()]
    screen.table(
        Rows(
            columns=("device", "title", "year", "dram_bytes", "bandwidth", "figures"),
            rows=tuple(
                (
                    device.name,
                    device.title,
                    device.year,
                    device.main_memory.capacity_bytes.value,
                    _per_second(device.main_memory.bandwidth_bytes_per_s.value),
                    device.note,
                )
                for device in found
            ),
        ),
        as_json=json,
    )


def runtimes(context: typer.Context, name: Name = None, *, json: JsonFlag = False) -> None:
    """Runtimes, or all kernel modes of one with their sources."""
    from hwmodels.runtime_file import load_runtime, runtime_names  # noqa: PLC0415

    screen: Screen = context.obj
    if name is not None:
        _runtime(screen, name, as_json=json)
        return
    found = [load_runtime(known) for known in runtime_names()]
    screen.table(
        Rows(
            columns=("runtime", "title", "version", "modes", "source"),
            rows=tuple(
                (
                    runtime.name,
                    runtime.title,
                    runtime.version,
                    "every combination" if runtime.every_combination else str(len(runtime.modes)),
                    runtime.source,
                )
                for runtime in found
            ),
        ),
        as_json=json,
    )


def zoo(context: typer.Context, name: Name = None, *, json: JsonFlag = False) -> None:
    """Models that need no download, or the card of one."""
    from dse import zoo as models  # noqa: PLC0415

    screen: Screen = context.obj
    if name is not None:
        model = models.resolve(name.removeprefix("zoo:"))
        if model.card.is_file() and not json:
            screen.result(model.card.read_text(encoding="utf-8").rstrip())
            return
    listed = models.CATALOGUE.values() if name is None else (model,)
    screen.table(
        Rows(
            columns=("model", "description", "needs", "licence", "weights_note"),
            rows=tuple(
                (
                    f"zoo:{one.name}",
                    one.description,
                    ", ".join(one.requires),
                    one.licence,
                    one.weights_note,
                )
                for one in listed
            ),
        ),
        as_json=json,
    )


COMMANDS = (formats, devices, runtimes, zoo)


def _all_formats(screen: Screen, *, as_json: bool) -> None:
    from hwmodels import catalog  # noqa: PLC0415

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
    from hwmodels import catalog  # noqa: PLC0415

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
    from hwmodels import catalog  # noqa: PLC0415

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


def _device(screen: Screen, name: str, *, as_json: bool) -> None:
    from hwmodels.device_file import load_device  # noqa: PLC0415
    from hwmodels.quantity import UNITS  # noqa: PLC0415

    device = load_device(name)
    rows = tuple(
        (path, figure.value / UNITS[figure.unit][1], figure.unit, figure.kind, figure.source)
        for path, figure in _figures(device, "")
    )
    columns = ("figure", "value", "unit", "kind", "source")
    if not as_json:
        screen.result(f"{device.title}: {device.note}\n")
    screen.table(Rows(columns=columns, rows=rows), as_json=as_json)


def _figures(record: object, path: str) -> Iterator[tuple[str, SourcedValue]]:
    """Every figure below a record, by its path in the device's file."""
    if hasattr(record, "kind") and hasattr(record, "source"):
        yield path, cast("SourcedValue", record)
    elif isinstance(record, tuple):
        for index, item in enumerate(record):
            yield from _figures(item, f"{path}.{_label(item, index)}")
    elif is_dataclass(record):
        for field in fields(record):
            inner = f"{path}.{field.name}" if path else field.name
            yield from _figures(getattr(record, field.name), inner)


def _label(record: object, index: int) -> str:
    """What tells one entry of a list from its neighbours."""
    for name in ("name", "weight", "elements"):
        value = getattr(record, name, None)
        if value:
            return value if isinstance(value, str) else "|".join(value)
    return str(index)


def _per_second(bytes_per_s: float) -> str:
    from dse.report.unit import si  # noqa: PLC0415

    return si(bytes_per_s, "B/s")


def _runtime(screen: Screen, name: str, *, as_json: bool) -> None:
    from hwmodels.runtime_file import load_runtime  # noqa: PLC0415

    runtime = load_runtime(name)
    if not as_json:
        screen.result(f"{runtime.title} {runtime.version}: {runtime.source}\n")
    screen.table(
        Rows(
            columns=("mode", "ops", "operands", "status", "needs", "source", "note"),
            rows=tuple(
                (
                    mode.name,
                    ", ".join(mode.ops),
                    ", ".join(f"{operand} {'|'.join(layout.elements)}"
                              for operand, layout in mode.operands.items()),
                    mode.status,
                    " or ".join(str(bounds) for bounds in mode.architectures) or "any",
                    mode.source,
                    mode.note,
                )
                for mode in runtime.modes
            ),
        ),
        as_json=as_json,
    )  # fmt: skip
