"""Parts of a network that a loss is about: what leads to an output, what formats reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import networkx as nx

from dse.errors import some
from dse.evaluate.outputs.task import Task
from dse.graph.ir.graph import Graph
from dse.graph.ir.site import Site

SHOWN = 6
"""Names that a message about a network lists."""


def before(graph: Graph, nodes: Iterable[str]) -> frozenset[str]:
    """Some nodes with all that lead to them."""
    seen: set[str] = set()
    for name in (_holder(graph, node) for node in nodes):
        if name and name not in seen:
            seen |= {name} | nx.ancestors(graph.dag, name)
    return frozenset(seen)


def _holder(graph: Graph, node: str) -> str:
    """The graph's own node that holds a node in a body: `loop` of `loop/body/step`."""
    name = node
    while name and name not in graph.by_name:
        name = name.rpartition("/")[0]
    return name


def unmeasured(graph: Graph, sites: Iterable[Site], values: Iterable[str]) -> tuple[str, ...]:
    """Nodes with sites from which no measured tensor is reached."""
    ends = [graph.producer[value].name for value in values if value in graph.producer]
    seen = before(graph, ends)
    return tuple(
        dict.fromkeys(site.node for site in sites if _holder(graph, site.node) not in seen)
    )


def without_untouched(task: Task, graph: Graph, sites: Iterable[Site]) -> Task:
    """The task without outputs that no number format reaches: an input passed on, a constant.

    Their loss is zero whatever is chosen, and would only dilute that of the others.
    """
    nodes = {_holder(graph, site.node) for site in sites}
    reached = tuple(
        output
        for output in task.outputs
        if output.value in graph.producer
        and nodes & before(graph, [graph.producer[output.value].name])
    )
    if not reached or len(reached) == len(task.outputs):
        return task
    left = [output.name for output in task.outputs if output not in reached]
    note = f"output {some(left, SHOWN)} is not counted: no number format reaches it"
    return replace(task, outputs=reached, notes=(*task.notes, note))
