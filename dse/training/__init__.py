"""Low-precision training: a method as data on the axes, applied to any module and measured.

`dse.training.apply(model, method)` wraps a module so that each product of its training quantizes
its operands as the method says; `dse.training.load_method` reads a method.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dse.training.load import load_method
    from dse.training.method import Method
    from dse.training.quantized import Quantized, apply

__all__ = ["Method", "Quantized", "apply", "load_method"]

_HOMES = {
    "Method": "dse.training.method",
    "Quantized": "dse.training.quantized",
    "apply": "dse.training.quantized",
    "load_method": "dse.training.load",
}
"""The module of a name; what wraps modules needs torch, what prices a method does not."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
