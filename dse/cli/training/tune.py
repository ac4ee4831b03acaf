"""`dse tune`: a recipe of a run, distilled against full precision."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.cli.platform import Compute
from dse.cli.screen import JsonFlag, Rows, Screen, positive, resumable

if TYPE_CHECKING:
    from dse.run.entries import TunedTrial


RATE = 1e-3
"""Three times as much recovers more of 3-bit weights, and harms 4-bit ones
(`studies/tuned_recipes`)."""


class What(StrEnum):
    """Kinds of parameters."""

    weights = "weights"
    low_rank = "low-rank"
    scales = "scales"


def tune(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    trial: Annotated[
        int | None, typer.Option(help="A trial of the front.  [default: the recommended one]")
    ] = None,
    *,
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps, a batch each.")] = 300,
    learn: Annotated[
        What,
        typer.Option(
            help="Weights and scales, low-rank changes of weights and scales, or scales alone."
        ),
    ] = What.weights,
    rate: Annotated[
        float,
        typer.Option(callback=positive, help="The largest step, as a share of what is moved."),
    ] = RATE,
    rank: Annotated[int, typer.Option(min=1, help="Of low-rank changes.")] = 8,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the calibration split, beside those of the search split.  [default: the "
            "run's]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of batches.")] = 0,
    compute: Annotated[Compute, typer.Option(help="Where the network runs.")] = Compute.cpu,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Do a tuning again.")] = False,
    json: JsonFlag = False,
) -> None:
    """Distil a recipe of a run: train its quantized network to say what full precision says.

    Straight-through on its quantizers, trained on the calibration and the search split, scored
    on the report split. What is learned stays in the run folder; dse export --tuned writes it.
    """
    if resume and replace:
        raise typer.BadParameter("--resume goes on, --replace begins again: give one")
    from dse.cli.progress import shown_progress  # noqa: PLC0415
    from dse.explore.problem.progress import Status  # noqa: PLC0415
    from dse.export.trial import chosen_trial  # noqa: PLC0415
    from dse.run.entries import TuningSettings  # noqa: PLC0415
    from dse.tune.tune import tune_trial  # noqa: PLC0415

    screen: Screen = context.obj
    settings = TuningSettings(
        trial=chosen_trial(folder, trial).trial, learn=learn.value, steps=steps, rate=rate,
        rank=rank, samples=samples, seed=seed,
    )  # fmt: skip
    hint = "go on with the same options and --resume"
    quiet = screen.quiet or json
    with resumable(lambda: hint), shown_progress(quiet=quiet) as progress:
        done = tune_trial(
            folder,
            settings,
            compute=compute,
            resume=resume,
            replace=replace,
            listener=lambda step, loss: progress(
                Status(stage="tuning", done=step, total=steps, note=f"loss {loss:.3g}")
            ),
        )
    if json:
        screen.json(done.model_dump(mode="json") | {"per_minute": done.recovered_per_minute})
        return
    _say(screen, folder, done)


def _say(screen: Screen, folder: Path, done: TunedTrial) -> None:
    screen.table(
        Rows(
            columns=("", "loss", "stderr", "metric"),
            rows=(
                ("before", done.before, done.before_stderr, done.metric_before),
                ("after", done.after, done.after_stderr, done.metric_after),
                ("recovered", done.recovered, done.recovered_stderr, None),
            ),
        )
    )
    screen.remark(
        f"on the report split, ± one standard error; {done.settings.steps} steps over "
        f"{done.sites} sites took {done.seconds:.0f} s and {done.forward_equivalents:.0f} "
        f"forward-equivalents: {done.recovered_per_minute:.3g} recovered a minute"
    )
    if done.recovered < 2 * done.recovered_stderr:
        screen.remark(
            "nothing that stands out of the noise was recovered: give it more --samples, or "
            "another --rate"
        )
    command = f"dse export {folder} --trial {done.settings.trial} --tuned"
    screen.remark(f"write it: {command} --to TARGET -o PATH")


COMMANDS = (tune,)
