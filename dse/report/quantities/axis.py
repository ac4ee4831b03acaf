"""The costs that a run can be looked at in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dse.report.quantities.unit import UNPREFIXED, unit_of
from dse.run.entries import MeasuredPoint
from dse.run.search_run import SearchRun

WORDS = {
    "latency_s": ("latency", "faster"),
    "energy_j": ("energy", "less energy"),
    "weight_bytes": ("weights", "smaller"),
    "peak_bytes": ("peak memory", "less memory"),
    "traffic_bytes": ("traffic", "less traffic"),
    "area_mm2": ("area", "smaller"),
    "power_w": ("power", "less power"),
    "kv_bytes": ("KV cache", "smaller"),
    "gpus": ("GPUs", "fewer"),
    "ttft_s": ("time to first token", "faster"),
    "tpot_s": ("time per token", "faster"),
    "full_tpot_s": ("time per token, memory full", "faster"),
    "cost_per_mtok": ("cost per Mtok", "cheaper"),
    "full_cost_per_mtok": ("cost per Mtok, memory full", "cheaper"),
    "load_cost_per_mtok": ("cost per Mtok under load", "cheaper"),
    "gpu_s_per_request": ("GPU time per request", "less GPU time"),
    "in_flight": ("requests in flight", "fewer"),
    "ttft_mean_s": ("mean time to first token", "faster"),
    "ttft_p50_s": ("median time to first token", "faster"),
    "ttft_p99_s": ("99th percentile of times to first token", "faster"),
    "tpot_mean_s": ("mean time per token", "faster"),
    "tpot_p99_s": ("99th percentile of times per token", "faster"),
}
"""Quantity, as a noun and as what less of it is."""

SHOWN = ("latency_s", "energy_j", "weight_bytes")
"""Quantities that get a view of their own although they may be no objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A cost column with its words and a scale that suits its values."""

    column: str
    label: str
    better: str
    power: int
    """Values are shown in 10**power of the unit."""
    owner: str = ""
    """The target whose loss belongs to it, where it executes another network."""

    @property
    def unit(self) -> str:
        """The SI unit."""
        return unit_of(self.column)

    @property
    def prefixed(self) -> str:
        """The unit with its prefix."""
        return {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}[self.power] + self.unit

    @property
    def title(self) -> str:
        """`predicted latency on b200 (ms)`."""
        unit = f" ({self.prefixed})" if self.unit else ""
        return f"predicted {self.label}{unit}"

    def scaled(self, point: MeasuredPoint) -> float | None:
        """The point's cost in the shown unit; None where it was not priced."""
        value = point.columns.get(self.column)
        return None if value is None else value / 10.0**self.power


def cost_axes(run: SearchRun) -> tuple[Axis, ...]:
    """The cost objectives first, then latency, energy and weights of every target.

    Weights that are the same on every target come once.
    """
    several = len(run.manifest.targets) > 1
    others = [
        f"{target.name}.{quantity}" if several else quantity
        for quantity in SHOWN
        for target in run.manifest.targets
    ]
    every = (*run.points, *run.front)
    found: dict[tuple[float | None, ...], str] = {}
    for column in dict.fromkeys([*run.cost_objectives, *others]):
        values = tuple(point.columns.get(column) for point in every)
        if any(values):
            found.setdefault(values, column)
    quantities = Counter(column.rpartition(".")[2] for column in found.values())
    return tuple(
        replace(
            _axis(column, values, alone=quantities[column.rpartition(".")[2]] == 1),
            owner=run.owner(column),
        )
        for values, column in found.items()
    )


def _axis(column: str, values: Iterable[float | None], *, alone: bool) -> Axis:
    """The axis of a column; `alone`: no other target has values of its own for this quantity."""
    place, _, quantity = column.rpartition(".")
    noun, better = WORDS.get(quantity, (quantity, "less"))
    where = "" if alone and quantity == "weight_bytes" else place.replace(".", ", ")
    smallest = min(value for value in values if value)
    floor = 0 if unit_of(column) == "B" else -9
    if unit_of(column) in UNPREFIXED:
        smallest = 1.0
    power = next((p for p in range(9, floor, -3) if smallest >= 10.0**p), floor)
    label = f"{noun} on {where}" if where else noun
    return Axis(column=column, label=label, better=better, power=power)
