"""A network's work split over the GPUs of a tensor-parallel group, as one of them sees it.

Megatron's split: projections that open a block (q/k/v, gate and up) keep a part of their outputs,
those that close it (o, down) the matching part of their inputs, and one all-reduce follows; heads
of attention go with their projections, key and value heads are copied where there are fewer of
them than GPUs; embedding and vocabulary projection are split along the vocabulary, with an
all-reduce and an all-gather. Norms and the residual stream are computed by every GPU; what is not
recognised is too, behind an all-gather of what it reads.

Source: M. Shoeybi et al., "Megatron-LM", arXiv:1909.08053, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from hwmodels.errors import WorkError
from hwmodels.work.role import region_role
from hwmodels.work.shard import (
    Heads,
    column_op,
    heads_by_region,
    look_up_op,
    mixed_heads_op,
    plain_op,
    row_op,
    shrunk,
)
from hwmodels.work.work import CONTRACTING, Op, Operand, RegionWork, Work

WHOLE = Fraction(1)


def shard(work: Work, ways: int) -> Work:
    """The work of one of `ways` GPUs; collectives are regions of their own.

    Names of regions stay; those of collectives end in `/all_reduce` or `/all_gather`. With one
    GPU the work is returned as it is.

    Raises:
        WorkError: Heads or widths that `ways` does not divide, or nothing to split.
    """
    if ways == 1:
        return work
    sharding = _Sharding(ways=ways, heads=heads_by_region(work))
    regions = tuple(part for region in work.regions for part in sharding.parts(region))
    if not sharding.split:
        roles = ", ".join(sorted({region.role for region in work.regions}))
        raise WorkError(
            f"{work.name}: tensor_parallel {ways}: nothing to split; expected projections of "
            f"attention or feed-forward blocks, got regions of roles {roles}"
        )
    outputs = tuple(sharding.gathered.get(value, value) for value in work.outputs)
    return replace(work, regions=regions, outputs=outputs)


@dataclass(kw_only=True)
class _Sharding:
    """Parts of the values seen so far, and names of those that were gathered."""

    ways: int
    heads: Mapping[str, Heads]
    """Of the attention that a region's projections feed."""
    shares: dict[str, Fraction] = field(default_factory=dict)
    """Part of each value that a GPU holds; all of a value that is not named."""
    gathered: dict[str, str] = field(default_factory=dict)
    """Value that was put together again, to its new name."""
    split: bool = False
    """Whether any projection was split."""

    def parts(self, region: RegionWork) -> Iterator[RegionWork]:
        """The region's work of one GPU, with the collectives before and after it."""
        region = self._renamed(region)
        row = self._closes(region)
        if not row and region.kind != "attention":
            for operand in self._partial_factors(region):
                yield replace(self._gather(operand, region.name), repeats=region.repeats)
            region = self._renamed(region)
        ops = tuple(self._op(op, region, row=row) for op in region.ops)
        mine = _with_ops(region, ops, self.shares)
        yield mine
        if (row or region.kind == "embedding") and mine.writes:
            self.split = True
            shared = _collective(
                f"{region.name}/all_reduce", "all_reduce", self.ways, mine.writes[0]
            )
            yield replace(shared, repeats=region.repeats)
        elif region.role == "head":
            for operand in region.writes:
                if operand.value in self.shares:
                    yield self._gather(operand, region.name)

    def _closes(self, region: RegionWork) -> bool:
        return region_role(region.role).split == "rows" and any(self._partial_factors(region))

    def _partial_factors(self, region: RegionWork) -> list[Operand]:
        """Activations that the region's contractions multiply and of which a GPU has a part."""
        found = {
            operand.value: operand
            for op in region.ops
            if op.kind in CONTRACTING
            for operand in op.operands
            if operand.name != "output" and operand.value in self.shares
        }
        return list(found.values())

    def _op(self, op: Op, region: RegionWork, *, row: bool) -> Op:
        if op.kind in ("gemm", "grouped_gemm") and row:
            return row_op(op, self.ways)
        if op.kind in ("gemm", "grouped_gemm") and self._opens(region):
            done, share = column_op(op, self.ways, self.heads.get(region.name), region.role)
        elif op.kind == "attention" and self._holds_queries(op):
            done, share = mixed_heads_op(op, self.ways)
        elif op.kind == "embedding":
            return look_up_op(op, self.ways)
        else:
            done, share = plain_op(op, self.shares)
        if share != WHOLE:
            self.shares |= {o.value: share for o in op.operands if o.name == "output"}
        return done

    def _opens(self, region: RegionWork) -> bool:
        return region_role(region.role).split == "columns" or region.name in self.heads

    def _holds_queries(self, op: Op) -> bool:
        queries = op.operand("q")
        return queries is not None and queries.value in self.shares

    def _gather(self, operand: Operand, before: str) -> RegionWork:
        """An all-gather; from here on the value goes by the name of the whole."""
        name = f"{operand.value}/gathered"
        self.gathered[operand.value] = name
        part = shrunk(operand, self.shares[operand.value])
        whole = replace(operand, name="output", value=name, quantizer=None)
        return _collective(f"{before}/all_gather", "all_gather", self.ways, part, whole)

    def _renamed(self, region: RegionWork) -> RegionWork:
        if not self.gathered:
            return region
        ops = tuple(replace(op, operands=self._names(op.operands)) for op in region.ops)
        return replace(region, ops=ops, reads=self._names(region.reads))

    def _names(self, operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
        return tuple(
            operand
            if operand.name == "output"
            else replace(operand, value=self.gathered.get(operand.value, operand.value))
            for operand in operands
        )


def _with_ops(
    region: RegionWork, ops: tuple[Op, ...], shares: Mapping[str, Fraction]
) -> RegionWork:
    """The region with other ops, its border as they have it; a look-up's rows stay."""
    before = {operand.value: operand for op in region.ops for operand in op.operands}
    after = {operand.value: operand for op in ops for operand in op.operands}

    def border(operand: Operand) -> Operand:
        known = before.get(operand.value)
        if known is not None and known.shape == operand.shape:
            return replace(after[operand.value], name=operand.name)
        if operand.is_weight or operand.value not in shares:
            return operand
        return shrunk(operand, shares[operand.value])

    return replace(
        region,
        ops=ops,
        reads=tuple(border(operand) for operand in region.reads),
        writes=tuple(border(operand) for operand in region.writes),
    )


def _collective(
    name: str, detail: str, ways: int, part: Operand, whole: Operand | None = None
) -> RegionWork:
    """A region that sums a value in place, or that writes the `whole` of its parts."""
    read = replace(part, name="input", quantizer=None, contraction_axes=())
    writes = () if whole is None else (whole,)
    op = Op(
        name=name,
        kind="collective",
        sizes={"ways": ways},
        operands=(read, *writes),
        detail=detail,
    )
    return RegionWork(
        name=name, kind="collective", role=detail, ops=(op,), reads=(read,), writes=writes
    )
