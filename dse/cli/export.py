"""`dse export`: a trial of a run for a runtime."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dse.cli.screen import Screen

Target = StrEnum("Target", {"onnx_qdq": "onnx-qdq", "recipe": "recipe"})


def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    to: Annotated[Target, typer.Option(help="What to write.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="The file to write.")],
    trial: Annotated[
        int | None, typer.Option(help="A trial of the front.  [default: the recommended one]")
    ] = None,
) -> None:
    """Write a trial as a model or recipe that a runtime loads."""
    from dse.export import export_trial  # noqa: PLC0415

    screen: Screen = context.obj
    number = export_trial(folder, trial=trial, target=to.value, out=out)
    screen.remark(f"trial {number} as {to.value}")
    screen.result(str(out))


COMMANDS = (export,)
"""Commands of this module."""
