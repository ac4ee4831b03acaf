"""Errors of formats on tensors, of what they lose, and of products and means of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from dse.numerics import DelayedScale, QuantizerState, calibrated_state, quantize
from dse.systems.measures.measure import Rows
from dse.systems.measures.tensors import Drawn, Positive, Size
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.quantizer import Quantizer
from hwmodels.validation import Entry

AXES = (1,)
"""Columns are contracted."""
What = Literal["relative_error", "ordinary_error", "sqnr_db", "mse", "flushed", "largest_error"]


def error(values: Tensor, exact: Tensor) -> float:
    """Root of the relative squared error."""
    off = (values.double() - exact.double()).square().sum()
    return float((off / exact.double().square().sum()).sqrt())


def seen(x: Tensor, spec: str, *, seed: int = 0, axes: tuple[int, ...] = AXES) -> Tensor:
    """Values under a quantizer by name, with what state it needs made from the tensor itself."""
    chosen = quantizer(spec)
    return quantize(x, chosen, axes=axes, state=_state(x, chosen, axes), seed=seed)


def _state(x: Tensor, chosen: Quantizer, axes: tuple[int, ...]) -> QuantizerState | None:
    if any(one.startswith("smooth") for one in chosen.transforms):
        return QuantizerState(channel_factors=1 / x.abs().amax(0))
    return None if chosen.is_dynamic else calibrated_state(x, chosen, axes=axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationError(Entry):
    """The error of each format on one tensor."""

    draws: ClassVar[bool] = True
    data: Drawn
    """The tensor."""
    formats: Annotated[Mapping[str, str], Field(min_length=1)]
    """Formats by the names of the numbers."""
    what: What = "relative_error"
    """`ordinary_error`: of all but the data's outlying rows or columns; `flushed`: share of values
    that become zero; `largest_error`: of any value, over the largest magnitude."""

    def rows(self, seed: int) -> Rows:
        """One number a format."""
        x = self.data.draw(seed)
        return {
            name: self._error(seen(x, spec, seed=seed), x, seed)
            for name, spec in self.formats.items()
        }

    def _error(self, values: Tensor, x: Tensor, seed: int) -> float:
        match self.what:
            case "relative_error":
                return error(values, x)
            case "ordinary_error":
                ordinary = ~self.data.outlying(seed)
                return error(values[ordinary], x[ordinary])
            case "sqnr_db":
                return -20 * math.log10(error(values, x))
            case "mse":
                return float((values.double() - x.double()).square().mean())
            case "flushed":
                return float(((values == 0) & (x != 0)).double().mean())
            case "largest_error":
                return float((values - x).abs().max() / x.abs().max())


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanError(Entry):
    """The error of the mean of several copies of a tensor, each rounded with its own draws."""

    draws: ClassVar[bool] = True
    data: Drawn
    """The tensor."""
    formats: Annotated[Mapping[str, str], Field(min_length=1)]
    """Formats by name."""
    copies: Annotated[tuple[Size, ...], Field(min_length=1)]
    """Numbers of copies."""

    def rows(self, seed: int) -> Rows:
        """`<format> x<copies>`."""
        x = self.data.draw(seed)
        found = {}
        for name, spec in self.formats.items():
            total = torch.zeros_like(x, dtype=torch.float64)
            for copy in range(max(self.copies)):
                total += seen(x, spec, seed=seed * max(self.copies) + copy)
                if copy + 1 in self.copies:
                    found[f"{name} x{copy + 1}"] = error(total / (copy + 1), x)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductError(Entry):
    """The error of a product of two rounded matrices, both contracted along their columns."""

    draws: ClassVar[bool] = True
    first: Drawn
    """(rows, depth)."""
    second: Drawn
    """(columns, depth)."""
    formats: Annotated[Mapping[str, tuple[str, str]], Field(min_length=1)]
    """Formats of both by name."""
    depths: tuple[Size, ...] = ()
    """Lengths of the sums instead of those of `first` and `second`, each in turn."""

    def rows(self, seed: int) -> Rows:
        """One number a pair of formats; with `depths` `<name> <depth>`."""
        found = {}
        for depth in self.depths or (None,):
            a, b = _long(self.first, depth), _long(self.second, depth)
            for name, value in self._errors(a.draw(2 * seed), b.draw(2 * seed + 1), seed):
                found[name if depth is None else f"{name} {depth}"] = value
        return found

    def _errors(self, a: Tensor, b: Tensor, seed: int) -> Iterator[tuple[str, float]]:
        exact = a.double() @ b.double().T
        for name, (left, right) in self.formats.items():
            first, second = seen(a, left, seed=seed), seen(b, right, seed=seed + 1)
            yield name, error(first.double() @ second.double().T, exact)


def _long(drawn: Drawn, depth: int | None) -> Drawn:
    return drawn if depth is None else replace(drawn, shape=(drawn.shape[0], depth))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleAfterChange(Entry):
    """The error of a tensor whose outliers appear in a step, under scales of that step or before.

    Delayed scales have seen the tensor without its outliers, all others the tensor itself.
    """

    draws: ClassVar[bool] = True
    data: Drawn
    """The tensor, with its outliers."""
    formats: Annotated[Mapping[str, str], Field(min_length=1)]
    """Formats by name."""

    def rows(self, seed: int) -> Rows:
        """One number a format."""
        x = self.data.draw(seed)
        calm = torch.where(self.data.outlying(seed), x / self._factor, x)
        found = {}
        for name, spec in self.formats.items():
            chosen = quantizer(spec)
            if chosen.timing != "delayed":
                found[name] = error(seen(x, spec), x)
                continue
            scale = DelayedScale(chosen)
            scale.state(calm)
            found[name] = error(quantize(x, chosen, axes=AXES, state=scale.state(x)), x)
        return found

    @property
    def _factor(self) -> float:
        return self.data.outliers.factor if self.data.outliers else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingBias(Entry):
    """The mean of many roundings of one value, from it, in standard errors and in steps."""

    draws: ClassVar[bool] = True
    value: float
    """Rounded again and again."""
    formats: Annotated[Mapping[str, str], Field(min_length=1)]
    """Formats by name."""
    repeats: Size = 10_000
    """Roundings."""
    scale: Positive = 1.0
    """On the value."""

    def rows(self, seed: int) -> Rows:
        """`<format> low`, `high`, `mean`, and `up`: share of the upper neighbour."""
        x = torch.full((1, self.repeats), self.scale * self.value)
        found: dict[str, float] = {}
        for name, spec in self.formats.items():
            values = seen(x, spec, seed=seed).double()
            low, high = float(values.min()), float(values.max())
            found |= {f"{name} low": low, f"{name} high": high,
                      f"{name} mean": float(values.mean()) / self.scale,
                      f"{name} up": float((values == high).double().mean())}  # fmt: skip
        return found
