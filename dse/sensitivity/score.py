"""Every choice scored alone, by the method that a space names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from dse.evaluate.evaluator import Evaluator
from dse.graph.ir.site import SUM_ROLE
from dse.sensitivity.gradient import gradient_scores
from dse.sensitivity.table import Sensitivity, measure
from dse.space.problem import Problem

Method = Literal["gradient", "direct"]


def score(
    evaluator: Evaluator,
    problem: Problem,
    method: Method,
    *,
    samples: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Cost in quality of each choice when only one variable takes it, on the search split.

    Args:
        evaluator: model, data and calibration.
        problem: the decision variables.
        method: `gradient` takes one backward pass for all choices and underrates large errors;
            `direct` measures every choice.
        samples: of the search split, whole batches.
        seed: of the labels that gradient scores draw.
        progress: called with how many choices are done, of how many.
    """

    def alone(variable: int, choice: int) -> tuple[float, float, int]:
        quality = evaluator.measure(problem.changed(variable, choice), samples=samples)
        return quality.loss, quality.stderr, quality.samples

    if method == "gradient":
        table = gradient_scores(evaluator, problem, split="search", samples=samples, seed=seed)
        return _without_gradient(table, problem, alone, progress)
    return measure(problem, alone, progress=progress)


def _without_gradient(
    table: Sensitivity,
    problem: Problem,
    alone: Callable[[int, int], tuple[float, float, int]],
    progress: Callable[[int, int], None],
) -> Sensitivity:
    """The table with choices measured alone that no gradient says anything about.

    Those are NaN (an undefined value upstream) or nothing for every choice of a variable: an
    operator without a gradient stands between it and the outputs. And accumulators: a sum that
    stops or wraps is no rounding of an operand.
    """
    losses = table.losses(problem)
    open_ = [not np.isfinite(found).all() or not found.any() for found in losses]
    summed = [[SUM_ROLE in c.quantizers for c in v.choices] for v in problem.variables]
    if not any(open_) and not any(map(any, summed)):
        return table
    known = {(score.variable, score.choice): score for score in table.scores}

    def settled(variable: int, choice: int) -> tuple[float, float, int]:
        if open_[variable] or summed[variable][choice]:
            return alone(variable, choice)
        chosen = problem.variables[variable]
        found = known[chosen.name, chosen.choices[choice].name]
        return found.loss, found.stderr, found.samples

    return measure(problem, settled, progress=progress)
