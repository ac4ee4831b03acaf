"""The files of a run folder: their names, and the version of the whole."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

FORMAT = 1
"""Version of the run folder, as its manifest says."""
MANIFEST = "manifest.json"
SENSITIVITY = "sensitivity.csv"
TRIALS = "trials.csv"
FRONT = "front.csv"
FRONT_ASSIGNMENTS = "front.json"
CHOICES = "choices.csv"
COSTS = "costs.csv"
RECOMMENDED = "recommended.json"
FRONTS = "fronts.csv"
ROBUST = "robust.json"
SPEEDUPS = "speedups.csv"
FAILURES = "failures.csv"
PRUNED = "pruned.csv"
HARDWARE = "hardware.json"
STATE = "state"
HARDWARE_COLUMN = "hardware."
"""Prefix of the columns that say which hardware a point is on."""
LOSS_COLUMNS = ("report_quality_loss", "report_quality_stderr")
"""Of `fronts.csv`, before the objectives' costs; of other targets' networks `<target>.` is before
them."""
EXCESS = ".excess"
"""Suffix of the columns that say how far a cost is above its own front."""


def loss_columns(targets: Sequence[str] = ()) -> tuple[str, ...]:
    """The loss columns of `fronts.csv` where some targets execute other networks."""
    return (*LOSS_COLUMNS, *(f"{label}.{name}" for label in targets for name in LOSS_COLUMNS))


def is_loss(column: str) -> bool:
    """Whether a column is a loss or its error, of whatever target."""
    return column.rpartition(".")[2] in LOSS_COLUMNS


def resume_command(folder: Path, *options: str) -> str:
    """The command that goes on with a run, as a shell takes it.

    It names no space: the folder knows its own, with all that the command line said.
    """
    return shlex.join(["dse", "search", "--out", str(folder), "--resume", *options])


def tuned_record(folder: Path, trial: int) -> Path:
    """The file that says how a trial was tuned, and what that changed."""
    return folder / "tuned" / f"{trial}.json"


def tuned_states(folder: Path, trial: int) -> Path:
    """The file of learned weights and scales of a tuned trial."""
    return folder / STATE / f"tuned-{trial}.safetensors"


def tuning_checkpoint(folder: Path, trial: int) -> Path:
    """The file that a tuning goes on from."""
    return folder / STATE / f"tuning-{trial}.safetensors"
