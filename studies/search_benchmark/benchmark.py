"""The enumerated spaces: quality and cost of every assignment, as arrays or Optuna objective.

    benchmark = load("byte-gpt-depth")
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(benchmark.objective("b200.latency_s"), n_trials=60)

Needs numpy only; Optuna is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

DATA = Path(__file__).parent / "data"
NAMES = ("byte-gpt-depth", "byte-gpt-role", "fashion-resnet")


class Trial(Protocol):
    """What is used of `optuna.Trial`."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One space; assignments are numbered in C order of their choice indices."""

    name: str
    variables: Mapping[str, tuple[str, ...]]
    """Variable -> choice names."""
    loss: np.ndarray
    """Mean KL divergence on the search split, nats per position, (assignments,)."""
    stderr: np.ndarray
    """Its standard error over samples."""
    report_loss: np.ndarray | None
    """The same on the report split; None where that was not measured."""
    report_stderr: np.ndarray | None
    kept: np.ndarray
    """Numbers of the assignments in `samples`, drawn at random."""
    samples: np.ndarray
    """(kept, samples) losses on the search split, for paired comparisons."""
    costs: Mapping[str, np.ndarray]
    """`<target>.<quantity>` -> (assignments,)."""
    cost_model: str
    """Version and digest of what priced them (`studies.search_benchmark.reprice`)."""
    alone: np.ndarray
    """(variables, choices) loss when only one variable takes a choice, the rest full precision:
    what direct sensitivities are."""
    forward_share: np.ndarray
    """(variables, choices) share of a forward that measuring `alone` re-executes."""
    gradient: np.ndarray
    """(variables, choices) the same losses by `dse.sensitivity.gradient`, for three forwards."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Choices of each variable."""
        return tuple(len(choices) for choices in self.variables.values())

    @property
    def points(self) -> np.ndarray:
        """(assignments, variables) choice indices."""
        return np.stack(np.unravel_index(np.arange(len(self.loss)), self.shape), axis=1)

    @property
    def uniforms(self) -> np.ndarray:
        """Numbers of the assignments with the same choice everywhere."""
        return self.number(np.repeat(np.arange(min(self.shape))[:, None], len(self.shape), axis=1))

    def number(self, points: np.ndarray) -> np.ndarray:
        """Numbers of (..., variables) choice indices."""
        return np.ravel_multi_index(tuple(np.moveaxis(np.asarray(points), -1, 0)), self.shape)

    def values(self, *columns: str) -> np.ndarray:
        """(assignments, 1 + columns): the loss and costs, all to be minimised."""
        return np.column_stack([self.loss, *(self.costs[column] for column in columns)])

    def additive(self, column: str) -> tuple[np.ndarray, ...]:
        """What each variable's choices add to a cost, the rest at their first choice."""
        grid = self.costs[column].reshape(self.shape)
        parts = []
        for axis in range(len(self.shape)):
            line = np.moveaxis(grid, axis, 0).reshape(self.shape[axis], -1)[:, 0]
            parts.append(line - grid.flat[0] * (1 - 1 / len(self.shape)))
        return tuple(parts)

    def objective(self, *columns: str) -> Callable[[Trial], tuple[float, ...]]:
        """The function that Optuna minimises: parameters are named as the variables."""
        values = self.values(*columns)

        def evaluate(trial: Trial) -> tuple[float, ...]:
            point = [
                choices.index(trial.suggest_categorical(name, choices))
                for name, choices in self.variables.items()
            ]
            return tuple(float(value) for value in values[self.number(np.array(point))])

        return evaluate


def load(name: str, folder: Path = DATA) -> Benchmark:
    """An enumerated space.

    Args:
        name: one of `NAMES`.
        folder: where its table is.

    Raises:
        ValueError: no space of that name.
    """
    if name not in NAMES:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
        content = {key: archive[key] for key in archive.files}
    variables = {
        str(variable): tuple(str(choice) for choice in content[f"choices/{variable}"])
        for variable in content["variables"]
    }
    shape = tuple(len(choices) for choices in variables.values())
    return Benchmark(
        name=name,
        variables=variables,
        loss=content["search.loss"].astype(float),
        stderr=content["search.stderr"].astype(float),
        report_loss=_optional(content, "report.loss"),
        report_stderr=_optional(content, "report.stderr"),
        kept=content["kept"],
        samples=content["search.samples"].astype(float),
        costs={str(column): _costs(content, str(column), shape) for column in content["columns"]},
        cost_model=str(content["cost_model"]),
        alone=content["alone"],
        forward_share=content["forward_share"],
        gradient=content["gradient"],
    )


def _optional(content: Mapping[str, np.ndarray], key: str) -> np.ndarray | None:
    return content[key].astype(float) if key in content else None


def _costs(content: Mapping[str, np.ndarray], column: str, shape: tuple[int, ...]) -> np.ndarray:
    """A whole column, or the sum over variables that it is stored as."""
    if f"cost/{column}" in content:
        return content[f"cost/{column}"].astype(float)
    parts = content[f"sum/{column}"]
    total = np.full(shape, content[f"fixed/{column}"])
    for axis, size in enumerate(shape):
        along = [1] * len(shape)
        along[axis] = size
        total = total + parts[axis, :size].reshape(along)
    return total.ravel()
