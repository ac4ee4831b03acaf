"""A finished search as frozen data: what the run folder says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from dse.run.manifest import Manifest, Variable
from dse.run.scheme import short_names

Quantity = Literal["latency_s", "energy_j", "traffic_bytes", "weight_bytes", "peak_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One trial: its quality and its costs."""

    trial: int
    source: str
    name: str = ""
    """The scheme of a uniform assignment."""
    state: str = "complete"
    digest: str = ""
    tied: bool = False
    """Not separable from a cheaper uniform assignment within the noise."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Every measured number by its column; what was not measured is missing."""

    @property
    def title(self) -> str:
        """The scheme's name, or the trial's number."""
        return self.name or f"#{self.trial}"

    @property
    def on_report(self) -> bool:
        """Whether it was measured on the split that the search never saw."""
        return "report_quality_loss" in self.columns

    @property
    def loss(self) -> float | None:
        """In `Run.loss_unit`; on the report split where that was measured."""
        return self.columns.get("report_quality_loss", self.columns.get("quality_loss"))

    @property
    def stderr(self) -> float:
        """Standard error of `loss`; 0 where it is unknown."""
        key = "report_quality_stderr" if self.on_report else "quality_stderr"
        return self.columns.get(key, 0.0)

    def cost(self, quantity: Quantity, target: str, phase: str = "") -> float | None:
        """A cost on one target, of one phase or of the whole scenario; None where unknown.

        With one target the columns carry no target, with one phase no phase.
        """
        prefixes = (f"{target}.{phase}.", f"{phase}.") if phase else (f"{target}.", "")
        found = (self.columns.get(prefix + quantity) for prefix in prefixes)
        return next((value for value in found if value is not None), None)

    def native_share(self, target: str) -> float | None:
        """Share of the multiply-accumulates that run in modes the target has; None if unknown."""
        return self.columns.get(f"{target}.native_share", self.columns.get("native_share"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What one choice costs in quality when nothing else changes."""

    variable: str
    choice: str
    loss: float
    stderr: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionCost:
    """What one region costs with one choice, on one target in one phase."""

    target: str
    region: str
    choice: str
    latency_s: float
    variable: str = ""
    """Empty for regions that are not searched; their choice is `fixed`."""
    phase: str = ""
    low_s: float | None = None
    high_s: float | None = None
    energy_j: float | None = None
    traffic_bytes: float | None = None
    weight_bytes: float | None = None
    kv_bytes: float | None = None
    bound: str = ""
    status: str = "native"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """A point's place on the front of one target, or on the robust one."""

    front: str
    trial: int
    worst_ratio: float
    """The largest cost over targets, relative to the first choice everywhere."""
    excess: Mapping[str, float] = field(default_factory=dict)
    """Cost column -> how far above its own front's least at no greater loss, as a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The point of the front that the search would take, and why."""

    trial: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, read."""

    folder: Path
    manifest: Manifest
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    """Non-dominated in the objectives, cheapest first."""
    choices: Mapping[int, Mapping[str, str]]
    """Trial to variable to choice."""
    sensitivity: tuple[Sensitivity, ...] = ()
    costs: tuple[RegionCost, ...] = ()
    recommendation: Recommendation | None = None
    fronts: tuple[FrontPoint, ...] = ()
    """With several targets: each one's front, then the robust one."""
    robust: Recommendation | None = None

    @cached_property
    def by_trial(self) -> Mapping[int, Point]:
        """Points by trial number."""
        return {point.trial: point for point in (*self.points, *self.front)}

    @property
    def recommended(self) -> Point | None:
        """The recommended point of the front."""
        return self.by_trial.get(self.recommendation.trial) if self.recommendation else None

    @cached_property
    def short(self) -> Mapping[str, str]:
        """Short names of the choices, for labels."""
        return short_names(self.manifest.choices)

    def title(self, point: Point) -> str:
        """The scheme's short name, or the trial's number."""
        return self.short.get(point.name, point.title)

    @cached_property
    def searched(self) -> tuple[Variable, ...]:
        """The variables that had a choice."""
        return tuple(one for one in self.manifest.variables if len(one.choices) > 1)

    def chosen(self, point: Point) -> Mapping[str, str]:
        """What a point gives to the variables that had a choice; empty where it is not known."""
        taken = self.choices.get(point.trial, {})
        return {one.name: taken[one.name] for one in self.searched if taken.get(one.name)}

    @cached_property
    def loss_unit(self) -> str:
        """What losses are: a KL divergence, or an error where the output is no distribution."""
        distribution = any("flip_rate" in point.columns for point in self.points)
        return "nats per position" if distribution else "of the output's norm"

    def is_recommended(self, point: Point) -> bool:
        """Whether it is the point that the search would take."""
        return self.recommendation is not None and self.recommendation.trial == point.trial

    @property
    def uniforms(self) -> tuple[Point, ...]:
        """Every uniform assignment that was measured."""
        return tuple(
            point
            for point in self.points
            if point.source == "uniform" and point.state == "complete" and point.loss is not None
        )

    @property
    def reference(self) -> Point | None:
        """What speed-ups are counted from.

        Uniform bf16; else the full-precision model; else, where a device has neither, the uniform
        assignment that loses least.
        """
        named = {point.name: point for point in self.uniforms}
        whole = (point for point in self.points if point.source == "reference")
        least = min(self.uniforms, key=lambda point: point.loss or 0.0, default=None)
        return named.get("bf16") or next(whole, None) or least

    @property
    def cost_objectives(self) -> tuple[str, ...]:
        """The objectives that are costs."""
        return tuple(name for name in self.manifest.objectives if "quality_loss" not in name)
