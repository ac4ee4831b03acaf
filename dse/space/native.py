"""Schemes and formats that every target executes as they are: what a first draft offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dse.graph.ir.site import Region
from dse.space.build import resolve_choice
from dse.space.operands import operand_quantizers
from hwmodels.devices.device import Device
from hwmodels.runtimes.execution import execution
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.cost import AS_ASKED
from hwmodels.work.role import region_role
from hwmodels.work.work import CONTRACTING, RegionWork

BASELINE = "bf16"
EIGHT_BITS = (("w8a8_fp8_dynamic",), ("w8a8_int8", "w8a8_int8_static"))
EIGHT_BITS_OF_MAPS = (("w8a8_fp8",), ("w8a8_int8_static", "w8a8_int8"))
NARROW = (("w4a16",), ("w4a4_nvfp4", "w4a4_mxfp4"))
"""Of each group the first that runs."""
WITHOUT_FLOATS = (("w8a8_int8_static",), ("w8a8_int8",), ("int8",))
"""The stand-in for 16-bit floats where a target has none: heads and attention take it too."""

Platforms = Sequence[tuple[Device, Runtime]]


def native_uses(
    regions: Sequence[Region], works: Mapping[str, RegionWork], platforms: Platforms
) -> tuple[str, ...]:
    """Candidates for regions of one kind and role, those that all targets run natively.

    Where there is none, what is usual: it is priced as what would happen instead.

    Args:
        regions: of one kind and role.
        works: by region name, at the sizes of a call.
        platforms: the targets.
    """
    held = [works[region.name] for region in regions if region.name in works]
    wide = _runs(BASELINE, held, platforms)
    first = regions[0]
    kept = first.kind == "attention" or region_role(first.role).is_kept
    if wide and kept:
        return (BASELINE,)
    eight = EIGHT_BITS_OF_MAPS if first.kind == "conv2d" else EIGHT_BITS
    groups = (*eight, *NARROW) if wide else WITHOUT_FLOATS
    native = [
        next((name for name in group if _runs(name, held, platforms)), "") for group in groups
    ]
    found = tuple(name for name in native if name)
    if wide or found:
        return (BASELINE, *found) if wide else found
    return (BASELINE,) if kept else (BASELINE, *(group[0] for group in (*eight, *NARROW[:1])))


def _runs(name: str, works: Iterable[RegionWork], platforms: Platforms) -> bool:
    """Whether every target executes a choice in all regions as it is asked for."""
    quantizers = operand_quantizers(resolve_choice(name))
    return all(
        execution(op.quantized(quantizers), device, runtime).status in AS_ASKED
        for work in works
        for op in work.ops
        if op.kind in CONTRACTING
        for device, runtime in platforms
    )
