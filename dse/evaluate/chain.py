"""A block of a network that follows itself: `--repeat N`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dse.errors import some
from dse.graph.lower.work import chain_of
from dse.graph.patterns.analysis import Analysis
from hwmodels.tables.network import PhaseWork
from hwmodels.work.cost import CostEstimate
from hwmodels.work.memory import is_activation
from hwmodels.work.repeat import copy_name, repeated_work
from hwmodels.work.work import Work

SHOWN = 6
"""Values that a remark names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The copies of a block, and what one hands to the next."""

    count: int = 1
    feeds: Mapping[str, str] = field(default_factory=dict)
    """Input of a copy by the output of the copy before that it reads."""

    @classmethod
    def of(cls, analysis: Analysis, work: Work, dims: Mapping[str, int], count: int) -> Chain:
        """The chain of a model in one of its phases.

        Raises:
            GraphError: No output that the next copy could read.
        """
        return cls(count=count, feeds=chain_of(analysis, work, dims)) if count > 1 else cls()

    def applied(self, phases: Sequence[PhaseWork]) -> tuple[PhaseWork, ...]:
        """The phases of all copies."""
        if self.count == 1:
            return tuple(phases)
        return tuple(
            replace(phase, work=repeated_work(phase.work, self.count, self.feeds))
            for phase in phases
        )

    def copies(self, regions: Iterable[str]) -> dict[str, str]:
        """Regions of all copies, and the region of the block that each is of."""
        names = list(regions)
        return {copy_name(name, index): name for index in range(self.count) for name in names}

    def by_region(self, cost: CostEstimate) -> CostEstimate:
        """A cost whose parts are regions of the block again, each with all of its copies."""
        if self.count == 1:
            return cost
        if any(one.parts for _, one in cost.parts):  # phases
            return replace(
                cost, parts=tuple((name, self.by_region(one)) for name, one in cost.parts)
            )
        # What copies share comes behind all of them, as one part at most.
        block = [name for name, _ in cost.parts[: len(cost.parts) // self.count]]
        whole = self.copies(block)
        found: dict[str, list[tuple[str, CostEstimate]]] = {}
        for name, one in cost.parts:
            found.setdefault(whole.get(name, name), []).append((name, one))
        return replace(
            cost,
            parts=tuple(
                (name, replace(CostEstimate.total(parts), parts=()))
                for name, parts in found.items()
            ),
        )

    def remarks(self, phases: Sequence[PhaseWork]) -> tuple[str, ...]:
        """A remark on what is handed on, shared and kept, for people."""
        if self.count == 1:
            return ()
        work = phases[0].work
        fed = ", ".join(f"{output} into {input_}" for output, input_ in self.feeds.items())
        written = {o.value for region in work.regions for o in region.writes}
        read = {o.value: None for r in work.regions for o in r.reads if is_activation(o)}
        shared = [v for v in read if v not in written and v not in self.feeds.values()]
        kept = [v for v in work.outputs if v not in self.feeds]
        more = [
            f"{some(values, SHOWN)} {words}"
            for values, words in (
                (shared, "shared by all"), (kept, "of every copy kept to the end"),
            )
            if values
        ]  # fmt: skip
        return (f"{self.count} copies in a chain: {'; '.join((fed, *more))}",)
