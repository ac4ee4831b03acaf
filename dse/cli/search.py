"""`dse search`: the main job."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dse.cli.screen import JsonFlag, Screen


class Compute(StrEnum):
    """Where networks are executed."""

    cpu = "cpu"
    cuda = "cuda"


def search(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SPACE.yaml|MODEL.onnx", help="What to search.")
    ],
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="DEVICE[:RUNTIME]", help="Price it on this; repeat for several."),
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
    trials: Annotated[int | None, typer.Option(min=1, help="Assignments to measure.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same front.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder.  [default: runs/<space>-<time>]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    compute: Annotated[Compute, typer.Option(help="Where the network runs.")] = Compute.cpu,
    json: JsonFlag = False,
) -> None:
    """Search a space or a model, and report the front."""
    from rich.console import Console  # noqa: PLC0415

    from dse.cli.progress import shown_progress  # noqa: PLC0415
    from dse.report import front_rows, print_front, write_report  # noqa: PLC0415
    from dse.search import Overrides, run_search  # noqa: PLC0415

    screen: Screen = context.obj
    overrides = Overrides(
        targets=tuple(target or ()),
        data=data,
        objectives=tuple(objective or ()),
        constraints=tuple(constraint or ()),
        trials=trials,
        seed=seed,
    )
    with shown_progress(quiet=screen.quiet or json) as progress:
        found = run_search(
            source,
            overrides=overrides,
            out=out,
            resume=resume,
            compute=compute.value,
            progress=progress,
        )
    page = write_report(found.folder)
    if json:
        screen.json(front_rows(found.folder))
    elif screen.quiet:
        screen.result(str(page))
    else:
        print_front(found.folder, Console())


COMMANDS = (search,)
