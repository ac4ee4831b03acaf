"""The least that the open cuts of a partial mapping can cost.

At each open cut a tensor crosses at least once, and again for each count above the open cuts of a
loop that it does not depend on, unless those counts are its stationary run and the level holds
all that is below them: open loops can at best be stationary too. At the multipliers, whose order
of loops reuses one tensor only, the best single order is a second bound; the larger of the two
holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwmodels.estimators.array.mapping import Partial, below
from hwmodels.estimators.array.nest import Floats
from hwmodels.estimators.array.traffic import MULTIPLIER, ORDERS, REUSE_INDICES, Placed
from hwmodels.tensors import TENSORS


@dataclass(frozen=True, kw_only=True)
class Share:
    """Energy and bytes by level of one tensor at one cut: of the first crossing, of each more."""

    first_j: float
    again_j: float
    first_bytes: Floats
    again_bytes: Floats


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Least costs of cuts that are open."""

    placed: Placed
    shares: dict[int, tuple[Share, ...]]
    """Cut -> tensors, in the order of `TENSORS`."""
    multiplier_j: float
    multiplier_bytes: Floats
    """Of the best single order at the multipliers, each."""

    @classmethod
    def of_nest(cls, placed: Placed) -> Rest:
        """The rests of a placed nest."""
        inner = placed.unrolling.tile[None, :]
        whole = below(placed, Partial.start(placed), MULTIPLIER, inner, ORDERS)
        cuts = range(MULTIPLIER, len(placed.hierarchy.stages) - 1)
        return cls(
            placed=placed,
            shares={cut: _shares(placed, cut) for cut in cuts},
            multiplier_j=float(whole.energy_j.min()),
            multiplier_bytes=whole.level_bytes.min(axis=0),
        )

    def of(self, partial: Partial, cut: int) -> tuple[Floats, Floats]:
        """Least energy (n,) and bytes by level (n, levels) below a cut that is decided."""
        energy = np.zeros(len(partial.counts))
        moved = np.zeros_like(partial.level_bytes)
        if cut == MULTIPLIER:
            return energy, moved
        for open_cut in range(cut):
            more_j, more_bytes = self._at(open_cut, self._again(partial, open_cut))
            energy = energy + more_j
            moved = moved + more_bytes
        last_j, last_bytes = self._at(MULTIPLIER, self._again(partial, MULTIPLIER))
        return (
            energy + np.maximum(last_j, self.multiplier_j),
            moved + np.maximum(last_bytes, self.multiplier_bytes),
        )

    def _again(self, partial: Partial, open_cut: int) -> list[Floats]:
        """Crossings of each tensor after its first one at an open cut, at least; (n,) each.

        A stationary run above goes on below only if the cut's level can hold what the tensor has
        above it: otherwise some loop in between replaces the tensor.
        """
        found = []
        for place, tensor in enumerate(TENSORS):
            counts = partial.counts[:, REUSE_INDICES[tensor]].prod(axis=1)
            if tensor == "output" and open_cut == MULTIPLIER and self.placed.accumulates:
                inside = partial.tile / self.placed.unrolling.tile
                found.append(counts * inside[:, REUSE_INDICES[tensor]].prod(axis=1) - 1)
                continue
            held = self.placed.can_hold(tensor, open_cut, partial.tile, partial.counts)
            found.append(counts / np.where(held, partial.runs[:, place], 1.0) - 1)
        return found

    def _at(self, cut: int, again: list[Floats]) -> tuple[Floats, Floats]:
        shares = self.shares[cut]
        energy = sum(
            (one.first_j + one.again_j * more for one, more in zip(shares, again, strict=True)),
            start=np.zeros_like(again[0]),
        )
        moved = sum(
            (
                one.first_bytes + one.again_bytes * more[:, None]
                for one, more in zip(shares, again, strict=True)
            ),
            start=np.zeros((len(again[0]), len(shares[0].first_bytes))),
        )
        return energy, moved


def _shares(placed: Placed, cut: int) -> tuple[Share, ...]:
    """Costs of one crossing of each tensor, and of one more, from tilings with one tile."""
    tile = placed.unrolling.tile[None, :] if cut == MULTIPLIER else placed.sizes[None, :]
    once = np.ones((1, len(placed.sizes)))
    levels = placed.hierarchy.levels
    found = []
    for tensor in TENSORS:
        costs = []
        for visits in (1.0, 2.0):
            counts = once.copy()
            counts[0, REUSE_INDICES[tensor][0]] = visits
            crossings = placed.crossings(cut, tile, counts, np.ones((1, len(TENSORS))))
            energy, moved = 0.0, np.zeros(len(levels))
            for one in crossings:
                if one.tensor != tensor:
                    continue
                level = levels[one.level]
                energy += float(one.read[0] * level.read_j + one.written[0] * level.write_j)
                moved[one.level] += float(one.read[0] + one.written[0])
            costs.append((energy, moved))
        (first_j, first), (second_j, second) = costs
        found.append(
            Share(
                first_j=first_j,
                again_j=second_j - first_j,
                first_bytes=first,
                again_bytes=second - first,
            )
        )
    return tuple(found)
