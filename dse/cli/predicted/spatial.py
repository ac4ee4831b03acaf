"""Cycles, utilisation and traffic by level of predictions on arrays, as tables and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dse.cli.screen import Rows, Screen
from dse.report.quantities.unit import si
from hwmodels.work.cost import CostEstimate
from hwmodels.work.spatial_cost import SpatialCost

if TYPE_CHECKING:
    from dse.predict import Prediction

SHOWN_GAP = 0.05
"""Gap of the mappings above which people are told."""


def spatial_record(cost: SpatialCost | None) -> dict[str, object]:
    """An array's work for programs; empty where the estimator schedules nothing."""
    if cost is None:
        return {}
    return {
        "spatial": {
            "cycles": cost.cycles,
            "stall_cycles": cost.stall_cycles,
            "utilisation": cost.utilisation,
            "compute_energy_j": cost.compute_energy_j,
            "levels": [asdict(one) for one in cost.traffic],
            "mapping_gap": cost.gap,
        }
    }


def say_spatial(
    screen: Screen, found: Prediction, parts: Sequence[tuple[str, CostEstimate]]
) -> None:
    """Prints cycles a region and bytes a level of a prediction; nothing for other devices."""
    whole = found.cost.spatial
    if whole is None:
        return
    if parts:
        screen.table(_cycles(found, parts))
    screen.table(_levels(found, whole))
    if found.area_mm2 is not None:
        screen.remark(f"{found.device}: {found.area_mm2:.3g} mm2")
    if whole.gap > SHOWN_GAP:
        screen.remark(
            f"{found.device}: no mappings are better by more than {whole.gap:.0%} than "
            "those found, by energy x cycles"
        )


def _cycles(found: Prediction, parts: Sequence[tuple[str, CostEstimate]]) -> Rows:
    return Rows(
        columns=("region", "cycles", "stalled", "utilisation", "bound by", *_names(found)),
        rows=tuple(
            (
                name, round(one.cycles), _share(one.stall_cycles, one.cycles),
                f"{one.utilisation:.1%}", cost.bound,
                *(si(_moved(one, level), "B") for level in _names(found)),
            )
            for name, cost in parts
            if (one := cost.spatial) is not None
        ),
    )  # fmt: skip


def _levels(found: Prediction, whole: SpatialCost) -> Rows:
    """One row a level and tensor, and what computing takes."""
    rows = [
        (
            f"{one.level}, {one.tensor}", si(one.read_bytes, "B"), si(one.write_bytes, "B"),
            si(one.energy_j, "J"), _share(one.energy_j, whole.energy_j),
        )
        for one in whole.traffic
    ]  # fmt: skip
    energy = whole.compute_energy_j
    computing = ("computing", "", "", si(energy, "J"), _share(energy, whole.energy_j))
    return Rows(
        columns=(f"{found.device}, {found.format}", "read", "written", "energy", "of it"),
        rows=(computing, *rows),
    )


def _names(found: Prediction) -> tuple[str, ...]:
    """Levels, nearest to the array first."""
    whole = found.cost.spatial
    return tuple(dict.fromkeys(one.level for one in whole.traffic)) if whole else ()


def _moved(cost: SpatialCost, level: str) -> float:
    return sum(one.read_bytes + one.write_bytes for one in cost.traffic if one.level == level)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"
