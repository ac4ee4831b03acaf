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
        self._halves = tuple(_Outer(product, device) for _ in range(2)) if second else ()
        """Of the first and of the second half of each batch."""

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
        if self._halves:
            wide = self._product.groups * self._product.depth
            rows = self._product.rows(seen, most=max(ELEMENTS // wide, 1))
            for half, part in zip(self._halves, torch.tensor_split(rows, 2, dim=1), strict=True):
                half.add(part)
        return x

    def add(self, other: Moments) -> None:
        """Takes in what another one has seen of rows of the same depth."""
        self._count += other._count
        self._sum += other._sum
        self.largest = torch.maximum(self.largest, other.largest)
        for half, more in zip(self._halves, other._halves, strict=False):
            half.join(more)

    @property
    def mean(self) -> Tensor:
        """(groups, depth) float64; zeros where nothing was seen."""
        return self._sum / max(self._count, 1)

    def second(self, *, centred: bool) -> Tensor:
        """(groups, depth, depth) mean outer product of the rows, or of their deviations."""
        whole = copy.deepcopy(self._halves[0])
        whole.join(self._halves[1])
        return whole.mean(centred=centred)

    def halves(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """As `second`, of the first half of every batch alone, and of the other."""
        first, second = (half.mean(centred=centred) for half in self._halves)
        return first, second

    @property
    def macs(self) -> int:
        """Multiply-accumulates spent on outer products."""
        return sum(half.count * half.total.numel() for half in self._halves)


class _Outer:
    """Sums of rows and of their outer products, both about a point near their mean.

    About zero a row that hardly changes would leave nothing but rounding of its deviations, and
    what is left need not be a moment of anything: a dead channel has the same value everywhere.
    """

    def __init__(self, product: Product, device: torch.device) -> None:
        self.count = 0
        self.total = zeros_for(product, device, second=True)
        self._sum = zeros_for(product, device, second=False)
        self._about = self._sum.to(self.total.dtype)
        """(groups, depth): the mean of the rows that came first."""

    def add(self, rows: Tensor) -> None:
        """Takes in (groups, rows, depth)."""
        if not rows.shape[1]:
            return
        if not self.count:
            # In float64 the mean of equal numbers is that number.
            self._about = rows.mean(1, dtype=torch.float64).to(rows.dtype)
        rows = rows - self._about[:, None]
        self.total.baddbmm_(rows.mT, rows)
        self._sum += rows.sum(1, dtype=torch.float64)
        self.count += rows.shape[1]

    def join(self, other: _Outer) -> None:
        """Takes in what another one has seen."""
        if not self.count:
            self._about = other._about
        apart = other._about.double() - self._about.double()
        moved = apart[..., None] * (other._sum + other.count * apart / 2)[..., None, :]
        self.total = self.total.double() + other.total + moved + moved.mT
        self._sum = self._sum + other._sum + other.count * apart
        self.count += other.count

    def mean(self, *, centred: bool) -> Tensor:
        """(groups, depth, depth) float64: of outer products of the rows or of their deviations."""
        count = max(self.count, 1)
        beside = self._sum / count
        found = self.total.double() / count - beside[..., None] * beside[..., None, :]
        if not centred:
            mean = self._about + beside
            found += mean[..., None] * mean[..., None, :]
        return found


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
