"""A space of training methods as pydantic models: what a user may write, every error at once.

The string below a field is its description in the JSON schema.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dse.space.schema import Name, Section, Target, several
from dse.training.method import (
    LossScaleKind,
    OptimizerName,
    Origin,
    ScaleGradient,
    Scales,
    Signs,
    SiteRule,
    Slope,
)
from dse.training.method import UpdateMode as Mode
from hwmodels.formats.quantizer import Rounding

GAP = "gap"
OBJECTIVES = (GAP, "step_s", "memory_bytes", "energy_j")
"""Columns that can be minimised."""


class OperandChange(Section):
    """Changes of operands by an option; what it leaves out stays as it is."""

    format: str | None = None
    """The whole operand, by a format's name and nothing around it; `none` where a role is left to
    the others (`saved_activation`)."""
    element: str | None = None
    """The grid: `e2m1`, `int4`, `e4m3`, `e5m2`, `bf16`."""
    block: str | None = None
    """Elements under one scale: `16` along the sum, `16x16` of a tile, or `tensor`, `channel`,
    `token`."""
    scale: str | None = None
    """Encoding of scales, with its rule where it has one: `e4m3`, `ue5m3`, `ue5m3_fn` (a larger
    maximum), `e8m0-rceil`, `fp32`."""
    tensor_scale: str | None = None
    """Encoding of the scale above those of blocks, or `none`."""
    rounding: Rounding | None = None
    """Rounding to the grid: `nearest_even`, `stochastic`."""
    timing: str | None = None
    """Values that scales are taken from: `dynamic`, or `delayed1024` of so many earlier steps."""
    scales: Scales | None = None
    """`plain`, `four_over_six`, `eden`."""
    hadamard: Annotated[int, Field(ge=0)] | None = None
    """Elements that are rotated together."""
    signs: Signs | None = None
    """Signs of the rotation."""
    headroom: Annotated[float, Field(ge=0.5, le=2)] | None = None
    """Factor by which scales are raised."""
    of: Origin | None = None
    """The values that a backward product reads: `original`, or those of `forward`."""
    gradient: Slope | None = None
    """Derivative of rounding in the forward pass."""
    scale_gradient: ScaleGradient | None = None
    """Derivative of scales in the forward pass."""
    smooth: bool | None = None
    """Whether channels are divided by their largest magnitude before rounding."""


class UpdateChange(Section):
    """Changes of the optimizer by an option."""

    mode: Mode | None = None
    """The way of an update to the weights that are kept."""
    optimizer: OptimizerName | None = None
    """Its rule."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak of the rate."""
    states_from: Annotated[int, Field(ge=0)] | None = None
    """Elements from which on moments take their formats."""


class LossScaleChange(Section):
    """Changes of the factor of the loss by an option."""

    kind: LossScaleKind | None = None
    """Its rule."""
    initial: Annotated[float, Field(gt=0)] | None = None
    """Its first value."""


class Option(OperandChange):
    """One value of a variable: changes of its operands, or of something else of a method."""

    roles: dict[str, OperandChange] = Field(default_factory=dict)
    """Changes of single roles (`activation_gradient`, `weight@dgrad`), besides those of `at`."""
    rules: tuple[SiteRule, ...] | None = None
    """The exceptions of the method, all of them: which layers stay in 16 bits."""
    update: UpdateChange = UpdateChange()
    """Changes of the optimizer."""
    loss_scale: LossScaleChange = LossScaleChange()
    """Changes of the loss scale."""


class MethodVariable(Section):
    """One axis that is searched."""

    at: tuple[str, ...] = ()
    """Roles, alone or narrowed to a pass (`weight`, `activation@wgrad`), that it changes."""
    elements: tuple[str, ...] = ()
    """Grids of the operands that it is about; others are left as they are. By default all."""
    options: dict[str, Option] = Field(min_length=2)
    """Values by name."""


class Workload(Section):
    """The network that is trained."""

    name: str
    """A workload (`dse train --list`)."""
    steps: int | None = Field(default=None, ge=10)
    """Steps of a run; the workload's own where none are given."""


class StepModel(Section):
    """The network whose training step is priced."""

    model: str
    """A zoo name, an ONNX file or a Hugging Face folder."""
    dims: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Value of every symbolic dimension, on one device."""


class Effort(Section):
    """Amount and randomness of the search over methods."""

    trials: int = Field(default=60, ge=1)
    """Methods that are trained in all: the named, every axis alone, combinations, the
    sampler's."""
    seeds: int = Field(default=3, ge=2, le=1000)
    """Seeds of a method in the search."""
    report_seeds: int = Field(default=6, ge=2)
    """Other seeds, on other held-out samples, on which the front is decided."""
    contenders: int = Field(default=6, ge=1)
    """Methods besides the named that are trained on the report's seeds, at most."""
    ablations: int = Field(default=1, ge=0)
    """Methods of the front whose axes are turned back one by one, the recommended one first."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the sampler: equal seeds propose equal methods."""
    method: str = "tpe"
    """Who proposes: `tpe`, `nsga2`, `nsga3`, `gp`, `random` or a class of `optuna.samplers`."""
    arguments: dict[str, object] = Field(default_factory=dict)
    """Of the sampler."""


class Quick(Section):
    """The parts of a space that `--quick` changes."""

    workload: Workload | None = None
    """A smaller one."""
    trials: int | None = Field(default=None, ge=1)
    """As in `search`."""
    seeds: int | None = Field(default=None, ge=2, le=1000)
    """As in `search`."""
    report_seeds: int | None = Field(default=None, ge=2)
    """As in `search`."""
    contenders: int | None = Field(default=None, ge=1)
    """As in `search`."""
    ablations: int | None = Field(default=None, ge=0)
    """As in `search`."""
    fixed: tuple[str, ...] = ()
    """Variables that are not tried alone; the sampler still varies them."""


class TrainingSpace(Section):
    """A space of training methods."""

    kind: Literal["training"]
    """The word that tells it from a space of assignments."""
    question: str = Field(default="", exclude=True)
    """The question of the space; the first paragraph of the file's first comment where it is not
    given."""
    workload: Workload
    """The network that is trained, and for how long."""
    cost: StepModel
    """The network whose step is priced; everything printed says so."""
    target: Target
    """The device; its runtime is `free` where none is named, as those of the catalogue list
    kernels of inference."""
    start: str
    """The method that axes are varied from: a shipped one, or a method file."""
    named: tuple[str, ...] = ()
    """Methods that are measured whatever the search finds; each must be a point of the space."""
    beside: str | None = None
    """The named method at whose step time the best one is looked for; by default the one of them
    that loses least in the search."""
    variables: dict[Name, MethodVariable] = Field(min_length=1)
    """Axes, applied in this order."""
    objectives: tuple[str, ...] = (GAP, "step_s", "memory_bytes")
    """Columns to minimise; the first is `gap`, the loss above that of bf16."""
    search: Effort = Effort()
    """Effort and randomness."""
    quick: Quick = Quick()
    """Changes of `--quick`."""

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in columns if name not in OBJECTIVES]:
            raise ValueError(
                f"no such column: {', '.join(wrong)} (known: {', '.join(OBJECTIVES)})"
            )
        if columns[:1] != (GAP,) or len(set(columns)) < len(columns):
            raise ValueError(f"expected {GAP} first and every column once")
        return several(columns)

    @model_validator(mode="after")
    def _beside_is_named(self) -> TrainingSpace:
        if self.beside is not None and self.beside not in self.named:
            raise ValueError(f"beside: {self.beside!r} is none of `named`; add it there")
        return self

    def quickened(self) -> TrainingSpace:
        """The space as `--quick` has it."""
        said = self.quick.model_dump(exclude={"workload", "fixed"}, exclude_none=True)
        return self.model_copy(
            update={
                "workload": self.quick.workload or self.workload,
                "search": self.search.model_copy(update=said),
            }
        )
