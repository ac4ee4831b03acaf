"""The roles of matrix products with weights: q/k/v, output, gate and up, down, head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dse.graph.ir.graph import Node
from dse.graph.ir.operators import (
    ACTIVATIONS,
    CONVOLUTIONS,
    ELEMENTWISE,
    LAYOUT,
    NORMS,
    PARTS,
    SOFTMAXES,
)
from dse.graph.patterns.attention import Attention, Operand, past, source
from dse.graph.patterns.branch import Branch, branches
from dse.graph.patterns.experts import Expert, dispatch, scorers
from dse.graph.patterns.flow import Flow
from hwmodels.work.role import region_role


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Products with weights that read one input and that runtimes fuse; often just one."""

    nodes: tuple[str, ...]
    role: str
    attention: int | None = None
    """Index of the attention whose operands it computes or whose result it reads."""
    kind: Literal["gemm", "grouped_gemm"] = "gemm"
    parts: tuple[str, ...] = ()
    """The role of each node where it stands alone; nothing where that is the group's."""

    def alone(self) -> Iterator[Projection]:
        """Every node as a group of its own, where a runtime executes them one by one."""
        if len(self.nodes) == 1 or self.kind != "gemm":
            yield self
            return
        parts = self.parts or (self.role,) * len(self.nodes)
        for node, role in zip(self.nodes, parts, strict=True):
            yield Projection(nodes=(node,), role=role, attention=self.attention)


def projections(
    flow: Flow,
    attentions: Sequence[Attention],
    norm_nodes: frozenset[str],
    experts: Mapping[str, Expert],
    *,
    apart: bool = False,
) -> tuple[Projection, ...]:
    """Every contraction with a weight that is not a convolution, grouped, in order.

    Args:
        flow: the graph.
        attentions: in it.
        norm_nodes: nodes of norms.
        experts: products of mixtures of experts by node name.
        apart: whether products of one input are groups of their own.
    """
    gemms = [
        node for node in flow.nodes if node.op_type not in CONVOLUTIONS and flow.has_weight(node)
    ]
    adapters = {branch.sum.name: branch for branch in branches(flow)}
    search = _Search(flow=flow, attentions=attentions, norms=norm_nodes, adapters=adapters)
    groups: list[Projection] = []
    roles: dict[str, tuple[str, int | None]] = {
        node.name: ("", None) for b in adapters.values() for node in (b.narrow, b.wide)
    }
    for step in (search.of_attention, search.gated, search.outputs, search.heads, search.feeding):
        for group in step([node for node in gemms if node.name not in roles], roles):
            groups.append(group)
            roles |= dict.fromkeys(group.nodes, (group.role, group.attention))
    groups += [
        Projection(nodes=(node.name,), role="linear") for node in gemms if node.name not in roles
    ]
    groups = [*_with_experts(flow, groups, experts), *search.low_rank(roles)]
    if apart:
        groups = [part for group in groups for part in group.alone()]
    return tuple(sorted(groups, key=lambda group: flow.position[group.nodes[0]]))


def multiplied(flow: Flow, node: Node) -> str:
    """The value that a product with a weight reads, seen through copies.

    It need not carry the signal: that of a network of bytes or tokens may begin at the product.
    """
    weight = flow.weight_index(node)
    matrix = node.inputs[weight] if weight is not None else ""
    read = [*flow.signal_inputs(node), *filter(None, node.inputs)]
    return flow.back(next((value for value in read if value != matrix), matrix))


def _with_experts(
    flow: Flow, groups: Sequence[Projection], found: Mapping[str, Expert]
) -> list[Projection]:
    """All experts of a layer in one group, and the products that choose them by their name."""
    choosing = scorers(flow, found)
    layers: dict[tuple[str, str], list[str]] = {}
    kept = []
    for group in groups:
        expert = found.get(group.nodes[0])
        if expert is not None:
            router = expert.router.name if expert.router is not None else group.nodes[0]
            role = region_role(group.role).routed or "experts_up"
            layers.setdefault((router, role), []).extend(group.nodes)
        elif choosing & set(group.nodes):
            kept.append(Projection(nodes=group.nodes, role="router"))
        else:
            kept.append(group)
    for (_, role), names in layers.items():
        nodes = sorted({*names, *dispatch(flow, names)}, key=flow.position.__getitem__)
        kept.append(Projection(nodes=tuple(nodes), role=role, kind="grouped_gemm"))
    return kept


Roles = Mapping[str, tuple[str, int | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """The graph with what has been recognised in it."""

    flow: Flow
    attentions: Sequence[Attention]
    norms: frozenset[str]
    adapters: Mapping[str, Branch]
    """Low-rank branches by the sum that joins them to what they adapt."""

    def low_rank(self, roles: Roles) -> Iterator[Projection]:
        """Both products of every low-rank branch, in the attention of what it adapts."""
        for branch in self.adapters.values():
            _, attention = roles.get(branch.base.name, ("", None))
            for node, role in ((branch.narrow, "lora_a"), (branch.wide, "lora_b")):
                yield Projection(nodes=(node.name,), role=role, attention=attention)

    def of_attention(self, gemms: Sequence[Node], roles: Roles) -> Iterator[Projection]:
        """Projections to queries, keys and values; those that read one input are one group."""
        free = {node.name: node for node in gemms}
        for index, attention in enumerate(self.attentions):
            letters: dict[str, str] = {}
            for letter in "qkv":
                for name in self._operand_gemms(attention, getattr(attention, letter)):
                    if name in free:
                        letters[name] = letters.get(name, "") + letter
            by_input: dict[str, list[str]] = {}
            for name in sorted(letters, key=self.flow.position.__getitem__):
                by_input.setdefault(multiplied(self.flow, free.pop(name)), []).append(name)
            for names in by_input.values():
                parts = tuple("".join(sorted(set(letters[name]), key=_order)) for name in names)
                role = "".join(sorted(set("".join(parts)), key=_order))
                yield Projection(nodes=tuple(names), role=role, attention=index, parts=parts)

    def gated(self, gemms: Sequence[Node], roles: Roles) -> Iterator[Projection]:
        """Gate and up: two products of one input, or two parts of one, that are multiplied."""
        free = {node.name: node for node in gemms}
        for node in self.flow.nodes:
            values = self.flow.signal_inputs(node) if node.op_type == "Mul" else []
            if len(values) != 2 or node.name in self.norms:
                continue
            left, right = (dict(self._trace(value)) for value in values)
            if len(left) != 1 or len(right) != 1 or left == right:
                continue
            names = sorted({*left, *right}, key=self.flow.position.__getitem__)
            inputs = {multiplied(self.flow, free[name]) for name in names if name in free}
            if len(inputs) == 1 and all(name in free for name in names):
                for name in names:
                    del free[name]
                active = [name for value in values for name in self._activated(value)]
                told = len(names) == 2 and len(active) == 1
                parts = tuple("gate" if name in active else "up" for name in names)
                yield Projection(nodes=tuple(names), role="gate_up", parts=parts if told else ())

    def _activated(self, value: str) -> Iterator[str]:
        """Products that reach a value through an activation."""
        reached = [*self._reached([value])]
        if any(self.flow.graph.by_name[name].op_type in ACTIVATIONS for name in reached):
            yield from dict.fromkeys(name for name, _ in self._trace(value))

    def outputs(self, gemms: Sequence[Node], roles: Roles) -> Iterator[Projection]:
        """The projection behind an attention, and the one behind gate and up."""
        for node in gemms:
            sources = set(self._reached(self.flow.signal_inputs(node)))
            for index, attention in enumerate(self.attentions):
                if attention.mix.name in sources:
                    yield Projection(nodes=(node.name,), role="o", attention=index)
                    break
            else:
                if any(roles.get(name, ("", None))[0] == "gate_up" for name in sources):
                    yield Projection(nodes=(node.name,), role="down")

    def heads(self, gemms: Sequence[Node], roles: Roles) -> Iterator[Projection]:
        """Products whose result leaves the network with no sum of branches on the way."""
        for node in gemms:
            if self._leaves(node):
                yield Projection(nodes=(node.name,), role="head")

    def feeding(self, gemms: Sequence[Node], roles: Roles) -> Iterator[Projection]:
        """Pairs with an activation between: fc1 and fc2."""
        free = {node.name: node for node in gemms}
        for node in gemms:
            seen = set(self._reached(self.flow.signal_inputs(node)))
            first = next((name for name in seen if name in free), None)
            active = any(self.flow.graph.by_name[n].op_type in ACTIVATIONS for n in seen)
            if first is None or not active or node.name not in free:
                continue
            del free[first], free[node.name]
            yield Projection(nodes=(first,), role="fc1")
            yield Projection(nodes=(node.name,), role="fc2")

    def _operand_gemms(self, attention: Attention, operand: Operand) -> Iterator[str]:
        """Products that an operand is made of, seen through norms and rotation."""
        start = source(self.flow, attention, operand)
        write = self.flow.producer(start)
        starts = [start]
        if write is not None and past(self.flow, write) is not None:
            starts = self.flow.signal_inputs(write)
        seen: set[str] = set()
        queue = list(starts)
        while queue:
            node = self.flow.producer(queue.pop())
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            if self.flow.has_weight(node):
                yield node.name
            elif self._transforms(node):
                queue += self.flow.signal_inputs(node)

    def _transforms(self, node: Node) -> bool:
        inside = node.name in self.norms or node.op_type in NORMS
        return inside or node.op_type in ELEMENTWISE | LAYOUT | {"Concat", "RotaryEmbedding"}

    def _trace(self, value: str) -> Iterator[tuple[str, str]]:
        """Products behind a value through elementwise nodes, each with the part of it taken."""
        queue = [(value, "")]
        seen: set[tuple[str, str]] = set()
        while queue:
            value, part = queue.pop()
            node = self.flow.producer(value)
            if node is None or (value, part) in seen:
                continue
            seen.add((value, part))
            if self.flow.has_weight(node):
                yield node.name, part
            elif node.name not in self.norms and node.op_type in ELEMENTWISE | LAYOUT:
                part = part or (value if node.op_type in PARTS else "")
                queue += [(source, part) for source in self._sources(node)]

    def _sources(self, node: Node) -> list[str]:
        """The signals that a node reads; of a sum with a low-rank branch, what is adapted."""
        inputs = self.flow.signal_inputs(node)
        branch = self.adapters.get(node.name)
        if branch is None:
            return inputs
        return [v for v in inputs if branch.base.name in self._products_behind(v)]

    def _products_behind(self, value: str) -> set[str]:
        return {name for name, _ in self._trace(value)}

    def _reached(self, values: Sequence[str]) -> Iterator[str]:
        """Nodes behind values through elementwise nodes, up to and with contractions."""
        queue, seen = list(values), set[str]()
        while queue:
            node = self.flow.producer(queue.pop())
            if node is None or node.name in seen or node.name in self.norms:
                continue
            seen.add(node.name)
            yield node.name
            # A sum of branches is the residual stream: what lies behind it is another layer.
            joins = node.op_type == "Add" and len(self.flow.signal_inputs(node)) > 1
            joins = joins and node.name not in self.adapters
            if node.op_type in ELEMENTWISE | LAYOUT and not (joins and self._is_residual(node)):
                queue += self._sources(node)

    def _is_residual(self, node: Node) -> bool:
        """Whether a sum joins two branches, and is not a step of a written-out activation."""
        sources = [set(dict(self._trace(value))) for value in self.flow.signal_inputs(node)]
        return len({frozenset(names) for names in sources}) > 1 or not sources[0]

    def _leaves(self, node: Node) -> bool:
        queue, outputs = list(node.outputs), set(self.flow.graph.outputs)
        leaves = False
        while queue:
            value = queue.pop()
            leaves |= value in outputs
            for reader in self.flow.consumers(value):
                joins = reader.op_type == "Add" and len(self.flow.signal_inputs(reader)) > 1
                if reader.op_type not in ELEMENTWISE | LAYOUT | SOFTMAXES or joins:
                    return False
                queue += reader.outputs
        return leaves


def _order(letter: str) -> int:
    return "qkv".index(letter)
