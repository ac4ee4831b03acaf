"""`dse annotate`: candidate and chosen formats in the metadata of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.platform import DEVICE_RUNTIME
from dse.cli.screen import Screen

if TYPE_CHECKING:
    from dse.graph.annotations import Annotations
    from dse.model import Model


def annotate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="An ONNX file, a Hugging Face folder, zoo:NAME; or a run folder."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.onnx", help="To write.")],
    space: Annotated[
        Path | None, typer.Option(metavar="SPACE.yaml", help="Where candidates stand.")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "--device", metavar=DEVICE_RUNTIME,
            help="Instead of a space: what all of these run natively.",
        ),
    ] = None,
    *,
    trial: Annotated[
        int | None,
        typer.Option(help="Of a run: whose formats are chosen.  [default: the recommended one]"),
    ] = None,
) -> None:  # fmt: skip
    """Write candidate formats into a model's metadata; of a run also those of a trial."""
    from dse.space.annotate import annotated_copy  # noqa: PLC0415

    screen: Screen = context.obj
    if _is_run(model):
        if space is not None or target:
            raise typer.BadParameter(f"{model} is a run, which has candidates of its own")
        from dse.export.annotated import annotations_of_trial  # noqa: PLC0415

        opened, location, found = annotations_of_trial(Path(model), trial)
    else:
        if trial is not None:
            raise typer.BadParameter(f"--trial: {model} is no run folder")
        opened, found = _candidates(model, space, target or ())
        location = model
    annotated_copy(opened, location, found, out)
    chosen = f", {len(found.chosen)} of them with a chosen format" if found.chosen else ""
    screen.remark(f"wrote {out}: candidates of {len(found.candidates)} sites{chosen}")


def _is_run(name: str) -> bool:
    from dse.run.files import MANIFEST  # noqa: PLC0415

    return (Path(name) / MANIFEST).is_file()


def _candidates(
    name: str, space: Path | None, targets: list[str] | tuple[str, ...]
) -> tuple[Model, Annotations]:
    from dse.model import open_model  # noqa: PLC0415
    from dse.space.annotate import drafted, offered  # noqa: PLC0415

    if (space is None) == (not targets):
        raise typer.BadParameter("give either --space SPACE.yaml or --target DEVICE[:RUNTIME]")
    opened = open_model(name)
    if space is not None:
        return opened, offered(opened, space)
    from dse.explore.run import parse_targets  # noqa: PLC0415

    return opened, drafted(opened, parse_targets(targets))


COMMANDS = (annotate,)
"""Commands of this module."""
