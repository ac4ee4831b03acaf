"""Values of a run, kept under a memory budget for re-execution downstream of a change."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, Quantize, Step

ELEMENT_MACS = 8
"""The cost of producing one element beside its MACs, in MACs: moving 4 to 8 bytes takes about as
long as that many multiply-accumulates on CPUs and GPUs alike (assumed; it only ranks values)."""

SMALL_BYTES = 4096
"""Values up to this size (shapes, scalars) are always kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The values of a run, and their cost."""

    outputs: Mapping[str, Tensor]
    macs: int
    """Multiply-accumulates of all contracting nodes that were executed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A run that others can start from."""

    feeds: Mapping[str, Value]
    quantizers: Mapping[str, Quantize]
    execution: Execution
    values: Mapping[int, Value]
    """Kept values by slot; what was dropped is recomputed from these."""
    costs: Mapping[int, float]
    """For each kept slot the MACs to recompute it, over its bytes."""
    made_bytes: int
    """Bytes of all its values, those that were dropped among them."""

    @property
    def bytes(self) -> int:
        """Bytes of the kept values, a shared storage counted once."""
        storages = {
            x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
            for value in self.values.values()
            for x in (value if isinstance(value, list) else [value])
            if isinstance(x, Tensor)
        }
        return sum(storages.values())


class Recorder:
    """Keeps what is expensive to recompute for its size, up to a budget.

    Values that share a storage (views) are kept or dropped together. Large values that cost little
    go first: attention probabilities and scores before the outputs of linear layers.
    """

    def __init__(
        self,
        budget_bytes: int,
        *,
        pinned: int | None = None,
        without: frozenset[int] = frozenset(),
    ) -> None:
        """Keeps slot `pinned` whatever the budget, and those in `without` not at all."""
        self._budget_bytes = budget_bytes
        self._pinned = pinned
        self._without = without
        self._bytes = 0
        self.made_bytes = 0
        """Of all values that came, kept or not."""
        self._members: dict[int, list[int]] = {}
        """Slots by the slot that owns their storage."""
        self._owner: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._queue: list[tuple[float, int, int]] = []
        """(cost per byte, -bytes, owner): what to drop next."""
        self.values: dict[int, Value] = {}
        self.costs: dict[int, float] = {}

    def __call__(
        self, step: Step, arguments: tuple[Value, ...], outputs: tuple[Value, ...], macs: int
    ) -> None:
        """Takes the outputs of a step."""
        sources = {
            _storage(x): slot
            for slot, x in zip(step.inputs, arguments, strict=True)
            if isinstance(x, Tensor)
        }
        for slot, value in zip(step.outputs, outputs, strict=False):
            if slot == ABSENT or slot in self._without:
                continue
            if isinstance(value, Tensor) and slot != self._pinned and _storage(value) in sources:
                self._view(slot, value, sources[_storage(value)])
            else:
                self.add(slot, value, _density(value, macs))

    def add(self, slot: int, value: Value, cost: float) -> None:
        """Takes a value with a storage of its own; cost in MACs per byte."""
        size = value.untyped_storage().nbytes() if isinstance(value, Tensor) else 0
        self.made_bytes += size
        self.values[slot], self.costs[slot] = value, cost
        self._owner[slot], self._members[slot], self._sizes[slot] = slot, [slot], size
        if size > SMALL_BYTES and slot != self._pinned:
            self._bytes += size
            heapq.heappush(self._queue, (cost, -size, slot))
            self._shrink()

    def _view(self, slot: int, value: Tensor, source: int) -> None:
        owner = self._owner.get(source)
        if owner is None:  # a view of a constant or an input costs nothing
            self.values[slot], self.costs[slot] = value, 0.0
            return
        self._owner[slot] = owner
        if owner in self._members:
            self._members[owner].append(slot)
            self.values[slot], self.costs[slot] = value, self.costs[owner]

    def _shrink(self) -> None:
        while self._bytes > self._budget_bytes:
            _, _, owner = heapq.heappop(self._queue)
            self._bytes -= self._sizes[owner]
            for slot in self._members.pop(owner):
                del self.values[slot], self.costs[slot]


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _density(value: Value, macs: int) -> float:
    if not isinstance(value, Tensor):
        return 0.0
    return (macs + ELEMENT_MACS * value.numel()) / max(1, value.untyped_storage().nbytes())
