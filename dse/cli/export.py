"""`dse export`: a trial of a run for a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.screen import Screen

if TYPE_CHECKING:
    from dse.export.base import Check

TARGETS = (
    "aimet, compressed-tensors, gguf, litert, mlx, modelopt, onnx-qdq, recipe, tensorrt, torchao"
)
"""Text of `--help`, which loads no exporter."""


def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    to: Annotated[
        str, typer.Option(metavar="TARGET", help=f"{TARGETS}, or an installed package's.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PATH", help="The file or folder to write.")
    ],
    trial: Annotated[
        int | None, typer.Option(help="A trial of the front.  [default: the recommended one]")
    ] = None,
    *,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="With the weights and scales of dse tune.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read it back with those who will, and compare.")
    ] = False,
) -> None:
    """Write a trial as a model or recipe that a runtime loads."""
    from dse.export import export_trial, exporter  # noqa: PLC0415

    screen: Screen = context.obj
    exporter(to)  # an unknown name is told before the run is read
    done = export_trial(folder, trial=trial, target=to, out=out, verify=verify, tuned=tuned)
    screen.remark(f"trial {done.trial}{', tuned,' if tuned else ''} as {to}")
    for check in done.checks:
        screen.remark(said(check))
    if done.launch:
        screen.remark(f"serve it: {done.launch}")
    screen.result(str(done.path))


def said(check: Check) -> str:
    """One line: the checker, what it compared, and the largest difference."""
    line = f"{check.checker}: {check.compared}"
    if check.difference is not None:
        line += f", largest difference {check.difference:.3g}"
    return f"{line} ({check.note})" if check.note else line


COMMANDS = (export,)
"""Commands of this module."""
