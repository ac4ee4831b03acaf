"""One operation of a tensor-parallel network as one GPU executes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from hwmodels.errors import WorkError
from hwmodels.work.work import Op, Operand, Work

PROJECTED = frozenset("qkv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Heads of an attention."""

    query: int
    key: int
    depth: int

    def of_one(self, ways: int, where: str) -> Heads:
        """The heads of one of `ways` GPUs; key heads are copied where there are fewer than GPUs.

        Raises:
            WorkError: The heads cannot be dealt out evenly.
        """
        if self.query % ways or (self.key % ways and ways % self.key):
            raise WorkError(
                f"{where}: tensor_parallel {ways} does not divide {self.query} heads with "
                f"{self.key} key and value heads; choose a divisor of the heads"
            )
        return replace(self, query=self.query // ways, key=max(self.key // ways, 1))


def heads_by_region(work: Work) -> dict[str, Heads]:
    """Heads of the next attention, for each region that projects queries, keys or values."""
    found: dict[str, Heads] = {}
    heads: Heads | None = None
    for region in reversed(work.regions):
        for op in region.ops:
            if op.kind == "attention":
                s = op.sizes
                heads = Heads(query=s["H"], key=s.get("HK", s["H"]), depth=s["D"])
        if heads is not None and region.role and set(region.role) <= PROJECTED:
            found[region.name] = heads
    return found


def column_op(op: Op, ways: int, heads: Heads | None, role: str) -> tuple[Op, Fraction]:
    """A projection that keeps a part of its outputs, and that part.

    Raises:
        WorkError: `ways` does not divide the outputs; a vocabulary is padded instead.
    """
    width = op.sizes["N"]
    if heads is not None:
        kept = _head_columns(width, heads, heads.of_one(ways, op.name))
    elif role == "head":
        kept = -(-width // ways)
    else:
        kept = _divided(width, ways, op.name, "outputs")
    share = Fraction(kept, width)
    operands = tuple(_column_operand(operand, kept, share) for operand in op.operands)
    return replace(op, sizes={**op.sizes, "N": kept}, operands=operands), share


def row_op(op: Op, ways: int) -> Op:
    """A projection that keeps a part of its inputs; its outputs are partial sums, full in size.

    Raises:
        WorkError: `ways` does not divide the inputs.
    """
    kept = _divided(op.sizes["K"], ways, op.name, "inputs")
    share = Fraction(kept, op.sizes["K"])
    operands = tuple(
        _cut(operand, operand.contraction_axes[0], kept)
        if operand.name in ("input", "weight") and operand.contraction_axes
        else shrunk(operand, share)
        if operand.name == "input"
        else operand
        for operand in op.operands
    )
    return replace(op, sizes={**op.sizes, "K": kept}, operands=operands)


def mixed_heads_op(op: Op, ways: int) -> tuple[Op, Fraction]:
    """Attention over a part of the heads, and that part of the queries.

    Raises:
        WorkError: As `Heads.of_one`.
    """
    s = op.sizes
    heads = Heads(query=s["H"], key=s.get("HK", s["H"]), depth=s["D"])
    mine = heads.of_one(ways, op.name)
    operands = tuple(
        _cut(operand, 1, mine.key if operand.name in ("k", "v") else mine.query)
        for operand in op.operands
    )
    sizes = {**s, "H": mine.query, "HK": mine.key}
    # The decomposition is of the whole: a split pattern runs as the one kernel that it is.
    return replace(op, sizes=sizes, operands=operands, decomposition=()), Fraction(1, ways)


def look_up_op(op: Op, ways: int) -> Op:
    """A look-up in a part of the table; rows that are elsewhere come out as zeros."""
    vocabulary = -(-op.sizes["vocab"] // ways)
    operands = tuple(
        _cut(operand, 0, vocabulary) if operand.is_weight else operand for operand in op.operands
    )
    return replace(op, sizes={**op.sizes, "vocab": vocabulary}, operands=operands)


def plain_op(op: Op, shares: Mapping[str, Fraction]) -> tuple[Op, Fraction]:
    """An operation on the parts of its inputs that a GPU has, and the part that it writes.

    An output is as partial as the input of its size, else as the largest partial one. Weights
    of a norm over partial features are partial with them.
    """
    partial = {o.value: shares[o.value] for o in op.operands if o.value in shares}
    if not partial:
        return op, Fraction(1)
    by_size = {o.elements: partial[o.value] for o in op.operands if o.value in partial}
    most = max(partial.values())
    outputs = [o for o in op.operands if o.name == "output"]
    written = {o.value: by_size.get(o.elements, most) for o in outputs}
    operands = tuple(
        shrunk(o, written.get(o.value) or partial.get(o.value, Fraction(1))) for o in op.operands
    )
    kept = [o for o in operands if o.name == "output"]
    sizes = _plain_sizes(op.sizes, outputs, kept)
    part = replace(op, sizes=sizes, operands=operands, decomposition=())
    return part, max(written.values(), default=most)


def shrunk(operand: Operand, share: Fraction) -> Operand:
    """An activation with this part of its features or heads.

    The axis is the last one that divides, heads before positions; bytes are exact up to rounding
    where none does.
    """
    if share == 1 or operand.is_weight:
        return operand
    order = [-1] if len(operand.shape) < 4 else [1, 2, -1]
    order += [axis for axis in range(len(operand.shape)) if axis not in order]
    for axis in order:
        kept = operand.shape[axis] * share
        if kept.denominator == 1:
            return _cut(operand, axis, int(kept))
    largest = max(range(len(operand.shape)), key=operand.shape.__getitem__)
    return _cut(operand, largest, math.ceil(operand.shape[largest] * share))


def _plain_sizes(
    sizes: Mapping[str, int], before: Sequence[Operand], after: Sequence[Operand]
) -> Mapping[str, int]:
    """Rows and columns of what is left: columns where the rows themselves got shorter."""
    if not before or "rows" not in sizes or "cols" not in sizes:
        return sizes
    whole, part = before[0].shape[-1], after[0].shape[-1]
    if sizes["cols"] == whole and part < whole and len(before) == 1:
        return {**sizes, "cols": part}
    left = sum(o.elements for o in after) / max(sum(o.elements for o in before), 1)
    return {**sizes, "rows": max(1, round(sizes["rows"] * left))}


def _head_columns(width: int, heads: Heads, mine: Heads) -> int:
    """Outputs that a GPU keeps of a projection to `width`: whole heads."""
    for count, kept in (
        (heads.query, mine.query),
        (heads.key, mine.key),
        (2 * heads.key, 2 * mine.key),
        (heads.query + 2 * heads.key, mine.query + 2 * mine.key),
    ):
        if width == count * heads.depth:
            return kept * heads.depth
    return width


def _column_operand(operand: Operand, kept: int, share: Fraction) -> Operand:
    """A weight cut along its outputs (the last axis that is not summed over), a bias with it."""
    if operand.name == "weight":
        axes = [a for a in range(len(operand.shape)) if a not in operand.contraction_axes]
        return _cut(operand, axes[-1], kept)
    if operand.name == "bias":
        return _cut(operand, len(operand.shape) - 1, kept)
    return shrunk(operand, share) if operand.name == "output" else operand


def _cut(operand: Operand, axis: int, size: int) -> Operand:
    shape = list(operand.shape)
    shape[axis] = size
    return replace(operand, shape=tuple(shape))


def _divided(size: int, ways: int, where: str, what: str) -> int:
    if size % ways:
        raise WorkError(
            f"{where}: tensor_parallel {ways} does not divide its {size} {what}; choose a divisor"
        )
    return size // ways
