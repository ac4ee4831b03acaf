"""The entries of a run folder's tables: one model a file kind, read and written alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from dse.run.manifest import FileModel
from hwmodels.tables.speedup import Speedup

Quantity = Literal["latency_s", "energy_j", "traffic_bytes", "weight_bytes", "peak_bytes"]
Learn = Literal["weights", "low-rank", "scales"]
Number = int | float
"""Written as it came: bytes without a decimal point."""


class MeasuredPoint(FileModel):
    """One trial: its quality and its costs."""

    trial: int
    source: str
    name: str = ""
    """The scheme of a uniform assignment."""
    state: str = "complete"
    digest: str = ""
    tied: bool = False
    """Not separable from a cheaper uniform assignment within the noise."""
    told: tuple[str, ...] = ()
    """Columns that were measured outside."""
    columns: Mapping[str, float] = Field(default_factory=dict)
    """Every measured number by its column; what was not measured is missing."""
    hardware: Mapping[str, str] = Field(default_factory=dict)
    """Value of every parameter of hardware that varies: columns `hardware.<parameter>`."""

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
        return self.loss_on("")

    @property
    def stderr(self) -> float:
        """Standard error of `loss`; 0 where it is unknown."""
        return self.stderr_on("")

    def loss_on(self, target: str) -> float | None:
        """The loss of what a target executes; None where it was not measured.

        Args:
            target: one that may execute another network (`SearchRun.owner`); empty for the
                network that `quality_loss` is of.
        """
        prefix = f"{target}." if target else ""
        measured = self.columns.get(f"{prefix}quality_loss")
        return self.columns.get(f"{prefix}report_quality_loss", measured)

    def stderr_on(self, target: str) -> float:
        """Standard error of `loss_on`; 0 where it is unknown."""
        prefix = f"{target}." if target else ""
        split = "report_" if f"{prefix}report_quality_loss" in self.columns else ""
        return self.columns.get(f"{prefix}{split}quality_stderr", 0.0)

    def cost(self, quantity: Quantity, target: str, phase: str = "") -> float | None:
        """A cost on one target, of one phase or of the whole scenario; None where unknown.

        With one target the columns carry no target, with one phase no phase.
        """
        prefixes = (f"{target}.{phase}.", f"{phase}.") if phase else (f"{target}.", "")
        found = (self.columns.get(prefix + quantity) for prefix in prefixes)
        return next((value for value in found if value is not None), None)

    def cost_column(self, quantity: Quantity, target: str) -> str:
        """The column of a cost on one target: with one target columns carry no target."""
        named = f"{target}.{quantity}"
        return named if named in self.columns else quantity

    def native_share(self, target: str) -> float | None:
        """Share of the multiply-accumulates that run in modes the target has; None if unknown."""
        return self.columns.get(f"{target}.native_share", self.columns.get("native_share"))


class RegionCost(FileModel):
    """The cost of one region with one choice, on one target in one phase."""

    target: str
    phase: str = ""
    region: str
    variable: str = ""
    """Empty for regions that are not searched; their choice is `fixed`."""
    choice: str
    latency_s: Number
    low_s: Number | None = None
    high_s: Number | None = None
    energy_j: Number | None = None
    traffic_bytes: Number | None = None
    weight_bytes: Number | None = None
    kv_bytes: Number | None = None
    bound: str = ""
    status: str = "native"
    note: str = ""


class FrontPlace(FileModel):
    """A point's place on the front of one target, or on the robust one."""

    front: str
    trial: int
    source: str = ""
    name: str = ""
    digest: str = ""
    worst_ratio: float
    """The largest cost over targets, relative to the first choice everywhere."""
    columns: Mapping[str, float] = Field(default_factory=dict)
    """Loss and cost objectives by their column."""
    excess: Mapping[str, float] = Field(default_factory=dict)
    """Cost column -> how far above its own front's least at no greater loss, as a share."""


class PointSpeedup(FileModel):
    """A point's speed-up over another one, with the interval of the two together."""

    column: str
    """Latency of the point."""
    trial: int
    base_column: str
    """Latency of the other one: the same, or that of another target."""
    base: int
    """Trial of the other one."""
    speedup: float
    """Latency of the base over that of the point."""
    low: float
    high: float
    """The interval that holds the ratio nine times in ten."""

    @property
    def found(self) -> Speedup:
        """The numbers alone."""
        return Speedup(factor=self.speedup, low=self.low, high=self.high)


class FrontAssignment(FileModel):
    """The assignment of a point of the front."""

    trial: int
    assignment: Mapping[str, object]
    """As `dse evaluate --assignment` takes it."""
    hardware: Mapping[str, str] = Field(default_factory=dict)
    """Value of every parameter of hardware that varies."""


class Recommendation(FileModel):
    """The point of the front that the search would take, and why."""

    trial: int
    reason: str = ""
    assignment: Mapping[str, object] = Field(default_factory=dict)
    """As `dse evaluate --assignment` takes it."""
    hardware: Mapping[str, str] = Field(default_factory=dict)
    """Value of every parameter of hardware that varies; `costs.csv` is of that hardware."""


class PriceChange(FileModel):
    """A change by a step of the hardware, with the formats solved again."""

    column: str
    """A cost, or the loss."""
    at: str
    """The column that is held equal: the loss of a cost, a cost of the loss."""
    ratio: float
    """After the step over before it."""
    low: float
    high: float


class ShadowPrice(FileModel):
    """One step of one parameter away from the recommended hardware, and what it buys."""

    parameter: str
    before: str
    """Its value, as the user wrote it."""
    after: str
    amount: float | None = None
    """The step in `unit`, negative where less is taken; None of words."""
    unit: str = ""
    """The user's; empty of counts and words."""
    area_mm2: float | None = None
    """The step's; None where areas are not known."""
    changes: tuple[PriceChange, ...] = ()


class HardwareAnswer(FileModel):
    """The findings of a search over hardware beside its front: `hardware.json`."""

    priced: int
    """Hardware points on which every choice was priced."""
    size: int
    """Points of the grid."""
    impossible: int = 0
    """Priced points that are no device, or run nothing."""
    reason: str = ""
    """The reason of the first of those."""
    on_front: int = 0
    """Hardware points that are on the front."""
    measured: int = 0
    """Assignments whose quality was measured, for all hardware."""
    recommended: Mapping[str, str] = Field(default_factory=dict)
    """Parameter -> value."""
    shadow_prices: tuple[ShadowPrice, ...] = ()
    remarks: tuple[str, ...] = ()
    """Figures of the file that stay as they are though what they depend on varies."""


class TuningSettings(FileModel):
    """Everything that decides the outcome of a tuning."""

    trial: int
    learn: Learn
    """Weights and scales, low-rank changes of weights and scales, or scales alone."""
    steps: int
    rate: float
    """Of the largest step, as a share of what is moved."""
    rank: int
    """Of changes of weights, where those are low-rank."""
    samples: int | None = None
    """Of the calibration split, those of the search split come with them; None: the run's."""
    seed: int


class TunedTrial(FileModel):
    """A trial after its tuning: `tuned/<trial>.json`."""

    settings: TuningSettings
    digest: str
    """Of the learned weights and scales in `state/tuned-<trial>.safetensors`."""
    sites: int
    """Sites with learned values."""
    before: float
    """Loss on the report split, nats per position or over the spread of the reference."""
    before_stderr: float
    after: float
    after_stderr: float
    recovered: float
    """Loss before less loss after, sample by sample."""
    recovered_stderr: float
    metric_before: float | None = None
    """The task's metric on the report split."""
    metric_after: float | None = None
    seconds: float
    """Of the steps."""
    forward_equivalents: float
    """Of the steps, in forward passes over the search split; a backward pass counts two."""

    @property
    def recovered_per_minute(self) -> float:
        """Loss that a minute of steps has recovered."""
        return self.recovered / max(self.seconds / 60, 1e-9)
