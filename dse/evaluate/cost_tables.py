"""Cost tables of a problem on every target of a space."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dse.evaluate.costs import Costs
from dse.evaluate.deployment import Deployment
from dse.evaluate.phases import exchange_of, growing_steps, phase_work, remarks_of
from dse.evaluate.shared_tables import shared_tables, two_copies
from dse.evaluate.target_costs import TargetCosts
from dse.graph.ir.site import Region
from dse.graph.patterns.analysis import Analysis
from dse.graph.patterns.correspond import correspond, correspond_by_name
from dse.space.operands import operand_quantizers
from dse.space.platform import platform_of
from dse.space.problem import Problem
from dse.space.schema import Space
from hwmodels.devices.device import Device
from hwmodels.formats.quantizer import Quantizer
from hwmodels.tables.network import PhaseWork
from hwmodels.work.work import OperandName


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

    Raises:
        GraphError: a symbolic size that the scenario does not bind.
        HardwareError: unknown or wrong devices and runtimes.
    """
    scenario = space.scenario
    gpus = scenario.tensor_parallel
    phases = tuple(
        PhaseWork(
            name=name,
            share=phase.share,
            work=phase_work(analysis, phase.dims, gpus),
        )
        for name, phase in scenario.phases.items()
    )
    match = correspond_by_name if same_network else correspond
    deciding = _variables_of_regions(
        problem,
        match(tuple(quality_regions), analysis.regions),
        [region.name for region in phases[0].work.regions],
    )
    choices = {region: _operand_choices(problem, owner) for region, owner in deciding.items()}
    shared = shared_tables(problem, analysis, phases[0].work, deciding)
    deciding |= {one.region: one.variable for one in shared}
    exchange = exchange_of(phases)
    steps: tuple[PhaseWork, ...] = ()
    if exchange is not None:
        dims = scenario.phases[exchange.decode].dims
        steps = growing_steps(analysis, dims, gpus)
    targets = []
    for target in space.targets:
        device, runtime = platform_of(target, folder, devices)
        deployment = Deployment(
            device=device,
            runtime=runtime,
            gpus=gpus,
            utilisation=scenario.memory_utilisation,
            price_usd_per_h=target.price_usd_per_h,
        )
        own = choices | {one.region: one.stored(choices, deployment) for one in shared}
        table = deployment.table(phases, own)
        served = None
        if exchange is not None:
            served = deployment.served(table, exchange, steps, own)
        targets.append(
            TargetCosts(
                label=target.label,
                deployment=deployment,
                table=table,
                served=served,
                phases=phases,
                choices=own,
            )
        )
    return Costs(
        problem=problem,
        targets=tuple(targets),
        variable_of_region=deciding,
        phases=tuple(scenario.phases),
        remarks=(
            *remarks_of(phases),
            *_only_emulated(targets, deciding, {one.region for one in shared}),
            *two_copies(problem, analysis, deciding, {one.table for one in shared}),
        ),
    )


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


def _operand_choices(
    problem: Problem, variable: int | None
) -> tuple[Mapping[OperandName, Quantizer], ...]:
    if variable is None:
        return ({},)
    return tuple(operand_quantizers(choice) for choice in problem.variables[variable].choices)


def _variables_of_regions(
    problem: Problem,
    counterpart: Mapping[str, str | None],
    worked: Sequence[str],
) -> dict[str, int | None]:
    """Index of the variable that decides each cost region that has work to do.

    Collectives between GPUs are no regions of the graph: nothing decides them.
    """
    owner = {
        region: index
        for index, variable in enumerate(problem.variables)
        for region in variable.regions
    }
    return {name: owner.get(counterpart.get(name) or "") for name in worked}
