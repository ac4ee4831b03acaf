"""Fitted scales: scale, offset and the level above, searched for the least squared error.

A group's scale is found by trying several, each followed by the least-squares solution for the
codes that it gives (as llama.cpp's `make_qx_quants` and `make_qkx2_quants` do); then scales are
rounded, onto codes times one number where there is a level above, and that number is solved for
once more with all codes as they became.

Shapes are (slices, super groups, groups, elements) throughout; without a level above, every group
is a super group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dse.numerics.eager import round_to_grid
from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.grid import grid_of, thresholds_of
from hwmodels.formats.numbers import borders, sorted_values
from hwmodels.formats.quantizer import Encoding, Format, Quantizer

CHUNK = 1 << 18
"""Elements that are searched together: they stay in a core's cache."""
TRIES = tuple(step / 10 for step in range(-9, 10))
"""Trial places of the largest value, in steps of the grid beyond its end, beside an offset."""
WIDE_TRIES = tuple(step / 10 for step in range(-15, 16, 2))
"""The same without an offset."""
REACHES = (0, 1, 2, 4, 7)
"""Codes of scales below the last one that the largest scale of a super group may come to have."""
STATISTICS = ("absmax", "minmax", "mse", "output_mse")
Nearest = Callable[[Tensor], Tensor]
"""Values in units of their scale -> the nearest code's value, as float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedScales:
    """(slices, groups) each, float32, as they multiply and are added."""

    scales: Tensor
    offsets: Tensor | None = None


def fitted_scales(
    rows: Tensor, quantizer: Quantizer, importance: Tensor | None = None
) -> FittedScales:
    """The scales and offsets of every group of a matrix.

    A group with a NaN or an Inf makes all under its super scale NaN.

    Args:
        rows: (slices, depth) float32.
        quantizer: of a fitted format; statistics `absmax` and `minmax` skip the search.
        importance: what errors count, (slices or 1, depth), not negative; all the same by default.

    Raises:
        QuantizeError: another statistic.
    """
    if quantizer.statistic not in STATISTICS:
        raise QuantizeError(
            f"{quantizer.name}: scales of {quantizer.format.name} are fitted; expected a "
            f"statistic of {', '.join(STATISTICS)}, got {quantizer.statistic}"
        )
    device = rows.device
    # A search compares sums, and a GPU adds in another order: on the host, the same weights have
    # the same scales wherever they are used.
    rows = rows.cpu()
    count = max(CHUNK // max(rows.shape[1], 1), 1)
    weights = rows.new_ones(1, 1) if importance is None else importance.to(rows)
    weights = weights.expand(rows.shape)
    parts = [
        _of_rows(part, weight, quantizer)
        for part, weight in zip(torch.split(rows, count), torch.split(weights, count), strict=True)
    ]
    offsets = [part.offsets for part in parts if part.offsets is not None]
    return FittedScales(
        scales=torch.cat([part.scales for part in parts]).to(device),
        offsets=torch.cat(offsets).to(device) if offsets else None,
    )


def _of_rows(rows: Tensor, weights: Tensor, quantizer: Quantizer) -> FittedScales:
    format = quantizer.format
    slices, depth = rows.shape
    group = min(format.group, depth) if format.granularity == "group" else depth
    groups = -(-depth // group)
    many = min(format.super_group // format.group, groups) if format.super_group else 1
    missing = -depth % (group * many)
    # What is short repeats its last value, which changes no extremum and counts for nothing.
    x = torch.nn.functional.pad(rows[None], (0, missing), mode="replicate")[0]
    w = torch.nn.functional.pad(weights, (0, missing)).reshape(slices, -1, many, group)
    x = x.reshape(slices, -1, many, group)
    finite = x.isfinite().all(-1, True).all(-2, True)
    fit = _fitted(
        torch.where(finite, x, 0.0), w, format, search=quantizer.statistic.endswith("mse")
    )

    def flat(part: Tensor) -> Tensor:
        return torch.where(finite, part, torch.nan).reshape(slices, -1)[:, :groups]

    offsets = None if fit.offset is None else flat(fit.offset.values)
    return FittedScales(scales=flat(fit.scale.values), offsets=offsets)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """Scales or offsets of groups: codes times the one number above them."""

    codes: Tensor
    above: Tensor
    """(slices, super groups, 1, 1)."""

    @property
    def values(self) -> Tensor:
        """As they multiply or are added; both factors are short, so that this is exact."""
        return self.codes * self.above


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fit:
    """Everything that stands for the elements of groups but their codes."""

    scale: _Part
    offset: _Part | None = None

    def codes(self, x: Tensor, nearest: Nearest) -> Tensor:
        """The codes of elements."""
        shifted = x if self.offset is None else x - self.offset.values
        return nearest(_divided(shifted, self.scale.values))

    def value(self, codes: Tensor) -> Tensor:
        """The elements of codes."""
        scaled = codes * self.scale.values
        return scaled if self.offset is None else scaled + self.offset.values


def _fitted(x: Tensor, w: Tensor, format: Format, *, search: bool) -> _Fit:
    assert format.scale is not None, "a fitted format has a scale"
    nearest = _nearest(format.element)
    offset = None
    if format.offset is None:
        scale = _scale(x, w, format.element, search=search)
    else:
        scale, offset = _scale_and_offset(x, w, format, search=search)

    def stored(reach: int) -> _Fit:
        assert format.scale is not None
        above = None
        if offset is not None and format.offset is not None:
            above = _stored(offset, format.offset, format, reach=reach)
        return _Fit(scale=_stored(scale, format.scale.encoding, format, reach=reach), offset=above)

    fit = stored(0)
    if format.super_scale is None or not search:
        return fit
    fit = _refitted(x, w, fit, format.super_scale, nearest)
    for reach in REACHES[1:]:
        tried = stored(reach)
        tries = [tried]
        if fit.offset is not None:
            tries += [replace(fit, scale=tried.scale), replace(fit, offset=tried.offset)]
        for one in tries:
            again = _refitted(x, w, one, format.super_scale, nearest)
            fit = _better(x, w, again, fit, nearest)
    return fit


def _better(x: Tensor, w: Tensor, tried: _Fit, fit: _Fit, nearest: Nearest) -> _Fit:
    """Of two fits the one of less error, super group by super group."""
    errors = [_squares(x, w, one.value(one.codes(x, nearest))) for one in (tried, fit)]
    better = errors[0] < errors[1]

    def chosen(new: _Part, old: _Part) -> _Part:
        return _Part(
            codes=torch.where(better, new.codes, old.codes),
            above=torch.where(better, new.above, old.above),
        )

    offset = fit.offset
    if offset is not None and tried.offset is not None:
        offset = chosen(tried.offset, offset)
    return _Fit(scale=chosen(tried.scale, fit.scale), offset=offset)


def _nearest(encoding: Encoding) -> Nearest:
    """Rounding to an encoding without specials, which may take the memory of what it is given."""
    if encoding.kind == "int":
        return lambda y: y.round_().clamp_(encoding.min, encoding.max)
    values = torch.from_numpy(sorted_values(encoding)).float()
    between = torch.from_numpy(borders(encoding)).float()
    return lambda y: values.to(y.device)[torch.bucketize(y, between.to(y.device))]


def _scale(x: Tensor, w: Tensor, element: Encoding, *, search: bool) -> Tensor:
    """Scales alone; the largest magnitude meets the far end of the grid, whatever its sign.

    A search tries the near end, too, where the grid is not symmetric: large values of both signs
    have room there that they lack otherwise.
    """
    nearest = _nearest(element)
    largest = _largest(x, -1)
    best = largest / _far_end(element)
    if not search:
        return best
    most = torch.full_like(best, -1.0)
    for place in _places(element):
        q = nearest(x / _no_zero(largest / place))
        weighted = w * q
        met, norm = (weighted * x).sum(-1, True), weighted.mul_(q).sum(-1, True)
        found = torch.where(norm > 0, met / norm, 0.0)
        # What the squared error falls by, from that of all zeros.
        fall = met * found
        best = torch.where(fall > most, found, best)
        most = torch.maximum(fall, most)
    return best


def _places(element: Encoding) -> list[float]:
    """Places on a grid, and beside its ends, where the largest value may come to lie."""
    values = sorted_values(element).tolist()
    ends = [(values[0], values[0] - values[1]), (values[-1], values[-1] - values[-2])]
    if _far_end(element) > 0:
        ends.reverse()
    if values == [-value for value in reversed(values)]:
        ends = ends[:1]
    return [end + share * step for end, step in ends for share in WIDE_TRIES]


def _scale_and_offset(
    x: Tensor, w: Tensor, format: Format, *, search: bool
) -> tuple[Tensor, Tensor]:
    """Scales and offsets of codes from 0."""
    nearest, levels = _nearest(format.element), format.element.max
    below_zero = _is_subtracted(format)
    low, high = x.amin(-1, True), x.amax(-1, True)
    if below_zero:
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale, offset = (high - low) / levels, low
    if not search:
        return scale, offset
    least = torch.full_like(scale, torch.inf)
    above, weighted = x - low, w * x
    total, sum_x = w.sum(-1, True), weighted.sum(-1, True)
    for share in TRIES:
        q = nearest(above / _no_zero((high - low) / (levels + share)))
        wq = w * q
        sums = total, wq.sum(-1, True), sum_x, (wq * q).sum(-1, True), wq.mul_(x).sum(-1, True)
        a, b = _line(*sums, below_zero=below_zero)
        off = q.mul_(a).add_(b).sub_(x)
        error = off.mul_(off).mul_(w).sum(-1, True)
        better = error < least
        scale, offset = torch.where(better, a, scale), torch.where(better, b, offset)
        least = torch.minimum(error, least)
    return scale, offset


def _line(
    n: Tensor, sum_q: Tensor, sum_x: Tensor, sum_qq: Tensor, sum_qx: Tensor, *, below_zero: bool
) -> tuple[Tensor, Tensor]:
    """The weighted least squares of x = scale q + offset, from sums; no scale is negative."""
    determinant = n * sum_qq - sum_q * sum_q
    scale = _divided(n * sum_qx - sum_q * sum_x, determinant).clamp(min=0.0)
    offset = _divided(sum_x - scale * sum_q, n)
    if not below_zero:
        return scale, offset
    through_zero = _divided(sum_qx, sum_qq).clamp(min=0.0)
    return torch.where(offset > 0, through_zero, scale), offset.clamp(max=0.0)


def _stored(values: Tensor, encoding: Encoding, format: Format, *, reach: int = 0) -> _Part:
    """Values as a file holds them: rounded, or codes times a number for each super group.

    `reach`: how many codes before the last one the largest value has.
    """
    sign = 1.0 if encoding.signed or encoding is not format.offset else -1.0
    if format.super_scale is None:
        return _Part(codes=_rounded(values, encoding), above=values.new_ones(1, 1, 1, 1))
    # Where the largest meets the far end, all codes are used.
    end = _far_end(encoding)
    wanted = sign * _largest(values, -2) / (end - math.copysign(reach, end))
    above = sign * _rounded(wanted, format.super_scale)
    return _Part(codes=_nearest(encoding)(_divided(values, above)), above=above)


def _refitted(x: Tensor, w: Tensor, fit: _Fit, above: Encoding, nearest: Nearest) -> _Fit:
    """The numbers above solved for, with all codes as they are; kept where the error falls."""
    tried = _solved(x, w, fit.codes(x, nearest), fit, above)
    return _better(x, w, tried, fit, nearest)


def _solved(x: Tensor, w: Tensor, q: Tensor, fit: _Fit, above: Encoding) -> _Fit:
    """The numbers above of least squared error, rounded; as they were where none is best."""

    def total(values: Tensor) -> Tensor:
        return (w * values).sum((-2, -1), True)

    def part(old: _Part, numerator: Tensor, denominator: Tensor) -> _Part:
        found = torch.where(denominator > 0, numerator / denominator, old.above)
        sign = torch.where(old.above < 0, -1.0, 1.0)
        return _Part(codes=old.codes, above=sign * _rounded(sign * found, above))

    a = q * fit.scale.codes
    aa, ax = total(a * a), total(a * x)
    if fit.offset is None:
        return _Fit(scale=part(fit.scale, ax, aa))
    b = fit.offset.codes.expand_as(a)
    ab, bb, bx = total(a * b), total(b * b), total(b * x)
    determinant = aa * bb - ab * ab
    solvable = torch.where(determinant > 1e-6 * aa * bb, determinant, 0.0)
    return _Fit(
        scale=part(fit.scale, bb * ax - ab * bx, solvable),
        offset=part(fit.offset, aa * bx - ab * ax, solvable),
    )


def _squares(x: Tensor, w: Tensor, values: Tensor) -> Tensor:
    """Weighted squared errors of super groups."""
    return (w * (values - x).square()).sum((-2, -1), True)


def _largest(values: Tensor, axis: int) -> Tensor:
    """Along an axis, the value of largest magnitude with its sign."""
    return values.gather(axis, values.abs().argmax(axis, keepdim=True))


def _far_end(encoding: Encoding) -> float:
    """The end of largest magnitude."""
    return encoding.min if -encoding.min >= encoding.max else encoding.max


def _rounded(values: Tensor, encoding: Encoding) -> Tensor:
    """On the grid of an encoding; beyond its end, its end."""
    within = values.clamp(encoding.min, encoding.max)
    return round_to_grid(within, grid_of(encoding), thresholds_of(encoding))


def _no_zero(y: Tensor) -> Tensor:
    """Divisors under which zeros stay zeros: cheaper than a choice for each element."""
    return torch.where(y == 0, torch.inf, y)


def _divided(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(y == 0, 0.0, x / y)


def _is_subtracted(format: Format) -> bool:
    """Whether offsets are the magnitudes of minima below zero."""
    return format.offset is not None and not format.offset.signed
