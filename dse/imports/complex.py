"""Complex arithmetic as pairs of real tensors, while a network is traced: ONNX has none.

Some networks rotate queries and keys as complex numbers (DeepSeek-V2, Llama 4). The few functions
that make and read such numbers are answered with a pair of real tensors instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Complex:
    """Real and imaginary part, of equal shape; what only moves elements is done to both."""

    def __init__(self, real: Tensor, imaginary: Tensor) -> None:
        self.real, self.imaginary = real, imaginary

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Functions of torch on complex numbers, where they have a form in real ones."""
        if func not in FUNCTIONS:
            raise NotImplementedError(f"complex numbers: {func} has no form in real numbers")
        return FUNCTIONS[func](*args, **(kwargs or {}))

    def __mul__(self, other: Complex | Tensor | float) -> Complex:
        if not isinstance(other, Complex):
            return Complex(self.real * other, self.imaginary * other)
        return Complex(
            self.real * other.real - self.imaginary * other.imaginary,
            self.real * other.imaginary + self.imaginary * other.real,
        )

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> Complex:
        return Complex(self.real[index], self.imaginary[index])

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "device", "ndim"):
            return getattr(self.real, name)
        if name not in MOVES:
            raise NotImplementedError(f"complex numbers: {name} has no form in real numbers")

        def both(*arguments: Any, **keywords: Any) -> Complex:
            parts = (getattr(part, name)(*arguments, **keywords)
                     for part in (self.real, self.imaginary))  # fmt: skip
            return Complex(*parts)

        return both


MOVES = ("unsqueeze", "squeeze", "to", "view", "reshape", "transpose", "permute", "expand",
         "contiguous", "flatten")  # fmt: skip
"""Methods that a complex tensor shares with its parts."""


def polar(absolute: Tensor, angle: Tensor) -> Complex:
    """As `torch.polar`."""
    return Complex(absolute * angle.cos(), absolute * angle.sin())


def view_as_complex(pairs: Tensor) -> Complex:
    """As `torch.view_as_complex`; pairs: (..., 2)."""
    return Complex(pairs[..., 0], pairs[..., 1])


def view_as_real(value: Complex) -> Tensor:
    """As `torch.view_as_real`: (..., 2)."""
    return torch.stack((value.real, value.imaginary), dim=-1)


FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    torch.polar: polar,
    torch.view_as_complex: view_as_complex,
    torch.view_as_real: view_as_real,
    torch.Tensor.mul: lambda first, second: (
        second * first if isinstance(second, Complex) else torch.mul(first, second)
    ),
}


class RealPairs(TorchFunctionMode):
    """Complex tensors are `Complex` while it is active."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The function, or its form in real numbers."""
        return FUNCTIONS.get(func, func)(*args, **(kwargs or {}))
