"""Named distributions of tensors, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from hwmodels.validation import Entry

Size = Annotated[int, Field(ge=1, le=1 << 24)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers(Entry):
    """Values that stand out."""

    kind: Literal["column", "row", "scattered"]
    """`column`: whole columns (channels of an activation); `row`: whole rows; `scattered`: single
    values."""
    factor: Positive
    """On them."""
    every: Size = 64
    """`column`, `row`: one of so many, from the first on."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """`scattered`: of all values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn(Entry):
    """A matrix of random numbers, contracted along its columns."""

    shape: tuple[Size, Size]
    """Rows and columns."""
    kind: Literal["normal", "student_t", "uniform", "half_normal", "sweep"] = "normal"
    """`uniform`: from -1 to 1; `half_normal`: magnitudes, as behind a ReLU; `sweep`: evenly spaced
    from -1 to 1, without chance."""
    degrees: Positive = 5.0
    """Of freedom, `student_t`."""
    scale: Positive = 1.0
    """On all values."""
    spread: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the logarithm of each row's own scale."""
    outliers: Outliers | None = None
    """None by default."""

    def draw(self, seed: int) -> Tensor:
        """The matrix, float32; equal seeds give equal ones."""
        rng = np.random.default_rng(seed)
        match self.kind:
            case "normal":
                found = rng.standard_normal(self.shape)
            case "student_t":
                found = rng.standard_t(self.degrees, self.shape)
            case "uniform":
                found = rng.uniform(-1, 1, self.shape)
            case "half_normal":
                found = np.abs(rng.standard_normal(self.shape))
            case "sweep":
                found = np.linspace(-1, 1, self.shape[0] * self.shape[1]).reshape(self.shape)
        if self.spread:
            found = found * np.exp(self.spread * rng.standard_normal((self.shape[0], 1)))
        return torch.from_numpy((self.scale * found * self._factors(rng)).astype(np.float32))

    def outlying(self, seed: int) -> Tensor:
        """Whether each value is an outlier, shaped as the matrix; columns and rows only."""
        found = np.ones(self.shape)
        if self.outliers is not None and self.outliers.kind != "scattered":
            found = found * self._factors(np.random.default_rng(seed))
        return torch.from_numpy(found != 1)

    def _factors(self, rng: np.random.Generator) -> np.ndarray:
        factors = np.ones((1, 1))
        if self.outliers is None:
            return factors
        if self.outliers.kind == "scattered":
            chosen = rng.random(self.shape) < self.outliers.share
            return np.where(chosen, self.outliers.factor, 1.0)
        rows, columns = self.shape
        factors = np.ones((rows, 1) if self.outliers.kind == "row" else (1, columns))
        places = factors if self.outliers.kind == "row" else factors.T
        places[:: self.outliers.every] = self.outliers.factor
        return factors
