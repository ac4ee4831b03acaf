"""What was asked, with what, and what it took: `manifest.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device under a runtime."""

    name: str
    device: str
    runtime: str
    validated: bool = False
    """Whether the cost model was compared with measurements on this device."""
    note: str = ""
    figures: Mapping[str, int] = field(default_factory=dict)
    """How many of the device's figures are measured, from a datasheet, scaled or assumed."""

    @property
    def title(self) -> str:
        """`b200-sxm under vllm`."""
        return f"{self.device} under {self.runtime}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One way in which the model is called, with the sizes it is called with."""

    name: str
    share: float = 1.0
    dims: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The model that was searched, or the one whose shapes were priced."""

    name: str
    digest: str = ""
    weights_note: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Sequences or images per split."""

    calibration: int = 0
    search: int = 0
    report: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was asked, with what, and what it took."""

    format: int
    dse: str
    model: Network
    objectives: tuple[str, ...]
    metric: str
    targets: tuple[Target, ...]
    variables: tuple[Variable, ...]
    phases: tuple[Phase, ...] = ()
    cost_model: Network | None = None
    proxy: str = ""
    question: str = ""
    space_file: str = ""
    created: str = ""
    status: Literal["complete", "interrupted", "running"] = "complete"
    seed: int = 0
    metric_goal: Literal["minimise", "maximise"] = "minimise"
    reference_metric: float | None = None
    samples: Samples = field(default_factory=Samples)
    versions: Mapping[str, str] = field(default_factory=dict)
    forward_equivalents: Mapping[str, float] = field(default_factory=dict)
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    hypervolume: tuple[tuple[float, float], ...] = ()
    """(forward-equivalents, hypervolume) after each trial."""

    @property
    def asked(self) -> str:
        """The question itself: up to the first question mark, else the first sentence."""
        mark = "?" if "?" in self.question else "."
        return self.question.partition(mark)[0] + mark if self.question else ""

    @property
    def background(self) -> str:
        """What the space says beside its question."""
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
