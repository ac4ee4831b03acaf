"""The part of a graph's control flow that a call executes, and how often; the rest is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dse.graph.ir.flat import Flat
from dse.graph.ir.graph import Node, TensorType
from dse.graph.ir.site import Region, Site
from dse.graph.lower.operand import Values
from dse.graph.onnx.bound import Bound
from dse.graph.patterns.flow import Flow
from hwmodels.work.work import Op, Operand


@dataclass(frozen=True, kw_only=True)
class Course:
    """The way of one call through a graph's branches and loops."""

    flat: Flat
    bound: Bound
    flow: Flow
    """The flat graph's, in which seams are copies that cost nothing."""
    types: Mapping[str, TensorType]
    """Of every value that the call computes."""

    @classmethod
    def of(cls, flat: Flat, flow: Flow, bound: Bound) -> Course:
        """The course of a call at bound sizes."""
        if not flat.scopes:
            return cls(flat=flat, bound=bound, flow=flow, types=bound.types)
        nodes = tuple(_opened(flat, bound, node) for node in flow.graph.nodes)
        types = dict(bound.types)
        for node in nodes:
            if node.name in flat.aliases and node.inputs[0] in types:
                types.setdefault(node.outputs[0], types[node.inputs[0]])
        graph = replace(flow.graph, nodes=nodes)
        # Constants of a branch that is not taken are stored too, and nothing was bound in it.
        types = {**flow.graph.types, **types}
        return cls(flat=flat, bound=bound, flow=replace(flow, graph=graph), types=types)

    def times(self, node: str) -> int:
        """Number of executions of a node in a call."""
        total = 1
        for control, attribute in self.flat.scopes.get(node, ()):
            if self.bound.taken.get(control, attribute) != attribute:
                return 0
            total *= self.bound.trips.get(control, 1)
        return total

    def runs(self, node: str) -> bool:
        """Whether a call executes a node at all; where it does not, its sizes are not known."""
        return all(
            self.bound.taken.get(control, attribute) == attribute
            for control, attribute in self.flat.scopes.get(node, ())
        ) and not self._is_beside(node)

    def takes(self, region: Region) -> bool:
        """Whether a call executes a region; all of its nodes stand in one body."""
        return self.runs(region.nodes[0])

    def repeats(self, region: Region) -> int:
        """Number of executions of a region in a call."""
        return self.times(region.nodes[0])

    def is_seam(self, region: Region) -> bool:
        """Whether a region holds seams alone, which are no kernels."""
        return all(node in self.flat.aliases for node in region.nodes)

    def _is_beside(self, node: str) -> bool:
        """Whether a node stands in a body that is walked through in no course."""
        return any(
            control not in self.bound.taken and control not in self.bound.trips
            for control, _ in self.flat.scopes.get(node, ())
        )


def _opened(flat: Flat, bound: Bound, node: Node) -> Node:
    """A seam as a copy of what the call hands through it."""
    if node.name not in flat.aliases:
        return node
    value = node.inputs[0]
    if len(node.inputs) > 1 and bound.taken.get(flat.aliases[node.name]) == "else_branch":
        value = node.inputs[1]
    return replace(node, op_type="Identity", inputs=(value,))


def stored_ops(values: Values, region: Region) -> list[Op]:
    """Products on one row that stand for the weights of a region that is not executed.

    They are stored in the format that the region's choice says; sizes are those of the weights.
    """
    return [
        _stored(values, site)
        for site in region.sites
        if site.role == "weight" and site.value in values.flow.static
    ]


def _stored(values: Values, site: Site) -> Op:
    shape = tuple(size for size in site.shape if isinstance(size, int))
    depth = math.prod(shape[axis] for axis in site.contraction_axes)
    width = math.prod(shape) // max(depth, 1)
    weight = Operand(
        name="weight",
        value=values.root(site.value),
        shape=shape,
        contraction_axes=site.contraction_axes,
        is_weight=True,
        bits=values.bits(site.value),
    )
    return Op(
        name=site.node,
        kind="gemm",
        sizes={"M": 1, "K": depth, "N": width},
        operands=(
            Operand(name="input", value="", shape=(1, depth), contraction_axes=(1,)),
            weight,
            Operand(name="output", value=f"{site.node}/beside", shape=(1, width)),
        ),
    )
