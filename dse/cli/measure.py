"""`dse predict-ops`, `dse fit`, `dse profile`: tables of operators, predicted and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.check import YAML, check_ops, fitted, write_table
from dse.cli.device.vary import Set, Sweep, variation
from dse.cli.platform import DEVICE_RUNTIME, Compute
from dse.cli.screen import JsonFlag, Rows, Screen, Value, positive

if TYPE_CHECKING:
    import pandas as pd

    from dse.profile.clock import Timing
    from dse.profile.plan import Operator
    from dse.sweep import Variation
    from hwmodels.devices.device import Device
    from hwmodels.operators.optable import OpTable

Ops = Annotated[
    Path, typer.Argument(metavar="OPS.csv", help="Columns op, shape, dtype; .csv or .csv.gz.")
]
DeviceName = Annotated[
    str,
    typer.Option("--device", "--target", metavar=DEVICE_RUNTIME, help="See: dse devices."),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of rows that name no runtime; see: dse runtimes.  [default: the device's]",
    ),
]
NEXT_SUFFIX = ".next.csv"
PROGRESS_EVERY = 50
"""Measured operators between two lines of progress."""


def predict_ops(
    context: typer.Context,
    ops: Ops,
    *,
    device: DeviceName,
    runtime: Runtime = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Compare with the times of the table (median_us or measured_us), by group; "
            "-o may be left out, or be a device file (.yaml) to write, adapted to them.",
        ),
    ] = False,
    set: Set = None,
    sweep: Sweep = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="PRED.csv", help="The table with predictions."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Predict latency and energy of every operator of a table.

    With --sweep the table has every operator once for each device, after columns of what is swept.
    """
    from hwmodels.adapt.prediction import predict_ops as predicted  # noqa: PLC0415
    from hwmodels.operators.optable import read_optable  # noqa: PLC0415

    screen: Screen = context.obj
    if check and (set or sweep):
        raise typer.BadParameter(
            "--check compares with what was measured on the device itself; leave out --set and "
            "--sweep"
        )
    if check:
        check_ops(screen, ops, device, runtime=runtime, out=out, as_json=json)
        return
    if out is None or out.suffix in YAML:
        raise typer.BadParameter("-o PRED.csv is needed, or --check")
    varied = variation(set, sweep)
    if varied.swept:
        _predict_swept(screen, ops, device, varied, runtime=runtime, out=out, as_json=json)
        return
    platform = varied.fixed_platforms([device], runtime)[0]
    found = platform.device
    table = read_optable(ops, timed=False)
    frame = predicted(table, found, platform.runtime_origin)
    write_table(frame, out)
    screen.answer({"predictions": str(out), **_summary(table, frame)}, as_json=json)
    for remark in () if json else varied.remarks([device]):
        screen.remark(remark)
    if not (json or found.validated):
        screen.remark(f"{found.name}: not validated against silicon: {found.note}")


def _predict_swept(
    screen: Screen,
    ops: Path,
    device: str,
    varied: Variation,
    *,
    runtime: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Writes the predictions for every device of a sweep, and prints a row each."""
    import pandas as pd  # noqa: PLC0415

    from hwmodels.adapt.prediction import predict_ops as predicted  # noqa: PLC0415
    from hwmodels.operators.optable import read_optable  # noqa: PLC0415

    table = read_optable(ops, timed=False)
    varied.check_keys([device])
    parts = list[pd.DataFrame]()
    rows = list[tuple[Value, ...]]()
    for one in varied.platforms(device, runtime):
        frame = predicted(table, one.platform.device, one.platform.runtime_origin)
        times = frame["predicted_us"]
        rows.append((*one.settings.values(), 1e-6 * float(times.sum()),
                     1e-6 * float(times.median()), 1e-6 * float(times.max())))  # fmt: skip
        for place, (key, value) in enumerate(one.settings.items()):
            frame.insert(place, key, value)
        parts.append(frame)
    write_table(pd.concat(parts, ignore_index=True), out)
    columns = (*varied.swept, "all_operators_s", "median_s", "longest_s")
    screen.table(Rows(columns=columns, rows=tuple(rows)), as_json=as_json)
    for remark in () if as_json else (*varied.remarks([device]), f"wrote {out}"):
        screen.remark(remark)


def fit(
    context: typer.Context,
    *,
    device: DeviceName,
    measurements: Annotated[
        Path, typer.Option(metavar="OPS.csv", help="Operators measured on the device.")
    ],
    samples: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Use the K rows that say the most.  [default: 200]"),
    ] = None,
    runtime: Runtime = None,
    suggest: Annotated[
        int, typer.Option(min=0, metavar="N", help="Write N operators to measure next.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first sample.")] = 0,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="NEW.yaml", help="A device file for --device.")
    ],
    json: JsonFlag = False,
) -> None:
    """Adapt the predictions to hardware on which a few operators were measured."""
    from hwmodels.adapt.few_shot import fittable_device  # noqa: PLC0415
    from hwmodels.devices.load import load_device  # noqa: PLC0415
    from hwmodels.operators.optable import read_optable  # noqa: PLC0415
    from hwmodels.runtimes.platform import split_platform  # noqa: PLC0415

    screen: Screen = context.obj
    device_file, named = split_platform(device)
    driver = named or runtime or fittable_device(device_file).default_runtime
    table = read_optable(measurements, timed=True)
    answer = fitted(table, device, driver, out, samples=samples, seed=seed)
    if suggest:
        after = load_device(out)
        answer["measure_next"] = str(
            _write_suggestions(table, after, out, runtime=driver, count=suggest, seed=seed)
        )
    screen.answer(answer, as_json=json)
    if suggest and not json:
        screen.remark(f"measure them there: dse profile --ops {answer['measure_next']}")


def profile(
    context: typer.Context,
    *,
    device_name: Annotated[
        str, typer.Option(metavar="NAME", help="What this machine is called in the table.")
    ],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="OPS.csv", help="The table; rows are appended."),
    ],
    minutes: Annotated[
        float, typer.Option(callback=positive, help="Stop after about this long.")
    ] = 10.0,
    ops: Annotated[
        Path | None,
        typer.Option(metavar="OPS.csv", help="Measure these operators, not the standard ones."),
    ] = None,
    compute: Annotated[
        Compute | None, typer.Option(help="What to measure.  [default: cuda where there is one]")
    ] = None,
    energy: Annotated[
        bool, typer.Option(help="Measure the energy of one row in forty, where a GPU tells it.")
    ] = True,
    json: JsonFlag = False,
) -> None:
    """Measure the operators of this machine; call it again to go on."""
    import torch  # noqa: PLC0415

    from dse.profile.clock import Repeats  # noqa: PLC0415
    from dse.profile.plan import EAGER, PROCESSOR, listed_plan, standard_plan  # noqa: PLC0415
    from dse.profile.processor_plan import processor_plan  # noqa: PLC0415
    from dse.profile.run import profile as measured  # noqa: PLC0415
    from hwmodels.operators.optable import read_optable  # noqa: PLC0415

    screen: Screen = context.obj
    if compute is None:
        compute = Compute.cuda if torch.cuda.is_available() else Compute.cpu
    on_gpu = compute is Compute.cuda
    if ops:
        runtime = EAGER if on_gpu else PROCESSOR
        plan = listed_plan(read_optable(ops, timed=False), runtime)
    else:
        plan = standard_plan() if on_gpu else processor_plan()
    where = torch.device(compute.value)
    done = measured(
        plan,
        out,
        device_name=device_name,
        device=where,
        seconds=60 * minutes,
        repeats=Repeats() if energy else Repeats(energy_s=0),
        progress=None if json else _Progress(screen),
    )
    answer: dict[str, Value] = {
        "table": str(out),
        "measured": done.measured,
        "known_before": done.known,
        "no_time_for": done.waiting,
        "refused": len(done.refused),
    }
    screen.answer(answer, as_json=json)
    for what, why in () if json else done.refused:
        screen.remark(f"{what} cannot run here: {why}")


COMMANDS = (predict_ops, fit, profile)


class _Progress:
    """A line every `PROGRESS_EVERY` operators."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._count = 0

    def __call__(self, operator: Operator, timing: Timing) -> None:
        self._count += 1
        if self._count % PROGRESS_EVERY == 1:
            what = f"{operator.op} {operator.dtype} {operator.runtime}"
            self._screen.remark(f"{self._count:5d}  {what:40s} {timing.median_us:.4g} us")


def _summary(table: OpTable, frame: pd.DataFrame) -> dict[str, Value]:
    """Rows, widths, and the error where the table has times."""
    facts: dict[str, Value] = {
        "rows": len(frame),
        "distinct": len(set(table.first.tolist())),
        "median_high_over_low": float((frame["high_us"] / frame["low_us"]).median()),
    }
    if "median_us" not in frame:
        return facts
    timed = frame[frame["median_us"].notna()]
    times = timed["median_us"].astype(float)
    outside = (times < timed["low_us"]) | (times > timed["high_us"])
    return facts | {
        "rows_without_time": len(frame) - len(timed),
        "median_error": float((timed["predicted_us"] / times - 1).abs().median()),
        "outside_interval": float(outside.mean()),
    }


def _write_suggestions(
    table: OpTable, device: Device, out: Path, *, runtime: str, count: int, seed: int
) -> Path:
    """Writes what to measure next: from rows without a time, else from the standard plan."""
    import numpy as np  # noqa: PLC0415

    from dse.profile.plan import plan_table, standard_plan  # noqa: PLC0415
    from dse.profile.processor_plan import processor_plan  # noqa: PLC0415
    from hwmodels.adapt.next_measurements import next_measurements  # noqa: PLC0415
    from hwmodels.operators.optable import timed_rows  # noqa: PLC0415

    path = out.with_suffix(NEXT_SUFFIX)
    rows = np.setdiff1d(np.arange(len(table.shapes)), timed_rows(table))
    if not len(rows):
        plan = processor_plan() if device.kind == "cpu" else standard_plan()
        table = plan_table(plan, device)
        rows = np.arange(len(table.shapes))
    chosen = next_measurements(table, rows, device, runtime=runtime, count=count, seed=seed)
    columns = [name for name in ("op", "shape", "dtype", "runtime") if name in table.frame]
    write_table(table.frame.iloc[chosen][columns], path)
    return path
