"""First and second moments of what a weight multiplies, over calibration batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.program.program import Program
from dse.execute.weights.product import Product, zeros_for

ELEMENTS = 1 << 22
"""Of the windows of a convolution whose outer products are taken in a batch: neighbours are much
alike, and copying all of them takes many times what the convolution itself does."""


class Moments:
    """Stands at an operand like a quantizer, changes nothing and sums up its rows.

    NaN and Inf count as zero, as in the statistics of `dse.execute.weights.calibrate`.
    """

    def __init__(self, product: Product, device: torch.device, *, second: bool) -> None:
        self._product = product
        self._count = 0
        self._sum = zeros_for(product, device, second=False)
        self.largest = self._sum.float()
        """(groups, depth): the largest magnitudes."""
        self._outer = zeros_for(product, device, second=True) if second else None
        self._outer_count = 0
        self._outer_sum = zeros_for(product, device, second=False)
        """Of the rows that outer products are of, which can be fewer."""

    def __call__(self, x: Tensor) -> Tensor:
        """X, which has been seen."""
        seen = torch.nan_to_num(x.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
        if not seen.numel():
            return x
        total = largest = seen
        alike = 1
        if self._product.is_convolution:
            # Sums and maxima over samples first: windows of one image instead of all.
            alike = len(seen)
            total, largest = seen.sum(0, keepdim=True), seen.abs().amax(0, keepdim=True)
        rows = self._product.rows(total)
        self._count += alike * rows.shape[1]
        self._sum += rows.sum(1, dtype=torch.float64)
        reached = self._product.rows(largest).abs().amax(1)
        self.largest = torch.maximum(self.largest, reached)
        if self._outer is not None:
            self._multiply(seen)
        return x

    def _multiply(self, seen: Tensor) -> None:
        """Adds outer products of rows."""
        assert self._outer is not None
        wide = self._product.groups * self._product.depth
        rows = self._product.rows(seen, most=max(ELEMENTS // wide, 1))
        self._outer.baddbmm_(rows.mT, rows)
        self._outer_sum += rows.sum(1, dtype=torch.float64)
        self._outer_count += rows.shape[1]

    def add(self, other: Moments) -> None:
        """Takes in what another one has seen of rows of the same depth."""
        self._count += other._count
        self._sum += other._sum
        self.largest = torch.maximum(self.largest, other.largest)
        if self._outer is not None and other._outer is not None:
            self._outer += other._outer
            self._outer_sum += other._outer_sum
            self._outer_count += other._outer_count

    @property
    def mean(self) -> Tensor:
        """(groups, depth) float64; zeros where nothing was seen."""
        return self._sum / max(self._count, 1)

    def second(self, *, centred: bool) -> Tensor:
        """(groups, depth, depth) mean outer product of the rows, or of their deviations."""
        assert self._outer is not None
        count = max(self._outer_count, 1)
        outer = self._outer.double() / count
        if centred:
            mean = self._outer_sum / count
            outer -= mean[..., None] * mean[..., None, :]
        return outer

    @property
    def macs(self) -> int:
        """Multiply-accumulates spent on outer products."""
        return 0 if self._outer is None else self._outer_count * self._outer.numel()


def together(parts: Sequence[Moments]) -> Moments:
    """Moments of all the rows that one weight multiplies; the parts stay as they are."""
    first, *others = parts
    if not others:
        return first
    found = copy.deepcopy(first)
    for other in others:
        found.add(other)
    return found


def observe_moments(
    program: Program,
    batches: Iterable[Mapping[str, Value]],
    products: Sequence[Product],
    *,
    second: frozenset[tuple[object, ...]],
) -> tuple[dict[tuple[object, ...], Moments], int]:
    """Moments by `Product.operand` over batches of feeds, and the MACs that it took.

    Args:
        program: the model.
        batches: calibration data.
        products: whose rows to look at; products of the same rows share their moments.
        second: operands whose outer products are wanted.
    """
    found: dict[tuple[object, ...], Moments] = {}
    bound: dict[str, Moments] = {}
    for product in products:
        if product.operand not in found:
            found[product.operand] = Moments(
                product, program.device, second=product.operand in second
            )
        bound[product.activation] = found[product.operand]
    macs = 0
    with torch.inference_mode():
        for feeds in batches:
            macs += program.run(feeds, bound).macs
    return found, macs + sum(moments.macs for moments in found.values())
