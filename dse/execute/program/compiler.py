"""A graph compiled into a block: values numbered, nodes bound, constants folded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dse.execute.operators.dtype import to_torch
from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, HOST, Step
from dse.execute.program.binding import bind, operator_of, problem
from dse.execute.program.block import Block, Nested, is_large
from dse.execute.program.placement import BORN_ON_HOST, host_nodes, read_on_host
from dse.execute.program.run import call_step
from dse.graph.ir.graph import Graph, Node

_STREAMED = frozenset({"MatMul", "Gemm", "Conv", "Gather"})
"""Operators whose large constants may stay on the host: no fused chain of steps has them."""

_FOLDED_GROWTH = 4
"""A generated constant this many times larger than what it is made from is not stored."""

_FOLDED_ELEMENTS = 65536
"""... unless it has fewer elements than this."""


def problems(graph: Graph) -> Iterator[tuple[str, str]]:
    """(what, node name) of every node that cannot be executed, bodies included."""
    for node in graph.nodes:
        reason = problem(node, graph)
        if reason is not None:
            yield reason, node.name
        for body in bodies(node):
            yield from problems(body)


def bodies(node: Node) -> list[Graph]:
    """The graphs among a node's attributes."""
    return [value for value in node.attributes.values() if isinstance(value, Graph)]


def captured(graph: Graph) -> tuple[str, ...]:
    """Names that a body reads from the graph around it, in the order of first use."""
    own = {*graph.inputs, *graph.initializers}
    found: dict[str, None] = {}
    for node in graph.nodes:
        inner = [name for body in bodies(node) for name in captured(body)]
        found.update(dict.fromkeys(n for n in (*node.inputs, *inner) if n and n not in own))
        own.update(node.outputs)
    found.update(dict.fromkeys(name for name in graph.outputs if name not in own))
    return tuple(found)


class Compiler:
    """Builds one block: numbers the values, binds the nodes, folds what is constant."""

    def __init__(
        self,
        graph: Graph,
        *,
        device: torch.device,
        outer: Mapping[str, Value] | None = None,
        streams: bool = False,
    ) -> None:
        """For a body, `outer` are the constants of the graph around it.

        With `streams`, large weights stay on the host.
        """
        self.graph = graph
        self.device = device
        self.streams = streams
        self.slots: dict[str, int] = {}
        self.size = ABSENT + 1
        self.constants: dict[int, Value] = {ABSENT: None}
        self.steps: list[Step] = []
        self.folded: list[Step] = []
        self.copies: dict[tuple[int, torch.device], int] = {}
        self.place: dict[int, torch.device] = {}
        self.captures = () if outer is None else captured(graph)
        self.outer_constants = {n: v for n, v in (outer or {}).items() if n in self.captures}

    def block(self) -> Block:
        """The compiled graph."""
        graph = self.graph
        for name in (*graph.inputs, *self.captures):
            self.place[self.slot(name)] = self.device
        for name, value in self.outer_constants.items():
            self.constants[self.slot(name)] = value
        for name, initializer in graph.initializers.items():
            if initializer.type.dtype != "string":
                self.constants[self.slot(name)] = to_torch(initializer.numpy())
        on_host: frozenset[str] = frozenset()
        if self.device != HOST:
            on_host = host_nodes(graph, (*graph.initializers, *self.outer_constants))
        for node in graph.nodes:
            self.add(node, HOST if node.name in on_host else self.device)
        outputs = tuple(self.at(self.slot(name), self.device) for name in graph.outputs)
        return Block(
            steps=tuple(self.steps),
            folded=tuple(self.folded),
            slots=self.slots,
            size=self.size,
            inputs=tuple(self.slots[name] for name in graph.inputs),
            outputs=outputs,
            captures=self.captures,
            constants=self.constants,
            copies={slot: target for (slot, _), target in self.copies.items()},
            device=self.device,
        )

    def slot(self, name: str) -> int:
        """The slot of a value, a new one at first sight."""
        if not name:
            return ABSENT
        if name not in self.slots:
            self.slots[name] = self.new()
        return self.slots[name]

    def new(self) -> int:
        """An unused slot."""
        self.size += 1
        return self.size - 1

    def at(self, slot: int, device: torch.device) -> int:
        """A slot that holds the value on a device; a copy step is added where it is elsewhere."""
        if slot == ABSENT or self.device == HOST:
            return slot
        here = HOST if slot in self.constants else self.place[slot]
        if here == device:
            return slot
        if (slot, device) not in self.copies:
            target = self.new()
            self.copies[slot, device] = target
            if slot in self.constants:
                self.constants[target] = _moved(self.constants[slot], device)
            else:
                self.steps.append(Step(
                    index=self.count, name="", what="copy",
                    call=lambda value: _moved(value, device), inputs=(slot,), outputs=(target,),
                ))  # fmt: skip
                self.place[target] = device
        return self.copies[slot, device]

    @property
    def count(self) -> int:
        """Steps so far."""
        return len(self.steps) + len(self.folded)

    def add(self, node: Node, device: torch.device) -> None:
        """A node as a step, or its results as constants."""
        names = (*node.inputs, *self.outer(node))
        originals = tuple(self.slot(name) for name in names)
        constant = all(slot in self.constants for slot in originals)
        if constant and self.fold(self.compiled(node, HOST), originals):
            return
        on_host = set(read_on_host(node))
        inputs = originals
        streamed: tuple[int, ...] = ()
        if node.op_type not in BORN_ON_HOST:  # those read shapes only, wherever the values are
            may = self.streams and device != HOST and node.op_type in _STREAMED
            streamed = tuple(
                place
                for place, (name, slot) in enumerate(zip(names, originals, strict=True))
                if may and name not in on_host and is_large(self.constants.get(slot))
            )
            inputs = tuple(
                slot if place in streamed else self.at(slot, HOST if name in on_host else device)
                for place, (name, slot) in enumerate(zip(names, originals, strict=True))
            )
        step = self.compiled(node, device)
        self.place.update(dict.fromkeys(step.outputs, device))
        self.steps.append(
            replace(step, inputs=inputs, index=self.count, streamed=streamed, device=device)
        )

    def outer(self, node: Node) -> tuple[str, ...]:
        """The values that the bodies of a node read from this graph."""
        return tuple(dict.fromkeys(name for body in bodies(node) for name in captured(body)))

    def compiled(self, node: Node, device: torch.device) -> Step:
        """The step of a node, its inputs not yet placed."""
        inner: dict[int, Block] = {}

        known = {n: self.constants[s] for n, s in self.slots.items() if s in self.constants}

        def body(graph: Graph) -> Block:
            merged = replace(graph, types={**self.graph.types, **graph.types})
            compiler = Compiler(merged, device=self.device, outer=known, streams=self.streams)
            inner[len(inner)] = compiler.block()
            return inner[len(inner) - 1]

        binding = bind(node, self.graph, device=device, body=body)
        call = binding.call
        if inner:
            keywords: Mapping[str, object] = call.keywords  # type: ignore[attr-defined]
            blocks = {name: value for name, value in keywords.items() if isinstance(value, Block)}
            call = Nested(
                function=call,
                bodies=blocks,
                own_inputs=len(node.inputs),
                captures=self.outer(node),
            )
        operator = operator_of(node)
        return Step(
            index=self.count,
            name=node.name,
            what=node.op_type,
            call=call,
            inputs=(),
            outputs=tuple(self.slot(name) for name in node.outputs),
            macs=binding.macs,
            nested=bool(inner),
            generates=operator is not None and operator.generates,
        )

    def fold(self, step: Step, inputs: tuple[int, ...]) -> bool:
        """Computes a step of constants; False where the result is too large to store."""
        arguments = tuple(self.constants[slot] for slot in inputs)
        with torch.inference_mode(False), torch.no_grad():
            outputs, _ = call_step(step, arguments)
        given = sum(x.numel() for x in arguments if isinstance(x, Tensor))
        made = sum(x.numel() for x in outputs if isinstance(x, Tensor))
        if step.generates and made > max(_FOLDED_ELEMENTS, _FOLDED_GROWTH * given):
            return False
        self.constants.update(
            (slot, _moved(value, HOST))
            for slot, value in zip(step.outputs, outputs, strict=False)
            if slot
        )
        self.folded.append(replace(step, inputs=inputs, index=self.count))
        return True


def _moved(value: Value, device: torch.device) -> Value:
    if isinstance(value, list):
        return [x.to(device) for x in value]
    return None if value is None else value.to(device)
