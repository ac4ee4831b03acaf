"""`dse search`: the main job."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.device.vary import Set, pairs
from dse.cli.password import with_password
from dse.cli.platform import DEVICE_RUNTIME, Compute, ExecutorName
from dse.cli.screen import JsonFlag, Screen, kept_run, resumable

if TYPE_CHECKING:
    from dse.explore import Overrides
    from dse.explore.measure.parallelism import Parallelism


def bytes_of(text: str) -> int:
    """A size such as `12GB` or `12 GiB`."""
    from hwmodels.devices.quantity import UNITS  # noqa: PLC0415

    units = {name: factor for name, (kind, factor) in UNITS.items() if kind == "capacity"}
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) *([A-Za-z]*)", text.strip())
    try:
        number = float(found[1]) * units[found[2] or "B"] if found else 0.0
    except (KeyError, ValueError):
        number = 0.0
    if not 1 <= number < math.inf:
        raise typer.BadParameter(
            f"expected bytes with a unit of {', '.join(units)}, such as 12GB, got {text!r}"
        )
    return int(number)


Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=bytes_of,
        help="That this process may take, such as 12GB: of the GPU with --compute cuda, where "
        "weights stay on the host if they do not fit; else of the CPU, where weights in external "
        "files are read layer by layer and do not count.  [default: what is free]",
    ),
]


def search(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SPACE.yaml|MODEL", help="A space, an ONNX file, a Hugging Face folder."
        ),
    ] = None,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "--targets",
            "--device",
            metavar=DEVICE_RUNTIME,
            help="Price it on this; repeat for several.",
        ),
    ] = None,
    set: Set = None,
    past: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Measure nothing: the qualities of that run, on other targets or limits.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A zoo name, .npz, token file, image folder or module:function."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Minimise this; repeat. The first: quality_loss."),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(metavar="'COLUMN<=NUMBER'", help="Keep to this; repeat for several."),
    ] = None,
    target_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES|PERCENT%",
            help="Weights of at most so many bytes, or so much of what int8 weights take.",
        ),
    ] = None,
    bits_per_weight: Annotated[
        float | None,
        typer.Option(metavar="BITS", help="Bits over all stored weights, scales included."),
    ] = None,
    focus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'COLUMN<=NUMBER'", help="Fill the front there first; forbids nothing."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Assignments to measure.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Same seed, same front.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder.  [default: runs/<space>-<time>]"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out.",
        ),
    ] = False,
    compute: Annotated[Compute, typer.Option(help="Where the network runs.")] = Compute.cpu,
    memory: Memory = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that measure, with one thread each.  [default: none]"),
    ] = None,
    executor: Annotated[
        ExecutorName, typer.Option(help="Where they run: here, or on a Ray cluster.")
    ] = ExecutorName.local,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=with_password,
            help="Keep the study there, for other machines to join.",
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name.  [default: the space's]")
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Take part in a study of --storage.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Of a space of training methods: minutes instead of hours."),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Search a space or a model, or a space of training methods, and report the front."""
    from dse.explore import Overrides  # noqa: PLC0415
    from dse.explore.measure.parallelism import Parallelism  # noqa: PLC0415
    from dse.report.console import print_front  # noqa: PLC0415
    from dse.report.html import write_report  # noqa: PLC0415
    from dse.report.records import front_rows  # noqa: PLC0415

    screen: Screen = context.obj
    if _trains(source, out, resume=resume):
        _refuse(context, FOR_INFERENCE)
        _search_methods(screen, context, as_json=json)
        return
    if quick:
        raise typer.BadParameter(
            "--quick is of spaces of training methods (spaces/fp4-training.yaml); use --trials"
        )
    overrides = Overrides(
        targets=tuple(target or ()),
        data=data,
        objectives=tuple(objective or ()),
        constraints=(*(constraint or ()), *_budgets(target_bytes, bits_per_weight)),
        focus=tuple(focus or ()),
        trials=trials,
        seed=seed,
        settings=pairs(set or ()),
    )
    parallelism = Parallelism(
        workers=workers, executor=executor.value, storage=storage, study=study, join=join
    )
    if past is not None:
        if (
            source
            or resume
            or data
            or trials
            or focus
            or parallelism != Parallelism(storage=storage)
        ):
            raise typer.BadParameter(
                "--from measures nothing: give it only --target, --set, --objective, "
                "--constraint, --target-bytes, --bits-per-weight, --out, and the --storage of a "
                "shared study that has a password"
            )
        folder = _reuse(past, overrides, out, screen, storage=storage, quiet=json)
    elif source is None and not resume:
        raise typer.BadParameter(
            "give a space or a model to search, --from RUN, or --out RUN --resume"
        )
    else:
        folder = _run(
            source,
            overrides,
            out=out,
            resume=resume,
            compute=compute,
            memory=memory,
            parallelism=parallelism,
            quiet=screen.quiet or json,
        )
    _say_failures(folder)
    page = write_report(folder)
    if json:
        screen.json(front_rows(folder))
    elif screen.quiet:
        screen.result(str(page))
    else:
        print_front(folder, screen.console())


COMMANDS = (search,)

FOR_INFERENCE = (
    "past", "data", "objective", "constraint", "target_bytes", "bits_per_weight", "focus", "set",
    "memory", "storage", "study", "join",
)  # fmt: skip
"""Parameters that a space of training methods has no use for."""


def _trains(source: str | None, out: Path | None, *, resume: bool) -> bool:
    """Whether a search is about methods of training: its space, or the run it continues."""
    from dse.run.training_run import is_training_run  # noqa: PLC0415
    from dse.space.kind import is_training  # noqa: PLC0415

    if source is None:
        return resume and out is not None and is_training_run(out)
    return is_training(source)


def _refuse(context: typer.Context, names: Sequence[str]) -> None:
    """Raises `BadParameter` for what a search over methods does not take."""
    given = context.params
    said = [name for name in names if given.get(name)]
    if said:
        names_ = ", ".join("--from" if n == "past" else f"--{n.replace('_', '-')}" for n in said)
        raise typer.BadParameter(
            f"{names_}: not of a space of training methods, which says the rest in its file; "
            "expected --trials, --seed, --target, --compute, --workers, --executor, --quick, "
            "--out, --resume"
        )


def _search_methods(screen: Screen, context: typer.Context, *, as_json: bool) -> None:
    from dse.cli.methods import search_methods  # noqa: PLC0415
    from dse.training.search.pool import Places  # noqa: PLC0415
    from dse.training.search.run import MethodOverrides  # noqa: PLC0415

    given = context.params
    targets = given["target"] or ()
    if len(targets) > 1:
        raise typer.BadParameter("--target: a space of training methods has one device")
    changed = targets or given["trials"] or given["seed"] is not None or given["quick"]
    if given["source"] is None and changed:
        raise typer.BadParameter(
            "--resume goes on with the space of the folder; to change it, name the space again"
        )
    search_methods(
        screen,
        given["source"],
        overrides=MethodOverrides(
            trials=given["trials"],
            seed=given["seed"],
            target=targets[0] if targets else None,
            quick=given["quick"],
        ),
        out=given["out"],
        resume=given["resume"],
        places=Places(
            count=given["workers"],
            on_ray=given["executor"] is ExecutorName.ray,
            device=given["compute"].value,
        ),
        as_json=as_json,
    )


def _budgets(target_bytes: str | None, bits_per_weight: float | None) -> Iterator[str]:
    """The constraints that both options mean."""
    if bits_per_weight is not None:
        yield f"bits_per_weight<={bits_per_weight!r}"
    if target_bytes is None:
        return
    number = target_bytes.removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        raise typer.BadParameter(
            f"--target-bytes: expected bytes or a share of int8 weights, e.g. 2.5e9 or 62.4%, "
            f"got {target_bytes!r}"
        ) from None
    is_share = number != target_bytes
    yield f"int8_share<={value / 100!r}" if is_share else f"weight_bytes<={value!r}"


def _reuse(
    past: Path,
    overrides: Overrides,
    out: Path | None,
    screen: Screen,
    *,
    storage: str | None,
    quiet: bool,
) -> Path:
    """The folder of a run that took its measurements over; says what it lacks."""
    from dse.explore.reprice import reprice, unreported  # noqa: PLC0415
    from dse.run.files import resume_command  # noqa: PLC0415

    # Optuna announces every study through its own handler.
    logging.getLogger("optuna").setLevel(logging.WARNING)
    folder = reprice(past, overrides=overrides, out=out, storage=storage).folder
    if not quiet and (missing := unreported(folder)):
        screen.remark(
            f"{missing} more assignments may belong on this front, but were not measured on the "
            f"report split; measure them and go on with: {resume_command(folder)}"
        )
    return folder


def _run(
    source: str | None,
    overrides: Overrides,
    *,
    out: Path | None,
    resume: bool,
    compute: Compute,
    memory: int | None,
    parallelism: Parallelism,
    quiet: bool,
) -> Path:
    """The folder of the finished run; an interrupted one says how to go on, and exits."""
    from dse.cli.progress import shown_progress  # noqa: PLC0415
    from dse.explore import run_search  # noqa: PLC0415
    from dse.explore.run import default_folder  # noqa: PLC0415

    folder = out if resume or source is None else out or default_folder(source)
    device = [] if compute is Compute.cpu else ["--compute", compute.value]
    room = [] if memory is None else ["--memory", f"{memory}B"]
    options = (*device, *room, *parallelism.options)
    with resumable(lambda: kept_run(folder, *options)), shown_progress(quiet=quiet) as progress:
        return run_search(
            source,
            overrides=overrides,
            out=folder,
            resume=resume,
            compute=compute.value,
            memory_bytes=memory,
            parallelism=parallelism,
            progress=progress,
        ).folder


def _say_failures(folder: Path) -> None:
    """Number of trials that failed, and the first one's reason."""
    from dse.run.files import FAILURES  # noqa: PLC0415
    from dse.run.read import read_failures  # noqa: PLC0415

    failures = read_failures(folder)
    if failures:
        trial, error = next(iter(failures.items()))
        count = "1 trial" if len(failures) == 1 else f"{len(failures)} trials"
        typer.echo(
            f"dse: {count} failed, see {folder / FAILURES}; trial {trial}: {error}", err=True
        )
