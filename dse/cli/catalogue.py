"""`dse devices`, `runtimes`, `zoo`: what there is, with sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dse.cli.device.new import new_device
from dse.cli.device.zigzag import from_zigzag, to_zigzag
from dse.cli.screen import JsonFlag, Rows, Screen

Name = Annotated[str | None, typer.Argument(help="One entry, with everything known about it.")]


def devices(
    context: typer.Context,
    name: Name = None,
    *,
    new: Annotated[
        bool,
        typer.Option(
            "--new", help="Write a device's file from its datasheet; asks, unless --set or --like."
        ),
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="With --new: known device that the rest is from."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="With --new: 'memory.bandwidth=864 GB/s @ source'."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(help="With --new: of figures that name no source of their own.")
    ] = "",
    ask: Annotated[bool | None, typer.Option(help="With --new: ask for what is not set.")] = None,
    zigzag: Annotated[
        Path | None,
        typer.Option(
            "--from-zigzag", metavar="ACCELERATOR.yaml", help="Write a ZigZag accelerator's file."
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(metavar="MAPPING.yaml", help="With --from-zigzag: loops of each axis."),
    ] = None,
    as_zigzag: Annotated[
        bool, typer.Option("--to-zigzag", help="The device as a ZigZag accelerator file.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE.yaml",
            help="With --new  [default: NAME.yaml], --from-zigzag and --to-zigzag.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Devices, or all figures of one (a name or file) with their sources; or a new one's file."""
    from hwmodels.devices.load import device_names, load_device  # noqa: PLC0415

    screen: Screen = context.obj
    if new:
        new_device(
            screen, name, like=like, settings=set_ or (), source=source, out=out,
            ask=ask if ask is not None else not (set_ or like), as_json=json,
        )  # fmt: skip
        return
    if like or set_ or source or ask is not None:
        raise typer.BadParameter("--like, --set, --source and --ask are of --new; add it")
    if zigzag is not None:
        from_zigzag(screen, zigzag, mapping, out, as_json=json)
        return
    if mapping is not None:
        raise typer.BadParameter("--mapping is of --from-zigzag; add it")
    if as_zigzag:
        to_zigzag(screen, name, out)
        return
    if out:
        raise typer.BadParameter("-o is of --new, --from-zigzag and --to-zigzag; add one")
    if name is not None:
        _device(screen, name, as_json=json)
        return
    found = [load_device(known) for known in device_names()]
    screen.table(
        Rows(
            columns=("device", "title", "year", "dram_bytes", "bandwidth_bytes_per_s", "figures"),
            rows=tuple(
                (
                    device.name,
                    device.title,
                    device.year,
                    device.main_memory.capacity_bytes.value,
                    device.main_memory.bandwidth_bytes_per_s.value,
                    device.note,
                )
                for device in found
            ),
        ),
        as_json=json,
    )


def runtimes(context: typer.Context, name: Name = None, *, json: JsonFlag = False) -> None:
    """Runtimes, or all kernel modes of one with their sources."""
    from hwmodels.runtimes.load import load_runtime, runtime_names  # noqa: PLC0415

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


COMMANDS = (devices, runtimes, zoo)


def _device(screen: Screen, name: str, *, as_json: bool) -> None:
    from hwmodels.devices.figures import figures_of  # noqa: PLC0415
    from hwmodels.devices.load import load_device  # noqa: PLC0415
    from hwmodels.devices.quantity import UNITS  # noqa: PLC0415

    device = load_device(name)
    rows = tuple(
        (path, figure.value / UNITS[figure.unit][1], figure.unit, figure.kind, figure.source)
        for path, figure in figures_of(device).items()
    )
    columns = ("figure", "value", "unit", "kind", "source")
    if not as_json:
        screen.result(f"{device.title}: {device.note}\n")
    screen.table(Rows(columns=columns, rows=rows), as_json=as_json)


def _runtime(screen: Screen, name: str, *, as_json: bool) -> None:
    from hwmodels.runtimes.load import load_runtime  # noqa: PLC0415

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
