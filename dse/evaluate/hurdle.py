"""A first look at an assignment: few samples, paired with a better one's, may end it there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from dse.evaluate.quality import SEPARATED

MISTAKEN = 0.00135
"""Probability of giving up what a full measurement would have kept: three standard errors of a
normal distribution, one-sided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurdle:
    """The records that the first samples of a measurement must not be clearly worse than."""

    rows: tuple[int, ...]
    """Numbers of the samples that are measured first, ascending (see `first_rows`)."""
    rival: tuple[float, ...]
    """Losses of all samples under an assignment that costs no more."""

    def clears(self, losses: Sequence[float]) -> bool:
        """Whether the first samples leave it open that all samples are no worse than the rival's.

        All samples are worse when their mean paired difference is above two of its standard
        errors: the test that keeps an assignment from the report split. The mean of all is
        estimated from the first, whose standard error shrinks with what is left unmeasured, and
        Student's distribution stands for the few samples that the spread is taken from. Without
        any spread nothing is concluded. An infinite loss ends it: no other sample mends the mean.

        Args:
            losses: of the samples in `rows`.

        Source: Cochran, Sampling Techniques, 3rd ed. 1977, chapters 2 (finite populations) and
        7 (difference estimates).
        """
        if not np.isfinite(losses).all():
            return False
        gaps = self._gaps(losses)
        first, whole = len(gaps), len(self.rival)
        spread = float(gaps.std(ddof=1)) if first > 1 else 0.0
        stderr = spread * math.sqrt(1 / first - 1 / whole)
        doubt = float(stdtrit(first - 1, 1 - MISTAKEN)) * stderr if first > 1 else math.inf
        noise = SEPARATED * spread / math.sqrt(whole)
        return spread == 0 or float(gaps.mean()) - doubt <= noise

    def estimate(self, losses: Sequence[float]) -> float:
        """The mean loss of all samples, from the first: the rival's plus the mean difference."""
        return float(np.mean(self.rival) + self._gaps(losses).mean())

    def _gaps(self, losses: Sequence[float]) -> np.ndarray:
        gaps: np.ndarray = np.asarray(losses) - np.asarray(self.rival)[list(self.rows)]
        return gaps


def first_rows(samples: int, batch: int, share: float) -> tuple[int, ...]:
    """The samples of a first look: whole batches, spread evenly over a split.

    Args:
        samples: of the split.
        batch: how many are executed together.
        share: of the batches that are wanted.

    Returns:
        Ascending numbers; none where the split is one batch.
    """
    batches = -(-samples // batch)
    if batches < 2:
        return ()
    looks = min(max(1, round(share * batches)), batches - 1)
    chosen = [(2 * look + 1) * batches // (2 * looks) for look in range(looks)]
    return tuple(
        row for start in chosen for row in range(start * batch, min(samples, (start + 1) * batch))
    )
