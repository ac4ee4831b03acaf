"""The protocol of a target, with its laws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from dse.export.base.recipe import Recipe
from dse.export.base.refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A checker's verdict on what was written."""

    checker: str
    """Program and version, `ONNX Runtime 1.32.0`."""
    compared: str
    """`structure`, `weights`, `outputs`, `assignment and states`."""
    difference: float | None = None
    """The largest absolute difference from the emulator's numbers; None where no number was
    compared."""
    note: str = ""
    """Remarks that a reader must know: what was not run, and why."""


@runtime_checkable
class Exporter(Protocol):
    """A target that recipes are written for: a file format, with the runtime that reads it.

    Laws, which `tests/contracts/test_exporters.py` holds every target to:

    * Lossless, or refused: what `can_express` has nothing against is written with the emulator's
      numbers. Nothing is dropped, rounded again or left to the reader to recompute; where a format
      makes the reader recompute, the first line of `summary` says so.
    * `can_express` finds everything at once, writes nothing, and gives the same answer twice.
      A reason is true of the target (not "not known to us"), and `instead` would be accepted.
    * `write` makes `out` itself, a file or a folder, and may put companions beside it whose names
      begin with that of `out`. It changes nothing else: the caller gives a path in an empty folder
      and moves what is there, so that a refusal or an interruption leaves nothing behind.
    * `verify` reads back what `write` wrote, with the consumer itself where it is installed, and
      gives the largest difference from the emulator's numbers. It raises `ExportError` where the
      consumer computes something else, and says in a note what could not be run.
    """

    summary: str
    """One line for `--help` and the documents: what is written, and who reads it."""

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Parts that the target cannot say, and where; empty where it says all."""

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write a recipe that `can_express` has nothing against.

        Raises:
            OSError: it cannot be written there.
        """

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """Verdicts of checkers on what `write` wrote at `out`.

        Raises:
            ExportError: one of them computes something else than the emulator.
        """


@runtime_checkable
class Launchable(Protocol):
    """A target whose consumer is a server that one command starts; `Exporter`s may be it, too."""

    def launch(self, recipe: Recipe, out: Path) -> str:
        """The command that serves what lies at `out`; empty where no server runs the recipe."""
