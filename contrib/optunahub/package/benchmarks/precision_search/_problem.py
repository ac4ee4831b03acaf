"""One space whose every assignment was measured: a trial is a look-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optunahub.benchmarks import BaseProblem

from ._tables import NAMES, load


class Problem(BaseProblem):  # type: ignore[misc]
    """Loss and costs of a network with a number format a part of it, all to be minimised.

    Args:
        name: one of `available_names`.
        costs: columns beside the loss, of `available_costs`; by default the first one.

    Raises:
        ValueError: no such space, or no such cost.
    """

    available_names: tuple[str, ...] = NAMES

    def __init__(self, name: str = "byte-gpt-role", costs: Sequence[str] | None = None) -> None:
        self.table = load(name, Path(__file__).parent / "data")
        self.costs = tuple(costs or self.available_costs[:1])
        unknown = [cost for cost in self.costs if cost not in self.table.costs]
        if unknown:
            raise ValueError(
                f"no cost {unknown[0]!r} in {name!r}; there are {', '.join(self.available_costs)}"
            )
        self._values = self.table.values(*self.costs)

    @property
    def available_costs(self) -> tuple[str, ...]:
        """`<device>.<quantity>`."""
        return tuple(self.table.costs)

    @property
    def search_space(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """A format of each part."""
        return {
            name: optuna.distributions.CategoricalDistribution(choices)
            for name, choices in self.table.variables.items()
        }

    @property
    def directions(self) -> list[optuna.study.StudyDirection]:
        """All to be minimised."""
        return [optuna.study.StudyDirection.MINIMIZE] * (1 + len(self.costs))

    @property
    def metric_names(self) -> list[str]:
        """The loss in nats per position, then the costs."""
        return ["loss", *self.costs]

    def evaluate(self, params: dict[str, Any]) -> tuple[float, ...]:
        """The loss and the costs of an assignment."""
        point = [choices.index(params[name]) for name, choices in self.table.variables.items()]
        return tuple(float(value) for value in self._values[self.table.number(np.array(point))])

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """The loss of each choice alone, by gradients: three forward passes in all."""
        return {
            name: dict(zip(choices, map(float, losses), strict=True))
            for (name, choices), losses in zip(
                self.table.variables.items(), self.table.gradient, strict=True
            )
        }

    @property
    def additive(self) -> list[Mapping[str, Mapping[str, float]]]:
        """Of each cost, what every choice adds."""
        return [
            {
                name: dict(zip(choices, map(float, parts), strict=True))
                for (name, choices), parts in zip(
                    self.table.variables.items(), self.table.additive(cost), strict=True
                )
            }
            for cost in self.costs
        ]
