"""Building the cost table of a phase: plan every region under every choice, price all kernels in
one batch, lay the costs out for look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwmodels.conversion import Conversion, requantize_kernel
from hwmodels.cost import STATUS_ORDER
from hwmodels.coupling import Edge, Shared, owners
from hwmodels.device import Device
from hwmodels.formats import Quantizer
from hwmodels.kernel import Kernel
from hwmodels.memory import Liveness, activation_bytes, is_activation
from hwmodels.operation import CONTRACTING
from hwmodels.phase_table import BOUNDS, COLUMNS, PhaseTable
from hwmodels.plan import Context, Plan, plan_region, producer_tags
from hwmodels.price import estimator_of
from hwmodels.runtime import Runtime
from hwmodels.signature import Canonical, canonical
from hwmodels.work import Operand, OperandName, RegionWork, Work

Floats = NDArray[np.float64]
Quantizers = Mapping[OperandName, Quantizer]
WEIGHT_COLUMN = COLUMNS.index("weight_bytes")
CACHE_COLUMN = COLUMNS.index("kv_bytes")


def build_phase(
    work: Work,
    choices: Mapping[str, Sequence[Quantizers]],
    device: Device,
    runtime: Runtime,
) -> PhaseTable:
    """The table of one phase; every region of `work` has an entry in `choices`."""
    return _Build(work=work, choices=choices, device=device, runtime=runtime).table()


@dataclass(kw_only=True)
class _Build:
    """State of one build: plans and kernels seen so far."""

    work: Work
    choices: Mapping[str, Sequence[Quantizers]]
    device: Device
    runtime: Runtime
    plans: dict[tuple[object, ...], Plan] = field(default_factory=dict)
    kernels: dict[str, tuple[int, Kernel]] = field(default_factory=dict)
    columns: Floats = field(default_factory=lambda: np.zeros((0, len(COLUMNS))))

    def table(self) -> PhaseTable:
        regions = self.work.regions
        offered = [self.choices[region.name] for region in regions]
        decided = [
            any(offer) or _contracts(region)
            for region, offer in zip(regions, offered, strict=True)
        ]
        tensor_side = self.runtime.placement == "tensor"
        owner = owners(self.work, decided) if tensor_side else {}
        output_owner = [
            next((owner[o.value] for o in region.writes if o.value in owner), index)
            for index, region in enumerate(regions)
        ]
        implied = [
            index if decided[index] or not tensor_side else output_owner[index]
            for index in range(len(regions))
        ]
        plans = self._plan_all(offered, implied, output_owner if tensor_side else None)
        wanted = self._edge_kernels(owner, implied, offered)
        self._price()
        return self._assemble(offered, implied, output_owner, owner, plans, wanted)

    def _plan_all(
        self,
        offered: Sequence[Sequence[Quantizers]],
        implied: Sequence[int],
        output_owner: Sequence[int] | None,
    ) -> list[list[list[Plan]]]:
        """Plans by region, its choice and the choice of its output's owner."""
        tags = {o.value: producer_tags(r) for r in self.work.regions for o in r.writes}
        found = []
        for index, region in enumerate(self.work.regions):
            shape = canonical(region)
            own = offered[implied[index]] if implied[index] == index else offered[index]
            count = len(offered[implied[index]])
            outputs: Sequence[Quantizers] = (
                ({},) if output_owner is None else offered[output_owner[index]]
            )
            found.append(
                [
                    [
                        self._plan(shape, own[min(c, len(own) - 1)], _stored(out), tags)
                        for out in outputs
                    ]
                    for c in range(count)
                ]
            )
        return found

    def _plan(
        self,
        shape: Canonical,
        quantizers: Quantizers,
        output: Quantizer | None,
        tags: Mapping[str, frozenset[str]],
    ) -> Plan:
        producers = {
            str(index): tags[value] for index, value in enumerate(shape.values) if value in tags
        }
        key = (
            shape.key,
            tuple(sorted(quantizers.items(), key=lambda item: item[0])),
            output,
            tuple(sorted(producers.items())),
        )
        if key not in self.plans:
            context = Context(producers=producers, output=output)
            region = shape.region.quantized(quantizers)
            plan = plan_region(region, self.device, self.runtime, context)
            self.plans[key] = plan
            for kernel in (*plan.kernels, *_kernels_of(plan.conversions)):
                self._register(kernel)
        return self.plans[key].renamed(shape.values)

    def _register(self, kernel: Kernel) -> None:
        self.kernels.setdefault(repr(kernel), (len(self.kernels), kernel))

    def _edge_kernels(
        self,
        owner: Mapping[str, int],
        implied: Sequence[int],
        offered: Sequence[Sequence[Quantizers]],
    ) -> list[tuple[int, int, list[list[Kernel | None]]]]:
        """Owner, consumer and the conversion between each pair of their choices."""
        found = []
        for index, region in enumerate(self.work.regions):
            consumer = implied[index]
            for operand in _activations(region.reads):
                holder = owner.get(operand.value, consumer)
                if holder == consumer:
                    continue
                pairs = [
                    [_requantize(operand, _stored(a), _stored(b)) for b in offered[consumer]]
                    for a in offered[holder]
                ]
                if any(kernel for row in pairs for kernel in row):
                    found.append((holder, consumer, pairs))
                    for kernel in (kernel for row in pairs for kernel in row if kernel):
                        self._register(kernel)
        return found

    def _price(self) -> None:
        """Prices every kernel that plans and edges registered, in one batch."""
        kernels = [kernel for _, kernel in self.kernels.values()]
        costs = estimator_of(self.device).estimate(kernels, self.device, self.runtime)
        self.columns = np.zeros((len(kernels), len(COLUMNS)))
        for row, cost in zip(self.columns, costs, strict=True):
            row[:5] = (
                cost.latency_s, cost.low_s, cost.high_s, cost.energy_j, cost.traffic_bytes,
            )  # fmt: skip
            row[len(COLUMNS) - len(BOUNDS) + BOUNDS.index(cost.bound)] = cost.latency_s

    def _cost(self, kernels: Iterable[Kernel]) -> Floats:
        """Summed columns of kernels that were priced."""
        rows = [self.kernels[repr(kernel)][0] for kernel in kernels]
        total: Floats = self.columns[rows].sum(axis=0)
        return total

    def _assemble(
        self,
        offered: Sequence[Sequence[Quantizers]],
        implied: Sequence[int],
        output_owner: Sequence[int],
        owner: Mapping[str, int],
        plans: list[list[list[Plan]]],
        wanted: list[tuple[int, int, list[list[Kernel | None]]]],
    ) -> PhaseTable:
        regions = self.work.regions
        most = max((len(offer) for offer in offered), default=1)
        outputs = most if self.runtime.placement == "tensor" else 1
        base = np.full((len(regions), most, outputs, len(COLUMNS)), np.inf)
        status = np.zeros((len(regions), most), dtype=np.int64)
        sharing = _Sharing(self, plans)
        for index, by_choice in enumerate(plans):
            for choice, by_output in enumerate(by_choice):
                status[index, choice] = STATUS_ORDER.index(by_output[0].status)
                for out, plan in enumerate(by_output):
                    base[index, choice, out] = self._cost(plan.kernels) + sharing.own(plan)
        stored, value_owner, workspace = _Activations(self, offered, plans, owner).arrays(most)
        return PhaseTable(
            regions=tuple(region.name for region in regions),
            choice_counts=tuple(len(offer) for offer in offered),
            base=base,
            implied=np.array(implied, dtype=np.int64),
            output_owner=np.array(output_owner, dtype=np.int64),
            status=status,
            notes=tuple(
                tuple(by_output[0].note for by_output in by_choice) for by_choice in plans
            ),
            macs=np.array([region.macs for region in regions], dtype=float),
            conversions=sharing.conversions(),
            constants=sharing.constants(),
            edges=tuple(
                Edge(
                    owner=holder,
                    consumer=consumer,
                    costs=np.array(
                        [[self._cost((k,) if k else ()) for k in row] for row in pairs]
                    ),
                )
                for holder, consumer, pairs in wanted
            ),
            liveness=Liveness.of(self.work),
            value_bytes=stored,
            value_owner=value_owner,
            workspace=workspace,
        )


class _Sharing:
    """Conversions and constants that several regions name, kept out of the regions' own cost."""

    def __init__(self, build: _Build, plans: list[list[list[Plan]]]) -> None:
        self.build = build
        self.plans = plans
        self.wanting: dict[str, list[int]] = {}
        self.storing: dict[str, list[int]] = {}
        for index, by_choice in enumerate(plans):
            every = [by_output[0] for by_output in by_choice]
            for value in dict.fromkeys(c.value for plan in every for c in plan.conversions):
                self.wanting.setdefault(value, []).append(index)
            for value in dict.fromkeys(c.value for plan in every for c in plan.constants):
                self.storing.setdefault(value, []).append(index)

    def own(self, plan: Plan) -> Floats:
        """Columns of the plan's conversions and constants that no other region names."""
        mine = [c for c in plan.conversions if len(self.wanting[c.value]) == 1]
        columns = self.build._cost(_kernels_of(mine))
        for constant in plan.constants:
            if len(self.storing[constant.value]) == 1:
                columns[CACHE_COLUMN if constant.is_cache else WEIGHT_COLUMN] += constant.bytes
        return columns

    def conversions(self) -> tuple[Shared, ...]:
        """What several regions convert."""
        return tuple(
            self._shared(
                regions,
                lambda plan, value=value: {  # type: ignore[misc]
                    c.target: self.build._cost(c.kernels)
                    for c in plan.conversions
                    if c.value == value
                },
            )
            for value, regions in self.wanting.items()
            if len(regions) > 1
        )

    def constants(self) -> tuple[Shared, ...]:
        """What several regions store."""
        return tuple(
            self._shared(
                regions,
                lambda plan, value=value: {  # type: ignore[misc]
                    c.target: _stored_columns(c.bytes, is_cache=c.is_cache)
                    for c in plan.constants
                    if c.value == value
                },
            )
            for value, regions in self.storing.items()
            if len(regions) > 1
        )

    def _shared(
        self, regions: list[int], targets_of: Callable[[Plan], Mapping[str, Floats]]
    ) -> Shared:
        most = max(len(by_choice) for by_choice in self.plans)
        names: dict[str, int] = {}
        costs: list[Floats] = []
        targets = np.full((len(regions), most), -1, dtype=np.int64)
        for row, index in enumerate(regions):
            for choice, by_output in enumerate(self.plans[index]):
                for target, columns in targets_of(by_output[0]).items():
                    if target not in names:
                        names[target] = len(costs)
                        costs.append(columns)
                    targets[row, choice] = names[target]
        return Shared(
            regions=np.array(regions, dtype=np.int64), targets=targets, costs=np.array(costs)
        )


class _Activations:
    """How many bytes each activation takes under the choices of the region that decides it."""

    def __init__(
        self,
        build: _Build,
        offered: Sequence[Sequence[Quantizers]],
        plans: list[list[list[Plan]]],
        owner: Mapping[str, int],
    ) -> None:
        self.build = build
        self.offered = offered
        self.plans = plans
        self.owner = owner
        self.readers: dict[str, list[int]] = {}
        self.operands: dict[str, Operand] = {}
        for index, region in enumerate(build.work.regions):
            for operand in _activations((*region.reads, *region.writes)):
                self.operands.setdefault(operand.value, operand)
            for value in {operand.value for operand in _activations(region.reads)}:
                self.readers.setdefault(value, []).append(index)

    def arrays(self, most: int) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Bytes (V, C), owners (V,) and workspace (R, C)."""
        plain = activation_bytes(self.build.work)
        values = Liveness.of(self.build.work).values
        stored = np.array([[float(plain[value])] * most for value in values]).reshape(-1, most)
        owners_ = np.zeros(len(values), dtype=np.int64)
        workspace = np.zeros((len(self.plans), most))
        kept = set(self.build.work.outputs)
        row_of = {value: row for row, value in enumerate(values)}
        for value, index in self.owner.items():
            owners_[row_of[value]] = index
            stored[row_of[value]] = self._by_choice(value, index, most)
        for index, by_choice in enumerate(self.plans):
            for choice, by_output in enumerate(by_choice):
                for conversion in by_output[0].conversions:
                    alone = self.readers.get(conversion.value) == [index]
                    if alone and not conversion.kernels and conversion.value not in kept:
                        owners_[row_of[conversion.value]] = index
                        stored[row_of[conversion.value], choice] = conversion.copy_bytes
                    else:
                        workspace[index, choice] += conversion.copy_bytes
        return stored, owners_, workspace

    def _by_choice(self, value: str, owner: int, most: int) -> list[float]:
        operand = self.operands[value]
        offers = self.offered[owner]
        sizes = [_bytes_as(operand, _stored(offer)) for offer in offers]
        return [sizes[min(choice, len(sizes) - 1)] for choice in range(most)]


def _stored(quantizers: Quantizers) -> Quantizer | None:
    """Tensor-side Q/DQ: the format in which a region with these operands wants its input."""
    return quantizers.get("input") or quantizers.get("q")


def _requantize(
    operand: Operand, stored: Quantizer | None, wanted: Quantizer | None
) -> Kernel | None:
    return None if stored == wanted else requantize_kernel(operand, stored, wanted)


def _bytes_as(operand: Operand, quantizer: Quantizer | None) -> float:
    if quantizer is None:
        return float(operand.bytes)
    return float(quantizer.format.storage_bytes(operand.shape, operand.contraction_axes or (-1,)))


def _stored_columns(count: int, *, is_cache: bool) -> Floats:
    columns = np.zeros(len(COLUMNS))
    columns[CACHE_COLUMN if is_cache else WEIGHT_COLUMN] = count
    return columns


def _kernels_of(conversions: Iterable[Conversion]) -> list[Kernel]:
    return [kernel for conversion in conversions for kernel in conversion.kernels]


def _activations(operands: Iterable[Operand]) -> list[Operand]:
    return [operand for operand in operands if is_activation(operand)]


def _contracts(region: RegionWork) -> bool:
    return any(op.kind in CONTRACTING for op in region.ops)
