"""The space file as pydantic models: what a user may write, with every error at once.

The string below a field is its description in the JSON schema (`Space.model_json_schema()`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from hwmodels.formats.names import quantizer_object
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.platform import split_platform
from hwmodels.tables.queueing import MOST_CLIENTS
from hwmodels.tables.serving import UTILISATION
from hwmodels.validation import no_flag

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


def _spec(value: object) -> object:
    """A quantizer object of a program as the file would write it."""
    return quantizer_object(value) if isinstance(value, Quantizer) else value


Spec = Annotated[str | dict[str, object], BeforeValidator(_spec)]
"""A quantizer's name, or an object with its fields."""


Setting = str | bool | int | float | list[str | int | float]
"""A value of a device's figure or word, as people write it."""


APART = "apart"
"""The word for matrices that are regions of their own."""


class Section(BaseModel):
    """A part of the space file: immutable, unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_flags(cls, value: object, info: ValidationInfo) -> object:
        kinds = kinds_of(cls.model_fields[str(info.field_name)].annotation)
        has_numbers = bool(kinds & {int, float}) and not kinds & {bool, Any}
        listed = value.values() if isinstance(value, dict) else (value,)
        for one in listed if has_numbers else ():
            no_flag(one)
        return value


def kinds_of(annotation: object) -> frozenset[object]:
    """The types that a field's annotation is made of."""
    parts = get_args(annotation)
    return frozenset().union(*map(kinds_of, parts)) if parts else frozenset([annotation])


class Data(Section):
    """Origin of calibration, search and report samples."""

    source: str
    """A zoo name (`zoo:byte-gpt`), an `.npz` whose arrays are named as the graph's inputs (plus
    `labels`), a token file (`.npy`, `.txt`), a folder of images by class, or
    `module:function`."""
    calibration: int = Field(default=8, ge=1)
    """Samples that scales are calibrated on."""
    search: int = Field(default=16, ge=2)
    """Samples that the search measures quality on."""
    report: int = Field(default=16, ge=2)
    """Samples that the front is decided on; the search never sees them."""
    sequence: int = Field(default=256, ge=2)
    """Tokens of one sample (language models)."""
    batch: int = Field(default=4, ge=1)
    """Samples that one execution holds in memory."""


OutputKind = Literal["logits", "log_probabilities", "probabilities", "binary", "regression"]
"""`binary`: one logit a decision."""


class QualityOf(Section):
    """The output that the loss is read from, where graph and data say nothing or say it wrong."""

    output: str | None = None
    """The only output that counts; by default all do."""
    kind: OutputKind | None = None
    """The kind of `output` (or of every output)."""
    kinds: dict[str, OutputKind] = Field(default_factory=dict)
    """Kinds of single outputs."""
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """Shares of outputs in the loss; 1 where nothing is said, 0 leaves an output out."""


class Phase(Section):
    """One way the model is called, with its symbolic dimensions bound."""

    share: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Number of times that this phase runs in a unit of work; costs are summed weighted by it."""
    dims: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Value of every symbolic dimension of the cost graph."""


class OfferedLoad(Section):
    """The requests that come while others are served: one of the three."""

    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Requests a second that arrive at random at the group of GPUs (a Poisson process)."""
    clients: int | None = Field(default=None, ge=1, le=MOST_CLIENTS)
    """Clients that send the next request when the last one is answered."""
    bounds: tuple[str, ...] = ()
    """Upper bounds on times that requests find: the load is as many requests a second as keep
    them, `sustained_rate`."""

    @model_validator(mode="after")
    def _one(self) -> OfferedLoad:
        """Several would contradict each other."""
        given = [name for name in ("rate", "clients", "bounds") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"expected one of rate, clients and bounds, got {' and '.join(given) or 'none'}"
            )
        return self


class Scenario(Section):
    """The model's use where it is deployed: binds sizes for the cost only."""

    phases: dict[Name, Phase] = Field(min_length=1)
    """With one phase of many tokens (prefill) and one of a single token (decoding), serving
    numbers are columns too: `ttft_s`, `tpot_s`, `max_batch`, `cost_per_mtok`, ..."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share the network. Latency is the group's, energy of all, bytes of one GPU."""
    memory_utilisation: float = Field(default=UTILISATION, gt=0, le=1)
    """Share of a GPU's memory that weights, KV cache and activations may fill."""
    load: OfferedLoad | None = None
    """Requests that wait for one another, simulated for each assignment: `ttft_p99_s`,
    `tpot_p99_s`, `gpu_s_per_request`, `load_cost_per_mtok`, ... are columns then."""

    @property
    def dims(self) -> frozenset[str]:
        """The names of sizes that any phase binds."""
        return frozenset(name for phase in self.phases.values() for name in phase.dims)


class Target(Section):
    """A device with the runtime that drives it; `device` or `device:runtime` for short."""

    name: Name | None = None
    """Column prefix; the device's name where none is given."""
    device: str
    """A device name (`dse devices`) or a device file."""
    runtime: str | None = None
    """A runtime name (`dse runtimes`) or a runtime file; the device's own where none is given."""
    price_usd_per_h: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Price of one GPU; the device file's figure where none is given."""
    set: dict[str, Setting] = Field(default_factory=dict)
    """Figures and words of the device instead of its file's, by path (docs/devices.md)."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, content: object) -> object:
        """A target that is written as `device` or `device:runtime`."""
        if not isinstance(content, str):
            return content
        device, runtime = split_platform(content)
        return {"device": device, "runtime": runtime}

    @property
    def label(self) -> str:
        """The column prefix: of a device file its name without the suffix."""
        return self.name or Path(self.device).name.removesuffix(".yaml").removesuffix(".yml")


def named_apart(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Targets whose labels differ: one device under two runtimes takes the runtimes' names.

    Raises:
        ValueError: two targets have one label even so; their columns could not be told apart.
    """
    found = tuple(_with_runtime(target, targets) for target in targets)
    labels = [target.label for target in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"two targets are named {', '.join(twice)}; give each a `name`")
    return found


def _with_runtime(target: Target, targets: tuple[Target, ...]) -> Target:
    alike = [other for other in targets if other.label == target.label]
    if target.name or not target.runtime or len(alike) == 1:
        return target
    return target.model_copy(update={"name": f"{target.label}-{Path(target.runtime).stem}"})


class _ShortForm:
    """The text that a target may be, for the JSON schema; `Target._from_text` reads it."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {"anyOf": [{"type": "string"}, handler(core)]}


Targets = Annotated[tuple[Annotated[Target, _ShortForm()], ...], AfterValidator(named_apart)]


class TargetList(BaseModel):
    """Targets of any YAML file that has them: a space, or a list of their own."""

    targets: Targets = Field(min_length=1)


class Match(Section):
    """The regions that a rule speaks of; every given field must match, patterns are globs."""

    name: str = "*"
    """Region name, e.g. `blocks.0/*`."""
    kind: str = "*"
    """Kind of its main op: gemm, conv2d, attention."""
    role: str = "*"
    """qkv, o, gate_up, down, fc1, fc2, head, conv, attention, ..."""
    blocks: tuple[int, int] | None = None
    """First and last block, both included; negative numbers count from the last block."""


class Mode(Section):
    """A choice that no scheme names: quantizers by operand role."""

    name: Name
    """Name of the choice in results."""
    weight: Spec | None = None
    """Of weights; 16 bits where none is given, as for the others."""
    activation: Spec | None = None
    """Of the activations that a product reads."""
    q: Spec | None = None
    """Of queries of attention."""
    k_cache: Spec | None = None
    """Of keys, as the cache stores them."""
    v_cache: Spec | None = None
    """Of values, as the cache stores them."""
    probabilities: Spec | None = None
    """Of attention's probabilities, where they meet the values."""
    accumulator: str | None = None
    """The number that products are summed in (`int20:saturate`, `bf16:chunk16`); that of the
    kernel where none is given."""


class Rule(Section):
    """Candidates of the regions that match; the first rule that matches a region wins."""

    match: Match = Match()
    """The regions that it is for; by default all that no rule before it takes."""
    use: tuple[str | Mode, ...] = Field(min_length=1)
    """Schemes (`dse formats`), formats (weight and activation alike) or named modes; a name may
    end with an accumulator, `w8a8_int8@int20:saturate`. The first is what a region falls back to
    in a uniform assignment that it has no candidate for."""


class Tie(Section):
    """Regions that must take the same choice, because the runtime has one switch for them."""

    match: Match
    """The regions that are tied."""
    name: Name
    """Name of the joint variable."""


class Search(Section):
    """Effort and randomness of the search."""

    trials: int = Field(default=48, ge=1)
    """Measured assignments in all: uniforms, solver candidates and the sampler's."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of every random choice: equal seeds give equal runs."""
    method: str = "front"
    """Who proposes assignments once the solver's are measured: `front`, `nsga2`, `nsga3`, `tpe`,
    `gp`, `random`, a method of another package, a class of `optuna.samplers` or a
    `module:Class`."""
    arguments: dict[str, object] = Field(default_factory=dict)
    """Of the method, e.g. `{population_size: 16}` of `nsga2`."""
    sensitivity: Literal["gradient", "direct"] = "gradient"
    """The scoring of every region x choice before assignments are measured: all by one backward
    pass, or each by an evaluation of its own."""
    sensitivity_samples: int = Field(default=8, ge=1)
    """Search samples that every region x choice is scored on alone."""
    prune_at: float | None = Field(default=None, gt=0, lt=1)
    """Share of the search samples, in whole batches, after which an assignment ends that is
    clearly worse than one that costs no more; it counts as that share of a trial. By default
    every assignment is measured on all samples (studies/search_fidelity)."""
    focus: tuple[str, ...] = ()
    """Bounds of the part of the front that is wanted most, as constraints are written: trials go
    there, nothing elsewhere is forbidden."""
    solver_budgets: int = Field(default=16, ge=1, le=4096)
    """Number of cost budgets at which the knapsack is solved."""

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, content: object) -> object:
        """Spaces and run folders before the methods were open say `sampler`."""
        if not isinstance(content, dict) or "sampler" not in content or "method" in content:
            return content
        return {("method" if key == "sampler" else key): value for key, value in content.items()}


ONE_OF = (
    "expected either a list of values ([128 KiB, 256 KiB]), or a range ({from: 4 GB/s, to: "
    "16 GB/s, steps: 3}), or `options` by name"
)


class HardwareOption(Section):
    """An option of a variable that sets several parts of the device's file together, or none."""

    set: dict[str, Setting] = Field(default_factory=dict)
    """Path in the device's file -> what stands there instead."""
    runs: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Choices that this hardware executes, by name: what takes another one costs infinitely much.
    By default all of them."""


class HardwareVariable(Section):
    """A figure of the device that is searched: a list of values, a range, or options by name."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    values: tuple[Setting, ...] = ()
    """Values of the figure that the variable's name is the path of; a list in its place says the
    same."""
    from_: str | int | float | None = Field(default=None, alias="from")
    """Smallest value of a range, with its unit."""
    to: str | int | float | None = None
    """Largest value of a range."""
    steps: int | None = Field(default=None, ge=2, le=4096)
    """Number of values of a range, both ends included."""
    scale: Literal["linear", "log"] = "linear"
    """Whether neighbours of a range differ by a term or by a factor."""
    options: dict[str, HardwareOption] = Field(default_factory=dict)
    """Named options, each with what it sets; the variable's own name is no path then."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, content: object) -> object:
        """Values that are written as a list."""
        if not isinstance(content, list | tuple | dict):
            raise ValueError(f"{ONE_OF}, got {content!r}")  # noqa: TRY004 (pydantic reads these)
        return {"values": content} if isinstance(content, list | tuple) else content

    @model_validator(mode="after")
    def _of_one_kind(self) -> HardwareVariable:
        """Either values, or a range, or options; two of them at least."""
        ends = (self.from_, self.to, self.steps)
        is_range = any(end is not None for end in ends)
        if is_range + bool(self.values) + bool(self.options) != 1:
            raise ValueError(ONE_OF)
        if is_range and None in ends:
            raise ValueError("a range has `from`, `to` and `steps`")
        count = len(self.values) + len(self.options)
        if not is_range and count < 2:
            raise ValueError(
                f"expected two values or more to choose from, got {count}; what does not vary "
                "belongs into the device's file"
            )
        return self


class _ListForm:
    """The list that a variable of the hardware may be, for the JSON schema."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {
            "anyOf": [
                {
                    "type": "array",
                    "minItems": 2,
                    "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
                },
                handler(core),
            ]
        }


class Hardware(Section):
    """Device parameters as variables of the search: the front is over hardware x precision."""

    target: Name | None = None
    """The target whose device varies; not needed where there is one target."""
    variables: dict[str, Annotated[HardwareVariable, _ListForm()]] = Field(min_length=1)
    """Path in the device's file (`memories.sram.capacity`, as of `--set`) -> its candidate values,
    or a name -> options that set several. Its column is `hardware.<name>`."""
    points: int = Field(default=256, ge=2, le=100_000)
    """Most hardware points that are priced: a grid with more is sampled, evenly at first and then
    around what is good."""

    @field_validator("variables")
    @classmethod
    def _names(cls, variables: dict[str, HardwareVariable]) -> dict[str, HardwareVariable]:
        """Names are parts of columns."""
        if odd := [name for name in variables if not name or set(name) & set(", \t\n")]:
            raise ValueError(f"a name or a path without spaces and commas, got {odd[0]!r}")
        return variables


def several(objectives: tuple[str, ...]) -> tuple[str, ...]:
    """The objectives, if there is anything to trade between them.

    Raises:
        ValueError: fewer than two.
    """
    if len(objectives) < 2:
        raise ValueError(
            "expected two columns or more to trade, e.g. quality_loss and latency_s, got "
            f"{', '.join(objectives) or 'none'}"
        )
    return objectives


class Space(Section):
    """A whole space file."""

    question: str = Field(default="", exclude=True)
    """The question of the space; the first paragraph of the file's first comment where it is not
    given."""
    model: str
    """An ONNX file (relative to the space file) or a zoo name (`zoo:byte-gpt`)."""
    data: Data
    """Samples, and how many of them each step takes."""
    quality: QualityOf = QualityOf()
    """Meaning and weight of the outputs."""
    cost_model: str | None = None
    """A second graph that costs are computed on, weight-free if you like; regions correspond by
    role and relative depth. Everything printed then says so."""
    scenario: Scenario = Scenario(phases={"call": Phase()})
    """The calls that costs are of, with their sizes."""
    targets: Targets = Field(min_length=1)
    """Devices that costs are predicted on."""
    matrices: Literal["fused", "apart"] = "fused"
    """Whether matrices that read one input (query, key and value; gate and up) are one region, as
    runtimes execute them that fuse siblings, or each its own, where no target's runtime does."""
    candidates: tuple[Rule, ...] = Field(min_length=1)
    """Choices of each region."""
    ranges: tuple[str, ...] = ()
    """Ranges of integer activations with static scales, where a candidate names none: of several
    a search takes the one that loses least on the search split, for the whole network. Without,
    and as `absmax`: the whole range; `mse`: the range of least squared error;
    `percentile99.999`: all but that share of the values."""
    ties: tuple[Tie, ...] = ()
    """Regions that take one choice together."""
    hardware: Hardware | None = None
    """Device parameters as variables; `area_mm2` and `power_w` are columns then."""
    constraints: tuple[str, ...] = ()
    """`<column><=<number>`, e.g. `weight_bytes<=2e9` or `quality_loss<=0.05`; `native-only`, or
    `native_share>=<number>`; `bits_per_weight<=4.5` for `weight_bytes` over all weights,
    `int8_share<=0.745` for a share of what they are with int8 weights."""
    objectives: tuple[str, ...] = ("quality_loss", "latency_s")
    """Columns to minimise; the first is `quality_loss`. With several targets a column without
    its target stands for that of every target."""
    search: Search = Search()
    """Effort and randomness."""

    @field_validator("objectives")
    @classmethod
    def _several_objectives(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return several(columns)

    @model_validator(mode="after")
    def _parts_of_the_search_split(self) -> Space:
        """A first look takes whole batches, so there must be several."""
        if self.search.prune_at is not None and self.data.batch >= self.data.search:
            raise ValueError(
                f"search.prune_at: a first look takes whole batches; data.batch is "
                f"{self.data.batch}, expected less than data.search, {self.data.search}"
            )
        return self
