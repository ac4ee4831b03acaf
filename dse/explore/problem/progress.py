"""Progress of a search or a training: the command line shows it, tests and scripts ignore it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Stage = Literal[
    "setup", "sensitivity", "hardware", "trials", "report", "ablation", "write", "training",
    "tuning", "claims",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of the work."""

    stage: Stage
    done: int = 0
    total: int = 0
    hypervolume: float | None = None
    """Share of the box below the worst uniform assignment that the front dominates."""
    note: str = ""


class Progress(Protocol):
    """Takes every change of status."""

    def __call__(self, status: Status) -> None:
        """Show it; must return quickly and not raise."""


def silent(status: Status) -> None:
    """Shows nothing."""
