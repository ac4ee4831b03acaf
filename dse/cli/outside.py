"""`dse propose`, `dse tell`: measure where the real system is."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dse.cli.password import with_password
from dse.cli.screen import JsonFlag, Rows, Screen, Value

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of: dse search.")]
BENCHED = "compressed-tensors, gguf, modelopt"
"""For `--help`, which loads no exporter."""
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL", callback=with_password, help="Of a shared study, where it has a password."
    ),
]


TargetLabel = Annotated[
    str, typer.Option(metavar="LABEL", help="The run's target that is measured on.")
]


def propose(
    context: typer.Context,
    run: Run,
    *,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 5,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where the assignments go.")
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="EXPORTER", help=f"Export them, with a script that measures them: {BENCHED}."
        ),
    ] = "",
    target: TargetLabel = "",
    storage: Storage = None,
    json: JsonFlag = False,
) -> None:
    """Write the next assignments worth measuring outside."""
    screen: Screen = context.obj
    remarks: tuple[str, ...] = ()
    if to:
        from dse.export.loop.deliver import propose_to  # noqa: PLC0415

        done = propose_to(run, number, out, to=to, target=target, storage=storage)
        found, remarks = done.proposals, done.remarks
    else:
        from dse.explore.propose import propose  # noqa: PLC0415

        if target:
            raise typer.BadParameter(
                "--target: says where exported models are measured: give --to"
            )
        found = propose(run, number, out, storage=storage)
    columns = ("digest", "file", *found[0].losses, *found[0].costs)
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (p.digest, p.file.name, *p.losses.values(), *p.costs.values()) for p in found
    )
    screen.table(Rows(columns=columns, rows=rows), as_json=json)
    if json:
        return
    if len(found) < number:
        screen.remark(f"{len(found)} of {number}: the space has no more that is not measured")
    for remark in remarks:
        screen.remark(remark)
    _say_next(screen, run, out, exported=bool(to), storage=storage)


def _say_next(
    screen: Screen, run: Path, out: Path, *, exported: bool, storage: str | None
) -> None:
    from dse.explore.propose import INDEX  # noqa: PLC0415
    from dse.explore.study.storage import lasting  # noqa: PLC0415

    where = ("--storage", lasting(storage)) if storage else ()
    results = str(out) if exported else "RESULTS.csv"
    command = shlex.join(["dse", "tell", str(run), results, *where])
    if exported:
        from dse.export.loop.script import FILE  # noqa: PLC0415

        screen.remark(
            f"predicted values, also in {out / INDEX}; where the models are to run: "
            f"{out / FILE}, and then: {command}"
        )
        return
    screen.remark(
        f"predicted values, also in {out / INDEX}; measure any of quality_loss and the cost "
        f"columns, write them beside the digest into a CSV, and: {command}"
    )


def tell(
    context: typer.Context,
    run: Run,
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS",
            help="A CSV with digest or trial, and values; or a folder of what tools wrote.",
        ),
    ],
    *,
    target: TargetLabel = "",
    storage: Storage = None,
    json: JsonFlag = False,
) -> None:
    """Take measurements made outside into a run."""
    from dse.explore.tell import tell  # noqa: PLC0415
    from dse.report.console import print_front  # noqa: PLC0415
    from dse.report.html import write_report  # noqa: PLC0415
    from dse.report.records import front_rows  # noqa: PLC0415

    screen: Screen = context.obj
    lesson = tell(run, results, storage=storage, target=target)
    page = write_report(run)
    if json:
        screen.json(front_rows(run))
        return
    waiting = (
        f"; {lesson.waiting} have no loss yet and are on no front, their costs correct predictions"
        if lesson.waiting
        else ""
    )
    screen.remark(f"{len(lesson.told)} assignments told, {lesson.new} of them new trials{waiting}")
    for remark in lesson.remarks:
        screen.remark(remark)
    for column, ratio in lesson.ratios.items():
        screen.remark(f"{column}: measured over predicted was {ratio:.3g}; predictions corrected")
    if screen.quiet:
        screen.result(str(page))
    else:
        print_front(run, screen.console())


COMMANDS = (propose, tell)
