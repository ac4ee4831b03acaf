"""Dot products whose running sum is rounded, at speed: compiled on the CPU, in torch elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from dse.numerics.numba import summation as compiled
from dse.numerics.numba.summation import ROWS, Sum
from dse.numerics.numba.threads import shared
from hwmodels.formats.accumulator import Accumulator
from hwmodels.formats.encoding import Encoding

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

FAST_ROUNDINGS = ("nearest_even", "zero", "stochastic")
"""Roundings that are computed here."""
EXACT = 2.0**24
"""Below it every whole number is a float32."""
SMALL = 2.0**-100
"""Well within the range of normal float32 numbers."""
SAFE_DIGITS = 22
"""Digits of a product and of the accumulator together up to which a sum that float32 rounds is no
closer to a tie than that: the second rounding gives what one would."""


def rounds_here(accumulator: Accumulator) -> bool:
    """Whether `rounded_sums` takes an accumulator: a float that keeps all of what it adds."""
    return (
        accumulator.kind == "float"
        and accumulator.alignment_bits == 0
        and accumulator.rounding in FAST_ROUNDINGS
    )


def rounded_sums(left: Tensor, right: Tensor, accumulator: Accumulator, seed: int = 0) -> Tensor:
    """The product of two matrices, its sum formed in float64 and rounded after every chunk.

    Args:
        left: (m, depth) float32.
        right: (depth, n) float32.
        accumulator: one that `rounds_here`.
        seed: of stochastic rounding.

    Returns:
        (m, n) float32. An output's draws depend on the seed, and on its number where rounding is
        on the CPU.
    """
    if left.shape[0] == 0 or right.shape[1] == 0 or left.shape[1] == 0:
        return left.new_zeros(left.shape[0], right.shape[1])
    if left.device.type != "cpu" or not _fills_binades(accumulator.element):
        return in_torch(left, right, accumulator, seed)
    if right.shape[1] < left.shape[0]:  # the longer side into vector lanes
        return _on_cpu(right.T, left.T, accumulator, seed).T
    return _on_cpu(left, right, accumulator, seed)


def integer_sums(left: Tensor, right: Tensor, accumulator: Accumulator) -> Tensor:
    """The product of two matrices of integers, summed in bits that wrap or stop, as float64.

    Args:
        left: (m, depth) whole numbers of any type.
        right: (depth, n), likewise.
        accumulator: of integers.
    """
    high = 2.0 ** (accumulator.bits - 1) - 1
    bound = _bound(left, right)
    every = accumulator.promote_every or left.shape[1] + 1
    if bound <= high and every > left.shape[1]:
        return _exact(left, right, bound)
    largest = left.abs().amax().item() * right.abs().amax().item()
    if accumulator.overflow == "wrap":
        parts = math.ceil(left.shape[1] / every)
        short = every * largest < EXACT and parts * (high + 1) < EXACT
        if left.device.type == "cpu" and short:
            return _in_float32(compiled.sum_turned, left, right, high, every, every)
        return _wrapping(left, right, accumulator, bound)
    if left.device.type != "cpu":
        return _saturated_in_torch(left, right, -high - 1, high, every)
    if not accumulator.promote_every and high + largest < EXACT:
        return _in_float32(compiled.sum_stopped, left, right, high, 1, every)
    a, b = _array(left, np.float64), _array(right, np.float64)
    out = np.zeros((a.shape[0], b.shape[1]))
    depth, width = b.shape

    def run(first: int, last: int) -> None:
        compiled.sum_saturating(
            a.ravel(), b.ravel(), out, first, last, depth, width, every, -high - 1, high
        )

    shared(a.shape[0], a.shape[0] * depth * width, run)
    return torch.from_numpy(out)


def _exact(left: Tensor, right: Tensor, bound: float) -> Tensor:
    """Products of integers whose sums stay below a bound: float32 holds those within 24 bits."""
    if bound < EXACT:
        return (left.float() @ right.float()).double()
    return left.double() @ right.double()


def _wrapping(left: Tensor, right: Tensor, accumulator: Accumulator, bound: float) -> Tensor:
    """Sums in two's complement: wrapping once at the end is wrapping after every product.

    What spills is added in 32 bits.
    """
    every = accumulator.promote_every or max(left.shape[1], 1)
    if bound < 2.0**31 and _largest_part(left, right, every) < 2.0 ** (accumulator.bits - 1):
        return _exact(left, right, bound)
    total = left.new_zeros(left.shape[0], right.shape[1], dtype=torch.float64)
    for first in range(0, left.shape[1], every):
        part = _exact(left[:, first : first + every], right[first : first + every], bound)
        total = _wrapped(total + _wrapped(part, accumulator.bits), max(accumulator.bits, 32))
    return total


def _largest_part(left: Tensor, right: Tensor, every: int) -> float:
    """A bound of the sums of every so many products."""
    missing = -left.shape[1] % every
    rows = functional.pad(left.float(), (0, missing)).reshape(left.shape[0], -1, every)
    columns = functional.pad(right.float(), (0, 0, 0, missing))
    columns = columns.reshape(-1, every, right.shape[1])
    norms = torch.linalg.vector_norm(rows, dim=2).amax(0)
    norms = norms * torch.linalg.vector_norm(columns, dim=1).amax(1)
    return float(norms.amax()) * (1 + 1e-4)


def in_torch(left: Tensor, right: Tensor, accumulator: Accumulator, seed: int = 0) -> Tensor:
    """`rounded_sums` in torch operations, on any device: a product a chunk."""
    a, b = left.double(), right.double()
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.float32, device=a.device)
    running = total.double()
    generator = torch.Generator(device=a.device).manual_seed(seed)
    every = accumulator.promote_every or a.shape[1] + 1
    to = _sum_of(accumulator, np.float64)
    for first in range(0, a.shape[1], accumulator.chunk):
        if first > 0 and first % every == 0:
            total, running = total + running.float(), torch.zeros_like(running)
        last = first + accumulator.chunk
        exact = running + a[:, first:last] @ b[first:last]
        running = _rounded(exact, accumulator, to, generator)
    return total + running.float()


def _in_float32(
    kernel: Callable[..., None],
    left: Tensor,
    right: Tensor,
    high: float,
    *periods: int,
) -> Tensor:
    """Integers whose sums float32 holds, the longer side in vector lanes.

    periods: products after which a sum stops or wraps, and after which it spills.
    """
    if right.shape[1] < left.shape[0]:
        return _in_float32(kernel, right.T, left.T, high, *periods).T
    rows = left.shape[0]
    a, b = _array(left, np.float32), _array(right, np.float32)
    a = np.concatenate([a, np.zeros((-rows % ROWS, a.shape[1]), np.float32)])
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    depth, width = b.shape
    zero, codes = np.float32(0), 2 * (high + 1)
    to = Sum(
        np.float32(codes), zero, np.float32(-high - 1), zero, np.float32(high), zero,
        np.float32(1 / codes),
    )  # fmt: skip

    def run(first: int, last: int) -> None:
        ends = (first * ROWS, last * ROWS)
        kernel(a.ravel(), b.ravel(), out, *ends, depth, width, *periods, to)

    shared(a.shape[0] // ROWS, a.shape[0] * depth * width, run)
    return torch.from_numpy(out[:rows]).double()


class _Way(NamedTuple):
    """A kernel, and what it computes in."""

    kernel: Callable[..., None]
    real: type[np.float32] | type[np.float64] = np.float64
    units: int = 0
    """Exponent of two by which sums are raised."""
    further: tuple[object, ...] = ()
    """Arguments behind those that all kernels take."""


def _on_cpu(left: Tensor, right: Tensor, accumulator: Accumulator, seed: int) -> Tensor:
    way = _way(left, right, accumulator, seed)
    rows, units = left.shape[0], way.units
    a, b = _array(left, way.real), _array(right, way.real)
    a = np.concatenate([a, np.zeros((-rows % ROWS, a.shape[1]), way.real)])
    if units:
        a, b = (x * np.float32(2.0**up) for x, up in ((a, units // 2), (b, units - units // 2)))
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    depth, width = b.shape
    to = _in_units(accumulator.element) if units else _sum_of(accumulator, way.real)
    every = accumulator.promote_every or depth + 1

    def run(first: int, last: int) -> None:
        way.kernel(
            a.ravel(), b.ravel(), out, first * ROWS, last * ROWS, depth, width, accumulator.chunk,
            every, to, *way.further,
        )  # fmt: skip

    shared(a.shape[0] // ROWS, a.shape[0] * depth * width, run)
    return torch.from_numpy(out[:rows] * np.float32(2.0**-units) if units else out[:rows])


def _way(left: Tensor, right: Tensor, accumulator: Accumulator, seed: int) -> _Way:
    """The fastest kernel that gives the bits of an accumulator on these factors."""
    saturates = accumulator.element.overflow == "saturate"
    if _is_float32(accumulator):
        return _Way(compiled.sum_fused, np.float32)
    if accumulator.rounding == "stochastic":
        return _Way(compiled.sum_drawn, further=(seed, saturates))
    if accumulator.rounding == "zero":
        return _Way(compiled.sum_cut)
    bound = _bound(left, right, accumulator.element.mantissa_bits)
    finite = math.isfinite(bound)
    if not finite:  # what is made of other factors does not depend on these
        others = [x.nan_to_num(0.0, 0.0, 0.0) for x in (left, right)]
        bound = _bound(others[0], others[1], accumulator.element.mantissa_bits)
    free = bound < accumulator.element.max
    factors = (_Traits.of(left), _Traits.of(right))
    if _fits_float32(factors, accumulator, bound):
        return _short(factors, accumulator, left.shape[1], free=free, finite=finite)
    if free and finite:
        return _Way(compiled.sum_free)
    return _Way(compiled.sum_clamped if saturates else compiled.sum_infinite)


def _short(
    factors: Sequence[_Traits], accumulator: Accumulator, depth: int, *, free: bool, finite: bool
) -> _Way:
    """The kernel in float32: a shorter one where no sum is below a step of the accumulator.

    Those keep factors that are infinite or no number, as do kernels of sums that overflow.
    """
    element = accumulator.element
    last_digit = sum(one.last_digit for one in factors)
    stepped = last_digit >= math.log2(element.min_normal) - element.mantissa_bits
    if free and (stepped or finite):
        return _Way(compiled.sum_stepped if stepped else compiled.sum_free_short, np.float32)
    spills = 0 < accumulator.promote_every <= depth
    if stepped and accumulator.chunk == 1 and not spills:
        units = _units(factors, element)
        if units:
            return _Way(compiled.sum_stepped_to_infinity, np.float32, units)
    return _Way(compiled.sum_infinite_short, np.float32)


def _sum_of(accumulator: Accumulator, real: type[np.float32] | type[np.float64]) -> Sum:
    element = accumulator.element
    digits, range_ = (23, 127) if real is np.float32 else (52, 1023)
    beyond = math.frexp(element.max)[1]
    large = 2.0 ** (range_ + 1 - beyond)
    fields = (
        1.5 * 2.0 ** (digits - element.mantissa_bits),
        2.0**-element.mantissa_bits,
        element.min_normal,
        2.0**beyond,
        element.max,
        large,
        1 / large,
    )
    widest = float(np.finfo(real).max)  # of a bound that float32 lacks, where none is reached
    return Sum(*(real(min(value, widest)) for value in fields))


def _in_units(element: Encoding) -> Sum:
    """`sum_stepped_to_infinity`'s accumulator: the type's own range is the element's."""
    up = 25 - element.mantissa_bits
    zero = np.float32(0)
    return Sum(
        np.float32(0.375), zero, zero, zero, zero, np.float32(2.0**up), np.float32(2.0**-up)
    )  # fmt: skip


def _units(factors: Sequence[_Traits], element: Encoding) -> int:
    """Exponent by which sums are raised such that float32 overflows where the element does.

    0 where steps of the element, or the factors, would leave the range of normal numbers.
    """
    units = 128 - math.frexp(element.max)[1]
    step = element.min_normal * 2.0**-element.mantissa_bits
    largest = max(one.largest for one in factors)
    fits = step * 2.0**units >= SMALL and largest * 2.0 ** (units - units // 2) < 1 / SMALL
    return units if fits else 0


class _Traits(NamedTuple):
    """Traits of float32 values, those that are infinite or no number left out."""

    largest: float
    """The largest magnitude."""
    least: float
    """The least one beside zero; NaN without any."""
    digits: int
    """Significant digits of the longest significand, at least 1."""
    whole: bool

    @classmethod
    def of(cls, values: Tensor) -> _Traits:
        flat = values.numpy().ravel(order="K")  # in whatever order they lie in memory
        *ends, union, whole = compiled.traits_of(flat)
        largest, least = (float(one) for one in np.array(ends, np.uint32).view(np.float32))
        digits = 24 - ((union & -union).bit_length() - 1) if union else 1
        return cls(largest, least, digits, bool(whole))

    @property
    def last_digit(self) -> int:
        """An exponent of two that all values are multiples of."""
        if self.whole:
            return 0
        return math.frexp(self.least)[1] - self.digits


def _fills_binades(element: Encoding) -> bool:
    """Whether all codes of the topmost binade are numbers (not so in e4m3, whose last is NaN)."""
    binade = 2.0 ** (math.frexp(element.max)[1] - 1)
    return element.max == (2 - 2.0**-element.mantissa_bits) * binade


def _bound(left: Tensor, right: Tensor, mantissa_bits: int = 1000) -> float:
    """The largest magnitude that any running sum can have, rounding included; infinite for NaN."""
    rounding = 1 + 1e-4 + left.shape[1] * 2.0**-24
    norms = [_largest_norm(left.float(), 1) * rounding, _largest_norm(right.float(), 0) * rounding]
    growth = left.shape[1] * math.log1p(2.0 ** -(mantissa_bits + 1))
    bound = norms[0] * norms[1] * math.exp(min(growth, 700.0))
    return bound if math.isfinite(bound) else math.inf


def _largest_norm(x: Tensor, axis: int) -> float:
    """The largest norm along an axis; numpy takes no memory for it where it can be asked."""
    if x.device.type != "cpu":
        return float(torch.linalg.vector_norm(x, dim=axis).amax())
    values = x.numpy()
    return math.sqrt(np.einsum("ij,ij->j" if axis == 0 else "ij,ij->i", values, values).max())


def _fits_float32(factors: Sequence[_Traits], accumulator: Accumulator, bound: float) -> bool:
    """Whether float32 gives the same: its sums are exact, or far from ties where they are not."""
    element, (left, right) = accumulator.element, factors
    if element.mantissa_bits >= 23 or not math.isfinite(bound):
        return False
    if element.overflow == "saturate":
        return False
    if left.whole and right.whole:
        largest = left.largest * right.largest * accumulator.chunk
        return bound < EXACT or (element.max < EXACT / 2 and largest < EXACT / 2)
    if accumulator.chunk != 1:
        return False
    product = left.digits + right.digits
    own = element.mantissa_bits + 1
    in_range = element.exponent_bits <= 8 and bound < 2.0**100
    return in_range and product <= own and product + own <= SAFE_DIGITS


def _is_float32(accumulator: Accumulator) -> bool:
    """Whether the sum is a float32 after every product, as a fused multiply-add rounds it."""
    element = accumulator.element
    wide = (element.exponent_bits, element.mantissa_bits, element.overflow) == (8, 23, "inf")
    return wide and accumulator.chunk == 1 and accumulator.rounding == "nearest_even"


def _array(x: Tensor, real: type[np.float32] | type[np.float64]) -> Floats:
    return cast("Floats", np.ascontiguousarray(x.numpy(), dtype=real))


def _rounded(
    exact: Tensor, accumulator: Accumulator, to: Sum, generator: torch.Generator
) -> Tensor:
    """float64 values on the accumulator's grid: as the compiled kernels do."""
    binade = torch.ldexp(torch.ones_like(exact), torch.frexp(exact).exponent - 1)
    binade = binade.clamp(float(to.lowest), float(to.highest))
    shifter, step = binade * float(to.scale), binade * float(to.step)
    near = (exact + shifter) - shifter
    if accumulator.rounding != "nearest_even":
        below = torch.where(near.abs() > exact.abs(), near - step.copysign(exact), near)
        near = below
        if accumulator.rounding == "stochastic":
            draw = torch.rand(
                exact.shape, dtype=torch.float64, device=exact.device, generator=generator
            )
            away = exact.abs() - below.abs() > step * draw
            near = torch.where(away, below + step.copysign(exact), below)
    stops = accumulator.rounding == "zero" or accumulator.element.overflow == "saturate"
    beyond = float(to.top) if stops else math.inf
    limit = torch.full_like(near, beyond).copysign(exact)
    return torch.where(near.abs() > float(to.top), limit, near)


def _wrapped(x: Tensor, bits: int) -> Tensor:
    half = 2.0 ** (bits - 1)
    return torch.remainder(x + half, 2 * half) - half


def _saturated_in_torch(
    left: Tensor, right: Tensor, low: float, high: float, every: int
) -> Tensor:
    a, b = left.double(), right.double()
    before = torch.zeros(a.shape[0], b.shape[1], dtype=torch.float64, device=a.device)
    running = torch.zeros_like(before)
    for k in range(a.shape[1]):
        if k > 0 and k % every == 0:
            before, running = before + running, torch.zeros_like(running)
        running = (running + a[:, k, None] * b[None, k]).clamp(low, high)
    return before + running
