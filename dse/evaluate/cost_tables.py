"""Cost tables of a problem on every target of a space."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dse.evaluate.costs import Costs
from dse.evaluate.phases import remarks_of
from dse.evaluate.pricing import Pricing, pricing_of
from dse.evaluate.shared_tables import two_copies
from dse.evaluate.target_costs import TargetCosts
from dse.evaluate.varied_costs import VariedCosts
from dse.graph.ir.site import Region
from dse.graph.patterns.analysis import Analysis
from dse.space.hardware import HardwareSpace
from dse.space.platform import platform_of
from dse.space.problem import Problem
from dse.space.schema import Space
from hwmodels.devices.device import Device


def build_costs(
    space: Space,
    problem: Problem,
    quality_regions: Sequence[Region],
    analysis: Analysis,
    *,
    origin: str,
    folder: Path,
    devices: Mapping[str, Device] | None = None,
    same_network: bool = False,
    hardware: HardwareSpace | None = None,
) -> Costs:
    """Cost tables of a problem on every target of a space.

    Args:
        space: targets and scenario.
        problem: the decision variables.
        quality_regions: regions of the model that quality is measured on.
        analysis: of the graph that costs are computed on.
        origin: what errors call the space.
        folder: what relative device and runtime files are relative to.
        devices: by the name that a target uses, where it is not one of the catalogue or a file.
        same_network: the graph is another form of the model that quality is measured on.
        hardware: what varies of a target's device; the problem has its variables.

    Raises:
        GraphError: a symbolic size that the scenario does not bind.
        HardwareError: unknown or wrong devices and runtimes.
    """
    pricing = pricing_of(
        space, problem, quality_regions, analysis, origin=origin, same_network=same_network
    )
    targets = []
    for place, target in enumerate(space.targets):
        device, runtime = platform_of(target, folder, devices)
        if hardware is not None and place == hardware.target:
            device, runs = hardware.device(hardware.start), hardware.runs(hardware.start)
            targets.append(pricing.target(target, device, runtime, runs))
            continue
        targets.append(pricing.target(target, device, runtime))
    shared = pricing.shared
    costs = Costs(
        problem=problem,
        targets=tuple(targets),
        variable_of_region=pricing.deciding,
        phases=tuple(space.scenario.phases),
        remarks=(
            *remarks_of(pricing.phases),
            *_only_emulated(targets, pricing.deciding, {one.region for one in shared}),
            *two_copies(problem, analysis, pricing.deciding, {one.table for one in shared}),
        ),
    )
    return costs if hardware is None else _varied(costs, space, pricing, hardware)


def _varied(costs: Costs, space: Space, pricing: Pricing, hardware: HardwareSpace) -> VariedCosts:
    """Costs whose hardware is chosen, too."""
    target = space.targets[hardware.target]
    runtime = costs.targets[hardware.target].deployment.runtime

    def priced(device: Device, runs: Collection[str] | None) -> TargetCosts:
        return pricing.target(target, device, runtime, runs)

    return VariedCosts.of(costs, hardware, priced)


def _only_emulated(
    targets: Iterable[TargetCosts], deciding: Mapping[str, int | None], tables: Collection[str]
) -> Iterator[str]:
    """Says which targets run no candidate at all, with the first reason."""
    for target in targets:
        searched = [
            one
            for one in target.table.entries()
            if deciding.get(one.region) is not None and one.region not in tables
        ]
        if searched and all(one.cost.status == "emulated" for one in searched):
            runtime = target.deployment.runtime.name
            yield (
                f"{target.label}: {runtime} runs no candidate natively there, so that its costs "
                f"are those of falling back ({searched[0].cost.note}); choose another runtime, or "
                f"candidates that it has (dse legal MODEL --device "
                f"{target.deployment.device.name}:{runtime})"
            )
