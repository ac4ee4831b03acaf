"""The progress of a search: a bar on a terminal, plain lines elsewhere, on stderr either way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from dse.explore.problem.progress import Progress as Listener
from dse.explore.problem.progress import Stage, Status, silent

TITLES: dict[Stage, str] = {
    "setup": "loading the model, pricing every choice",
    "sensitivity": "sensitivity of every choice alone",
    "hardware": "pricing every choice on all hardware",
    "trials": "trials",
    "report": "measuring the front on the report split",
    "ablation": "turning single axes back",
    "write": "writing the run folder",
    "training": "training steps",
    "tuning": "distilling the recipe",
    "claims": "measuring claims",
}

LINES = 10
"""Plain lines a stage."""


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Listener]:
    """A listener that shows a search's progress while the context lasts."""
    # Optuna announces every trial and study through its own handler.
    logging.getLogger("optuna").setLevel(logging.WARNING)
    console = Console(stderr=True)
    if quiet:
        yield silent
    elif console.is_terminal:
        with _bar(console) as progress:
            yield Bar(progress)
    else:
        yield Lines(console=console)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        expand=True,
    )


class Bar:
    """One bar a stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[Stage, TaskID] = {}

    def __call__(self, status: Status) -> None:
        """Move the stage's bar; bars of earlier stages are full."""
        if status.stage not in self._tasks:
            self._finish()
            self._tasks[status.stage] = self._progress.add_task(
                TITLES[status.stage], total=None, remark=""
            )
        self._progress.update(
            self._tasks[status.stage],
            completed=status.done,
            total=status.total or None,
            remark=remark(status),
        )

    def _finish(self) -> None:
        for task in self._progress.tasks:
            if task.total is None:
                self._progress.update(task.id, total=1, completed=1)


@dataclass(slots=True, kw_only=True)
class Lines:
    """A line at each tenth of a stage."""

    console: Console
    stage: str = ""
    printed: int = -1
    started: float = field(default_factory=time.monotonic)

    def __call__(self, status: Status) -> None:
        """Print the status where it says something new; the setup may yet be refused."""
        if status.stage == "setup":
            return
        if status.stage != self.stage:
            self.stage, self.printed, self.started = status.stage, -1, time.monotonic()
            self.console.print(TITLES[status.stage], highlight=False)
        tenth = LINES * status.done // status.total if status.total else 0
        if status.total and status.done and tenth > self.printed:
            self.printed = tenth
            parts = [f"{status.done}/{status.total}", remark(status), self._left(status)]
            self.console.print("  " + ", ".join(filter(None, parts)), highlight=False)

    def _left(self, status: Status) -> str:
        """The time that the rest takes at the pace so far."""
        if status.done >= status.total:
            return ""
        pace = (time.monotonic() - self.started) / status.done
        return f"{pace * (status.total - status.done):.0f} s left"


def remark(status: Status) -> str:
    """The best hypervolume so far, and what the stage says itself."""
    volume = f"hypervolume {status.hypervolume:.3f}" if status.hypervolume is not None else ""
    return ", ".join(filter(None, (volume, status.note)))
