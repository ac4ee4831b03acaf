"""The files of a run folder: their names, and the version of the whole."""

from __future__ import annotations

import shlex
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
FAILURES = "failures.csv"
PRUNED = "pruned.csv"
STATE = "state"
LOSS_COLUMNS = ("report_quality_loss", "report_quality_stderr")
"""Of `fronts.csv`, before the objectives' costs."""
EXCESS = ".excess"
"""Suffix of the columns that say how far a cost is above its own front."""


def resume_command(folder: Path, *options: str) -> str:
    """The command that goes on with a run, as a shell takes it.

    It names no space: the folder knows its own, with all that the command line said.
    """
    return shlex.join(["dse", "search", "--out", str(folder), "--resume", *options])
