"""Memory of a training step by role, from a method and the sizes of a network. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dse.training.method import Method, Operand, Tuning
from dse.training.roles import (
    MULTIPLIED,
    SENT,
    Site,
    SiteFormats,
    formats_at,
    formats_of_parameter,
)
from hwmodels.formats.quantizer import Quantizer

EXPANSION_BYTES = 8.0
"""Power and middle of a group whose range is expanded, in fp32 (COAT's code)."""
SHARED = ("tensor", "channel", "token", "head")
"""Granularities whose scales vanish beside their elements."""
LOGIT_BYTES = 4.0
TEACHER_BYTES = 4.0
"""An adapter's number of the network that teaches."""
COPIED_TABLE = Operand(format="bf16")
WATCHED_BYTES = 16.0
"""A weight that is watched for oscillation: it and its value of the step before, and both ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A tensor that the forward pass keeps for the backward pass."""

    site: Site
    """The product that reads it, or the block that holds it."""
    elements: int
    multiplied: bool = True
    """Whether it is a factor of a product: what a function between products reads is kept as it
    is, unless a method names `saved_activation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of a network in one training step."""

    parameters: Mapping[str, int]
    """Elements by name."""
    saved: tuple[Saved, ...]
    """On one GPU."""
    blocks: int = 0
    gathered: int = 0
    """Elements of the weights that one GPU holds whole at a time, where they are shared out."""
    logits: int = 0
    """Elements of logits, on one GPU."""
    tables: frozenset[str] = frozenset()
    """Parameters that are looked up and multiplied by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Bytes on one GPU by what they are for."""

    weights: float
    """Role master_weight, with the compensation of `kahan`."""
    copies: float
    """Weights as products read them, where that is another format than the one they are kept in:
    Megatron-LM's 16-bit parameters beside the optimizer's, what torch's autocast keeps from the
    forward pass to the backward pass, Transformer Engine's quantized weights."""
    gradients: float
    moments: float
    activations: float
    gathered: float
    logits: float

    @property
    def total(self) -> float:
        """All of them."""
        return (
            self.weights + self.copies + self.gradients + self.moments + self.activations
            + self.gathered + self.logits
        )  # fmt: skip


def ledger(method: Method, sizes: Sizes, *, gpus: int = 1) -> Ledger:
    """Bytes on one of `gpus` GPUs that share weights, gradients and moments (FSDP).

    A GPU alone keeps a copy of every weight in the formats that products read; GPUs that share
    weights make those of one block at a time (`gathered`). DeepSpeed's ZeRO-3 keeps a 16-bit copy
    of each GPU's own part as well, Transformer Engine a 16-bit one beside the quantized weights
    where these are not its parameters: neither is counted. Under `tuning` the pruned weights are
    kept in the format they are multiplied in; gradients, moments and wide copies are those of the
    adapters, of which a teacher has its own, and logits.
    """
    weights = copies = gradients = moments = 0.0
    teacher = None if method.tuning is None else method.tuning.distill
    for name, count in sizes.parameters.items():
        formats = formats_of_parameter(method, name, sizes.blocks)
        if method.tuning is not None:
            left = _left(method.tuning, name) * count
            weights += left * element_bytes(formats.operand("weight", "fprop"))
        trained = count if method.tuning is None else _adapters(method.tuning, name, count)
        weights += trained * _kept_bytes(method, formats)
        if gpus == 1 and method.tuning is None:
            read = copies_of(formats, is_table=name in sizes.tables)
            copies += count * sum(element_bytes(one) for one in read.values())
        if teacher is not None:
            weights += trained * TEACHER_BYTES
        gradients += trained * element_bytes(formats.operand("weight_gradient", "wgrad"))
        moments += trained * _moment_bytes(method, formats, trained)
    activations = sum(
        one.elements * saved_bytes(formats_at(method, one.site, sizes.blocks), one)
        for one in sizes.saved
    )
    return Ledger(
        weights=weights / gpus,
        copies=copies,
        gradients=gradients / gpus,
        moments=moments / gpus,
        activations=activations,
        gathered=sizes.gathered * 2.0 if gpus > 1 else 0.0,
        logits=LOGIT_BYTES * sizes.logits * (1 if teacher is None else 2),
    )


def state_bytes(method: Method) -> float:
    """Bytes of weight, gradient and moments of a trained parameter that no rule is for.

    Sources of methods count so: without the copy that products read.
    """
    formats = SiteFormats([method.roles])
    gradient = element_bytes(formats.operand("weight_gradient", "wgrad"))
    kept = _kept_bytes(method, formats)
    return kept + gradient + _moment_bytes(method, formats, method.update.states_from)


def moments_of(method: Method) -> tuple[str, ...]:
    """Roles of the moments that the optimizer of a method keeps."""
    return ("optimizer_m",) if method.update.optimizer == "sgd" else ("optimizer_m", "optimizer_v")


def sent_bytes(method: Method) -> float:
    """Bytes a parameter that one client sends and is sent in a round; 0 without rounds."""
    if method.rounds is None:
        return 0.0
    formats = SiteFormats([method.roles])
    return sum(element_bytes(formats.operand(role, pass_)) for role, pass_ in SENT.items())


def bit_products(method: Method) -> float:
    """Products of operand widths over 32 x 32, mean of the three passes of a linear layer.

    Source: the cost model of FracTrain's code, arXiv 2012.13113, section 4.1.
    """
    formats = SiteFormats([method.roles])

    def bits(role: str, pass_: str) -> int:
        return formats.operand(role, pass_).quantizer.format.element.bits

    products = [
        math.prod(bits(role, pass_) for role in roles) for pass_, roles in MULTIPLIED.items()
    ]
    return sum(products) / len(products) / 32**2


def element_bytes(operand: Operand) -> float:
    """Bytes an element of a large tensor, with the scales of its groups."""
    quantizer = operand.quantizer
    return quantizer.format.bits_per_element / 8 + _extra_bytes(quantizer)


def copies_of(formats: SiteFormats, *, is_table: bool = False) -> dict[str, Operand]:
    """Copies of a weight beside the one that the optimizer keeps, by the pass that reads them.

    A copy of 16 bits or more serves both passes. Narrower ones are two, as scales run along the
    sum of each pass and FP8 products of Hopper read both factors along it (Transformer Engine:
    rows and columns; tensor scales on Blackwell could do with one). A table that is looked up has
    one in 16 bits.
    """
    kept = formats.operand("master_weight", "update").quantizer
    if is_table:
        wide = kept.format.element.bits > COPIED_TABLE.quantizer.format.element.bits
        return {"fprop": COPIED_TABLE} if wide else {}
    found: dict[str, Operand] = {}
    for pass_ in ("fprop", "dgrad"):
        read = formats.operand("weight", pass_)
        plain = read.quantizer.format.element.bits >= 16
        before = [one.quantizer for one in found.values()] if plain else []
        if read.quantizer not in (kept, *before):
            found[pass_] = read
    return found


def saved_bytes(formats: SiteFormats, saved: Saved) -> float:
    """Bytes an element of what is kept: the narrowest copy that the backward pass reads."""
    if saved.site.kind == "attention":
        return 2.0
    named = formats.named("saved_activation", "wgrad")
    if named is not None:
        return element_bytes(named)
    if saved.multiplied and formats.operand("activation", "wgrad").of == "forward":
        return element_bytes(formats.operand("activation", "fprop"))
    return 2.0


def decoder_sizes(
    *, layers: int, width: int, ffn: int, vocabulary: int, batch: int, sequence: int, gpus: int = 1
) -> Sizes:
    """A decoder of Llama's kind whose attention has as many key as query heads.

    What a layer keeps is COAT's count (arXiv 2410.19313, table 2): inputs of both norms, of the
    projections and of the feed-forward block; queries, keys, values and the result of attention,
    whose probabilities are computed again; gate, up, their activation and their product.

    Args:
        layers: Blocks.
        width: Of the residual stream.
        ffn: Of the feed-forward block.
        vocabulary: Rows of embedding and head, which are two tables.
        batch: Sequences on one GPU.
        sequence: Tokens of each.
        gpus: Where there are several, one layer is gathered at a time.
    """
    of_layer = 4 * width * width + 3 * width * ffn
    rows = batch * sequence
    parameters = {"embed_tokens.weight": vocabulary * width, "lm_head.weight": vocabulary * width}
    saved: list[Saved] = []
    for block in range(layers):
        parameters[f"layers.{block}.weights"] = of_layer
        saved += _saved_of(block, rows, width, ffn)
    return Sizes(
        parameters=parameters,
        saved=tuple(saved),
        blocks=layers,
        gathered=of_layer if gpus > 1 else 0,
        logits=rows * vocabulary,
    )


def _saved_of(block: int, rows: int, width: int, ffn: int) -> Iterable[Saved]:
    name = f"layers.{block}"
    linear = Site(name=f"{name}.mlp", kind="linear")
    attention = Site(name=f"{name}.self_attn", kind="attention")
    for size in (width, width, ffn):
        yield Saved(site=linear, elements=rows * size)
    for size in (width, width, ffn, ffn, ffn):
        yield Saved(site=linear, elements=rows * size, multiplied=False)
    for _ in range(4):
        yield Saved(site=attention, elements=rows * width)


def _left(tuning: Tuning, name: str) -> float:
    """The share of a weight that is left."""
    if tuning.prune is None or any(fnmatchcase(name, f"{one}*") for one in tuning.prune.layers):
        return tuning.density
    return 1.0


def _adapters(tuning: Tuning, name: str, count: int) -> int:
    """Elements of the two factors beside a matrix of `count` elements, as if it were square.

    Of the larger rank half of the adapters have some part.
    """
    if not any(fnmatchcase(name, f"{one}*") for one in tuning.layers):
        return 0
    rank = (tuning.rank + (tuning.grown or tuning.rank)) / 2
    return round(2 * rank * math.sqrt(_left(tuning, name) * count))


def _kept_bytes(method: Method, formats: SiteFormats) -> float:
    copies = 2 if method.update.mode == "kahan" else 1
    watched = WATCHED_BYTES if method.oscillation else 0.0
    return copies * element_bytes(formats.operand("master_weight", "update")) + watched


def _moment_bytes(method: Method, formats: SiteFormats, count: int) -> float:
    roles = moments_of(method)
    if count < method.update.states_from:
        return 4.0 * len(roles)
    return sum(element_bytes(formats.operand(role, "update")) for role in roles)


def _extra_bytes(quantizer: Quantizer) -> float:
    """Bytes an element of what a range expansion keeps beside the scale."""
    expanded = [name for name in quantizer.transforms if name.startswith("expand")]
    if not expanded or quantizer.format.granularity in SHARED:
        return 0.0
    return EXPANSION_BYTES / quantizer.format.group
