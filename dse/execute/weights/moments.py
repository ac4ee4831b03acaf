"""First and second moments of what a weight multiplies, over calibration batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.program.program import Program
from dse.execute.weights.product import Product, zeros_for


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

    def __call__(self, x: Tensor) -> Tensor:
        """X, which has been seen."""
        seen = torch.nan_to_num(x.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
        rows = self._product.rows(seen)
        self._count += rows.shape[1]
        if not rows.shape[1]:
            return x
        self._sum += rows.sum(1, dtype=torch.float64)
        self.largest = torch.maximum(self.largest, rows.abs().amax(1))
        if self._outer is not None:
            self._outer.baddbmm_(rows.mT, rows)
        return x

    def add(self, other: Moments) -> None:
        """Takes in what another one has seen of rows of the same depth."""
        self._count += other._count
        self._sum += other._sum
        self.largest = torch.maximum(self.largest, other.largest)
        if self._outer is not None and other._outer is not None:
            self._outer += other._outer

    @property
    def mean(self) -> Tensor:
        """(groups, depth) float64; zeros where nothing was seen."""
        return self._sum / max(self._count, 1)

    def second(self, *, centred: bool) -> Tensor:
        """(groups, depth, depth) mean outer product of the rows, or of their deviations."""
        assert self._outer is not None
        outer = self._outer.double() / max(self._count, 1)
        if centred:
            outer -= self.mean[..., None] * self.mean[..., None, :]
        return outer

    @property
    def macs(self) -> int:
        """Multiply-accumulates spent on outer products."""
        return 0 if self._outer is None else self._count * self._outer.numel()


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
