"""The three products of a contraction, each with the operands of its pass: one autograd function.

Of y = x w: `fprop` computes y, `dgrad` dx = dy w', `wgrad` dw = x' dy. What differs between linear
layers, convolutions and attention's products is how they contract, which is data here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Axes = tuple[int, ...]
Matmul = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAxes:
    """Contraction axes of both factors in one pass."""

    first: Axes
    second: Axes


class Contraction(Protocol):
    """A product of two tensors, and the two products of its gradient."""

    @property
    def fprop_axes(self) -> PassAxes:
        """Of x and w."""

    @property
    def dgrad_axes(self) -> PassAxes:
        """Of dy and w."""

    @property
    def wgrad_axes(self) -> PassAxes:
        """Of dy and x."""

    def fprop(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns y."""

    def dgrad(self, dy: Tensor, w: Tensor, x: Tensor) -> Tensor:
        """Returns dx, shaped as `x`, whose values do not matter."""

    def wgrad(self, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """Returns dw, shaped as `w`, whose values do not matter."""


class Rounding(Protocol):
    """The operands at a site, applied."""

    def forward_factor(self, x: Tensor, *, second: bool, axes: Axes) -> Factor:
        """The first (activation) or second (weight) factor of the forward product."""

    def backward_factor(self, kept: Tensor, *, second: bool, axes: Axes) -> Tensor:
        """The same factor in the product of the gradient that reads it again."""

    def gradient(self, dy: Tensor, *, pass_: str, axes: Axes) -> Tensor:
        """The gradient of the output, as `dgrad` or `wgrad` gets it."""

    def weight_gradient(self, dw: Tensor) -> Tensor:
        """The gradient of the weight, as it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A factor of the forward product and what the backward pass needs of it."""

    values: Tensor
    """As they are multiplied."""
    kept: Tensor
    """As the backward pass reads them."""
    derivative: Callable[[Tensor], Tensor] | None = None
    """The gradient of what was rounded from that of `values`; None: the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """(tokens, inputs) by (outputs, inputs): (tokens, outputs)."""

    sums: Matmul = torch.matmul
    """The sums of `fprop`."""
    sums_dgrad: Matmul = torch.matmul
    sums_wgrad: Matmul = torch.matmul
    fprop_axes: PassAxes = PassAxes(first=(1,), second=(1,))
    dgrad_axes: PassAxes = PassAxes(first=(1,), second=(0,))
    wgrad_axes: PassAxes = PassAxes(first=(0,), second=(0,))

    def fprop(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns y (tokens, outputs)."""
        return self.sums(x, w.mT)

    def dgrad(self, dy: Tensor, w: Tensor, _x: Tensor) -> Tensor:
        """Returns dx (tokens, inputs)."""
        return self.sums_dgrad(dy, w)

    def wgrad(self, dy: Tensor, x: Tensor, _w: Tensor) -> Tensor:
        """Returns dw (outputs, inputs)."""
        return self.sums_wgrad(dy.mT, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batched:
    """(..., m, k) by (..., k, n), without broadcasting: a product of attention."""

    fprop_axes: PassAxes = PassAxes(first=(-1,), second=(-2,))
    dgrad_axes: PassAxes = PassAxes(first=(-1,), second=(-1,))
    wgrad_axes: PassAxes = PassAxes(first=(-2,), second=(-2,))

    def fprop(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns y (..., m, n)."""
        return x @ w

    def dgrad(self, dy: Tensor, w: Tensor, _x: Tensor) -> Tensor:
        """Returns dx (..., m, k)."""
        return dy @ w.mT

    def wgrad(self, dy: Tensor, x: Tensor, _w: Tensor) -> Tensor:
        """Returns dw (..., k, n)."""
        return x.mT @ dy


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """(batch, inputs, ...) by (outputs, inputs / groups, ...), of one to three dimensions.

    Groups of scales run along the channels, and along batch and space in `wgrad`, whose sum they
    are.
    """

    stride: Axes
    padding: Axes
    dilation: Axes
    groups: int

    @property
    def fprop_axes(self) -> PassAxes:
        """Channels; of the weight also its taps."""
        return PassAxes(first=(1,), second=(1, *self._space))

    @property
    def dgrad_axes(self) -> PassAxes:
        """Output channels; of the weight also its taps."""
        return PassAxes(first=(1,), second=(0, *self._space))

    @property
    def wgrad_axes(self) -> PassAxes:
        """Samples and places."""
        return PassAxes(first=(0, *self._space), second=(0, *self._space))

    @property
    def _space(self) -> Axes:
        return tuple(range(2, 2 + len(self.stride)))

    def fprop(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns y (batch, outputs, ...)."""
        return torch.ops.aten.convolution(x, w, None, *self._arguments)  # type: ignore[no-any-return]

    def dgrad(self, dy: Tensor, w: Tensor, x: Tensor) -> Tensor:
        """Returns dx."""
        return self._backward(dy, x, w, [True, False, False])[0]

    def wgrad(self, dy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """Returns dw."""
        return self._backward(dy, x, w, [False, True, False])[1]

    def _backward(self, dy: Tensor, x: Tensor, w: Tensor, wanted: list[bool]) -> list[Tensor]:
        return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
            dy, x, w, None, *self._arguments, wanted
        )

    @property
    def _arguments(self) -> tuple[object, ...]:
        zeros = [0] * len(self.stride)
        return self.stride, self.padding, self.dilation, False, zeros, self.groups


def product(x: Tensor, w: Tensor, contraction: Contraction, rounding: Rounding) -> Tensor:
    """The contraction of `x` and `w`, differentiable, with the operands of each pass."""
    found: Tensor = _Product.apply(x, w, contraction, rounding)  # type: ignore[no-untyped-call]
    return found


class _Product(torch.autograd.Function):
    """Three products, one a pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, contraction: Contraction, rounding: Rounding
    ) -> Tensor:
        """Returns y."""
        axes = contraction.fprop_axes
        first = rounding.forward_factor(x, second=False, axes=axes.first)
        second = rounding.forward_factor(w, second=True, axes=axes.second)
        ctx.contraction, ctx.rounding = contraction, rounding
        ctx.derivatives = first.derivative, second.derivative
        ctx.save_for_backward(first.kept, second.kept)
        return contraction.fprop(first.values, second.values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Returns dx and dw."""
        (dy,) = gradients
        x, w = ctx.saved_tensors
        of_x, of_w = ctx.derivatives
        contraction: Contraction = ctx.contraction
        rounding: Rounding = ctx.rounding
        dx = dw = None
        if ctx.needs_input_grad[0]:
            axes = contraction.dgrad_axes
            dx = contraction.dgrad(
                rounding.gradient(dy, pass_="dgrad", axes=axes.first),
                rounding.backward_factor(w, second=True, axes=axes.second),
                x,
            )
            dx = dx if of_x is None else of_x(dx)
        if ctx.needs_input_grad[1]:
            axes = contraction.wgrad_axes
            dw = contraction.wgrad(
                rounding.gradient(dy, pass_="wgrad", axes=axes.first),
                rounding.backward_factor(x, second=False, axes=axes.second),
                w,
            )
            dw = rounding.weight_gradient(dw if of_w is None else of_w(dw))
        return dx, dw, None, None
