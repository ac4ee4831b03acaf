"""Every choice scored alone, by the method that a space names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from dse.evaluate.evaluator import Evaluator
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
    """What each choice costs in quality when only one variable takes it, on the search split.

    Args:
        evaluator: model, data and calibration.
        problem: the decision variables.
        method: `gradient` takes one backward pass for all choices and underrates large errors;
            `direct` measures every choice.
        samples: of the search split, whole batches.
        seed: of the labels that gradient scores draw.
        progress: called with how many choices are done, of how many.
    """
    if method == "gradient":
        return gradient_scores(evaluator, problem, split="search", samples=samples, seed=seed)

    def alone(variable: int, choice: int) -> tuple[float, float, int]:
        quality = evaluator.measure(problem.changed(variable, choice), samples=samples)
        return quality.loss, quality.stderr, quality.samples

    return measure(problem, alone, progress=progress)
