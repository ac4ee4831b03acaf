"""The predicted step of a method on a space's device: time, energy, memory. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dse.errors import SpaceError
from dse.evaluate.phases import phase_work
from dse.graph.onnx.dimension import dimensions
from dse.graph.onnx.rank import ranks_in
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.training.method import Method, Operand
from dse.training.price import step_cost
from dse.training.search.described import Described, described, format_name
from dse.training.search.schema import StepModel
from hwmodels.runtimes.platform import Platform, load_platform
from hwmodels.work.cost import Status
from hwmodels.work.work import Work

RUNTIME = "free"
"""The runtime where a space names none: those of the catalogue list kernels of inference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrice:
    """A step of one method."""

    step_s: float
    low_s: float
    high_s: float
    energy_j: float
    memory_bytes: float
    status: Status
    note: str = ""

    @property
    def columns(self) -> Mapping[str, float]:
        """By column of the run's tables."""
        return {
            "step_s": self.step_s,
            "step_low_s": self.low_s,
            "step_high_s": self.high_s,
            "energy_j": self.energy_j,
            "memory_bytes": self.memory_bytes,
        }


@dataclass(slots=True, kw_only=True, eq=False)
class StepPrices:
    """Prices of methods; what differs in rounding alone is priced once."""

    work: Work
    platform: Platform
    _known: dict[str, StepPrice] = field(default_factory=dict)
    """By what a price sees of a method."""

    def of(self, method: Method) -> StepPrice:
        """The price of a step."""
        plain = _as_priced(described(method))
        key = plain.digest
        if key not in self._known:
            cost = step_cost(self.work, plain.method(source=""), self.platform)
            notes = dict.fromkeys(part.note for part in cost.parts.values() if part.note)
            self._known[key] = StepPrice(
                step_s=cost.latency_s, low_s=cost.low_s, high_s=cost.high_s,
                energy_j=cost.energy_j, memory_bytes=cost.memory.total, status=cost.status,
                note="; ".join(notes),
            )  # fmt: skip
        return self._known[key]


def open_prices(
    model: StepModel, device: str, runtime: str | None, *, origin: str, folder: Path
) -> StepPrices:
    """The prices of a space.

    Raises:
        SpaceError: sizes that the model has not, or that are missing.
        DseError, HardwareError: a model, a device that cannot be used.
    """
    named = model.model if model.model.startswith("zoo:") else str(folder / model.model)
    graph = open_model(named, ranks=ranks_in(model.dims)).graph
    names = set(dimensions(graph))
    if names != set(model.dims):
        raise SpaceError(
            f"{origin}: cost.dims: expected a value for {', '.join(sorted(names)) or 'nothing'}, "
            f"got {', '.join(sorted(model.dims)) or 'none'}"
        )
    work = phase_work(Analysis(graph), model.dims, 1)
    return StepPrices(work=work, platform=load_platform(device, runtime=runtime or RUNTIME))


def _as_priced(one: Described) -> Described:
    """The method without what a price does not see: rounding, rotations, room in scales."""
    operands = {
        place: None if operand is None else _plain(operand, place)
        for place, operand in one.operands.items()
    }
    return Described(operands=operands, rest=one.rest)


def _plain(operand: Operand, place: str) -> Operand:
    if place.partition("@")[0] == "accumulator":
        return operand
    quantizer = replace(operand.quantizer, rounding="nearest_even")
    kept = quantizer.replaced(statistic="auto", correction="auto")
    return Operand(format=format_name(kept), of=operand.of)
