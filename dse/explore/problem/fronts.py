"""With several targets: a front each, and the assignments whose worst target is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dse.explore.problem.objectives import ROBUST, Objectives
from dse.explore.problem.records import Record
from dse.explore.solve.front import knee, nondominated
from dse.run.entries import FrontPlace
from dse.run.files import loss_columns


def front_places(objectives: Objectives, front: Sequence[Record]) -> list[FrontPlace]:
    """The entries of `fronts.csv`: every target's front, then the robust one, cheapest first.

    Each is part of the front in all objectives. `worst_ratio` is the largest cost over targets
    relative to the first choice everywhere; `excess` is how far a cost is above the least that the
    column's own front has at no greater loss.
    """
    parts = objectives.split(objectives.report_values(front))
    excess = _excess(objectives, front)
    worst = parts[ROBUST][:, 1:].max(axis=1)
    places: list[FrontPlace] = []
    for name, values in parts.items():
        kept = np.flatnonzero(nondominated(values)).tolist()
        for index in sorted(kept, key=lambda index: values[index, 1]):
            record = front[index]
            columns = record.point_entry("").columns
            places.append(
                FrontPlace(
                    front=name,
                    trial=record.trial,
                    source=record.source,
                    name=record.name,
                    digest=record.digest,
                    worst_ratio=float(worst[index]),
                    columns={
                        column: columns[column]
                        for column in (*loss_columns(objectives.searched), *objectives.costs)
                        if column in columns
                    },
                    excess={column: float(found[index]) for column, found in excess.items()},
                )
            )
    return places


def robust(objectives: Objectives, front: Sequence[Record]) -> tuple[Record, str]:
    """The knee of the robust front, and why."""
    values = objectives.split(objectives.report_values(front))[ROBUST]
    kept = np.flatnonzero(nondominated(values))
    index = int(kept[knee(values[kept])])
    excess = {column: found[index] for column, found in _excess(objectives, front).items()}
    worst = max(excess, key=lambda column: excess[column])
    return front[index], (
        f"knee of the front of loss against the worst target: on none of "
        f"{', '.join(objectives.views)} more than {100 * values[index, 1:].max():.3g} % of the "
        f"cost of the first choice everywhere, and at most {100 * excess[worst]:.2g} % above what "
        f"the target's own front has at no greater loss ({worst})"
    )


def _excess(objectives: Objectives, front: Sequence[Record]) -> Mapping[str, np.ndarray]:
    """Column -> (front,) cost above the least at no greater loss, as a share of that."""
    values = objectives.report_values(front)
    found = {}
    for place, column in enumerate(objectives.costs, start=len(objectives.losses)):
        losses, costs = values[:, objectives.place(column)], values[:, place]
        no_worse = losses[None, :] <= losses[:, None]
        least = np.where(no_worse, costs[None, :], np.inf).min(axis=1)
        # Of a cost that can be nothing, anything is infinitely more.
        ratio = np.divide(costs, least, out=np.full_like(costs, np.inf), where=least > 0)
        found[column] = np.where(costs == least, 1.0, ratio) - 1
    return found
