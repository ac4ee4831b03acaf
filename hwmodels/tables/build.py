"""Building the cost table of a phase.

Every region is planned under every choice, all kernels are priced in one batch, and the costs are
laid out for look-up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from hwmodels.devices.device import Device
from hwmodels.estimators.npu.memory import in_sequence
from hwmodels.plans.conversion import kernels_of, requantize_kernel
from hwmodels.plans.region import Context, RegionPlan, plan_region, producer_tags
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tables.activation import Activations, Quantizers, activations, stored_format
from hwmodels.tables.layout import lies_of, linear_values
from hwmodels.tables.phase import COLUMNS, PhaseTable
from hwmodels.tables.price import kernel_costs
from hwmodels.tables.shared_cost import RequantizationCost
from hwmodels.tables.sharing import Floats, Plans, Sharing, repeated
from hwmodels.tables.storage import storage_owners
from hwmodels.work.canonical import canonical_region, structure_of
from hwmodels.work.cost import BOUNDS, STATUS_ORDER
from hwmodels.work.kernel import Kernel, PricedKernel
from hwmodels.work.memory import Liveness
from hwmodels.work.order import backwards
from hwmodels.work.work import CONTRACTING, Operand, RegionWork, Work


def build_phase(
    work: Work,
    choices: Mapping[str, Sequence[Quantizers]],
    device: Device,
    runtime: Runtime,
    *,
    gpus: int = 1,
    detailed: bool = False,
) -> PhaseTable:
    """The table of one phase; every region of `work` has an entry in `choices`.

    `gpus` of them do the same: energy counts all, everything else one. `detailed` keeps the time
    of every kernel apart.
    """
    return _Build(
        work=work, choices=choices, device=device, runtime=runtime, gpus=gpus, detailed=detailed
    ).table()


_Requantizations = tuple[int, int, list[list[Kernel | None]]]
"""Owner, consumer, and the conversion between each pair of their choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
    """Regions that decide for others, by index."""

    offered: Sequence[Sequence[Quantizers]]
    """Choices of each region."""
    implied: Sequence[int]
    """Region whose choice each region runs under."""
    output_owner: Sequence[int]
    """Region that decides the format of each region's output."""
    owner: Mapping[str, int]
    """Region that decides the format of each activation; empty where they are 16 bit."""


@dataclass(kw_only=True)
class _Build:
    """The state of one build: plans and kernels seen so far."""

    work: Work
    choices: Mapping[str, Sequence[Quantizers]]
    device: Device
    runtime: Runtime
    gpus: int
    detailed: bool
    order: Sequence[int] = ()
    """Regions as they run."""
    plans: dict[tuple[int, ...], RegionPlan] = field(default_factory=dict)
    """By the numbers of a region's structure and surroundings, its choice, its output's format."""
    numbers: dict[Hashable, int] = field(default_factory=dict)
    rows: dict[Kernel, int] = field(default_factory=dict)
    """Row of each kernel in `columns`."""
    columns: Floats = field(default_factory=lambda: np.zeros((0, len(COLUMNS))))
    priced: tuple[PricedKernel, ...] = ()
    """Kernels whose times are kept apart, in the order of `rows`."""

    def table(self) -> PhaseTable:
        regions = self.work.regions
        follows = self.runtime.order == "backwards"
        self.order = backwards(self.work) if follows else range(len(regions))
        offered = [_with_given(region, self.choices[region.name]) for region in regions]
        decided = [
            any(offer) or _contracts(region)
            for region, offer in zip(regions, offered, strict=True)
        ]
        owner = storage_owners(self.work, decided) if self.runtime.stores_tensors else {}
        output_owner = [
            next((owner[o.value] for o in region.writes if o.value in owner), index)
            for index, region in enumerate(regions)
        ]
        implied = [
            index if decided[index] or not self.runtime.stores_tensors else output_owner[index]
            for index in range(len(regions))
        ]
        roles = _Roles(offered=offered, implied=implied, output_owner=output_owner, owner=owner)
        plans = self._plan_all(roles)
        linear = self._linear(roles, plans)
        plans = self._in_sequence(plans, linear)
        wanted = self._edge_kernels(roles)
        self._price()
        return self._assemble(roles, plans, wanted, linear)

    def _plan_all(self, roles: _Roles) -> Plans:
        """Plans by region, its choice and the choice of its output's owner."""
        tags = {o.value: producer_tags(r) for r in self.work.regions for o in r.writes}
        return [self._plans(index, roles, tags) for index in range(len(self.work.regions))]

    def _plans(
        self, index: int, roles: _Roles, tags: Mapping[str, frozenset[str]]
    ) -> list[list[RegionPlan]]:
        """Plans of a region by its choice and that of its output's owner."""
        region, own = self.work.regions[index], roles.offered[index]
        structure = structure_of(region)
        producers = {
            str(place): tags[value]
            for place, value in enumerate(structure.values)
            if value in tags
        }
        seen = self._number((structure.key, *sorted(producers.items())))
        outputs: Sequence[Quantizers] = (
            roles.offered[roles.output_owner[index]] if self.runtime.stores_tensors else ({},)
        )
        contexts = [Context(producers=producers, output=stored_format(out)) for out in outputs]
        found = []
        for choice in range(len(roles.offered[roles.implied[index]])):
            quantizers = own[min(choice, len(own) - 1)]
            key = (seen, self._number(tuple(sorted(quantizers.items()))))
            by_output = []
            for context in contexts:
                place = (*key, self._number(context.output))
                if place not in self.plans:
                    asked = canonical_region(region, structure).quantized(quantizers)
                    self.plans[place] = self._planned(asked, context)
                by_output.append(self.plans[place].renamed(structure.values))
            found.append(by_output)
        return found

    def _linear(self, roles: _Roles, plans: Plans) -> Sequence[Set[str]]:
        """By choice, the values that lie pixel after pixel on an NPU; nothing for others."""
        if self.device.npu is None:
            return ()
        most = max(map(len, roles.offered), default=1)
        return [linear_values(self.work, plans, choice, self.device) for choice in range(most)]

    def _in_sequence(self, plans: Plans, linear: Sequence[Set[str]]) -> Plans:
        """Plans for an NPU whose kernels know what runs before them, and how its maps lie.

        Neighbours are taken to choose alike, as far as they have as many choices.
        """
        if self.device.npu is None:
            return plans
        found: Plans = [[] for _ in plans]
        most = max(map(len, plans), default=0)
        for choice in range(most):
            before = 0.0
            for index in self.order:
                region, by_choice, known = self.work.regions[index], plans[index], found[index]
                by_output = by_choice[min(choice, len(by_choice) - 1)]
                lies = lies_of(region, linear[choice])
                ordered = [
                    in_sequence(plan.kernels, self.device, before, linear=lies)
                    for plan in by_output
                ]
                if choice < len(by_choice):
                    known.append([
                        replace(plan, kernels=kernels)
                        for plan, (kernels, _) in zip(by_output, ordered, strict=True)
                    ])  # fmt: skip
                before = ordered[min(choice, len(ordered) - 1)][1]
        for kernel in (k for one in found for two in one for plan in two for k in plan.kernels):
            self._register(kernel)
        return found

    def _number(self, key: Hashable) -> int:
        """A short name of a long key, which is hashed once a region and not once a plan."""
        return self.numbers.setdefault(key, len(self.numbers))

    def _planned(self, asked: RegionWork, context: Context) -> RegionPlan:
        plan = plan_region(asked, self.device, self.runtime, context)
        for kernel in (*plan.kernels, *kernels_of(plan.conversions)):
            self._register(kernel)
        return plan

    def _register(self, kernel: Kernel) -> None:
        self.rows.setdefault(kernel, len(self.rows))

    def _edge_kernels(self, roles: _Roles) -> list[_Requantizations]:
        """Owner, consumer and the conversion between each pair of their choices."""
        found = []
        for index, region in enumerate(self.work.regions):
            consumer = roles.implied[index]
            for operand in activations(region.reads):
                holder = roles.owner.get(operand.value, consumer)
                if holder == consumer:
                    continue
                pairs = [
                    [_requantize(operand, held, wanted) for wanted in roles.offered[consumer]]
                    for held in roles.offered[holder]
                ]
                if any(kernel for row in pairs for kernel in row):
                    found.append((holder, consumer, pairs))
                    for kernel in filter(None, (kernel for row in pairs for kernel in row)):
                        self._register(kernel)
        return found

    def _price(self) -> None:
        """Prices every kernel that plans and edges registered, in one batch."""
        kernels = list(self.rows)
        costs = kernel_costs(kernels, self.device, self.runtime)
        if self.detailed:
            pairs = zip(kernels, costs, strict=True)
            self.priced = tuple(PricedKernel(kernel=one, cost=cost) for one, cost in pairs)
        self.columns = np.zeros((len(kernels), len(COLUMNS) + len(self.priced)))
        for place, (row, cost) in enumerate(zip(self.columns, costs, strict=True)):
            row[:5] = (
                cost.latency_s, cost.low_s, cost.high_s, self.gpus * cost.energy_j,
                cost.traffic_bytes,
            )  # fmt: skip
            row[len(COLUMNS) - len(BOUNDS) + BOUNDS.index(cost.bound)] = cost.latency_s
            if self.detailed:
                row[len(COLUMNS) + place] = cost.latency_s

    def _cost(self, kernels: Iterable[Kernel]) -> Floats:
        """Summed columns of kernels that were priced."""
        rows = [self.rows[kernel] for kernel in kernels]
        total: Floats = self.columns[rows].sum(axis=0)
        return total

    def _assemble(
        self,
        roles: _Roles,
        plans: Plans,
        wanted: list[_Requantizations],
        linear: Sequence[Set[str]],
    ) -> PhaseTable:
        regions = self.work.regions
        most = max((len(offer) for offer in roles.offered), default=1)
        outputs = most if self.runtime.stores_tensors else 1
        base = np.full((len(regions), most, outputs, self.columns.shape[1]), np.inf)
        status = np.zeros((len(regions), most), dtype=np.int64)
        repeats = [region.repeats for region in regions]
        sharing = Sharing(plans, self._cost, repeats)
        for index, by_choice in enumerate(plans):
            for choice, by_output in enumerate(by_choice):
                status[index, choice] = STATUS_ORDER.index(by_output[0].status)
                for out, plan in enumerate(by_output):
                    times = repeats[index]
                    base[index, choice, out] = repeated(self._cost(plan.kernels), times)
                    base[index, choice, out] += sharing.own(plan, times)
        stored, value_owner, workspace = Activations(
            self.work,
            roles.offered,
            plans,
            roles.owner,
            self.device,
            order=self.order,
            linear=linear,
        ).arrays(most)
        return PhaseTable(
            regions=tuple(region.name for region in regions),
            choice_counts=tuple(len(offer) for offer in roles.offered),
            base=base,
            implied=np.array(roles.implied, dtype=np.int64),
            output_owner=np.array(roles.output_owner, dtype=np.int64),
            status=status,
            notes=tuple(
                tuple(by_output[0].notes for by_output in by_choice) for by_choice in plans
            ),
            macs=np.array([region.macs for region in regions], dtype=float),
            conversions=sharing.conversions(),
            constants=sharing.constants(),
            edges=tuple(
                RequantizationCost(
                    owner=holder,
                    consumer=consumer,
                    costs=np.array(
                        [
                            [
                                repeated(self._cost((k,) if k else ()), repeats[consumer])
                                for k in row
                            ]
                            for row in pairs
                        ]
                    ),
                )
                for holder, consumer, pairs in wanted
            ),
            liveness=Liveness.of(self.work, self.order),
            value_bytes=stored,
            value_owner=value_owner,
            workspace=workspace,
            kernels=self.priced,
        )


def _requantize(operand: Operand, held: Quantizers, wanted: Quantizers) -> Kernel | None:
    stored, target = stored_format(held), stored_format(wanted)
    return None if stored == target else requantize_kernel(operand, stored, target)


def _with_given(region: RegionWork, offered: Sequence[Quantizers]) -> Sequence[Quantizers]:
    """Choices with the format that the region's first product comes in, where they name none."""
    inputs = (op.operand("input") for op in region.ops if op.kind in CONTRACTING)
    given = next((o.quantizer for o in inputs if o is not None and o.quantizer is not None), None)
    return offered if given is None else [{"input": given, **choice} for choice in offered]


def _contracts(region: RegionWork) -> bool:
    return any(op.kind in CONTRACTING for op in region.ops)
