"""Fitting constants: the least loss that Nelder and Mead's simplex finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]


def least(
    loss: Callable[[Floats], float],
    start: Floats,
    *,
    step: float,
    evaluations: int,
    simplexes: int = 1,
) -> Floats:
    """The place of the least loss near `start`, shape (constants,).

    Args:
        loss: of a place.
        start: where to begin.
        step: of the first simplex along every axis.
        evaluations: at most, of each simplex.
        simplexes: one after the other, each from where the last one stopped: a mean of absolute
            values has corners that a simplex stops in.
    """
    best = start
    for _ in range(simplexes):
        simplex = np.vstack([best, best + step * np.eye(len(best))])
        options = {"maxfev": evaluations, "initial_simplex": simplex}
        best = np.asarray(minimize(loss, best, method="Nelder-Mead", options=options).x)
    return best
