"""Every workload by name, and those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

from dse.errors import MethodError, nearest
from dse.training.workloads.byte_gpt import (
    FULL,
    GPT_124M,
    SMALL,
    SMALLEST,
    ByteGpt,
)
from dse.training.workloads.digits import Digits
from dse.training.workloads.fashion import Fashion
from dse.training.workloads.smollm2 import SmolLm2
from dse.training.workloads.workload import Workload
from hwmodels.plugins import plugin, plugin_names

GROUP = "dse.workloads"
"""Entry points of packages that bring workloads: functions without arguments."""
WORKLOADS: Mapping[str, Callable[[], Workload]] = MappingProxyType(
    {
        "digits-mlp": Digits,
        "fashion-resnet": Fashion,
        "byte-gpt-64-1": lambda: ByteGpt(
            name="byte-gpt-64-1", config=SMALLEST, steps=150, rate=1e-2, sequence=64
        ),
        "byte-gpt-64": lambda: ByteGpt(name="byte-gpt-64", config=SMALL, steps=400, rate=1e-2),
        "byte-gpt": lambda: ByteGpt(name="byte-gpt", config=FULL, steps=400, rate=4e-3),
        "gpt-124m": lambda: ByteGpt(
            name="gpt-124m", config=GPT_124M, steps=400, rate=6e-4, sequence=512
        ),
        "smollm2-135m": SmolLm2,
    }
)


def workload(name: str) -> Workload:
    """The workload of that name.

    Raises:
        MethodError: there is none.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]()
    brought = plugin_names(GROUP)
    if name not in brought:
        known = (*WORKLOADS, *brought)
        raise MethodError(
            f"unknown workload {name!r}{nearest(name, known) or '.'} Known: {', '.join(known)}"
        )
    return cast("Workload", plugin(GROUP, name)())  # type: ignore[operator]
