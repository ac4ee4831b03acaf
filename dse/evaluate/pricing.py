"""A problem's work, ready to be priced on whichever device."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dse.errors import SpaceError
from dse.evaluate.deployment import Deployment
from dse.evaluate.phases import (
    Exchange,
    exchange_of,
    fuller_prompts,
    growing_steps,
    phase_work,
)
from dse.evaluate.shared_tables import SharedTable, shared_tables
from dse.evaluate.target_costs import TargetCosts
from dse.graph.ir.site import Region
from dse.graph.patterns.analysis import Analysis
from dse.graph.patterns.correspond import correspond, correspond_by_name
from dse.queue import Queue, load_bounds
from dse.space.constraint import Constraint
from dse.space.operands import operand_quantizers
from dse.space.problem import Problem
from dse.space.schema import Scenario, Space, Target
from hwmodels.devices.device import Device
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tables.network import PhaseWork
from hwmodels.tables.queueing import Traffic
from hwmodels.tables.served import ServedTable
from hwmodels.work.work import OperandName

Formats = tuple[Mapping[OperandName, Quantizer], ...]
"""Formats of a region's operands under each choice."""


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """All that prices have in common, whatever the device."""

    problem: Problem
    scenario: Scenario
    phases: tuple[PhaseWork, ...]
    deciding: Mapping[str, int | None]
    """Cost region -> index of the variable that decides it."""
    choices: Mapping[str, Formats]
    """Cost region -> formats of its operands under each choice."""
    shared: tuple[SharedTable, ...]
    """Tables that follow a product."""
    exchange: Exchange | None
    steps: tuple[PhaseWork, ...]
    """Decoding steps of more and more requests."""
    prompts: tuple[PhaseWork, ...] = ()
    """Prefill calls of more and more prompts, where requests wait for one another."""
    bounds: tuple[Constraint, ...] = ()
    """On the times that these find."""

    def target(
        self,
        target: Target,
        device: Device,
        runtime: Runtime,
        runs: Collection[str] | None = None,
    ) -> TargetCosts:
        """The costs of a target, with that device.

        Args:
            target: of the space.
            device: of the target.
            runtime: of the target.
            runs: names of the choices that the device executes; of others nobody asks for the
                price. None: all.

        Raises:
            HardwareError: the device cannot run the work.
        """
        deployment = Deployment(
            device=device,
            runtime=runtime,
            gpus=self.scenario.tensor_parallel,
            utilisation=self.scenario.memory_utilisation,
            price_usd_per_h=target.price_usd_per_h,
        )
        choices = self.choices if runs is None else dict(self._executed(runs))
        own = dict(choices) | {one.region: one.stored(choices, deployment) for one in self.shared}
        table = deployment.table(self.phases, own)
        served = None
        if self.exchange is not None:
            served = deployment.served(table, self.exchange, self.steps, own, prompts=self.prompts)
        return TargetCosts(
            label=target.label,
            deployment=deployment,
            table=table,
            served=served,
            queue=self._queue(served, runtime),
            phases=self.phases,
            choices=own,
        )

    def _queue(self, served: ServedTable | None, runtime: Runtime) -> Queue | None:
        """The requests of the scenario's load on a target."""
        load = self.scenario.load
        if load is None or served is None:
            return None
        demand = served.demand
        traffic = Traffic(
            prompt=demand.prefill.tokens,
            generate=round(demand.generated),
            clients=load.clients,
            rate=1.0 if self.bounds else load.rate,  # with bounds another one is looked for
        )
        return Queue(served=served, runtime=runtime, traffic=traffic, bounds=self.bounds)

    def _executed(self, runs: Collection[str]) -> Iterator[tuple[str, Formats]]:
        """Choices by region, without accumulators of those that the device does not execute.

        It has no such accumulator, and would refuse it.
        """
        for region, formats in self.choices.items():
            variable = self.deciding[region]
            if variable is None:
                yield region, formats
                continue
            names = (choice.name for choice in self.problem.variables[variable].choices)
            yield (
                region,
                tuple(
                    one if name in runs else {key: q for key, q in one.items() if key != "sum"}
                    for name, one in zip(names, formats, strict=True)
                ),
            )


def pricing_of(
    space: Space,
    problem: Problem,
    quality_regions: Sequence[Region],
    analysis: Analysis,
    *,
    origin: str,
    same_network: bool,
) -> Pricing:
    """The work of a problem, with who decides what.

    Args:
        space: the scenario.
        problem: the decision variables.
        quality_regions: regions of the model that quality is measured on.
        analysis: of the graph that costs are computed on.
        origin: what errors call the space.
        same_network: the graph is another form of the model that quality is measured on.

    Raises:
        GraphError: a symbolic size that the scenario does not bind.
        SpaceError: a load without requests, or with bounds on something else.
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
    shared = tuple(shared_tables(problem, analysis, phases[0].work, deciding))
    exchange = exchange_of(phases)
    steps: tuple[PhaseWork, ...] = ()
    prompts: tuple[PhaseWork, ...] = ()
    bounds: tuple[Constraint, ...] = ()
    if exchange is not None:  # then phases serve requests, as those of `dse predict --prompt`
        served = scenario.phases[exchange.prefill].dims
        work = phase_work(analysis, served, gpus, answers=True)
        phases = tuple(
            replace(phase, work=work) if phase.name == exchange.prefill else phase
            for phase in phases
        )
        dims = scenario.phases[exchange.decode].dims
        steps = growing_steps(analysis, dims, gpus)
    if scenario.load is not None:
        if exchange is None or not steps:
            raise SpaceError(
                f"{origin}: scenario.load: expected a phase of prompts and one of single tokens, "
                "with a size that counts requests (batch); the phases are "
                f"{', '.join(scenario.phases)}"
            )
        bounds = load_bounds(scenario.load.bounds, origin=f"{origin}: scenario.load.bounds")
        dims = scenario.phases[exchange.prefill].dims
        prompts = fuller_prompts(analysis, dims, exchange.prompt, gpus)
    return Pricing(
        problem=problem,
        scenario=scenario,
        phases=phases,
        deciding=deciding | {one.region: one.variable for one in shared},
        choices=choices,
        shared=shared,
        exchange=exchange,
        steps=steps,
        prompts=prompts,
        bounds=bounds,
    )


def _operand_choices(problem: Problem, variable: int | None) -> Formats:
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
