"""Scalar functions as they are written, and written otherwise so that 16 bits hold them.

Modules that call these functions have them rewritten by a method (`functions.rewrites`): torch
sees the call, and `Quantized` takes the other form while the module runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

from dse.training.method import Rewrite

HALF_LOG_TAU = math.log(2 * math.pi) / 2


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), operation by operation; any shape.

    In fp16 the exponential is infinite from 11.1 on, and so are result and gradient.
    """
    if has_torch_function((x,)):
        found: Tensor = handle_torch_function(softplus, (x,), x)
        return found
    return torch.log(1 + torch.exp(x))


def normal_log_density(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The logarithm of a normal density by squares: -(x - mean)^2 / (2 deviation^2) - ...

    In fp16 squares of less than 1.7e-4 are nothing, and the ratio of two such is no number.

    Args:
        x: Any shape.
        mean: The same.
        deviation: The same, above 0.
    """
    given = (x, mean, deviation)
    if has_torch_function(given):
        found: Tensor = handle_torch_function(normal_log_density, given, *given)
        return found
    square = -((x - mean) ** 2) / (2 * deviation**2)
    return square - torch.log(deviation) - HALF_LOG_TAU


def _linear_branch(x: Tensor) -> Tensor:
    """Softplus that is its argument where the exponential is close to the format's end."""
    limit = math.log(torch.finfo(x.dtype).max) - 1
    return torch.where(x > limit, x, torch.log(1 + torch.exp(x.clamp(max=limit))))


def _ratio_first(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The density by the square of a ratio."""
    ratio = (x - mean) / deviation
    return -(ratio**2) / 2 - torch.log(deviation) - HALF_LOG_TAU


REWRITES: Mapping[Rewrite, Mapping[Callable[..., Any], Callable[..., Tensor]]] = MappingProxyType(
    {
        "softplus": {softplus: _linear_branch, functional.softplus: _linear_branch},
        "normal": {normal_log_density: _ratio_first},
    }
)
"""Functions that each rewrite takes the place of, with what is computed instead."""
