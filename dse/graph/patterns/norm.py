"""Norms found by structure: one operator, or the chain that an exporter writes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import NORMS
from dse.graph.patterns.flow import Flow

CASTS = frozenset({"Cast", "CastLike", "Identity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """One normalisation of rows."""

    kind: str
    """`layernorm` or `rmsnorm`."""
    nodes: tuple[str, ...]
    """In topological order."""
    input: str
    output: str
    gain: tuple[str, ...]
    """Learned constants: scale and shift."""


def norms(flow: Flow) -> tuple[Norm, ...]:
    """Every norm of a graph in topological order; batch norms are not norms of rows."""
    found: list[Norm] = []
    taken: set[str] = set()
    for node in flow.nodes:
        match = _fused(flow, node) if node.op_type in NORMS else _decomposed(flow, node)
        if match is not None and not taken & set(match.nodes):
            taken |= set(match.nodes)
            found.append(match)
    return tuple(found)


def _fused(flow: Flow, node: Node) -> Norm:
    return Norm(
        kind=NORMS[node.op_type],
        nodes=(node.name,),
        input=node.inputs[0],
        output=node.outputs[0],
        gain=tuple(value for value in node.inputs[1:] if value in flow.static),
    )


def _decomposed(flow: Flow, mean: Node) -> Norm | None:
    """The norm whose mean of squares is `mean`."""
    if mean.op_type != "ReduceMean":
        return None
    square = flow.producer(flow.back(mean.inputs[0], CASTS))
    if square is None or not _is_square(square):
        return None
    centred = square.inputs[0]
    chain = _Chain(flow=flow, nodes=[square.name, mean.name], value=mean.outputs[0])
    chain.take("Add")
    root = chain.take("Sqrt") and (chain.take("Reciprocal") or chain.take("Div"))
    if not root and not chain.take("Pow"):  # the exponent -1/2
        return None
    if flow.back(centred, CASTS) not in chain.sources(flow) and not chain.take("Mul"):
        return None
    gain = [*chain.gains("Mul"), *chain.gains("Add")]
    kind, value, before = _centring(flow, centred)
    names = {*before, *chain.nodes, *_casts(flow, value, {*before, *chain.nodes})}
    return Norm(
        kind=kind,
        nodes=tuple(sorted(names, key=flow.position.__getitem__)),
        input=flow.back(value, CASTS),
        output=chain.value,
        gain=tuple(gain),
    )


@dataclass(slots=True, kw_only=True)
class _Chain:
    """A walk along the only reader of each value."""

    flow: Flow
    nodes: list[str]
    value: str

    def take(self, op_type: str) -> bool:
        """Steps over casts to a reader of this type; stays where it is if there is none."""
        value = self.value
        casts: list[str] = []
        while True:
            readers = self.flow.consumers(value)
            match = next((node for node in readers if node.op_type == op_type), None)
            if match is not None:
                self.nodes += [*casts, match.name]
                self.value = match.outputs[0]
                return True
            if len(readers) != 1 or readers[0].op_type not in CASTS:
                return False
            casts.append(readers[0].name)
            value = readers[0].outputs[0]

    def sources(self, flow: Flow) -> list[str]:
        """The values that the last node read beside the chain."""
        node = flow.graph.producer[self.value]
        return [flow.back(value, CASTS) for value in node.inputs]

    def gains(self, op_type: str) -> Iterator[str]:
        """Steps over one reader that applies a learned constant, and yields the constant."""
        before = self.value, list(self.nodes)
        if len(self.flow.consumers(self.value)) != 1 or not self.take(op_type):
            return
        node = self.flow.graph.producer[self.value]
        constants = [value for value in node.inputs if value in self.flow.static]
        if not constants:
            self.value, self.nodes = before
        yield from constants


def _is_square(node: Node) -> bool:
    return node.op_type == "Pow" or (
        node.op_type == "Mul" and len(node.inputs) == 2 and node.inputs[0] == node.inputs[1]
    )


def _centring(flow: Flow, value: str) -> tuple[str, str, list[str]]:
    """Kind, input and first nodes: a layer norm subtracts the mean before it squares."""
    subtract = flow.producer(flow.back(value, CASTS))
    if subtract is None or subtract.op_type != "Sub":
        return "rmsnorm", value, []
    mean = flow.producer(flow.back(subtract.inputs[1], CASTS))
    if mean is None or mean.op_type != "ReduceMean":
        return "rmsnorm", value, []
    return "layernorm", subtract.inputs[0], [subtract.name, mean.name]


def _casts(flow: Flow, value: str, inside: set[str]) -> Iterator[str]:
    """Casts in front that only the norm reads."""
    while (node := flow.producer(value)) is not None and node.op_type in CASTS:
        if any(reader.name not in inside for reader in flow.readers(node)):
            return
        inside.add(node.name)
        yield node.name
        value = node.inputs[0]
