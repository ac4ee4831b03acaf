"""A network of which nothing is left, told from one that only loses something."""

from __future__ import annotations

import math
from dataclasses import dataclass

DESTROYED = 0.8
"""A loss is that of a constant answer from this share of it on; likewise a share of flips."""
RARE = 0.2
"""Share of flips of a constant answer below which flips alone say nothing: one class prevails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantAnswer:
    """Loss of a network that answers the same to every input."""

    loss: float
    flip_rate: float
    """Share of positions whose answer is not the most frequent one; NaN without a distribution."""

    def as_bad(self, loss: float, flip_rate: float) -> bool:
        """Whether nothing of the network is left: no better than the constant answer.

        Answers that stay the same are not lost, however much bolder or shier they have become.
        """
        lost = loss >= DESTROYED * self.loss > 0
        if math.isnan(self.flip_rate) or math.isnan(flip_rate):
            return lost
        if lost:
            return flip_rate > 0 and flip_rate >= self.flip_rate / 2
        return self.flip_rate > RARE and flip_rate >= DESTROYED * self.flip_rate
