"""Time, energy and memory of a training step on a device, by part of the step. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dse.training.ledger import Ledger, ledger, sent_bytes
from dse.training.method import Formats, Method, Operand, operand_of
from dse.training.roles import ATTENTION
from dse.training.step import parts_of_step, sizes_of
from hwmodels.runtimes.platform import Platform
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.work.cost import STATUS_ORDER, Status
from hwmodels.work.work import Work

PRICED_BITS = 16
"""Of attention's factors in a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCost:
    """A part of a step."""

    latency_s: float
    low_s: float
    high_s: float
    energy_j: float
    status: Status
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """A step on one GPU."""

    parts: Mapping[str, PartCost]
    """By name, in their order."""
    memory: Ledger

    @property
    def latency_s(self) -> float:
        """One part after the other."""
        return sum(part.latency_s for part in self.parts.values())

    @property
    def low_s(self) -> float:
        """All parts at their lower ends, which is wider than their sum's interval."""
        return sum(part.low_s for part in self.parts.values())

    @property
    def high_s(self) -> float:
        """Likewise at their upper ends."""
        return sum(part.high_s for part in self.parts.values())

    @property
    def energy_j(self) -> float:
        """Of all parts."""
        return sum(part.energy_j for part in self.parts.values())

    @property
    def status(self) -> Status:
        """The worst one of all parts."""
        return max((part.status for part in self.parts.values()), key=STATUS_ORDER.index)


def step_cost(work: Work, method: Method, platform: Platform) -> StepCost:
    """The cost of a step of a network whose forward pass is `work`.

    Raises:
        WorkError: an op without the sizes that its kind needs.
    """
    return StepCost(
        parts={
            part.name: _priced(part.name, part.work, part.choices, part.times, platform)
            for part in parts_of_step(work, method)
            if part.work.regions
        },
        memory=ledger(method, sizes_of(work)),
    )


def left_out(method: Method) -> Iterator[str]:
    """Parts of a method that its step's price does not hold, one line each."""
    if any(one.quantizer.format.element.bits != PRICED_BITS for one in _of_attention(method)):
        yield f"attention: its products are priced in {PRICED_BITS} bits, whatever their formats"
    if any(_role(key) == "accumulator" for entries in _entries(method) for key in entries):
        yield "accumulator: sums are priced as the unit has them"
    if method.functions is not None and method.functions.rewrites:
        yield "functions: what is computed instead of a function is priced as the function"
    if method.schedule is not None:
        yield "schedule: stages are not priced, the step is that of the method's own roles"
    if method.oscillation is not None:
        yield "oscillation: the second rounding of weights that are watched is not priced"
    if method.tuning is not None:
        yield (
            "tuning: products are priced whole, weight gradients of frozen weights too; memory is "
            "that of adapters and of the weights that are left, a teacher's are priced likewise"
        )
    if method.rounds is not None:
        yield (
            f"rounds: {sent_bytes(method):.4g} bytes a parameter that each client sends and is "
            "sent in a round are not priced"
        )


def _entries(method: Method) -> Iterator[Formats]:
    yield method.roles
    yield from (rule.roles for rule in method.rules)


def _of_attention(method: Method) -> Iterator[Operand]:
    """Operands that a method names for attention; `*` means its factors in rules of their kind."""
    of_kind = [rule.roles for rule in method.rules if rule.match.kind == "attention"]
    for entries in _entries(method):
        wanted = (*ATTENTION, "*") if entries in of_kind else ATTENTION
        yield from (operand_of(given) for key, given in entries.items() if _role(key) in wanted)


def _role(key: str) -> str:
    return key.partition("@")[0]


def _priced(
    name: str, work: Work, choices: Mapping[str, object], times: float, platform: Platform
) -> PartCost:
    table = CostTable.build(
        [PhaseWork(name=name, share=1.0, work=work)],
        {region: (choice,) for region, choice in choices.items()},  # type: ignore[misc]
        platform.device,
        platform.runtime,
    )
    found = table.total(dict.fromkeys(choices, 0))
    return PartCost(
        latency_s=times * found.latency_s,
        low_s=times * found.low_s,
        high_s=times * found.high_s,
        energy_j=times * found.energy_j,
        status=found.status,
        note=found.note,
    )
