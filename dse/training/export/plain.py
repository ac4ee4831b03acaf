"""Linear layers whose three products round their factors, in torch alone.

`convert(model)` replaces the products of `torch.nn.Linear` by name. Written beside the settings of
a method, this module is a file of its own that needs nothing but torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

E4M3_TOP = 448.0


@dataclass(frozen=True)
class Grid:
    """A format of numbers with scales along a product's sum."""

    exponent_bits: int
    """0 for integers."""
    mantissa_bits: int
    bias: int
    top: float
    """The largest number."""
    scales: str = "none"
    """`none`, `fp32`, `e8m0-rceil`, `e8m0-floor`, or `e4m3` under one in fp32 for the tensor."""
    group: int = 0
    """Elements along the sum that share a scale; 0: all of them, -1: all of the tensor."""
    stochastic: bool = False
    forward: bool = False
    """Whether a backward product rounds the values that the forward product has rounded."""


def rounded(x: Tensor, grid: Grid | None) -> Tensor:
    """Values of `x` (rows, sum) on a grid; None leaves them."""
    if grid is None:
        return x
    rows, depth = x.shape
    if grid.group < 0:
        tiles = x.reshape(1, -1)
    else:
        size = grid.group or depth
        tiles = nn.functional.pad(x, (0, -depth % size)).reshape(-1, size)
    scale = _scale(tiles.abs().amax(1, keepdim=True), grid)
    found = on_grid(tiles / scale, grid) * scale
    return found.reshape(rows, -1)[:, :depth]


def on_grid(x: Tensor, grid: Grid) -> Tensor:
    """Values of `x` on the grid without scales: to nearest even, or at random; saturating."""
    if grid.exponent_bits:
        exponent = (torch.frexp(x).exponent - 1).clamp(min=1 - grid.bias)
        step = torch.ldexp(torch.ones_like(x), exponent - grid.mantissa_bits)
    else:
        step = torch.ones_like(x)
    codes = x / step
    codes = (codes + torch.rand_like(x)).floor() if grid.stochastic else codes.round()
    return (codes * step).clamp(-grid.top, grid.top)


def _scale(largest: Tensor, grid: Grid) -> Tensor:
    if grid.scales == "none":
        return torch.ones_like(largest)
    wanted = largest / grid.top
    if grid.scales == "e8m0-rceil":
        parts = torch.frexp(wanted)
        wanted = torch.ldexp(
            torch.ones_like(wanted), parts.exponent - (parts.mantissa == 0.5).int()
        )
    elif grid.scales == "e8m0-floor":
        top = torch.frexp(torch.tensor(grid.top)).exponent
        wanted = torch.ldexp(torch.ones_like(wanted), torch.frexp(largest).exponent - top)
    elif grid.scales == "e4m3":
        tensor = (largest.amax() / (grid.top * E4M3_TOP)).clamp(min=2.0**-112)
        wanted = on_grid(wanted / tensor, Grid(4, 3, 7, E4M3_TOP)) * tensor
    return torch.where((largest > 0) & (wanted > 0), wanted, 1.0)


class Product(torch.autograd.Function):
    """y = x w', dx = dy w, dw = dy' x, each along its own sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, grids: Mapping[str, Grid | None]) -> Tensor:
        """Returns y (rows, outputs) of x (rows, inputs) and w (outputs, inputs)."""
        seen_x, seen_w = rounded(x, grids["activation@fprop"]), rounded(w, grids["weight@fprop"])
        again_x, again_w = grids["activation@wgrad"], grids["weight@dgrad"]
        ctx.save_for_backward(
            seen_x if again_x is not None and again_x.forward else x,
            seen_w if again_w is not None and again_w.forward else w,
        )
        ctx.grids = grids
        return seen_x @ seen_w.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Returns dx and dw."""
        (dy,) = gradients
        x, w = ctx.saved_tensors
        grids = ctx.grids
        dx = (
            rounded(dy, grids["activation_gradient@dgrad"]) @ rounded(w.T, grids["weight@dgrad"]).T
        )
        dw = (
            rounded(dy.T, grids["activation_gradient@wgrad"])
            @ rounded(x.T, grids["activation@wgrad"]).T
        )
        return dx, dw, None


def convert(
    model: nn.Module, layers: Mapping[str, Mapping[str, Grid | None]] | None = None
) -> nn.Module:
    """The model, whose linear layers multiply as `layers` says, by patterns of their names."""
    chosen = globals()["LAYERS"] if layers is None else layers
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found = next(grids for pattern, grids in chosen.items() if fnmatchcase(name, pattern))
            module.forward = _forward(module, found)  # type: ignore[method-assign,assignment]
    return model


def _forward(layer: nn.Linear, grids: Mapping[str, Grid | None]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        y: Tensor = Product.apply(x.reshape(-1, x.shape[-1]), layer.weight, grids)  # type: ignore[no-untyped-call]
        y = y.reshape(*x.shape[:-1], -1)
        return y if layer.bias is None else y + layer.bias

    return forward
