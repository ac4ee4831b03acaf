"""`dse report`, `dse compare`: run folders to pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dse.cli.screen import JsonFlag, Screen


def report(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    *,
    json: JsonFlag = False,
) -> None:
    """Build a run's report again, print its front."""
    from dse.cli.methods import report_methods  # noqa: PLC0415
    from dse.report.console import print_front  # noqa: PLC0415
    from dse.report.html import write_report  # noqa: PLC0415
    from dse.report.records import front_rows  # noqa: PLC0415
    from dse.run.training_run import is_training_run  # noqa: PLC0415

    screen: Screen = context.obj
    if is_training_run(folder):
        report_methods(screen, folder, as_json=json)
        return
    page = write_report(folder)
    if json:
        screen.json(front_rows(folder))
    elif screen.quiet:
        screen.result(str(page))
    else:
        print_front(folder, screen.console())


def compare(
    context: typer.Context,
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run folders.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")
    ] = Path("compare.html"),
) -> None:
    """Put the fronts of several runs into one page."""
    from dse.report.compare import compare as write_comparison  # noqa: PLC0415

    screen: Screen = context.obj
    screen.result(str(write_comparison(folders, out)))


COMMANDS = (report, compare)
