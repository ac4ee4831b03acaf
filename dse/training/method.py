"""A method of low-precision training: which role is in which format in which pass, and how.

These records are the method file: pydantic fills them (`dse.training.load`). A method is data on
the axes; no class is named after a paper. No torch here: a price needs a method, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.validation import Entry

SiteKind = Literal["linear", "convolution", "attention"]
Signs = Literal["none", "fixed", "fresh"]
Scales = Literal["plain", "four_over_six", "eden"]
Origin = Literal["original", "forward"]
Slope = Literal["ste", "clipped_ste", "dge", "spline"]
ScaleGradient = Literal["none", "absmax", "softmax"]
ScheduleKind = Literal["phase", "cycle", "plateau", "uniform", "hasb", "gate"]
Salience = Literal["outliers", "gradient", "magnitude", "random"]
Rewrite = Literal["softplus", "normal"]
SplitKind = Literal["even", "dirichlet", "shards"]
UpdateMode = Literal["master", "nearest", "stochastic", "kahan"]
OptimizerName = Literal["sgd", "adamw", "hadam", "stable_adamw", "stable_spam"]
LossScaleKind = Literal["none", "static", "dynamic", "auto_mu", "compound"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand(Entry):
    """The format of a role in a pass, with what is done around rounding to it."""

    format: str
    """A quantizer, as in an assignment: `nvfp4`, `e5m2_tensor:delayed`, `e2m1@b16x16/e4m3+fp32`,
    `nvfp4:stochastic`. For role `accumulator` an accumulator: `fp16`, `hopper_fp8`."""
    hadamard: Annotated[int, Field(ge=0, le=8192)] = 0
    """Elements along the contraction that are rotated together before rounding, a power of two; 0:
    none. Shorter sums are not rotated, nor is the rest of one that is no multiple. The other
    factor of the product must be rotated alike: the product undoes both."""
    signs: Signs = "none"
    """Random signs of the rotation: none, the same at every step, or drawn anew, which unbiased
    rounding needs."""
    scales: Scales = "plain"
    """`four_over_six` maps the largest value of each block to 6 or 4, whichever errs less; `eden`
    takes the bias of rounding to nearest out by scales that are rounded stochastically."""
    headroom: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    """Factor by which scales are raised; 1.0625 (17/16) lets stochastic rounding clip nothing
    under E4M3 scales, below 1 the largest values are clipped."""
    of: Origin = "original"
    """The values that a backward product quantizes: the original ones, or those that the forward
    product has quantized already."""
    gradient: Slope = "ste"
    """Derivative of rounding in the forward pass: 1 (`ste`), 0 where a value is clipped
    (`clipped_ste`), or that of a relaxation between neighbours of the grid (`dge`, `spline`)."""
    scale_gradient: ScaleGradient = "none"
    """Derivative of the scales in the forward pass: none, that of the largest magnitude of a
    group, or that of a smooth maximum in its place."""
    smooth: bool = False
    """Whether each channel of an input is divided by its largest magnitude before rounding and
    multiplied by it after (Smooth-SwiGLU), so that an outlier channel flushes no other one. The
    function stays the same: the next layer's weight would take the factor."""

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer that the format names, every `auto` of it settled for training."""
        return _settled(self.format)

    @property
    def is_wide(self) -> bool:
        """Whether nothing is rounded: 32 bits."""
        element = self.quantizer.format.element
        plain = not (self.hadamard or self.smooth)
        return element.kind == "float" and element.bits >= 32 and plain


@lru_cache(maxsize=1024)
def _settled(format: str) -> Quantizer:
    found = catalog.quantizer(format)
    plain = found.plain_statistic if found.statistic == "auto" else found.statistic
    return found.replaced(statistic=plain, correction="uncorrected")


Formats = Mapping[str, str | Operand]
"""Operands by role: `weight` in every pass of it, `weight@dgrad` in one; a text is a format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites(Entry):
    """The sites that a rule is for: all of its conditions hold."""

    name: str = "*"
    """Name of the module, or of the parameter for roles of the optimizer; `*`, `?` and `[...]`
    as in file names."""
    kind: SiteKind | None = None
    """Kind of the product."""
    blocks: tuple[int, ...] = ()
    """Numbers of blocks (the first number in the name), from the end where negative."""
    optional: bool = False
    """Whether nothing is wrong where no site fits: for methods that many models share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRule(Entry):
    """Formats of some sites instead of the method's."""

    match: Sites
    """The sites."""
    roles: Annotated[Formats, Field(min_length=1)]
    """Formats there; `*` is every factor of the products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Entry):
    """The optimizer's step, and how it reaches the weights that are kept."""

    mode: UpdateMode = "master"
    """`master`: weights are kept in role `master_weight`, beside those that are multiplied. Else
    they are the only copy, and an update is rounded to nearest, stochastically, or compensated by
    a second number of the same format (`kahan`)."""
    optimizer: OptimizerName = "adamw"
    """`hadam` keeps the root of the second moment; `stable_adamw` divides the rate by the root
    mean square of the update where it is above 1; `stable_spam` clips spikes, normalises gradients
    and resets moments."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Peak; the workload's own by default."""
    momentum: Fraction = 0.9
    """Of `sgd`."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    """Decays of the first and second moment."""
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-8
    """Addend of the root of the second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Of matrices, decoupled from the gradient."""
    clip_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Norm that the gradient of all parameters is cut to; 0: never."""
    states_from: Annotated[int, Field(ge=0)] = 0
    """Elements from which on a parameter's moments take their formats; smaller ones stay in
    fp32 (bitsandbytes: 4096)."""
    reset_every: Annotated[int, Field(ge=1)] = 1000
    """Steps after which `stable_spam` forgets its moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossScale(Entry):
    """The factor of the loss that keeps gradients in the range of their formats."""

    kind: LossScaleKind = "none"
    """`dynamic` halves where a gradient is not finite; `auto_mu` scales weight gradients, and
    halves where too many reach the end of their format; `compound` leaves the factor in the
    optimizer's moments (`hadam`)."""
    initial: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 65536.0
    """First factor."""
    interval: Annotated[int, Field(ge=1)] = 2000
    """Steps without trouble after which the factor is doubled (`dynamic`, `auto_mu`)."""
    saturated: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Share of weight gradients at the end of their format from which on `auto_mu` halves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oscillation(Entry):
    """The watch on weights that jump between two values of their grid and hardly move.

    Those are set back onto the value that they are at (OsciReset of TetraJet-v2, arXiv
    2510.27527).
    """

    every: Annotated[int, Field(ge=2)] = 200
    """Steps from the beginning of one watch to that of the next."""
    window: Annotated[int, Field(ge=1)] = 50
    """Steps of a watch, after which weights are set back."""
    ratio: Annotated[float, Field(ge=1)] = 16.0
    """Way of the rounded value over that of the weight from which on it oscillates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Entry):
    """Formats that change while a run goes on: stages, and what chooses one at each step.

    A stage counts before the method's roles and after its rules.
    """

    stages: Annotated[tuple[Formats, ...], Field(min_length=2)]
    """Formats of each stage, by role as in `roles`; an empty one leaves the method's."""
    kind: ScheduleKind
    """`phase`: one after the other, at shares of the run. `cycle`: from the first to the last by
    half a cosine, again and again (cyclic precision, arXiv 2101.09868). `plateau`: the next one
    where the loss stands still (FracTrain's PFQ, arXiv 2012.13113). `uniform`: drawn at each step
    and site. `hasb`: the same, by bits at sites whose curvature is above the mean (adaptive bit
    switching, arXiv 2502.01199). `gate`: chosen for each sample and site by a small network that
    is trained beside the model (FracTrain's DFQ)."""
    starts: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """`phase`: shares of the run at which the second and later stages begin; equal parts by
    default."""
    cycles: Annotated[int, Field(ge=1)] = 8
    """`cycle`: rises in a run."""
    window: Annotated[int, Field(ge=2)] = 5
    """`plateau`: means of the loss that are compared."""
    every: Annotated[int, Field(ge=1)] = 1
    """`plateau`: steps of a mean (an epoch in the source)."""
    threshold: Annotated[float, Field(gt=0)] = 0.05
    """`plateau`: largest difference of the last mean from the others of the window, over the mean
    of the first ten, at which the loss stands still."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.3
    """`plateau`: factor of the threshold after the first and the second change."""
    budget: Annotated[float, Field(gt=0, le=1)] = 0.03
    """`gate`: cost of the products that gates are held at, over that of 32 by 32 bits."""
    pressure: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """`gate`: weight of the cost in the loss, which pushes down above the budget and up below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split(Entry):
    """Training data that are dealt to clients, none to two of them.

    Units are images, in groups by label; for text files, in groups by package. The deal follows
    from clients and seed, whatever the formats.
    """

    kind: SplitKind
    """`even`: at random, as many units each. `dirichlet`: each group by shares of its own, drawn
    with `concentration` (arXiv 1905.12022). `shards`: units in the order of their groups are cut
    into equal pieces, some for each client (arXiv 1602.05629)."""
    concentration: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    """`dirichlet`: small values leave a client few groups, large ones all alike."""
    shards: Annotated[int, Field(ge=1)] = 2
    """`shards`: pieces of a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds(Entry):
    """Federated averaging: clients that train apart from the same weights, and send them back.

    Formats of what is sent are roles `communication_down` (to a client) and `communication_up`
    (its weights, to be averaged in fp32).
    """

    clients: Annotated[int, Field(ge=2)]
    """Clients, each with its own data in every step."""
    every: Annotated[int, Field(ge=1)] = 10
    """Steps of a client in a round; its moments begin anew."""
    split: Split | None = None
    """Data of each client, whose weights count by their number; all clients draw from the same
    data by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning(Entry):
    """Units of linear layers that are cut one after the other, those that count least first.

    A unit is an output channel, or neighbours that go together.
    """

    layers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the layers whose outputs are units, `*` for any text; the last layer of a network
    has classes there, not units."""
    channels: Annotated[int, Field(ge=1)] = 1
    """Neighbouring outputs that are one unit: the width of a head."""
    salience: Salience = "outliers"
    """`gradient`: a running mean of sums of |activation x gradient|; `outliers`: the same and the
    root of the activations' excess kurtosis (APT); `magnitude`: of the weights; `random`."""
    ends: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the tuning after which nothing more is cut; a cubic curve leads there."""
    every: Annotated[int, Field(ge=1)] = 10
    """Steps between two cuts."""
    fade: Annotated[int, Field(ge=1)] = 10
    """Steps in which the outputs of a cut unit go to zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation(Entry):
    """The network before anything is cut of it as the teacher of the one that is left (APT).

    Both have the same frozen weights. The loss is that of the labels at first; the divergence from
    the teacher's outputs takes its place step by step while units are cut, and labels alone count
    again when nothing more is.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Share of the teacher's adapters that stays in a step, the rest is of those that are trained;
    0: the teacher has the same adapters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning(Entry):
    """A frozen network beside whose weights adapters are trained, pruned meanwhile (APT)."""

    density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the weights that are left, of layers that `prune` names; without `prune` of all,
    for the ledger of memory alone."""
    rank: Annotated[int, Field(ge=1)]
    """Rank of the adapters beside each matrix."""
    grown: Annotated[int, Field(ge=2)] | None = None
    """Rank that the half of the adapters that counts most gets when pruning has ended, without
    `prune` in the middle of the tuning."""
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """Factor of what adapters add."""
    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    """Names of the linear layers that have adapters."""
    begins: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the run after which weights are frozen; before, all of them are trained."""
    prune: Pruning | None = None
    """Units that are cut; none by default."""
    distill: Distillation | None = None
    """The network that is left learns from itself with nothing cut; by default from labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions(Entry):
    """Functions between products: numbers of 16 bits, operation by operation, backward too.

    What meets a parameter in fp32 (the weight of a norm) is fp32 until the next product.
    """

    format: Literal["fp16", "bf16"] = "fp16"
    """Numbers of every result. One operation of torch's is exact inside."""
    rewrites: tuple[Rewrite, ...] = ()
    """Functions of `dse.training.functions` that are computed in another way than they are
    written: `softplus` by its linear branch where the exponential leaves the format's range;
    `normal`, the logarithm of a normal density, by the ratio of distance and deviation before its
    square (arXiv 2102.13565)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Entry):
    """A method of training; what it leaves out is training in bf16 with fp32 master weights."""

    source: str
    """Origin of the method: paper, section, code."""
    roles: Formats = field(default_factory=dict)
    """Formats of linear layers and convolutions, of the optimizer and of communication; those of
    attention's own products (`q`, `k_cache`, `v_cache`, `probabilities`) where they are named."""
    rules: tuple[SiteRule, ...] = ()
    """Exceptions; later ones count before earlier ones."""
    update: Update = field(default_factory=Update)
    """The optimizer."""
    loss_scale: LossScale = field(default_factory=LossScale)
    """The factor of the loss."""
    schedule: Schedule | None = None
    """Formats that change while a run goes on."""
    oscillation: Oscillation | None = None
    """The watch on weights that oscillate; none by default."""
    rounds: Rounds | None = None
    """Clients that train apart; one worker by default."""
    tuning: Tuning | None = None
    """Adapters on a frozen, pruned network (APT); all weights are trained by default."""
    functions: Functions | None = None
    """Functions between products; as the module computes them, in fp32, by default."""
    note: str = ""
    """Anything else, for people: what the source does and the file cannot say."""


def operand_of(given: str | Operand) -> Operand:
    """The operand that a role's entry says: a text is its format alone."""
    return Operand(format=given) if isinstance(given, str) else given
