"""The interval of a speed-up, a ratio of two latencies of one device under one runtime.

What two networks have in common cancels in their ratio, errors included, so that its interval is
narrower than those of the two latencies together. To first order

    log(error of L_a / L_b) = sum_k d_k e_k,  d_k = t_ak / L_a - t_bk / L_b

over the kernels k that either runs, t their predicted seconds, e_k the log of each one's error. A
kernel's error is taken as a sum of independent parts, each shared with the kernels that are alike
in something: kind, number types, rows, weight, sizes, and what is its own. With r_p the share of a
part in the variance and h_k the half-width of the kernel's own interval,

    h^2 = sum_p sum_groups (sum_{k in group} d_k h_k sqrt(r_p))^2

is the square of a distance: 0 for equal assignments, and never above the sum of what the same
parts say of the two latencies. Where the shares come from: `studies/speedup_interval`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.work.kernel import Kernel, KernelKind, PricedKernel
from hwmodels.work.loops import ConvolutionLoops, ProductLoops

Floats = NDArray[np.float64]
Times = Mapping[PricedKernel, float]
"""Seconds of every kernel of a latency, as `CostTable.times` tells them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Shares of the variance of a kernel's log error, which add up to 1, by who has them alike."""

    kind: float
    """All kernels of the kind (and, of those that multiply nothing, of the name)."""
    numbers: float
    """Those of one kind, name and formats of the operands."""
    rows: float
    """Those, with as many rows: one call's products of one type."""
    weight: float
    """Those, with a second operand of one shape: one layer in calls of all sizes."""
    sizes: float
    """Kernels of one kind and name that are equal in all sizes, whatever their formats."""
    own: float
    """Nobody."""


SEEN = Parts(kind=0.0, numbers=0.08, rows=0.13, weight=0.19, sizes=0.01, own=0.59)
"""GEMMs of devices whose tables the estimator was fitted to, on shapes that were left out."""
UNSEEN = Parts(kind=0.05, numbers=0.16, rows=0.13, weight=0.28, sizes=0.05, own=0.33)
"""GEMMs of devices that were left out; assumed for all kernels that no table is open of."""
MOVES = Parts(kind=0.1, numbers=0.06, rows=0.0, weight=0.0, sizes=0.55, own=0.29)
"""Kernels that multiply nothing, on the device that their constants come from."""
OTHER_PRODUCTS = Parts(kind=0.0, numbers=0.0, rows=0.0, weight=0.0, sizes=0.2, own=0.8)
"""Attention and convolutions there."""
MEASURED = ("a100-sxm-80gb", "b200-sxm", "h100-sxm", "l40s")
"""Devices whose GEMMs the estimator was fitted to."""
FITTED_DEVICES = ("h100-sxm",)
"""Devices that the constants of other kernels than GEMMs were fitted on."""
FITTED_KINDS: Mapping[KernelKind, Parts] = {
    **dict.fromkeys(("pointwise", "rowwise", "reduce", "embedding", "quantize"), MOVES),
    **dict.fromkeys(("attention", "conv2d"), OTHER_PRODUCTS),
    "tiled_gemm": SEEN,
}
"""Shares of those kinds there."""
GEMMS: tuple[KernelKind, ...] = ("gemm", "tiled_gemm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """A number that follows the times of calls, such as the requests that are answered."""

    times: Times
    """Shares of the kernels of all calls in it, in any unit."""
    elasticity: float
    """Of the number in the time of all calls together."""

    @classmethod
    def of(cls, calls: Sequence[Times], elasticities: Sequence[float]) -> Following:
        """A number with its elasticities in the times of calls, negative ones counted as 0."""
        found: dict[PricedKernel, float] = {}
        # Longer calls do nothing good but by the chance of a simulation.
        shares = [max(one, 0.0) if math.isfinite(one) else 0.0 for one in elasticities]
        for times, share in zip(calls, shares, strict=True):
            if not share:
                continue
            total = sum(times.values())
            for kernel, seconds in times.items():
                found[kernel] = found.get(kernel, 0.0) + share * seconds / total
        return cls(times=found, elasticity=sum(shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Latency of a base over latency of a point, above 1 where the point is faster."""

    factor: float
    low: float
    high: float
    """The interval that holds the ratio nine times in ten."""

    @classmethod
    def of(cls, factor: float, half_width: float) -> Speedup:
        """A predicted factor with the half-width of its logarithm."""
        reach = math.exp(half_width)
        return cls(factor=factor, low=factor / reach, high=factor * reach)

    @property
    def inverse(self) -> Speedup:
        """That of the base over the point."""
        return Speedup(factor=1 / self.factor, low=1 / self.high, high=1 / self.low)

    @property
    def is_tied(self) -> bool:
        """Whether the interval leaves open which of the two is faster."""
        return self.low <= 1.0 <= self.high


def speedup(base: Times, point: Times, device: str) -> Speedup:
    """A point's speed-up over a base, both of one device under one runtime.

    Args:
        base: seconds by kernel.
        point: likewise; one that takes no time is infinitely faster.
        device: name of the device.
    """
    half = float(half_widths([base, point], device)[0, 1])
    slow, fast = sum(base.values()), sum(point.values())
    if fast == 0:
        return Speedup.of(math.inf if slow else 1.0, half)
    return Speedup.of(slow / fast, half)


def half_widths(times: Sequence[Times], device: str) -> Floats:
    """Half-widths of the log ratios of every two latencies, shape (latencies, latencies)."""
    errors = error_parts(times, device)
    return np.array([np.linalg.norm(errors - one, axis=1) for one in errors])


def error_parts(times: Sequence[Times], device: str) -> Floats:
    """Parts of the log errors of latencies in units of their half-widths, (latencies, parts).

    The length of a row is the half-width of the latency alone, by these parts.
    """
    places: dict[Hashable, int] = {}
    rows: list[dict[int, float]] = []
    for one in times:
        row: dict[int, float] = {}
        total = sum(one.values())
        for priced, seconds in one.items():
            reach = seconds / total * half_width(priced)
            for key, share in _groups(priced.kernel, device):
                place = places.setdefault(key, len(places))
                row[place] = row.get(place, 0.0) + reach * math.sqrt(share)
        rows.append(row)
    found = np.zeros((len(times), len(places)))
    for index, row in enumerate(rows):
        found[index, list(row)] = list(row.values())
    return found


def following_errors(numbers: Sequence[Following], device: str) -> Floats:
    """As `error_parts`, of numbers that follow calls: (numbers, parts)."""
    reach = np.array([one.elasticity for one in numbers])
    found: Floats = error_parts([one.times for one in numbers], device) * reach[:, None]
    return found


def half_width(priced: PricedKernel) -> float:
    """Half-width of a kernel's log error: of its interval, both sides alike."""
    cost = priced.cost
    if cost.low_s <= 0:
        return 0.0
    return math.log(cost.high_s / cost.low_s) / 2


def parts_of(kind: KernelKind, device: str) -> Parts:
    """Shares of the error of a kind of kernel on a device."""
    if kind == "gemm" and device in MEASURED:
        return SEEN
    on_fitted = FITTED_KINDS if device in FITTED_DEVICES else {}
    return on_fitted.get(kind, UNSEEN)


def _groups(kernel: Kernel, device: str) -> Iterator[tuple[Hashable, float]]:
    """Groups that a kernel shares parts of its error with, and the parts' shares."""
    name = (kernel.kind, kernel.detail)
    numbers = (*name, kernel.input_format, kernel.weight_format)
    rows, weight = _rows_and_weight(kernel)
    shared: Hashable = kernel.kind if kernel.kind in GEMMS else name
    keys: tuple[Hashable, ...] = (
        ("kind", shared),
        ("numbers", numbers),
        ("rows", numbers, rows),
        ("weight", numbers, weight),
        ("sizes", name, kernel.loops),
        ("own", kernel),
    )
    for key, share in zip(keys, astuple(parts_of(kernel.kind, device)), strict=True):
        if share > 0:
            yield key, share


def _rows_and_weight(kernel: Kernel) -> tuple[Hashable, Hashable]:
    """Rows of a kernel, and the shape of its second operand; the loops where it has neither."""
    if not isinstance(kernel.loops, ProductLoops | ConvolutionLoops):
        return kernel.loops, kernel.loops
    product = kernel.loops.product
    return product.m, (product.batch, product.n, product.k)
