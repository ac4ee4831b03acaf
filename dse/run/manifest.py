"""The question, the means and the effort of a run: `manifest.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["running", "interrupted", "complete"]


class FileModel(BaseModel):
    """A part of a file of the run folder; keys that a later version adds are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class TargetEntry(FileModel):
    """A device under a runtime."""

    name: str
    device: str
    runtime: str
    validated: bool = False
    """Whether the cost model was compared with measurements on this device."""
    note: str = ""
    figures: Mapping[str, int] = Field(default_factory=dict)
    """Number of the device's figures are measured, from a datasheet, scaled or assumed."""
    apart: bool = False
    """Whether it may execute another network than the one that `quality_loss` is of: its losses
    stand in columns `<name>.quality_loss` and so on."""
    substituted: tuple[str, ...] = ()
    """Choices that it executes with 16-bit activations, for want of a kernel."""
    narrowed: tuple[str, ...] = ()
    """Choices whose floats of more than 16 bits it executes in 16, for want of a kernel."""
    streamed: tuple[str, ...] = ()
    """Choices whose sums and means between products it keeps in 16 bits, and another stores."""
    wide: str = "bf16"
    """Its 16-bit float."""

    def instead(self, choice: str) -> str:
        """The 16-bit float that it executes a choice with for want of a kernel; else empty."""
        return self.wide if choice in {*self.substituted, *self.narrowed} else ""

    @property
    def title(self) -> str:
        """`b200-sxm under vllm`."""
        return f"{self.device} under {self.runtime}"


class PhaseEntry(FileModel):
    """One way in which the model is called, with the sizes it is called with."""

    name: str
    share: float = 1.0
    dims: Mapping[str, int] = Field(default_factory=dict)


class VariableEntry(FileModel):
    """A decision of the search: a region and the schemes it could take."""

    name: str
    kind: str
    role: str
    choices: tuple[str, ...]
    block: int | None = None
    relative_depth: float = 0.0

    @property
    def label(self) -> str:
        """`5 · qkv` for `blocks.5/qkv`; the whole name outside of blocks."""
        own = self.name.rsplit("/", 1)[-1]
        return self.name if self.block is None else f"{self.block} · {own}"


class ParameterEntry(FileModel):
    """A parameter of a device that was searched."""

    name: str
    """Path in the device's file, or the user's name for options."""
    values: tuple[str, ...]
    """Candidates as the user wrote them, quantities in rising order."""
    start: int
    """Place of the file's own value, or of the one nearest to it."""
    own: str = ""
    """The file's own value; empty for named options."""
    ordered: bool = True
    """Whether the values are quantities."""

    @property
    def label(self) -> str:
        """`scratchpad capacity` of `memories.scratchpad.capacity`."""
        return " ".join(self.name.split(".")[-2:])


class HardwareEntry(FileModel):
    """The hardware that was searched: parameters of one target's device."""

    target: str
    """Label of the target whose device varies."""
    parameters: tuple[ParameterEntry, ...]
    size: int
    """Points of the grid."""


class ModelEntry(FileModel):
    """The model that was searched, or the one whose shapes were priced."""

    name: str
    digest: str = ""
    weights_note: str = ""
    description: str = ""


class OutputEntry(FileModel):
    """An output that losses are read from."""

    name: str
    value: str
    """The tensor that is read."""
    kind: str
    reason: str = ""
    weight: float = 1.0
    title: str = ""
    """All of it in words."""


class Samples(FileModel):
    """Sequences or images per split."""

    calibration: int = 0
    search: int = 0
    report: int = 0


class Manifest(FileModel):
    """The manifest of a run: what was asked, with what, and what it took."""

    format: int
    dse: str
    versions: Mapping[str, str] = Field(default_factory=dict)
    created: str = ""
    updated: str = ""
    """The times when measurements made outside were taken in."""
    status: Status = "complete"
    seed: int = 0
    question: str = ""
    space_file: str = ""
    """Name of the space in errors: its file, where it has one."""
    beside: str = ""
    """The folder that the space's relative paths start from, as the run folder sees it."""
    model: ModelEntry
    cost_model: ModelEntry | None = None
    proxy: str = ""
    objectives: tuple[str, ...]
    """Columns of `front.csv`, all minimised; the first is `report_quality_loss`."""
    constraints: tuple[str, ...] = ()
    targets: Annotated[tuple[TargetEntry, ...], Field(min_length=1)]
    phases: tuple[PhaseEntry, ...] = ()
    variables: tuple[VariableEntry, ...]
    """The formats; parameters of hardware stand under `hardware`."""
    hardware: HardwareEntry | None = None
    """None where devices are as their files say."""
    model_digest: str = ""
    data_digest: str = ""
    """Of the samples of all splits; empty in runs of versions that took none."""
    space: Mapping[str, object] = Field(default_factory=dict)
    """The space as its file would say it; with version and digest what a run is told apart by."""
    storage: str | None = None
    """Storage of a shared study, without its password; None where it is in the folder."""
    study: str | None = None
    """Its name there."""
    metric: str
    metric_goal: Literal["minimise", "maximise"] = "minimise"
    reference_metric: float | None = None
    outputs: tuple[OutputEntry, ...] = ()
    """Outputs that losses are read from; empty under a user's own metric."""
    loss_unit: str = ""
    constant_loss: float | None = None
    """On the report split, of a network that answers the same to every input."""
    constant_flip_rate: float | None = None
    """Share of answers that such a network changes; None without a distribution."""
    samples: Samples = Field(default_factory=Samples)
    ranges: Mapping[str, float | None] = Field(default_factory=dict)
    """Range of static activations -> loss on the search split of the assignment that ranges were
    compared in; empty where the space leaves nothing to choose."""
    forward_equivalents: Mapping[str, float] = Field(default_factory=dict)
    elapsed_s: Mapping[str, float] = Field(default_factory=dict)
    hypervolume: tuple[tuple[float, float], ...] = ()
    """(forward-equivalents, hypervolume) after each trial."""
    told: int = 0
    """Assignments of which something was measured outside."""
    origin: str = Field(default="", alias="from")
    """The run whose measurements were taken over."""
    unreported: int = 0
    """Assignments that may belong on the front and lack the report split; of a run that took
    over another's measurements."""

    @property
    def asked(self) -> str:
        """The question itself: up to the first question mark, else the first sentence."""
        mark = "?" if "?" in self.question else "."
        return self.question.partition(mark)[0] + mark if self.question else ""

    @property
    def background(self) -> str:
        """The content of the space beside its question."""
        return self.question.removeprefix(self.asked).strip()

    @property
    def choices(self) -> tuple[str, ...]:
        """Every scheme that some variable could take, in the order of the space."""
        return tuple(dict.fromkeys(c for variable in self.variables for c in variable.choices))

    @property
    def forwards(self) -> float:
        """The whole effort in forward-equivalents."""
        stages = {k: v for k, v in self.forward_equivalents.items() if k != "total"}
        return self.forward_equivalents.get("total", sum(stages.values()))
