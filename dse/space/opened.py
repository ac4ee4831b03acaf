"""The model of a space, with what the space tells of inputs that the file gives no shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dse.data import source_ranks
from dse.graph.ir.graph import Graph
from dse.graph.onnx.rank import SUFFIX, ranks_in
from dse.model import Model, open_model
from dse.space.schema import APART, Scenario, Space


def searched_model(space: Space, folder: Path, ranks: Mapping[str, int] | None = None) -> Model:
    """The model that a space names.

    Args:
        space: its sizes and its data say how many axes inputs have, where the file does not.
        folder: what its paths are relative to.
        ranks: axes of inputs, where a program hands the data over.

    Raises:
        GraphError: no such model, or one that cannot be used.
        DataError: an archive that cannot be read.
    """
    found = source_ranks(space.data.source, folder)
    model = open_model(
        space.model, folder=folder, ranks={**found, **(ranks or {}), **_said(space.scenario)}
    )
    return replace(model, apart=space.matrices == APART)


def cost_model_of(space: Space, folder: Path) -> Model | None:
    """The model whose costs count instead, if the space names one.

    Raises:
        GraphError: as `searched_model`.
    """
    if not space.cost_model:
        return None
    model = open_model(space.cost_model, folder=folder, ranks=_said(space.scenario))
    return replace(model, apart=space.matrices == APART)


def with_ranks(space: Space, graph: Graph) -> Space:
    """The space with the ranks that were told, so that it can be opened without its data."""
    if space.cost_model or not graph.told_ranks:
        return space
    told = {f"{name}{SUFFIX}": rank for name, rank in graph.told_ranks.items()}
    phases = {
        name: phase.model_copy(update={"dims": phase.dims | told})
        for name, phase in space.scenario.phases.items()
    }
    return space.model_copy(
        update={"scenario": space.scenario.model_copy(update={"phases": phases})}
    )


def _said(scenario: Scenario) -> dict[str, int]:
    found: dict[str, int] = {}
    for phase in scenario.phases.values():
        found |= ranks_in(phase.dims)
    return found
