"""`dse train`: methods of low-precision training beside bf16, seed by seed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.platform import Compute, ExecutorName
from dse.cli.screen import JsonFlag, Rows, Screen, Value, positive, resumable

if TYPE_CHECKING:
    from dse.training.experiment import Experiment
    from dse.training.stability import Interval
    from dse.training.summary import Divergence, Summary


Library = StrEnum("Library", ["te", "torchao", "torch"])
"""The libraries that a method can be written for."""
UNFINISHED = 1
"""Exit code of a piece that stopped before the end."""
SECONDS = 60.0


def train(
    context: typer.Context,
    method: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD.yaml|NAME...", help="Method files or shipped methods."),
    ] = None,
    *,
    workload: Annotated[
        str, typer.Option(metavar="NAME", help="Network and data; see --list.")
    ] = "digits-mlp",
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each method.")] = 5,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of a run.  [default: the workload's]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of results.  [default: runs/train-<time>]"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --out; more methods and seeds may join.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            callback=positive, help="Stop after so long, to be resumed; exit code 1 says so."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Processes that run seeds and methods; Ray's tasks: one for each CPU (--compute "
            "cuda: each GPU).  [default: 1]",
        ),
    ] = None,
    executor: Annotated[
        ExecutorName, typer.Option(help="Where they run: here, or on a Ray cluster.")
    ] = ExecutorName.local,
    compute: Annotated[Compute, typer.Option(help="Where the network is trained.")] = Compute.cpu,
    learning_rates: Annotated[
        str,
        typer.Option(
            metavar="A,B,C",
            help="Multiples of the learning rate; runs under each say how often it diverges.",
        ),
    ] = "1",
    export: Annotated[
        Library | None,
        typer.Option(help="Write the method for another library instead; needs -o."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.py", help="File of --export.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show methods and workloads instead.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Train a small network in low precision, beside bf16 with the same data and start.

    Prints the held-out loss, its gap to bf16 with a 95 % interval over paired seeds, how many
    seeds diverged, and how stable they were. A seed that diverges ends alone.
    """
    from dse.training.experiment import Experiment, open_folder  # noqa: PLC0415
    from dse.training.fit import check_fit  # noqa: PLC0415
    from dse.training.load import REFERENCE, load_method, method_name  # noqa: PLC0415
    from dse.training.workloads.catalogue import workload as opened  # noqa: PLC0415

    screen: Screen = context.obj
    if list_:
        _list(screen, as_json=json)
        return
    if not method:
        raise typer.BadParameter("give a method: a file, or a name of `dse train --list`")
    if export is not None:
        _export(screen, method, export, output)
        return
    if resume and out is None:
        raise typer.BadParameter("--resume goes on in a folder; add --out DIR")
    methods = {REFERENCE: load_method(REFERENCE)}
    for given in method:
        name = method_name(given)
        found = load_method(given)
        if name in methods and found != methods[name]:
            raise typer.BadParameter(f"two methods are called {name}; rename one of the files")
        methods[name] = found
    chosen = opened(workload)
    folder = out or Path("runs") / f"train-{workload}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists() and not resume:
        raise typer.BadParameter(f"{folder} exists; add --resume to go on, or take another --out")
    idle = check_fit(methods, chosen, steps=steps)
    _remark(screen, idle, quiet=json)
    experiments = {
        factor: Experiment(
            folder=folder if factor == 1 else folder / f"rate-{factor:g}",
            workload=chosen, methods=methods, seeds=seeds, steps=steps or chosen.steps,
            rate_factor=factor, device=compute.value,
        )
        for factor in _factors(learning_rates)
    }  # fmt: skip
    on_ray = executor is ExecutorName.ray
    for experiment in experiments.values():
        open_folder(experiment, workers=workers or 1, on_ray=on_ray)
    finished = _advance(screen, experiments, minutes, workers, on_ray=on_ray, quiet=json)
    _say(screen, experiments, idle, as_json=json)
    if not finished:
        screen.remark(f"stopped after {minutes:g} minutes; go on: --resume --out {folder}")
        raise typer.Exit(UNFINISHED)


COMMANDS = (train,)


def _remark(screen: Screen, lines: Sequence[str], *, quiet: bool) -> None:
    for line in () if quiet else lines:
        screen.remark(line)


def _export(screen: Screen, methods: Sequence[str], library: Library, output: Path | None) -> None:
    """Writes one method in the terms of another library."""
    from dse.files import write_atomically  # noqa: PLC0415
    from dse.training.export.exporters import EXPORTERS, exported  # noqa: PLC0415
    from dse.training.load import load_method, method_name  # noqa: PLC0415

    if len(methods) > 1 or output is None:
        raise typer.BadParameter("--export writes one method into one file; add -o FILE.py")
    name = method_name(methods[0])
    write_atomically(output, exported(load_method(methods[0]), name, library.value))
    screen.remark(f"wrote {output}")
    if remark := EXPORTERS[library.value].remark:
        screen.remark(remark)


def _factors(given: str) -> tuple[float, ...]:
    """Multiples of the learning rate, 1 first: the gap to bf16 is that of runs under 1."""
    try:
        factors = [float(one) for one in given.split(",")]
    except ValueError:
        factors = [math.nan]
    if not all(math.isfinite(one) and one > 0 for one in factors):
        raise typer.BadParameter(
            f"--learning-rates: expected positive numbers (0.3,1,3), got {given}"
        )
    return tuple(dict.fromkeys((1.0, *factors)))


def _advance(
    screen: Screen,
    experiments: Mapping[float, Experiment],
    minutes: float | None,
    workers: int | None,
    *,
    on_ray: bool,
    quiet: bool,
) -> bool:
    """Runs a piece; whether it was the last one."""
    from dse.cli.progress import shown_progress  # noqa: PLC0415
    from dse.explore.problem.progress import Status  # noqa: PLC0415
    from dse.training.experiment import advance  # noqa: PLC0415

    until = None if minutes is None else time.monotonic() + SECONDS * minutes
    hint = f"go on with the same options and: --resume --out {experiments[1.0].folder}"
    silent = screen.quiet or quiet
    with resumable(lambda: hint), shown_progress(quiet=silent) as progress:
        return all(
            advance(
                experiment,
                listener=lambda done, total, note: progress(
                    Status(stage="training", done=done, total=total, note=note)
                ),
                until=until,
                workers=workers,
                on_ray=on_ray,
            )
            for experiment in experiments.values()
        )


def _say(
    screen: Screen,
    experiments: Mapping[float, Experiment],
    idle: Sequence[str],
    *,
    as_json: bool,
) -> None:
    from dse.training.experiment import outcomes  # noqa: PLC0415
    from dse.training.ledger import state_bytes  # noqa: PLC0415
    from dse.training.load import REFERENCE  # noqa: PLC0415
    from dse.training.summary import divergences, summaries  # noqa: PLC0415

    experiment = experiments[1.0]
    by_rate = {factor: outcomes(one) for factor, one in experiments.items()}
    found = summaries(by_rate[1.0], REFERENCE)
    over_rates = {one.method: one for one in divergences(by_rate)}
    bytes_of = {name: round(state_bytes(one), 4) for name, one in experiment.methods.items()}
    if as_json:
        screen.json(
            {
                "workload": experiment.workload.name,
                "data": experiment.workload.origin,
                "steps": experiment.steps,
                "folder": str(experiment.folder),
                "idle": list(idle),
                "methods": [
                    _record(one, over_rates[one.method])
                    | {"bytes_per_parameter": bytes_of[one.method]}
                    for one in found
                ],
            }
        )
        return
    screen.table(
        Rows(
            columns=("method", "seeds", "loss", "accuracy", "gap to bf16", "diverged",
                     "loss spikes", "late moments", "gradient norm", "update rms", "sharpness",
                     "bytes a parameter"),
            rows=tuple((*_row(one), bytes_of[one.method]) for one in found),
        )
    )  # fmt: skip
    for one in found:
        if text := _sentence(one, experiment.workload.name):
            screen.remark(text)
    if len(experiments) > 1:
        screen.table(
            Rows(
                columns=("method", *(f"diverged at {one:g} x" for one in experiments), "share"),
                rows=tuple(_divergence(one) for one in over_rates.values()),
            )
        )
    screen.remark(f"curves of every seed: {experiment.folder}")


def _row(one: Summary) -> tuple[Value, ...]:
    return (
        one.method,
        one.seeds,
        _digits(one.loss),
        "" if math.isnan(one.accuracy) else f"{100 * one.accuracy:.1f} %",
        "" if one.gap is None else _interval(one.gap),
        f"{one.diverged}/{one.seeds}",
        _digits(one.loss_spikes, 1),
        "" if math.isnan(one.update_spikes) else f"{100 * one.update_spikes:.1f} %",
        _digits(one.gradient_norm, 3),
        _digits(one.update_rms, 3),
        _digits(one.sharpness, 3),
    )


def _sentence(one: Summary, workload: str) -> str:
    """The answer of the seeds on a method, and how many would tell more."""
    from dse.training.load import REFERENCE  # noqa: PLC0415
    from dse.training.stability import seeds_needed  # noqa: PLC0415

    if one.method == REFERENCE:
        return ""
    if one.diverged:
        share = one.divergence
        return (
            f"{one.method}: {one.diverged} of {one.seeds} seeds diverged "
            f"(95 %: {100 * share.low:.0f} to {100 * share.high:.0f} %)"
        )
    if one.gap is None:
        return f"{one.method}: an interval needs two seeds or more"
    if one.gap.holds_zero:
        needed = seeds_needed(one.pairs, abs(one.gap.mean))
        more = f"; a gap of this size would take {needed} seeds" if needed else ""
        return f"{one.method}: no difference from bf16 is resolved on {workload}{more}"
    better = "lower" if one.gap.mean < 0 else "higher"
    return f"{one.method}: loss is {better} than bf16's on {workload}, at 95 %"


def _divergence(one: Divergence) -> tuple[Value, ...]:
    share = one.share
    return (
        one.method,
        *(f"{diverged}/{runs}" for diverged, runs in one.by_rate.values()),
        f"{100 * share.mean:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f} %)",
    )


def _record(one: Summary, over_rates: Divergence) -> dict[str, object]:
    return {
        "method": one.method,
        "seeds": one.seeds,
        "diverged": one.diverged,
        "divergence": _bounds(one.divergence),
        "loss": _number(one.loss),
        "accuracy": _number(one.accuracy),
        "gap": _bounds(one.gap),
        "pairs": list(one.pairs),
        "loss_spikes": _number(one.loss_spikes),
        "late_moments": _number(one.update_spikes),
        "gradient_norm": _number(one.gradient_norm),
        "update_rms": _number(one.update_rms),
        "sharpness": _number(one.sharpness),
        "intervals": {
            "late_moments" if name == "update_spikes" else name: _bounds(interval)
            for name, interval in one.intervals.items()
        },
        "learning_rates": {
            f"{rate:g}": {"diverged": diverged, "runs": runs}
            for rate, (diverged, runs) in over_rates.by_rate.items()
        },
        "divergence_over_rates": _bounds(over_rates.share),
    }


def _bounds(one: Interval | None) -> dict[str, float | None] | None:
    if one is None:
        return None
    return {"mean": _number(one.mean), "low": _number(one.low), "high": _number(one.high)}


def _interval(one: Interval) -> str:
    return f"{one.mean:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _digits(value: float, places: int = 4) -> str:
    return "" if math.isnan(value) else f"{value:.{places}f}"


def _list(screen: Screen, *, as_json: bool) -> None:
    """Shipped methods with their sources, and workloads."""
    from dse.training.load import load_method, method_names  # noqa: PLC0415
    from dse.training.workloads.catalogue import WORKLOADS  # noqa: PLC0415

    rows: Sequence[tuple[Value, ...]] = [
        *(("method", name, load_method(name).source) for name in method_names()),
        *(("workload", name, "") for name in WORKLOADS),
    ]
    screen.table(Rows(columns=("kind", "name", "source"), rows=tuple(rows)), as_json=as_json)
