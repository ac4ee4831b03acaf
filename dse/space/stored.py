"""Tensors between products that follow the choices of a space: where a target stores all in one.

A runtime with Q/DQ at the tensor has no 16-bit stream beside its integers: sums, pools and the
results of the network are stored in the formats that are chosen for products, and priced so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.graph.ir.site import Site
from dse.graph.patterns.analysis import Analysis
from dse.space.platform import platform_of
from dse.space.schema import Space
from hwmodels.devices.device import Device

TENSOR = "tensor"
"""Placement of Q/DQ at the tensor."""


def stored_sites(
    space: Space,
    analysis: Analysis,
    folder: Path,
    devices: Mapping[str, Device] | None = None,
) -> Mapping[str, tuple[Site, ...]]:
    """The sites of tensors between products by region; none where no target stores them so.

    Args:
        space: targets.
        analysis: of the model that quality is measured on.
        folder: what relative device and runtime files are relative to.
        devices: by the name that a target uses, where it is not one of the catalogue or a file.

    Raises:
        HardwareError: unknown or wrong devices and runtimes.
    """
    runtimes = (platform_of(target, folder, devices)[1] for target in space.targets)
    if any(runtime.placement == TENSOR for runtime in runtimes):
        return analysis.stored
    return {}
