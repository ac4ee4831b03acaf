"""`dse predict`, `dse legal`: what formats cost on a device, and which it can execute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.check import check_table
from dse.cli.device.sweep import check_outputs, say_sweep
from dse.cli.device.vary import Plot, Set, Sweep, variation
from dse.cli.dims import Dim, bound, parsed
from dse.cli.platform import DEVICE_RUNTIME
from dse.cli.predicted.elasticity import say_sensitivities
from dse.cli.predicted.serving import (
    Batch,
    Bounds,
    Generate,
    Prompt,
    Rate,
    load_bounds,
    load_record,
    not_fitting,
    refuse_without_requests,
    say_serving,
)  # fmt: skip
from dse.cli.predicted.spatial import say_spatial, spatial_record
from dse.cli.screen import JsonFlag, Rows, Screen, Value, positive
from dse.cli.training.step import say_steps
from dse.report.quantities.unit import si, speedup_text

if TYPE_CHECKING:
    from dse.predict import Prediction
    from hwmodels.tables.speedup import Speedup
    from hwmodels.work.cost import CostEstimate

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="An ONNX file, a Hugging Face folder, or zoo:NAME."),
]
Device = Annotated[
    list[str],
    typer.Option(
        "--device",
        "--target",
        metavar=DEVICE_RUNTIME,
        help="See: dse devices. Repeat for several.",
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A scheme or format, see: dse formats. Repeat for several."),
]
AssignmentFile = Annotated[
    Path | None,
    typer.Option(metavar="A.json", help="One format a site instead; or an annotated model's."),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.yaml",
        help="Of devices that name none, see: dse runtimes.  [default: the device's]",
    ),
]

Gpus = Annotated[
    int, typer.Option("--tensor-parallel", min=1, metavar="N", help="GPUs that share the model.")
]
Kv = Annotated[
    str | None, typer.Option("--kv", metavar="FORMAT", help="Format of the KV cache instead.")
]
Price = Annotated[
    float | None,
    typer.Option(
        metavar="USD", callback=positive, help="Of one GPU an hour instead of the file's."
    ),
]
Utilisation = Annotated[
    float, typer.Option(min=0.01, max=1.0, metavar="SHARE", help="Of the memory, for serving.")
]

Repeat = Annotated[
    int,
    typer.Option(
        min=1, max=1000, metavar="N", help="The model is one block of a network: N in a chain."
    ),
]
Check = Annotated[
    Path | None,
    typer.Option(
        "--check",
        metavar="MEASURED.csv",
        help="Compare with calls that you timed: latency_ms, sizes, format, runtime a row "
        "(docs/check.md); or with a table of operators.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="With --check: the adapted device (.yaml). With --sweep: the table (.csv).",
    ),
]

Training = Annotated[
    list[str] | None,
    typer.Option(
        "--training",
        metavar="METHOD.yaml|NAME",
        help="A training step of this method, see: dse train --list. Repeat for several.",
    ),
]

SHOWN = ("latency_s", "interval", "energy_j", "weight_bytes", "kv_bytes", "peak_bytes", "bound by",
         "status")  # fmt: skip
SHOWN_OF_REGION = ("latency_s", "interval", "energy_j", "weight_bytes", "bound by", "status")

COLUMNS = ("latency_s", "low_s", "high_s", "energy_j", "weight_bytes", "kv_bytes", "peak_bytes")


def predict(
    context: typer.Context,
    model: Model,
    *,
    device: Device,
    format: Format = None,
    assignment: AssignmentFile = None,
    dim: Dim = None,
    runtime: Runtime = None,
    tensor_parallel: Gpus = 1,
    prompt: Prompt = None,
    generate: Generate = 256,
    batch: Batch = 1,
    rate: Rate = None,
    constraint: Bounds = None,
    kv: Kv = None,
    price: Price = None,
    memory_utilisation: Utilisation = 0.9,
    repeat: Repeat = 1,
    regions: Annotated[
        bool, typer.Option("--regions", help="One row a region instead of one in all.")
    ] = False,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="How latency follows each figure of the device's file."
        ),
    ] = False,
    training: Training = None,
    set: Set = None,
    sweep: Sweep = None,
    check: Check = None,
    out: Out = None,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Predict latency, energy and memory; nothing is run.

    With --prompt also what serving takes: time to first token and per token, batch, price.
    With --set and --sweep on a device whose figures are others than its file's; --sweep writes
    its table with -o, and a page with --plot.
    With --check how far predictions are from what you measured, and with -o a device file that is
    adapted to it.
    With --training what a step of a method of low-precision training takes, beside bf16.
    """
    from dse.evaluate.request import Request  # noqa: PLC0415
    from dse.graph.onnx.rank import ranks_in  # noqa: PLC0415
    from dse.model import PAST, open_model  # noqa: PLC0415
    from dse.predict import Usage, load_assignment, rate_gains, speedups  # noqa: PLC0415
    from dse.predict import predict as predictions  # noqa: PLC0415
    from dse.sweep import sweep as sweeps  # noqa: PLC0415
    from hwmodels.formats import catalog  # noqa: PLC0415

    screen: Screen = context.obj
    dims = parsed(dim or ())
    refuse_without_requests(context, prompt)
    bounds = load_bounds(
        constraint, rate, served=prompt is not None,
        beside=bool(regions or sensitivity or sweep),
    )  # fmt: skip
    if training:
        _refuse_beside_training(
            format, assignment, prompt, regions, sensitivity, set, sweep, check, out, kv,
            tensor_parallel > 1, repeat > 1,
        )  # fmt: skip
        say_steps(screen, model, device, training, dims=dims, runtime=runtime, as_json=json)
        return
    if check is not None:
        from dse.measured.table import Defaults  # noqa: PLC0415 (with pandas)

        _refuse_beside_check(
            device=device, format=format, prompt=prompt, regions=regions, sensitivity=sensitivity,
            varied=bool(set or sweep),
        )  # fmt: skip
        defaults = Defaults(
            model=model,
            format=format[0] if format else None,
            assignment=assignment,
            runtime=runtime,
            kv=kv,
            tensor_parallel=tensor_parallel,
            repeat=repeat,
            dims=dims,
        )
        check_table(screen, check, device[0], defaults, out=out, as_json=json)
        return
    varied = variation(set, sweep)
    _check_files(out, plot, swept=bool(varied.swept), regions=regions, sensitivity=sensitivity)
    request = Request(prompt=prompt, generate=generate, batch=batch) if prompt else None
    served = PAST in dims or request is not None
    graph = open_model(model, ranks=ranks_in(dims), served=served).graph
    chosen = load_assignment(assignment, graph) if assignment else None
    usage = Usage(
        dims=bound(graph, dims, partly=request is not None),
        request=request,
        rate=rate,
        bounds=bounds,
        gpus=tensor_parallel,
        utilisation=memory_utilisation,
        price_usd_per_h=price,
        kv=catalog.uniform(kv) if kv else None,
        repeat=repeat,
    )
    if varied.swept:
        points = sweeps(
            graph, device, format or (), varied, usage=usage, runtime=runtime, assignment=chosen
        )
        say_sweep(screen, points, varied, device, model=model, out=out, plot=plot, as_json=json)
        return
    platforms = varied.fixed_platforms(device, runtime)
    if sensitivity:
        from dse.elasticity import elasticities  # noqa: PLC0415

        _refuse_several(device, format, assignment=assignment)
        shown = elasticities(graph, platforms[0], format or (), usage=usage, assignment=chosen)
        say_sensitivities(screen, shown, as_json=json)
        return
    found = predictions(
        graph,
        platforms,
        format or (),
        usage=replace(usage, detailed=True),
        assignment=chosen,
    )
    faster, gains = speedups(found), rate_gains(found)
    if json:
        screen.json([_record(*one) for one in zip(found, faster, gains, strict=True)])
        return
    screen.table(_regions(found) if regions else _totals(found, faster))
    for one in found:
        say_spatial(screen, one, _parts(one) if regions else ())
    if request is not None and not regions:
        say_serving(screen, found, gains)
    for remark in varied.remarks(device):
        screen.remark(remark)
    _remarks(screen, found, regions=regions, batch=batch)


def _refuse_beside_sweep(*, regions: bool, sensitivity: bool) -> None:
    """Raises `BadParameter` for options that a sweep's table has no use for."""
    if regions or sensitivity:
        raise typer.BadParameter(
            "--sweep prints a row a device; leave out --regions and --sensitivity, which take "
            "--set"
        )


def _refuse_several(
    device: list[str], format: list[str] | None, *, assignment: Path | None
) -> None:
    """Raises `BadParameter` unless one price is asked for."""
    if len(device) > 1 or len(format or ()) + (assignment is not None) > 1:
        raise typer.BadParameter(
            "--sensitivity takes one --device, and one --format or --assignment"
        )


def _check_files(
    out: Path | None, plot: Path | None, *, swept: bool, regions: bool, sensitivity: bool
) -> None:
    """Raises `BadParameter` for files that nothing would be written to, or not like this."""
    if swept:
        _refuse_beside_sweep(regions=regions, sensitivity=sensitivity)
        check_outputs(out, plot)
    elif out is not None or plot is not None:
        raise typer.BadParameter(
            "-o writes the device that --check TABLE.csv adapts, or the table of a --sweep, and "
            "--plot its page; add one of them"
        )


def _refuse_beside_training(*others: object) -> None:
    """Raises `BadParameter` for options that a training step has no use for."""
    if any(others):
        raise typer.BadParameter(
            "--training names formats by method and prices a whole step on one GPU; beside it go "
            "--device, --dim, --runtime and --json"
        )


def _refuse_beside_check(
    *,
    device: list[str],
    format: list[str] | None,
    prompt: int | None,
    regions: bool,
    sensitivity: bool,
    varied: bool,
) -> None:
    """Raises `BadParameter` for options that a table of measured calls has no use for."""
    if varied:
        raise typer.BadParameter(
            "--check compares with what was measured on the device itself; leave out --set and "
            "--sweep"
        )
    if len(device) > 1:
        raise typer.BadParameter("--check takes one --device: that of the measurements")
    if format and len(format) > 1:
        raise typer.BadParameter(
            "--check takes one --format, that of rows without; give others in a column 'format'"
        )
    if prompt is not None or regions or sensitivity:
        raise typer.BadParameter(
            "--check compares single calls; leave out --prompt, --regions and --sensitivity"
        )


def _remarks(screen: Screen, found: tuple[Prediction, ...], *, regions: bool, batch: int) -> None:
    """Remarks that a reader of the tables needs: other kernels, memory, no validation."""
    for remark in dict.fromkeys(remark for one in found for remark in one.remarks):
        screen.remark(remark)
    for one in found if not regions else ():
        if one.cost.note:
            native = f"{one.native_share:.0%} of the work is native"
            screen.remark(
                f"{one.format} on {one.device}: {one.cost.status}, {native}: {one.cost.note}"
            )
        if one.serving and one.serving["max_batch"] < batch:
            screen.remark(
                f"{one.format} on {one.device}: "
                f"{not_fitting(batch, round(one.serving['max_batch']))}; needs "
                f"{one.serving['gpus']:.0f} GPUs, which its cost counts"
            )
    for name, note in {one.device: one.note for one in found if not one.validated}.items():
        screen.remark(f"{name}: not validated against silicon: {note}")


def legal(
    context: typer.Context,
    model: Model,
    *,
    device: Annotated[
        str,
        typer.Option("--device", "--target", metavar=DEVICE_RUNTIME, help="See: dse devices."),
    ],
    runtime: Runtime = None,
    assignment: AssignmentFile = None,
    dim: Dim = None,
    tensor_parallel: Gpus = 1,
    set: Set = None,
    sweep: Sweep = None,
    json: JsonFlag = False,
) -> None:
    """Formats that run natively on a device, and why others do not."""
    from dse.graph.onnx.rank import ranks_in  # noqa: PLC0415
    from dse.model import PAST, open_model  # noqa: PLC0415
    from dse.predict import Usage, load_assignment  # noqa: PLC0415
    from dse.predict import predict as predictions  # noqa: PLC0415
    from hwmodels.formats.catalog import SCHEMES  # noqa: PLC0415

    screen: Screen = context.obj
    varied = variation(set, sweep)
    dims = parsed(dim or ())
    graph = open_model(model, ranks=ranks_in(dims), served=PAST in dims).graph
    varied.check_keys([device])
    variants = list(varied.platforms(device, runtime))
    found = predictions(
        graph,
        [one.platform for one in variants],
        () if assignment else ("bf16", *SCHEMES),
        usage=Usage(dims=bound(graph, dims, likely=True), gpus=tensor_parallel),
        assignment=load_assignment(assignment, graph) if assignment else None,
    )
    for remark in () if json else (*varied.remarks([device]), *found[0].remarks):
        screen.remark(remark)
    each = len(found) // len(variants)
    settings = [tuple(one.settings.values()) for one in variants for _ in range(each)]
    screen.table(_legality(found, tuple(varied.swept), settings), as_json=json)


COMMANDS = (predict, legal)


def _totals(found: tuple[Prediction, ...], faster: tuple[Speedup, ...]) -> Rows:
    """One row a prediction; with several formats also how much faster each is than the first."""
    several = len({one.format for one in found}) > 1
    speeds = [(speedup_text(one),) if several else () for one in faster]
    return Rows(
        columns=("device", "format", *(("speed-up",) if several else ()), *SHOWN),
        rows=tuple(
            (one.device, one.format, *speed, *_shown(one.cost, SHOWN))
            for one, speed in zip(found, speeds, strict=True)
        ),
    )


def _regions(found: tuple[Prediction, ...]) -> Rows:
    return Rows(
        columns=("region", "device", "format", *SHOWN_OF_REGION),
        rows=tuple(
            (region, one.device, one.format, *_shown(cost, SHOWN_OF_REGION))
            for one in found
            for region, cost in _parts(one)
        ),
    )


def _parts(one: Prediction) -> tuple[tuple[str, CostEstimate], ...]:
    """Regions, by phase where there are several."""
    if not one.serving:
        return one.cost.parts
    return tuple(
        (f"{phase} {region}", cost)
        for phase, call in one.cost.parts
        for region, cost in call.parts
    )


def _shown(cost: CostEstimate, columns: Sequence[str]) -> tuple[Value, ...]:
    """Columns for people: the interval as one text."""
    interval = f"{si(cost.low_s, 's')} to {si(cost.high_s, 's')}"
    given = {"interval": interval, "bound by": cost.bound}
    return tuple(given.get(name) or getattr(cost, name) for name in columns)


def _legality(
    found: tuple[Prediction, ...], keys: tuple[str, ...], settings: Sequence[tuple[str, ...]]
) -> Rows:
    """Regions that hold something to choose, by status, and the first reason of each scheme.

    Args:
        found: A prediction a row.
        keys: Figures that are swept.
        settings: Their values, a row each.
    """
    rows: list[tuple[Value, ...]] = []
    for one, values in zip(found, settings, strict=True):
        counts = Counter(cost.status for _, cost in one.cost.parts)
        reasons = dict.fromkeys(cost.note for _, cost in one.cost.parts if cost.note)
        regions = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        rows.append((*values, one.format, one.cost.status, regions, "; ".join(reasons)))
    return Rows(columns=(*keys, "format", "status", "regions", "why"), rows=tuple(rows))


def _record(one: Prediction, faster: Speedup, gain: Speedup | None) -> dict[str, object]:
    """A prediction with its regions, for programs; ratios are to the device's first."""
    shared = ("bound", "status", "note")
    parts = [
        {"region": name}
        | {key: getattr(cost, key) for key in (*COLUMNS, *shared)}
        | spatial_record(cost.spatial)
        for name, cost in _parts(one)
    ]
    phases = [
        {"phase": name} | {key: getattr(cost, key) for key in (*COLUMNS, *shared)}
        for name, cost in (one.cost.parts if one.serving else ())
    ]
    return (
        {"device": one.device, "runtime": one.runtime, "format": one.format}
        | {key: getattr(one.cost, key) for key in (*COLUMNS, *shared)}
        | {"speedup": faster.factor, "speedup_low": faster.low, "speedup_high": faster.high}
        | {"native_share": one.native_share, "serving": dict(one.serving), "phases": phases}
        | load_record(one, gain)
        | {"remarks": list(one.remarks), "area_mm2": one.area_mm2}
        | spatial_record(one.cost.spatial)
        | {"validated": one.validated, "device_note": one.note, "regions": parts}
    )
