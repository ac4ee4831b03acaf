"""Optimizer states and weights in narrow formats: directions, what is kept, what is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dse.numerics import quantize
from dse.systems.measures.measure import Rows
from dse.systems.measures.methods import MethodGiven, given_method
from dse.systems.measures.tensors import Positive, Size
from dse.training.method import OptimizerName, Update
from dse.training.update.direction import RULES, Moments
from dse.training.update.optimizer import Optimizer
from hwmodels.formats.catalog import quantizer
from hwmodels.validation import Entry

EXPLODED = 100.0
"""A direction of Adam's is of order one; from here on it is nothing but a lost second moment."""
Betas = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionError(Entry):
    """Adam's direction from moments in narrow formats, beside the exact one."""

    draws: ClassVar[bool] = True
    shape: tuple[Size, Size]
    """Of the parameter; groups run along its columns."""
    formats: Annotated[Mapping[str, tuple[str, str]], Field(min_length=1)]
    """Formats of the first and second moment, by name."""
    what: Literal["median", "mse", "exploded"] = "median"
    """Median relative error; mean squared error; share of directions above 100."""
    steps: Size = 20
    """Steps that the moments have seen."""
    betas: Betas = (0.9, 0.95)
    """Their decays."""
    scale: Positive = 1e-3
    """Of gradients."""
    spread: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Standard deviation of the logarithm of their scales."""
    spread_of: Literal["value", "row"] = "value"
    """Part that has a scale of its own."""
    outlier: float = 0.0
    """Gradient of one value in every step; 0: none stands out."""
    epsilon: float = 1e-8
    """Of the direction."""

    def rows(self, seed: int) -> Rows:
        """One number a pair of formats."""
        m, v = self._moments(seed)
        exact = m / (v.sqrt() + self.epsilon)
        return {name: self._error(m, v, exact, pair) for name, pair in self.formats.items()}

    def _moments(self, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        rows, columns = self.shape
        own = (rows, 1) if self.spread_of == "row" else self.shape
        scale = self.scale * torch.exp(self.spread * torch.randn(own, generator=generator))
        m, v = torch.zeros(self.shape), torch.zeros(self.shape)
        first, second = self.betas
        for _ in range(self.steps):
            gradient = scale * torch.randn(rows, columns, generator=generator)
            if self.outlier:
                gradient[0, min(7, columns - 1)] = self.outlier
            m = first * m + (1 - first) * gradient
            v = second * v + (1 - second) * gradient.square()
        return m, v

    def _error(self, m: Tensor, v: Tensor, exact: Tensor, pair: tuple[str, str]) -> float:
        seen_m, seen_v = (
            quantize(one, quantizer(name), axes=(1,))
            for one, name in zip((m, v), pair, strict=True)
        )
        found = seen_m / (seen_v.sqrt() + self.epsilon)
        match self.what:
            case "median":
                return float(((found - exact).abs() / exact.abs()).median())
            case "mse":
                return float((found - exact).square().mean())
            case "exploded":
                return float((found.abs() > EXPLODED).double().mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMoment(Entry):
    """The root of the second moment of a constant gradient, as optimizers keep it."""

    draws: ClassVar[bool] = False
    gradient: Positive
    """In every step."""
    optimizers: Annotated[tuple[OptimizerName, ...], Field(min_length=1)]
    """By name."""
    format: str
    """Of what is kept."""
    steps: Size = 200
    """Steps."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Decay of the second moment."""

    def rows(self, seed: int) -> Rows:
        """One root an optimizer, and the `exact` one."""
        del seed
        kept = quantizer(self.format)
        update = Update(betas=(0.9, self.beta))
        gradient = torch.tensor([self.gradient])
        found = {"exact": self.gradient * math.sqrt(1 - self.beta**self.steps)}
        for name in self.optimizers:
            state = Moments(m=torch.zeros(1), v=torch.zeros(1))
            for _ in range(self.steps):
                state = RULES[name](gradient, state, update, 1e-8).moments
                state = replace(state, v=quantize(state.v, kept, axes=(0,)))
            root = state.v if name == "hadam" else state.v.sqrt()
            found[name] = float(root)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAfterShift(Entry):
    """The longest steps of optimizers after gradients have grown all at once."""

    draws: ClassVar[bool] = True
    optimizers: Annotated[tuple[OptimizerName, ...], Field(min_length=1)]
    """By name."""
    factor: Positive
    """On gradients, from one step to the next."""
    before: Size = 100
    """Calm steps."""
    after: Size = 8
    """Steps after the change in which the longest is looked for."""
    betas: Betas = (0.9, 0.99)
    """Decays of the moments."""
    size: Size = 1024
    """Values of the parameter."""

    def rows(self, seed: int) -> Rows:
        """Root mean square of each optimizer's longest direction, and its largest `rms`."""
        found: dict[str, float] = {}
        update = Update(betas=self.betas)
        for name in self.optimizers:
            generator = torch.Generator().manual_seed(seed)
            state = Moments(m=torch.zeros(self.size), v=torch.zeros(self.size))
            longest = spike = 0.0
            for step in range(self.before + self.after):
                size = self.factor if step >= self.before else 1.0
                gradient = 1e-3 * size * torch.randn(self.size, generator=generator)
                did = RULES[name](gradient, state, update, 1e-12)
                state = did.moments
                if step >= self.before:
                    longest = max(longest, float(did.value.square().mean().sqrt()))
                    spike = max(spike, did.spike)
            found |= {name: longest, f"{name} rms": spike}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquares(Entry):
    """A linear regression by small steps: the final error under several methods' updates."""

    draws: ClassVar[bool] = True
    methods: Annotated[Mapping[str, MethodGiven], Field(min_length=1)]
    """Methods by name; their products round nothing here, only what the optimizer keeps."""
    weights: Size = 64
    """Weights."""
    magnitude: Positive = 10.0
    """Standard deviation of the weights that are wanted."""
    rate: Positive = 1e-3
    """Learning rate of plain gradient descent."""
    steps: Size = 4000
    """Steps, each on `batch` of 4,096 samples."""
    batch: Size = 8
    """Samples of a step."""

    def rows(self, seed: int) -> Rows:
        """Mean squared error over all samples, one a method."""
        generator = torch.Generator().manual_seed(seed)
        wanted = self.magnitude * torch.randn(self.weights, generator=generator)
        x = torch.randn(4096, self.weights, generator=generator)
        y = x @ wanted + torch.randn(4096, generator=generator)
        return {name: self._error(given, x, y, seed) for name, given in self.methods.items()}

    def _error(self, given: MethodGiven, x: Tensor, y: Tensor, seed: int) -> float:
        method = given_method(given)
        plain = replace(
            method.update, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.0
        )
        weight = nn.Parameter(torch.zeros(self.weights))
        optimizer = Optimizer([("w", weight)], replace(method, update=plain), seed=seed)
        for step in range(self.steps):
            first = step * self.batch % len(x)
            seen = x[first : first + self.batch]
            missed = seen @ weight.detach() - y[first : first + self.batch]
            weight.grad = seen.T @ missed / len(seen)
            optimizer.step(self.rate)
        return float((x @ weight.detach() - y).square().mean())
