"""A phase's conversions and constants: those of one region, and those that regions share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwmodels.plans.conversion import kernels_of
from hwmodels.plans.region import RegionPlan
from hwmodels.tables.phase import COLUMNS
from hwmodels.tables.shared_cost import SharedCost
from hwmodels.work.kernel import Kernel

Floats = NDArray[np.float64]
Plans = list[list[list[RegionPlan]]]
"""By region, its choice, and the choice of the region that decides its output."""
WEIGHT_COLUMN = COLUMNS.index("weight_bytes")
CACHE_COLUMN = COLUMNS.index("kv_bytes")


class Sharing:
    """Conversions and constants that several regions name, kept out of the regions' own cost."""

    def __init__(
        self,
        plans: Plans,
        cost: Callable[[Iterable[Kernel]], Floats],
        repeats: Sequence[int] | None = None,
    ) -> None:
        self.plans = plans
        self.cost = cost
        self.repeats = repeats or [1] * len(plans)
        self.wanting: dict[str, list[int]] = {}
        self.storing: dict[str, list[int]] = {}
        for index, by_choice in enumerate(plans):
            every = [by_output[0] for by_output in by_choice]
            shared = [c for plan in every for c in plan.conversions if c.is_shared]
            for value in dict.fromkeys(c.value for c in shared):
                self.wanting.setdefault(value, []).append(index)
            for value in dict.fromkeys(c.value for plan in every for c in plan.constants):
                self.storing.setdefault(value, []).append(index)

    def own(self, plan: RegionPlan, repeats: int = 1) -> Floats:
        """Columns of the plan's conversions and constants that no other region names.

        Conversions are paid at each of the `repeats` of the region, constants are stored once.
        """
        mine = [c for c in plan.conversions if not c.is_shared or len(self.wanting[c.value]) == 1]
        columns = repeated(self.cost(kernels_of(mine)), repeats)
        for constant in plan.constants:
            if len(self.storing[constant.value]) == 1:
                columns[CACHE_COLUMN if constant.is_cache else WEIGHT_COLUMN] += constant.bytes
        return columns

    def conversions(self) -> tuple[SharedCost, ...]:
        """Conversions that several regions want."""
        return tuple(
            self._shared(
                regions,
                lambda plan, value=value, regions=regions: {  # type: ignore[misc]
                    c.target: repeated(self.cost(c.kernels), self._times(regions))
                    for c in plan.conversions
                    if c.value == value
                },
            )
            for value, regions in self.wanting.items()
            if len(regions) > 1
        )

    def constants(self) -> tuple[SharedCost, ...]:
        """Constants that several regions store."""
        return tuple(
            self._shared(
                regions,
                lambda plan, value=value: {  # type: ignore[misc]
                    c.target: self._stored_columns(c.bytes, is_cache=c.is_cache)
                    for c in plan.constants
                    if c.value == value
                },
            )
            for value, regions in self.storing.items()
            if len(regions) > 1
        )

    def _stored_columns(self, count: int, *, is_cache: bool) -> Floats:
        columns = np.zeros_like(self.cost(()))
        columns[CACHE_COLUMN if is_cache else WEIGHT_COLUMN] = count
        return columns

    def _times(self, regions: Iterable[int]) -> int:
        """Number of conversions of a value that several regions want: as often as the busiest."""
        return max(self.repeats[index] for index in regions)

    def _shared(
        self, regions: list[int], targets_of: Callable[[RegionPlan], Mapping[str, Floats]]
    ) -> SharedCost:
        most = max(len(by_choice) for by_choice in self.plans)
        names: dict[str, int] = {}
        costs: list[Floats] = []
        targets = np.full((len(regions), most), -1, dtype=np.int64)
        for row, index in enumerate(regions):
            for choice, by_output in enumerate(self.plans[index]):
                for target, columns in targets_of(by_output[0]).items():
                    if target not in names:
                        names[target] = len(costs)
                        costs.append(columns)
                    targets[row, choice] = names[target]
        return SharedCost(
            regions=np.array(regions, dtype=np.int64), targets=targets, costs=np.array(costs)
        )


def repeated(columns: Floats, times: int) -> Floats:
    """Columns of what is executed so often; nothing for what is not, whatever it would cost."""
    return times * columns if times else np.zeros_like(columns)
