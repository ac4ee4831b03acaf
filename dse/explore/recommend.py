"""The point of a front that a search recommends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dse.explore.problem.design import Design
from dse.explore.problem.objectives import report_losses
from dse.explore.problem.records import Record
from dse.explore.problem.selection import least_native_share, loses_less, runnable
from dse.explore.solve.front import knee
from dse.explore.speedups import costs_less


def recommend(design: Design, front: Sequence[Record]) -> tuple[Record, str]:
    """The knee of what the front has on the report split that every target runs natively, and why.

    Where the knee costs no less than what loses least, as far as the model can tell, it is that:
    on a front of two points the knee is either of them.
    """
    objectives, offered = design.objectives, runnable(front, design.constraints)
    values = objectives.report_values(offered)
    bend = offered[knee(values)]
    least = offered[int(np.argmin(values[:, : len(objectives.losses)].sum(axis=1)))]
    among = f"the front's {len(offered)} points"
    if len(offered) < len(front):
        among = f"{len(offered)} of the front's {len(front)} points, those that {_share(bend)}"
    if loses_less(least, bend, objectives) and not costs_less(design, bend, least):
        return least, (
            f"least loss of {among}: the knee, #{bend.trial}, loses more, and is not told apart "
            "from it in cost"
        )
    columns = " and ".join([*report_losses(objectives), *objectives.costs])
    return bend, f"knee of the front: least sum of {columns}, each scaled to [0, 1] over {among}"


def _share(record: Record) -> str:
    if least_native_share(record) >= 1:
        return "every target runs natively"
    return f"run natively for {least_native_share(record):.0%} of the work; no point does for all"
