"""The part of a prompt's call that a server asks for: logits of the last position alone."""

from __future__ import annotations

from dataclasses import replace

from hwmodels.work.work import CONTRACTING, Op, Operand, RegionWork, Work

HEAD = "head"
"""The role of the product that makes logits."""


def answering(work: Work, *, requests: int, tokens: int) -> Work:
    """The work of a call whose logits are asked of the last position of each request.

    The product that makes logits, and what only it feeds, have one row a request; all else is as
    it was. A call of one token, or one without such a product, is returned as it is.

    Args:
        work: a call, before it is split over GPUs.
        requests: in the call.
        tokens: of each request.
    """
    if tokens < 2:
        return work
    fewer: set[str] = set()
    regions = []
    for region in work.regions:
        values = {one.value for one in region.reads if not one.is_weight}
        follows = bool(values) and values <= fewer
        if follows or (region.role == HEAD and _multiplies(region, requests * tokens)):
            fewer |= {one.value for one in region.writes}
            regions.append(_last(region, requests, tokens))
        else:
            regions.append(region)
    return replace(work, regions=tuple(regions))


def _multiplies(region: RegionWork, rows: int) -> bool:
    found = [op.sizes.get("M") for op in region.ops if op.kind in CONTRACTING]
    return bool(found) and all(size == rows for size in found)


def _last(region: RegionWork, requests: int, tokens: int) -> RegionWork:
    return replace(
        region,
        ops=tuple(_op(op, requests, tokens) for op in region.ops),
        reads=tuple(_operand(one, requests, tokens) for one in region.reads),
        writes=tuple(_operand(one, requests, tokens) for one in region.writes),
    )


def _op(op: Op, requests: int, tokens: int) -> Op:
    sizes = {
        name: requests if name in ("M", "rows") and size == requests * tokens else size
        for name, size in op.sizes.items()
    }
    return replace(
        op,
        sizes=sizes,
        operands=tuple(_operand(one, requests, tokens) for one in op.operands),
        decomposition=tuple(_op(one, requests, tokens) for one in op.decomposition),
    )


def _operand(operand: Operand, requests: int, tokens: int) -> Operand:
    """Rows of all tokens stand first, in one axis or in two."""
    if operand.is_weight:
        return operand
    match operand.shape:
        case (first, second, *rest) if (first, second) == (requests, tokens):
            return replace(operand, shape=(requests, 1, *rest))
        case (first, *rest) if rest and first == requests * tokens:
            return replace(operand, shape=(requests, *rest))
        case _:
            return operand
