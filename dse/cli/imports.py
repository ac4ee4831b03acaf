"""`dse import`: a Hugging Face folder as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dse.cli.screen import Screen


def import_(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A Hugging Face folder.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="MODEL.onnx", help="To write, beside DIR.")
    ],
) -> None:
    """Write a Hugging Face folder's graph; its weights stay where they are."""
    from dse.imports.folder import write_graph  # noqa: PLC0415

    screen: Screen = context.obj
    write_graph(folder, out)
    screen.remark(f"{out} refers to the weights in {folder}; keep them together")
    screen.result(str(out))


COMMANDS = (import_,)
"""Commands of this module."""
