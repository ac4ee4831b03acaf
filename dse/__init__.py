"""Design-space exploration for low-precision deep learning.

`dse.search` gives a `Front`, `dse.load` and `dse.from_torch` a `LoadedModel`; docs/api.md shows
them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dse.api.loaded import LoadedModel, load
    from dse.api.module import from_torch
    from dse.api.search import search
    from dse.evaluate.metric import Metric, Run
    from dse.explore.measure.parallelism import Parallelism
    from dse.result import Front, FrontPoint
    from dse.space.schema import Mode, Space, Target
    from dse.zoo.split import Split, Splits
    from hwmodels.devices.device import Device
    from hwmodels.formats.quantizer import Quantizer

__version__ = "0.1.0"

__all__ = [
    "Device", "Front", "FrontPoint", "LoadedModel", "Metric", "Mode", "Parallelism", "Quantizer",
    "Run", "Space", "Split", "Splits", "Target", "__version__", "from_torch", "load",
    "search",
]  # fmt: skip

_HOMES = {
    "LoadedModel": "dse.api.loaded",
    "load": "dse.api.loaded",
    "from_torch": "dse.api.module",
    "search": "dse.api.search",
    "Metric": "dse.evaluate.metric",
    "Run": "dse.evaluate.metric",
    "Parallelism": "dse.explore.measure.parallelism",
    "Front": "dse.result",
    "FrontPoint": "dse.result",
    "Mode": "dse.space.schema",
    "Space": "dse.space.schema",
    "Target": "dse.space.schema",
    "Split": "dse.zoo.split",
    "Splits": "dse.zoo.split",
    "Device": "hwmodels.devices.device",
    "Quantizer": "hwmodels.formats.quantizer",
}
"""The module of a name; it is imported when it is first used, since most need torch."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The API: what tab completion shows, whatever submodules have been imported."""
    return list(__all__)
