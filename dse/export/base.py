"""The seam of exporters: what a target gets, what it must promise, and what it says.

A target is one file (or folder) with a class that is an `Exporter`; `dse.export.exporters` names
ours, and the entry point group `dse.exporters` those of other packages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from dse.execute.operators.step import Quantize
from dse.execute.program.program import Program
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph

SHOWN_SITES = 3
"""Sites that a refusal names for each reason; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An assignment with everything that was found for it: what an exporter writes."""

    name: str
    """The model's, as a user knows it."""
    program: Program
    """The model, with weights; `program.graph.path` is the file that it came from."""
    assignment: Assignment
    """Which quantizer stands at which site; other sites keep the model's precision."""
    bound: Mapping[str, Quantize]
    """What the emulator computes at a site: its quantizer with calibrated scales and learned
    values, and corrections of means, as `dse.execute.quantizers.bound` says."""
    trial: int | None = None
    """Its number in the run."""
    samples: Mapping[str, Tensor] | None = None
    """Feeds that a check compares outputs on; None where there are none."""

    @property
    def graph(self) -> Graph:
        """The model's graph."""
        return self.program.graph

    def constant(self, key: str) -> Tensor | None:
        """The constant that stands at a site; None where an activation does."""
        node, _, operand = key.rpartition("/")
        if not operand.startswith("in"):
            return None
        return self.program.constant(self.graph.by_name[node].inputs[int(operand[2:])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that a target cannot express."""

    reason: str
    instead: str
    """What would work there."""
    site: str = ""
    """Where; empty where it is the whole model."""
    format: str = ""
    """The quantizer that stands there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one checker said about what was written."""

    checker: str
    """Program and version, `ONNX Runtime 1.32.0`."""
    compared: str
    """`structure`, `weights`, `outputs`, `assignment and states`."""
    difference: float | None = None
    """The largest absolute difference from the emulator's numbers; None where no number was
    compared."""
    note: str = ""
    """What a reader must know: what was not run, and why."""


class Inexpressible(Exception):  # noqa: N818 (never seen by users: it becomes a `Refusal`)
    """A quantizer that a target has no way to say."""

    def __init__(self, reason: str, *, instead: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead


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
        """What the target cannot say, and where; empty where it says all."""

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write a recipe that `can_express` has nothing against.

        Raises:
            OSError: it cannot be written there.
        """

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """What checkers say about what `write` wrote at `out`.

        Raises:
            ExportError: one of them computes something else than the emulator.
        """


def refusal(target: str, refused: Iterable[Refusal]) -> str:
    """The message of a refused export: each reason once, with its sites and what would work."""
    sites: dict[tuple[str, str, str], list[str]] = {}
    for one in refused:
        sites.setdefault((one.format, one.reason, one.instead), []).append(one.site)
    lines = [f"{target} cannot express this assignment:"]
    for (format, reason, instead), keys in sites.items():
        named = [key for key in keys if key]
        where = ", ".join(named[:SHOWN_SITES])
        rest = len(named) - SHOWN_SITES
        more = f" and {rest} more" if rest > 0 else ""
        what = f"{format} at {where}{more}: " if named else f"{format}: " if format else ""
        lines.append(f"  {what}{reason}; {instead}")
    lines.append("nothing was written")
    return "\n".join(lines)
