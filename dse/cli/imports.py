"""`dse import`: a Hugging Face folder as an ONNX file, a GGUF file as such a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dse.cli.screen import Screen


def import_(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A Hugging Face folder, or a .gguf file.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="MODEL.onnx", help="To write, beside DIR; of a .gguf: a folder."
        ),
    ],
    space: Annotated[
        Path | None,
        typer.Option(metavar="SPACE.yaml", help="Write its candidate formats into the file, too."),
    ] = None,
) -> None:
    """Write a Hugging Face folder's graph; its weights stay where they are."""
    from dse.imports.folder import write_graph  # noqa: PLC0415
    from dse.imports.gguf import SUFFIX, unpack  # noqa: PLC0415

    screen: Screen = context.obj
    if space is not None and folder.suffix == SUFFIX:
        raise typer.BadParameter(f"--space: {folder} becomes a folder; import that with --space")
    if folder.suffix == SUFFIX:
        unpack(folder, out)
        screen.remark(
            f"{out} holds the float32 numbers that {folder.name} stands for: results with few "
            "bits look better than they would from the original weights"
        )
        screen.result(str(out))
        return
    if space is None:
        write_graph(folder, out)
    else:
        from dse.model import open_model  # noqa: PLC0415
        from dse.space.annotate import annotated_copy, offered  # noqa: PLC0415

        model = open_model(str(folder))
        annotated_copy(model, str(folder), offered(model, space), out)
    screen.remark(f"{out} refers to the weights in {folder}; keep them together")
    screen.result(str(out))


COMMANDS = (import_,)
"""Commands of this module."""
