"""A training step as work: the products of each pass, what stands between them, the update.

From the work of a forward pass, in the formats of a method. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dse.training.ledger import Saved, Sizes, copies_of, moments_of
from dse.training.method import Method, Operand
from dse.training.roles import Site, SiteFormats, block_count, formats_at, formats_of_parameter
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work import work as hw
from hwmodels.work.work import CONTRACTING, Op, OperandName, RegionWork, Work

WEIGHTED = ("gemm", "bmm", "grouped_gemm", "conv2d")
"""Products that may have a weight."""
STACKED = ("bmm", "grouped_gemm")
"""Products with a stack of weights."""
PRODUCTS_BACKWARD = 2.0
"""Products of the backward pass of one of activations: a gradient of each factor."""
ATTENTION_BACKWARD = 2.5
"""Products of attention's backward pass over those of its forward pass: five for two, as scores
are computed again (FlashAttention-2, arXiv 2307.08691, section 4.1)."""
ROWS_BACKWARD = 1.5
"""Bytes of the backward pass of an operator on elements or rows over those of its forward pass:
it reads an input and a gradient and writes a gradient, where one was read and one written."""
OF_RESULT = ("relu", "clip", "sigmoid", "tanh", "exp", "sqrt", "reciprocal")
"""Functions whose derivative follows from their result, which the next product keeps as well."""
LINEAR = (
    "add", "sub", "sum", "neg", "bias", "identity", "cast", "rope", "where", "mean", "copy",
    "embedding", "collective", "quantize", "reducemean", "reducesum", "averagepool",
    "globalaveragepool",
)  # fmt: skip
"""Operations, by kind or by name, whose derivative is that of any values."""
IN_FULL = Operand(format="fp32")
"""Moments of small parameters."""
Choice = Mapping[OperandName, Quantizer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a step: work that is done so often, and the formats of its products."""

    name: str
    work: Work
    choices: Mapping[str, Choice]
    """By region."""
    times: float = 1.0


def parts_of_step(work: Work, method: Method) -> tuple[Part, ...]:
    """The parts of a step of a network whose forward pass is `work`.

    Products with a weight are done three times, in the formats of their passes; gradients are
    rounded by kernels of their own, once along each sum. Rotations and the second try of
    `four_over_six` cost nothing beside the bytes of the rounding that they are fused with. Inputs
    whose channels are scaled (`smooth`) are read once more for the largest magnitudes, and cast by
    a kernel of their own, and the weight takes the factors in another. Products of activations
    have two more each, in 16 bits. A teacher is one more forward pass. Of other operators the
    backward pass is `ROWS_BACKWARD` or `ATTENTION_BACKWARD` of the forward pass.
    """
    blocks = block_count([op.name for region in work.regions for op in region.ops])
    sites = [
        (region, op, formats_at(method, _site(op), blocks))
        for region in work.regions
        for op in region.ops
        if op.kind in WEIGHTED and _has_weight(op)
    ]
    forward = {
        region.name: _choice(formats, "fprop") if op is region.ops[0] else {}
        for region, op, formats in reversed(sites)
    }
    attention = [region for region in work.regions if region.kind == "attention"]
    products = {region.name for region, _, _ in sites}
    plain = [
        region
        for region in work.regions
        if region.name not in products and any(op.kind in WEIGHTED for op in region.ops)
    ]
    apart = {region.name for region in (*attention, *plain)}
    between = [
        part
        for region in work.regions
        if region.name not in apart
        for part in _between(region, is_product=region.name in products)
    ]
    return (
        _part("fprop", work, work.regions, forward),
        _part(
            "dgrad",
            work,
            [_dgrad(region, op) for region, op, _ in sites],
            {_named(op, "dgrad"): _choice(formats, "dgrad") for _, op, formats in sites},
        ),
        _part(
            "wgrad",
            work,
            [_wgrad(region, op, formats) for region, op, formats in sites],
            {_named(op, "wgrad"): _choice(formats, "wgrad") for _, op, formats in sites},
        ),
        _part("rounding gradients", work, [one for site in sites for one in _casts(*site)], {}),
        _part("scaling channels", work, [one for site in sites for one in _scaled(*site)], {}),
        *_teacher(work, method, forward),
        replace(_part("attention", work, attention, {}), times=ATTENTION_BACKWARD),
        replace(_part("products of activations", work, plain, {}), times=PRODUCTS_BACKWARD),
        replace(_part("between products", work, between, {}), times=ROWS_BACKWARD),
        _part("update", work, [_update(work, method, blocks)], {}),
    )


def sizes_of(work: Work, *, gpus: int = 1) -> Sizes:
    """Sizes of a step of the network, with what its backward pass reads again.

    That are the factors of products and attention, what norms and other functions are computed
    from (or their results, where the derivative follows from them), and what attention gives. Sums
    and rotations need nothing. What a chain of functions in one kernel has in between is computed
    again; what products write for it is kept.
    """
    weights = _weights(work)
    parameters = {name: weight.elements for name, weight in weights.items()}
    blocks = block_count([op.name for region in work.regions for op in region.ops])
    largest: dict[int | None, int] = {}
    for name, count in parameters.items():
        block = Site(name=name, kind="linear").block
        largest[block] = largest.get(block, 0) + count
    logits = [o.elements for r in work.regions for o in r.writes if o.value in work.outputs]
    return Sizes(
        parameters=parameters,
        saved=_saved(work),
        blocks=blocks,
        gathered=max(largest.values(), default=0) if gpus > 1 else 0,
        logits=sum(logits),
        tables=frozenset(_tables(work)),
    )


def _saved(work: Work) -> tuple[Saved, ...]:
    """Values that the forward pass keeps, each once: as it is, if anything reads it so."""
    found: dict[str, Saved] = {}
    for region in work.regions:
        passing: set[str] = set()
        for op in region.ops:
            attends, multiplied = op.kind == "attention", op.kind in CONTRACTING
            site = Site(name=op.name, kind="attention" if attends else "linear")
            for operand in _kept(op):
                # Token ids are kept anyway, weights are no activations.
                if operand.is_weight or operand.bits != 16 or operand.value in passing:
                    continue
                if operand.value not in found or not multiplied:
                    found[operand.value] = Saved(
                        site=site, elements=operand.elements, multiplied=multiplied
                    )
            if not multiplied and op.detail not in OF_RESULT:
                passing |= {one.value for one in op.operands if one.name == "output"}
    return tuple(found.values())


def _kept(op: Op) -> Iterator[hw.Operand]:
    """Operands of the forward pass that the derivative of an operation reads."""
    if op.kind in LINEAR or op.detail in LINEAR:
        return
    of_result = op.kind == "softmax" or op.detail in OF_RESULT
    for operand in op.operands:
        if op.kind == "attention" or (operand.name == "output") == of_result:
            yield operand


def _tables(work: Work) -> Iterator[str]:
    """Weights that only look-ups read."""
    read: dict[str, bool] = {}
    for op in (op for region in work.regions for op in region.ops):
        for operand in op.operands:
            if operand.is_weight:
                only = read.get(operand.value, True)
                read[operand.value] = only and op.kind == "embedding"
    yield from (name for name, only in read.items() if only)


def _teacher(work: Work, method: Method, forward: Mapping[str, Choice]) -> Iterator[Part]:
    """The forward pass of a network that teaches the one that is cut."""
    if method.tuning is not None and method.tuning.distill is not None:
        yield _part("teacher", work, work.regions, forward)


def _part(
    name: str, work: Work, regions: Sequence[RegionWork], choices: Mapping[str, Choice]
) -> Part:
    found = replace(work, name=f"{work.name} {name}", regions=tuple(regions), outputs=())
    if name == "fprop":
        found = work
    return Part(
        name=name,
        work=found,
        choices={region.name: choices.get(region.name, {}) for region in regions},
    )


def _site(op: Op) -> Site:
    return Site(name=op.name, kind="convolution" if op.kind == "conv2d" else "linear")


def _has_weight(op: Op) -> bool:
    weight = op.operand("weight")
    return weight is not None and weight.is_weight


def _named(op: Op, pass_: str) -> str:
    return f"{op.name}@{pass_}"


def _choice(formats: SiteFormats, pass_: str) -> Choice:
    """Quantizers of both factors; none where both are in 16 bits, as plain kernels have them."""
    first = "activation" if pass_ == "fprop" else "activation_gradient"
    second = "activation" if pass_ == "wgrad" else "weight"
    if pass_ == "wgrad":
        first, second = second, first
    found = [formats.operand(role, pass_).quantizer for role in (first, second)]
    if all(one.format.scale is None and one.format.element.bits == 16 for one in found):
        return {}
    return {"input": _multiplied(found[0]), "weight": _multiplied(found[1])}


def _multiplied(quantizer: Quantizer) -> Quantizer:
    """The quantizer as a unit multiplies it.

    Both encodings of FP8 go through one multiplier at one rate, in any pair, and square blocks of
    E2M1 are stored with their scale in each row (arXiv 2509.25149, section 4.3). How values are
    drawn does not matter to it.
    """
    format = quantizer.format
    if format.element.name == "e5m2":
        format = replace(format, element=ENCODINGS["e4m3"])
    if format.granularity == "block" and format.element.name == "e2m1":
        format = replace(format, granularity="group", block_rows=0)
    return replace(
        quantizer, format=format, timing="dynamic", rounding="nearest_even", transforms=()
    )


def _factors(op: Op) -> tuple[hw.Operand, hw.Operand, hw.Operand]:
    """Input, weight and output of a product."""
    found = [op.operand(name) for name in ("input", "weight", "output")]
    first, second, third = found
    assert first is not None
    assert second is not None
    assert third is not None
    return first, second, third


def _dgrad(region: RegionWork, op: Op) -> RegionWork:
    """The product dx (M, K) = dy (M, N) w' (N, K)."""
    x, w, y = _factors(op)
    gradient = replace(y, name="input", value=f"{y.value}.gradient", contraction_axes=(1,))
    result = replace(x, name="output", value=f"{op.name}.{x.value}.gradient", contraction_axes=())
    if op.kind == "conv2d":
        return _product(region, op, "dgrad", (replace(gradient, contraction_axes=(1,)), w, result))
    if op.kind in STACKED:
        return _stacked_dgrad(region, op)
    rows, inner, outputs = (op.sizes[key] for key in "MKN")
    return _product(
        region,
        op,
        "dgrad",
        (
            replace(gradient, shape=(rows, outputs)),
            replace(w, shape=(outputs, inner), contraction_axes=(0,)),
            replace(result, shape=(rows, inner)),
        ),
        {"M": rows, "K": outputs, "N": inner},
    )


def _wgrad(region: RegionWork, op: Op, formats: SiteFormats) -> RegionWork:
    """The product dw (K, N) = x' (K, M) dy (M, N)."""
    x, w, y = _factors(op)
    bits = formats.operand("weight_gradient", "wgrad").quantizer.format.element.bits
    gradient = replace(y, name="weight", value=f"{y.value}.gradient", contraction_axes=(0,))
    result = replace(
        w, name="output", value=f"{w.value}.gradient", is_weight=False, contraction_axes=(),
        bits=bits,
    )  # fmt: skip
    if op.kind == "conv2d":
        # The kernel's loops are those of the forward product, summed over samples and places.
        weight = replace(w, is_weight=False)
        return _product(region, op, "wgrad", (x, weight, replace(result, shape=w.shape)))
    if op.kind in STACKED:
        return _stacked_wgrad(region, op, bits)
    rows, inner, outputs = (op.sizes[key] for key in "MKN")
    return _product(
        region,
        op,
        "wgrad",
        (
            replace(x, shape=(inner, rows), contraction_axes=(1,)),
            replace(gradient, shape=(rows, outputs)),
            replace(result, shape=(inner, outputs)),
        ),
        {"M": inner, "K": rows, "N": outputs},
    )


def _stacked_dgrad(region: RegionWork, op: Op) -> RegionWork:
    """One product a matrix of the stack: of the rows of its expert, or of its sample."""
    x, _, y = _factors(op)
    rows, inner, outputs = (op.sizes[key] for key in "MKN")
    stack = (op.sizes["B"],) if op.kind == "bmm" else ()
    weights = tuple(
        replace(
            one, shape=(*one.shape[:-2], outputs, inner), contraction_axes=(len(one.shape) - 2,)
        )
        for one in _stack_of(op)
    )
    gradient = replace(
        y, name="input", value=f"{y.value}.gradient", shape=(*stack, rows, outputs),
        contraction_axes=(len(stack) + 1,),
    )  # fmt: skip
    result = replace(
        x, name="output", value=f"{op.name}.{x.value}.gradient", shape=(*stack, rows, inner),
        contraction_axes=(),
    )  # fmt: skip
    sizes = {**op.sizes, "K": outputs, "N": inner}
    return _product(region, op, "dgrad", (gradient, *weights, result), sizes)


def _stacked_wgrad(region: RegionWork, op: Op, bits: int) -> RegionWork:
    """As many products as there are matrices, whose rows are spread over them evenly."""
    x, w, y = _factors(op)
    rows, inner, outputs = (op.sizes[key] for key in "MKN")
    count = op.sizes["B"] if op.kind == "bmm" else op.sizes["E"]
    each = rows if op.kind == "bmm" else max(round(rows / count), 1)
    operands = (
        replace(x, shape=(count, inner, each), contraction_axes=(2,)),
        replace(
            y, name="weight", value=f"{y.value}.gradient", shape=(count, each, outputs),
            contraction_axes=(1,),
        ),
        replace(
            w, name="output", value=f"{w.value}.gradient", shape=(count, inner, outputs),
            is_weight=False, contraction_axes=(), bits=bits,
        ),
    )  # fmt: skip
    sizes = {"B": count, "M": inner, "K": each, "N": outputs}
    return replace(_product(region, replace(op, kind="bmm"), "wgrad", operands, sizes), kind="bmm")


def _stack_of(op: Op) -> tuple[hw.Operand, ...]:
    """The matrices of a stack: one tensor, or one of each expert."""
    return tuple(one for one in op.operands if one.name == "weight" and one.is_weight)


def _product(
    region: RegionWork,
    op: Op,
    pass_: str,
    operands: tuple[hw.Operand, ...],
    sizes: Mapping[str, int] | None = None,
) -> RegionWork:
    name = _named(op, pass_)
    made = replace(
        op, name=name, sizes=dict(sizes or op.sizes), operands=operands, decomposition=()
    )
    return replace(
        region, name=name, kind=op.kind, ops=(made,), reads=operands[:-1], writes=operands[-1:]
    )


def _casts(region: RegionWork, op: Op, formats: SiteFormats) -> Iterator[RegionWork]:
    """The gradient as `wgrad` reads it: along rows, where no kernel of the product rounds it."""
    _, _, y = _factors(op)
    operand = formats.operand("activation_gradient", "wgrad")
    if operand.quantizer.format.element.bits >= 16:
        return
    gradient = replace(y, name="input", value=f"{y.value}.gradient", contraction_axes=())
    kept = _in_format(replace(gradient, name="output", value=f"{y.value}.rounded"), operand)
    yield _elementwise(f"{op.name}@rounding", region, (gradient, kept))


def _scaled(region: RegionWork, op: Op, formats: SiteFormats) -> Iterator[RegionWork]:
    """Kernels of `smooth`: one finds the maxima, two cast input and weight with their factors.

    The kernel that writes an input can round it, but not before all its rows are known. What
    `wgrad` reads is rounded apart anyway, and takes the factors on the way.
    """
    forward = formats.operand("activation", "fprop")
    if not (forward.smooth or formats.operand("activation", "wgrad").smooth):
        return
    x, w, _ = (replace(one, contraction_axes=()) for one in _factors(op))
    maxima = replace(
        x, name="output", value=f"{op.name}.{x.value}.maxima", shape=(x.shape[-1],), bits=32
    )
    rows, cols = math.prod(x.shape[:-1]), x.shape[-1]
    yield _kernel(f"{op.name}@maxima", region, ("reduce", "max"), (rows, cols), (x, maxima))
    if not forward.smooth:
        return
    factors = replace(maxima, name="other")
    weight = replace(w, name="input", is_weight=False)
    for what, read, given in (
        ("input", x, forward), ("weight", weight, formats.operand("weight", "fprop")),
    ):  # fmt: skip
        kept = _in_format(replace(read, name="output", value=f"{read.value}.scaled"), given)
        yield _elementwise(f"{op.name}@scaled {what}", region, (read, factors, kept))


def _in_format(operand: hw.Operand, given: Operand) -> hw.Operand:
    return replace(operand, quantizer=given.quantizer)


def _elementwise(name: str, region: RegionWork, operands: tuple[hw.Operand, ...]) -> RegionWork:
    """One kernel over elements that reads all but the last operand and writes that one."""
    shape = operands[-1].shape
    cols = shape[-1] if shape else 1
    sizes = (math.prod(shape) // max(cols, 1), cols)
    return _kernel(name, region, ("elementwise", "cast"), sizes, operands)


def _kernel(
    name: str,
    region: RegionWork,
    does: tuple[Literal["elementwise", "reduce"], str],
    sizes: tuple[int, int],
    operands: tuple[hw.Operand, ...],
) -> RegionWork:
    """A kernel over rows and columns that reads all but the last operand and writes that one."""
    rows, cols = sizes
    kind, detail = does
    op = Op(
        name=name, kind=kind, sizes={"rows": rows, "cols": cols}, operands=operands, detail=detail
    )
    return replace(
        region, name=name, kind=kind, role="training", ops=(op,), reads=operands[:-1],
        writes=operands[-1:],
    )  # fmt: skip


def _between(region: RegionWork, *, is_product: bool) -> Iterator[RegionWork]:
    """Operators that are no products: a region of them, or what a product's kernel has fused."""
    if not is_product:
        yield replace(region, name=f"{region.name}@backward")
        return
    for op in region.ops:
        if op.kind in WEIGHTED:
            continue
        reads = tuple(one for one in op.operands if one.name != "output")
        writes = tuple(one for one in op.operands if one.name == "output")
        yield replace(
            region, name=f"{op.name}@backward", kind=op.kind, ops=(op,), reads=reads,
            writes=writes,
        )  # fmt: skip


def _update(work: Work, method: Method, blocks: int) -> RegionWork:
    """One kernel over all parameters: reads gradients and states, writes states and copies.

    Copies of the weights are written as products read them (`copies_of`); the compensation of
    `kahan` is read and written beside them.
    """
    operands: list[hw.Operand] = []
    weights = _weights(work)
    tables = frozenset(_tables(work))
    for name, weight in weights.items():
        formats = formats_of_parameter(method, name, blocks)
        operands += _moved(weight, "weight_gradient", formats.operand("weight_gradient", "wgrad"))
        kept = formats.operand("master_weight", "update")
        operands += _moved(weight, "master_weight", kept)
        if method.update.mode == "kahan":
            operands += _moved(weight, "compensation", kept)
        small = weight.elements < method.update.states_from
        for role in moments_of(method):
            given = IN_FULL if small else formats.operand(role, "update")
            operands += _moved(weight, role, given)
        for pass_, copy in copies_of(formats, is_table=name in tables).items():
            operands += _moved(weight, f"weight@{pass_}", copy)
    reads = tuple(one for one in operands if one.name == "other")
    writes = tuple(one for one in operands if one.name == "output")
    total = sum(weight.elements for weight in weights.values())
    op = Op(
        name="update", kind="elementwise", sizes={"rows": max(total // 1024, 1), "cols": 1024},
        operands=(*reads, *writes), detail="cast",
    )  # fmt: skip
    return RegionWork(
        name="update", kind="elementwise", role="training", ops=(op,), reads=reads, writes=writes
    )


def _weights(work: Work) -> dict[str, hw.Operand]:
    """Every weight by name, tables whole: a look-up reads some of their rows."""
    found: dict[str, hw.Operand] = {}
    for op in (op for region in work.regions for op in region.ops):
        for operand in op.operands:
            if operand.is_weight and op.kind == "embedding":
                whole = (op.sizes["vocab"], op.sizes["dim"])
                found[operand.value] = replace(operand, shape=whole)
            elif operand.is_weight:
                found.setdefault(operand.value, operand)
    return found


def _moved(weight: hw.Operand, what: str, given: Operand) -> Iterator[hw.Operand]:
    """A tensor of the update: gradients are read, copies are written, the others both."""
    plain = replace(weight, is_weight=False, value=f"{weight.value}.{what}", contraction_axes=())
    stored = _in_format(plain, given)
    if not what.startswith("weight@"):
        yield replace(stored, name="other")
    if what != "weight_gradient":
        yield replace(stored, name="output", value=f"{stored.value}.new")
