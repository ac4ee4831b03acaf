"""The range of a network's static activations, of those that a space names: by its losses."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dse.errors import AssignmentError, SpaceError
from dse.evaluate.evaluator import Evaluator
from dse.explore.problem.design import Design
from dse.space.ranges import widest

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """A comparison of ranges, and what it took."""

    losses: dict[str, float] = field(default_factory=dict)
    """Range -> loss on the search split, of the uniform assignment with the widest weights; empty
    where there was nothing to choose."""
    macs: int = 0


def chosen(designs: Sequence[Design], evaluator: Evaluator) -> tuple[Design, Ranges]:
    """The design whose range loses least on the search split; the first of equals.

    Args:
        designs: one a range, the same but for it.
        evaluator: knows the quantizers of all of them.

    Raises:
        SpaceError: all of the ranges are percentiles that calibration does not tell.
    """
    first = designs[0]
    if len(designs) == 1:
        return first, Ranges()
    point = widest(first.problem, designs[1].problem)
    # The reference is an effort of its own.
    evaluator.forward_macs("search")
    before = evaluator.macs
    losses: dict[str, float] = {}
    for design in designs:
        (word,) = design.space.ranges
        try:
            found = evaluator.measure(design.networks.measured(point), "search").loss
        except AssignmentError as error:
            # A percentile that calibration's statistics of some site do not tell.
            if not word.startswith("percentile"):
                raise
            LOGGER.warning("range %s is left out: %s", word, error)
            continue
        losses[word] = math.inf if math.isnan(found) else found
    if not losses:
        raise SpaceError(f"{first.origin}: ranges: calibration tells none of them")
    best = min(losses, key=losses.__getitem__)
    told = ", ".join(f"{word} {loss:.3g}" for word, loss in losses.items())
    LOGGER.info("static activations take the range %s: losses on the search split %s", best, told)
    design = next(one for one in designs if one.space.ranges == (best,))
    return design, Ranges(losses=losses, macs=evaluator.macs - before)
