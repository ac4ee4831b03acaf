"""The sensitivity table: what each choice costs in quality when only one variable takes it."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dse.errors import RunError, some
from dse.space.problem import Problem

LOGGER = logging.getLogger(__name__)
SHOWN = 6
"""Names that a message lists."""
COLUMNS = ("variable", "choice", "loss", "stderr", "samples")
MODULES = "modules"
"""A further column that is written for other tools: nodes with weights, apart by spaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The loss of one choice alone."""

    variable: str
    choice: str
    loss: float
    """Nats per position (KL divergence), or relative output error."""
    stderr: float
    """Standard error over samples."""
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Scores of every choice of every variable, in the order of the problem."""

    scores: tuple[Score, ...]
    origin: str = field(default="sensitivities", compare=False)
    """The file, as errors call it."""

    def losses(self, problem: Problem) -> tuple[np.ndarray, ...]:
        """One array of choice losses a variable.

        Raises:
            RunError: the table is of another problem.
        """
        known = {(score.variable, score.choice): score.loss for score in self.scores}
        for variable in problem.variables:
            for choice in variable.choices:
                if (variable.name, choice.name) not in known:
                    raise RunError(
                        f"{self.origin}: has no row of variable {variable.name!r} and choice "
                        f"{choice.name!r}; a table has a row for each choice of each variable "
                        "(see: dse check)"
                    )
        return tuple(
            np.array([known[variable.name, choice.name] for choice in variable.choices])
            for variable in problem.variables
        )

    def flat(self) -> tuple[str, ...]:
        """Variables whose choices all have the same loss: nothing can be chosen by it."""
        found: dict[str, list[float]] = {}
        for score in self.scores:
            found.setdefault(score.variable, []).append(score.loss)
        return tuple(
            name for name, losses in found.items() if len(losses) > 1 and len(set(losses)) == 1
        )

    def ranked(self) -> tuple[Score, ...]:
        """The most harmful first."""
        return tuple(sorted(self.scores, key=lambda score: -score.loss))

    def to_csv(self, problem: Problem | None = None) -> str:
        """One row a score; with the problem also the modules of its variable, for other tools."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS if problem is None else (*COLUMNS, MODULES))
        modules = {one.name: " ".join(one.modules) for one in problem.variables} if problem else {}
        for score in self.scores:
            row = [getattr(score, column) for column in COLUMNS]
            writer.writerow(row if problem is None else [*row, modules[score.variable]])
        return text.getvalue()

    @classmethod
    def read(cls, path: Path) -> Sensitivity:
        """The table of a file that `to_csv` wrote.

        Raises:
            RunError: other columns, or values that are not numbers.
        """
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            try:
                columns = tuple(name for name in reader.fieldnames or () if name != MODULES)
                scores = tuple(map(_score, reader)) if columns == COLUMNS else ()
            except (TypeError, ValueError, csv.Error) as error:
                raise RunError(f"{path}: {error}; delete the file to measure it again") from error
        if columns != COLUMNS:
            raise RunError(f"{path}: expected the columns {', '.join(COLUMNS)}")
        return cls(scores=scores, origin=str(path))


def warn_of_flat(table: Sensitivity) -> None:
    """Says which variables the loss does not depend on, by name."""
    flat = table.flat()
    if flat:
        LOGGER.warning(
            "the loss is the same for every choice of %s: nothing can be chosen by it there",
            some(flat, SHOWN),
        )


def measure(
    problem: Problem,
    score: Callable[[int, int], tuple[float, float, int]],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Every choice of every variable scored alone.

    Args:
        problem: the decision variables.
        score: (variable index, choice index) -> loss, standard error, samples.
        progress: called with how many are done, of how many.
    """
    pairs = [
        (v, c)
        for v, variable in enumerate(problem.variables)
        for c in range(len(variable.choices))
    ]
    scores: list[Score] = []
    for done, (v, c) in enumerate(pairs):
        progress(done, len(pairs))
        loss, stderr, samples = score(v, c)
        variable = problem.variables[v]
        scores.append(
            Score(
                variable=variable.name,
                choice=variable.choices[c].name,
                loss=loss,
                stderr=stderr,
                samples=samples,
            )
        )
    progress(len(pairs), len(pairs))
    return Sensitivity(scores=tuple(scores))


def finite(losses: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Losses with infinities (a choice that overflows) replaced by far more than the largest."""
    largest = max((float(x[np.isfinite(x)].max(initial=0.0)) for x in losses), default=0.0)
    return tuple(np.where(np.isfinite(x), x, 1e3 * max(largest, 1e-6)) for x in losses)


def _score(row: dict[str, str]) -> Score:
    return Score(
        variable=row["variable"],
        choice=row["choice"],
        loss=float(row["loss"]),
        stderr=float(row["stderr"]),
        samples=int(row["samples"]),
    )
