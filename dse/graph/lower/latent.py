"""Attention over compressed keys and values (MLA) in the cheaper of its two forms.

The graph has the absorbed form: one matrix brings queries to the compressed vectors, all heads
attend to these, another matrix brings the results back. The other form expands keys and values
by the same two matrices before, and attends to them head by head: fewer products where many
queries meet the same positions, which is how runtimes compute a prefill (vLLM, SGLang).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from hwmodels.work.work import Op, Operand

ByRegion = Mapping[str, Sequence[Op]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """The operations of one attention over compressed vectors."""

    absorb: Op
    """Queries times (heads, plain, rank)."""
    join: Op
    """Absorbed queries beside their rotated channels."""
    attention: Op
    restore: Op
    """Results times (heads, rank, values)."""

    @property
    def plain(self) -> int:
        """Channels of a key that are expanded."""
        return self.absorb.sizes["K"]

    @property
    def rank(self) -> int:
        """Channels of a compressed vector, the rotated ones apart."""
        return self.absorb.sizes["N"]

    @property
    def values(self) -> int:
        """Channels of an expanded value."""
        return self.restore.sizes["N"]

    @property
    def rotated(self) -> int:
        """Channels of a key that are kept as they are."""
        return self.attention.sizes["D"] - self.rank

    @property
    def absorbed_macs(self) -> int:
        """Multiply-accumulates as the graph computes it."""
        s = self.attention.sizes
        mixed = s["B"] * s["H"] * s["S"] * s["L"] * (2 * self.rank + self.rotated)
        return self.absorb.macs + mixed + self.restore.macs

    @property
    def expanded_macs(self) -> int:
        """Multiply-accumulates with all positions expanded."""
        s = self.attention.sizes
        expand = s["B"] * s["L"] * self.rank * s["H"] * (self.plain + self.values)
        width = self.plain + self.rotated + self.values
        return expand + s["B"] * s["H"] * s["S"] * s["L"] * width

    def expanded(self) -> tuple[Op, ...]:
        """The operations in the expanded form, by the names of those that they replace.

        The cache is stored and read as before. The kernel is counted with the mean of the widths
        of keys and values, where that is a whole number.
        """
        s = self.attention.sizes
        batch, heads, new, seen = s["B"], s["H"], s["S"], s["L"]
        key = self.plain + self.rotated
        width = key + self.values
        each = {"B": heads, "M": batch * seen, "K": self.rank}
        compressed = (batch, 1, seen, self.rank)
        keys = _operand(self.absorb, "output", (batch, heads, seen, self.plain))
        both = replace(keys, name="other", shape=(batch, heads, seen, self.plain + self.values))
        join = self.join
        return (
            _resized(
                self.absorb,
                {**each, "N": self.plain},
                {"input": compressed, "output": keys.shape},
            ),
            replace(
                join,
                sizes={**join.sizes, "cols": key},
                operands=(
                    replace(keys, name="input", shape=(batch, heads, new, self.plain)),
                    *(o for o in join.operands if o.value != keys.value and o.name != "output"),
                    _operand(join, "output", (batch, heads, new, key)),
                ),
            ),
            replace(
                whole := _resized(
                    self.attention,
                    {**s, "HK": heads, "D": key if width % 2 else width // 2},
                    {"q": (batch, heads, new, key), "output": (batch, heads, new, self.values)},
                ),
                operands=(*whole.operands, both),
                decomposition=(),
            ),
            _resized(self.restore, {**each, "N": self.values}, {"input": compressed}),
        )


def latents(by_region: ByRegion) -> Iterator[Latent]:
    """The attentions over compressed vectors among the operations of regions."""
    ops = list(chain.from_iterable(by_region.values()))
    made = {o.value: op for op in ops for o in op.operands if o.name == "output"}
    read: dict[str, list[Op]] = {}
    for op in ops:
        for operand in op.operands:
            if operand.name == "input":
                read.setdefault(operand.value, []).append(op)
    for op in ops:
        if op.kind != "attention" or "window" in op.sizes:
            continue
        q, k, v = (op.operand(name) for name in ("q", "k", "v"))
        output = op.operand("output")
        if q is None or k is None or v is None or output is None or k.value != v.value:
            continue
        join = made.get(q.value)
        before = [made.get(o.value) for o in join.operands if o.name != "output"] if join else []
        absorb = next((one for one in before if one is not None and _is_matrix(one)), None)
        restore = next((one for one in read.get(output.value, ()) if _is_matrix(one)), None)
        if join is None or absorb is None or restore is None:
            continue
        if absorb.sizes["N"] == restore.sizes["K"] <= op.sizes["D"]:
            yield Latent(absorb=absorb, join=join, attention=op, restore=restore)


def in_cheaper_form(by_region: Mapping[str, list[Op]]) -> tuple[dict[str, list[Op]], str]:
    """The operations with those attentions expanded that are cheaper so, and a remark on them."""
    chosen = [one for one in latents(by_region) if one.expanded_macs < one.absorbed_macs]
    if not chosen:
        return dict(by_region), ""
    changed = {op.name: op for one in chosen for op in one.expanded()}
    found = {name: [changed.get(op.name, op) for op in ops] for name, ops in by_region.items()}
    less, more = (
        sum(macs) / 1e9
        for macs in zip(*((o.expanded_macs, o.absorbed_macs) for o in chosen), strict=True)
    )
    positions = chosen[0].attention.sizes["S"]
    return found, (
        f"compressed keys and values (MLA) are expanded in a call of {positions} positions, as "
        f"runtimes do in prefill: {less:.3g} instead of {more:.3g} G multiply-accumulates"
    )


def _is_matrix(op: Op) -> bool:
    weight = op.operand("weight")
    return op.kind == "bmm" and weight is not None and weight.is_weight


def _operand(op: Op, name: str, shape: tuple[int, ...]) -> Operand:
    return next(replace(o, shape=shape) for o in op.operands if o.name == name)


def _resized(op: Op, sizes: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> Op:
    """The operation with other sizes and shapes of operands."""
    operands = tuple(
        replace(o, shape=shapes[o.name]) if o.name in shapes else o for o in op.operands
    )
    return replace(op, sizes=sizes, operands=operands)
