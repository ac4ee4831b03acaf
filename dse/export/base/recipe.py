"""An exporter's input: one assignment with everything that was found for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from dse.execute.operators.step import Quantize
from dse.execute.program.program import Program
from dse.export.base.refusal import Refusal
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.imports.facts import facts_of

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An assignment with everything that was found for it: what an exporter writes."""

    name: str
    """The model's, as a user knows it."""
    program: Program
    """The model, with weights; `program.graph.path` is the file that it came from."""
    assignment: Assignment
    """The quantizer of each site; other sites keep the model's precision."""
    bound: Mapping[str, Quantize]
    """The emulator's quantizer of a site, with calibrated scales and learned
    values, and corrections of means, as `dse.execute.quantizers.bound` says."""
    trial: int | None = None
    """Its number in the run."""
    samples: Mapping[str, Tensor] | None = None
    """Feeds that a check compares outputs on; None where there are none."""

    _made: dict[Callable[[Recipe], Any], Any] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def once(self, make: Callable[[Recipe], T]) -> T:
        """The result of a function of the recipe, worked out at its first call.

        Asking what a target cannot express, writing and verifying go by one plan.
        """
        if make not in self._made:
            self._made[make] = make(self)
        found: T = self._made[make]
        return found

    @property
    def graph(self) -> Graph:
        """The model's graph."""
        return self.program.graph

    @property
    def checkpoint(self) -> Path | None:
        """The Hugging Face folder that the model came from."""
        facts = facts_of(self.graph)
        return None if facts is None else Path(facts.folder)

    def refusal(self, site: str, reason: str, instead: str) -> Refusal:
        """The refusal of a site, with the quantizer that the assignment has there.

        A site of which the assignment says nothing, where a mean is corrected, is not named.
        """
        name = self.once(_names).get(site)
        at = "" if name is None else site
        return Refusal(reason=reason, instead=instead, site=at, format=name or "")

    def constant(self, key: str) -> Tensor | None:
        """The constant that stands at a site; None where an activation does."""
        if not key.rpartition("/")[2].startswith("in"):
            return None
        return self.program.constant(self.value(key))

    def value(self, key: str) -> str:
        """The value at a site; one that a body takes from outside has a name of its own there."""
        node, _, operand = key.rpartition("/")
        found = self.program.analysis.flat.graph.by_name[node]
        side = found.inputs if operand.startswith("in") else found.outputs
        return side[int(operand.lstrip("inout"))]


def _names(recipe: Recipe) -> dict[str, str]:
    return {key: quantizer.name for key, quantizer in recipe.assignment}
