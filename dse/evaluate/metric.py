"""A user's own measure of quality: a function of a network that runs and of data.

What it returns replaces the divergence from full precision: the loss of an assignment is how far
its score falls behind that of the unquantized network on the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dse.errors import DataError
from dse.evaluate.quality import Quality
from dse.zoo.split import Split

Inputs = Mapping[str, NDArray[Any]]


class Run:
    """A network with an assignment, ready to be called.

    Args:
        inputs: names of the graph's inputs.
        execute: inputs -> the first output, in batches that fit in memory.
    """

    def __init__(self, inputs: tuple[str, ...], execute: Callable[[Inputs], NDArray[Any]]) -> None:
        self._inputs = inputs
        self._execute = execute

    def __call__(self, inputs: Inputs | NDArray[Any]) -> NDArray[Any]:
        """The graph's first output for any number of samples.

        Args:
            inputs: an array by input name, or the only input; the first axis counts samples.
        """
        if isinstance(inputs, np.ndarray):
            if len(self._inputs) != 1:
                raise DataError(f"run: expected arrays named {', '.join(self._inputs)}, got one")
            return self._execute({self._inputs[0]: inputs})
        return self._execute(inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A user's own measure of quality."""

    function: Callable[[Run, Split], Any]
    """(run, data) -> a number, or one number a sample, which makes comparisons paired."""
    goal: Literal["maximise", "minimise"] = "maximise"
    name: str = "score"
    """The column of the run folder's tables."""

    def score(self, run: Run, data: Split) -> NDArray[np.float64]:
        """(1,) or (samples,) scores.

        Raises:
            DataError: the function returned something else, or NaN.
        """
        scores = np.atleast_1d(np.asarray(self.function(run, data), dtype=np.float64))
        samples = len(next(iter(data.inputs.values())))
        if scores.shape not in ((1,), (samples,)):
            raise DataError(
                f"{self.name}: expected a number or one for each of {samples} samples, got an "
                f"array of shape {scores.shape}"
            )
        if np.isnan(scores).any():
            raise DataError(f"{self.name}: is NaN")
        return scores

    def quality(self, scores: NDArray[np.float64], reference: NDArray[np.float64]) -> Quality:
        """Distance of scores behind those of full precision; negative where they are ahead.

        Without one number a sample the standard error is not known: NaN.
        """
        sign = 1.0 if self.goal == "maximise" else -1.0
        losses = np.nan_to_num(sign * (reference - scores), nan=0.0, posinf=math.inf)
        count, single = len(losses), len(losses) == 1
        return Quality(
            loss=float(losses.mean()),
            stderr=math.nan if single else float(losses.std(ddof=1) / math.sqrt(count)),
            p99=float(np.quantile(losses, 0.99)),
            flip_rate=math.nan,
            metric=float(scores.mean()),
            samples=count,
            losses=() if single else tuple(losses.tolist()),
        )
