"""Schemes and formats that every target executes as they are: what a first draft offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from dse.graph.ir.site import Region
from dse.space.build import resolve_choice
from dse.space.operands import operand_quantizers
from dse.space.ranges import TRIED, takes_range
from dse.space.schema import Mode
from hwmodels.devices.device import Device
from hwmodels.runtimes.execution import Execution, execution
from hwmodels.runtimes.legality import default_element
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.cost import AS_ASKED
from hwmodels.work.role import region_role
from hwmodels.work.work import CONTRACTING, RegionWork

BASELINE = "bf16"
FLOAT = "fp32"
WIDE = (BASELINE, "fp16", FLOAT)
"""Floats that a region keeps."""
UNITS = "free"
"""The runtime that runs whatever a device's units multiply."""
EIGHT_BITS = (("w8a8_fp8_dynamic",), ("w8a8_int8", "w8a8_int8_static"))
EIGHT_BITS_OF_MAPS = (("w8a8_fp8",), ("w8a8_int8_static", "w8a8_int8"))
Use: TypeAlias = str | Mode
Platforms = Sequence[tuple[Device, Runtime]]

W4A8 = Mode(name="w4a8_int8_static", weight="int4a@channel/fp32:gptq", activation="uint8:static")
"""Weights in every code of int4, a scale a channel, beside activations as of 8-bit weights."""
NARROW = (("w4a16",), ("w4a4_nvfp4", "w4a4_mxfp4"), (W4A8,))
"""Of each group the first that runs."""
WITHOUT_FLOATS = (("w8a8_int8_static",), ("w8a8_int8",), ("int8",), (W4A8,))
"""The stand-in for 16-bit floats where a target has none: heads and attention take it too."""


BLOCKS = tuple(
    tuple(Mode(name=f"w_{name}", weight=name) for name in names)
    for names in (("q8_0",), ("q6_k", "q5_1"), ("q5_k", "q5_0"), ("q4_k", "iq4_nl"))
)
"""GGUF's blocks, for runtimes that have kernels for no scheme; K-quants want rows of 256."""


def native_uses(
    regions: Sequence[Region], works: Mapping[str, RegionWork], platforms: Platforms
) -> tuple[Use, ...]:
    """Candidates for regions of one kind and role, those that all targets run natively.

    Where several targets share none, each one's own. Where a runtime runs no scheme narrower than
    a float, its block formats of weights; where it has none either, those that the devices' units
    multiply; where these have none, what is usual: it is priced as what would happen instead.

    Args:
        regions: of one kind and role.
        works: by region name, at the sizes of a call.
        platforms: the targets.
    """
    held = [works[region.name] for region in regions if region.name in works]
    first = regions[0]
    kept = first.kind == "attention" or region_role(first.role).is_kept
    eight = EIGHT_BITS_OF_MAPS if first.kind == "conv2d" else EIGHT_BITS
    free = load_runtime(UNITS)
    units = [(device, free) for device, _ in platforms]
    found = _running(held, platforms, eight, kept=kept)
    if not found and len(platforms) > 1:
        own = [use for one in platforms for use in native_uses(regions, works, [one])]
        return tuple(use for place, use in enumerate(own) if use not in own[:place])
    # Where one table serves look-up and head, its runtime stores it in blocks, too.
    stored = not kept or all(one.shares_tables for _, one in platforms)
    if found and first.kind != "attention" and stored and found[-1] in WIDE[:-1]:
        found += _each_first(BLOCKS, held, platforms)
    if found and (kept or found[-1] not in WIDE):
        return found
    more = _running(held, units, eight, kept=kept)
    if found or more:
        return found + tuple(name for name in more if not found or name not in WIDE)
    return (BASELINE,) if kept else (BASELINE, *(group[0] for group in (*eight, *NARROW[:1])))


def ranges_of(uses: Iterable[Use]) -> tuple[str, ...]:
    """The ranges of static activations that a search with these candidates tries unasked."""
    return TRIED if any(takes_range(resolve_choice(use)) for use in uses) else ()


def are_blocks(uses: Iterable[Use]) -> bool:
    """Whether a region's candidates are block formats, which leave activations alone."""
    blocks = {use for group in BLOCKS for use in group}
    return any(use in blocks for use in uses)


def are_shared(works: Iterable[RegionWork], platforms: Platforms, uses: Sequence[Use]) -> bool:
    """Whether all targets run some of the candidates natively."""
    held = [*works]
    return any(_runs(use, held, platforms) for use in uses)


def _running(
    works: Sequence[RegionWork],
    platforms: Platforms,
    eight: tuple[Sequence[str], ...],
    *,
    kept: bool,
) -> tuple[Use, ...]:
    """The widest float that all targets run, and of each group what they run too."""
    wide = next(iter(_each_first((_floats(platforms),), works, platforms)), "")
    if wide == FLOAT and not all(_is_built_for(FLOAT, device) for device, _ in platforms):
        wide = ""
    if wide and kept:
        return (wide,)
    groups: tuple[Sequence[Use], ...] = (*eight, *NARROW) if wide else WITHOUT_FLOATS
    if wide == FLOAT:
        groups = (*eight, (W4A8,))  # other narrow weights keep 16-bit activations
    return (*((wide,) if wide else ()), *_each_first(groups, works, platforms))


def _floats(platforms: Platforms) -> tuple[str, ...]:
    """Floats that a region keeps, the first that runs; fp16 before a bf16 that no unit has."""
    fp16 = any(default_element(device) == "fp16" for device, _ in platforms)
    return ("fp16", BASELINE, FLOAT) if fp16 else WIDE


def _is_built_for(element: str, device: Device) -> bool:
    """Whether the units that multiply matrices take an element; a vector unit is a way out."""
    matrix = [unit for unit in device.units if unit.role == "matrix"]
    return any(rate.accepts(element, element) for unit in matrix for rate in unit.rates)


def _each_first(
    groups: Iterable[Iterable[Use]], works: Sequence[RegionWork], platforms: Platforms
) -> tuple[Use, ...]:
    """Of each group the first that runs, if any does."""
    found = (
        next((use for use in group if _runs(use, works, platforms)), None) for group in groups
    )
    return tuple(use for use in found if use is not None)


def _runs(use: Use, works: Iterable[RegionWork], platforms: Platforms) -> bool:
    """Whether every target executes a choice in all regions as it is asked for."""
    quantizers = operand_quantizers(resolve_choice(use))
    return all(
        _is_as_asked(execution(op.quantized(quantizers), device, runtime))
        for work in works
        for op in work.ops
        if op.kind in CONTRACTING
        for device, runtime in platforms
    )


def _is_as_asked(run: Execution) -> bool:
    """Whether a kernel takes what was asked for, and files with it."""
    return run.status in AS_ASKED and not (run.mode is not None and run.mode.coded)
