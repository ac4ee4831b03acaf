"""Quantizers inside of the bodies of control flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dse.execute.operators.step import Quantize, Step
from dse.execute.program.block import Block, Nested
from dse.execute.program.hooks import Hooks
from dse.execute.program.plan import Plan, Planner
from dse.execute.program.weight_store import WeightCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """The quantizers in one body: a plan, and hooks anew for each of its passes."""

    block: Block
    plan: Plan
    weights: WeightCache
    place: str
    """The body's name in the cache of weights."""

    def hooks(self) -> Hooks:
        """Hooks for one pass through the body."""
        return Hooks(
            self.plan.hooks,
            readings=self.plan.readings,
            constant=lambda slot: slot in self.block.constants and slot not in self.plan.computed,
            weights=self.weights.inside(self.place),
            enter=lambda step, sites: entered(step, sites, self.weights),
        )


def entered(step: Step, sites: Mapping[str, Quantize], weights: WeightCache) -> Step:
    """A control-flow step whose bodies run with quantizers at sites of theirs."""
    nested = step.call
    assert isinstance(nested, Nested)
    inside = {
        keyword: _inside(block, f"{step.name}/{keyword}", sites, weights)
        for keyword, block in nested.bodies.items()
    }
    return replace(step, call=replace(nested, inside=inside))


def _inside(
    block: Block, place: str, sites: Mapping[str, Quantize], weights: WeightCache
) -> Inside:
    here = {key: q for key, q in sites.items() if key.rpartition("/")[0] in block.nodes}
    return Inside(block=block, plan=Planner(block, None).whole(here), weights=weights, place=place)
