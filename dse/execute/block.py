"""A graph compiled into steps: the model itself, or the body of a control-flow node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dse.errors import GraphError
from dse.execute.binding import bind, operator_of, problem
from dse.execute.dtype import to_torch
from dse.execute.hooks import Hooks
from dse.execute.operators.operator import Value
from dse.execute.placement import BORN_ON_HOST, host_nodes, read_on_host
from dse.execute.step import ABSENT, Step
from dse.graph.graph import Graph, Node

HOST = torch.device("cpu")

Record = Callable[[Step, tuple[Value, ...], tuple[Value, ...], int], None]
"""Told of each executed step: its arguments, its outputs and the MACs that it spent."""

_FOLDED_GROWTH = 4
"""A generated constant this many times larger than what it is made from is not stored."""

_FOLDED_ELEMENTS = 65536
"""... unless it has fewer elements than this."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Steps in order, and the slots that they read and write.

    Slot 0 holds None. Constants are in `constants`, folded results among them; a step whose inputs
    are all constant is in `folded` instead of `steps`.
    """

    steps: tuple[Step, ...]
    folded: tuple[Step, ...]
    slots: Mapping[str, int]
    """Slot by value name."""
    size: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    captures: tuple[str, ...]
    """Values of the surrounding graph that this one reads."""
    constants: Mapping[int, Value]
    copies: Mapping[int, int]
    """On an accelerator: the slot of the copy of a value, by the slot of the original."""
    device: torch.device

    @cached_property
    def base(self) -> list[Value]:
        """The values before the first step: constants, and None for the rest."""
        values: list[Value] = [None] * self.size
        for slot, value in self.constants.items():
            values[slot] = value
        return values

    @property
    def host_constants(self) -> Mapping[int, Value]:
        """The constants with their values on the host, copies on a device included."""
        on_device = {
            copy: self.constants[slot]
            for slot, copy in self.copies.items()
            if slot in self.constants
        }
        return {**self.constants, **on_device}

    @cached_property
    def frees(self) -> tuple[tuple[int, ...], ...]:
        """For each step the slots that no later step reads."""
        return last_uses(self.steps, keep={*self.constants, *self.outputs, ABSENT})


def last_uses(steps: Sequence[Step], keep: set[int]) -> tuple[tuple[int, ...], ...]:
    """For each step the slots, other than those to keep, that no later step reads."""
    seen = set(keep)
    found: list[tuple[int, ...]] = []
    for step in reversed(steps):
        last = {*step.inputs, *step.outputs} - seen
        seen |= last
        found.append(tuple(last))
    return tuple(reversed(found))


def run_steps(
    steps: Iterable[Step],
    frees: Iterable[tuple[int, ...]],
    values: list[Value],
    *,
    hooks: Hooks | None = None,
    record: Record | None = None,
) -> int:
    """Executes the steps on the values in place; the MACs spent.

    Raises:
        GraphError: torch refuses the values; the message names the node and what it was given.
    """
    macs = 0
    for step, free in zip(steps, frees, strict=True):
        arguments = tuple([values[slot] for slot in step.inputs])
        hook = None if hooks is None else hooks.at(step)
        if hooks is not None and hook is not None:
            arguments = hooks.arguments(step, hook, arguments)
        outputs, spent = call_step(step, arguments)
        if hook is not None and hook.outputs:
            outputs = hook.written(outputs)
        macs += spent
        for slot, value in zip(step.outputs, outputs, strict=False):
            if slot != ABSENT:
                values[slot] = value
        if record is not None:
            record(step, arguments, outputs, spent)
        for slot in free:
            values[slot] = None
    return macs


def call_step(step: Step, arguments: tuple[Value, ...]) -> tuple[tuple[Value, ...], int]:
    """The outputs of one step and the MACs spent."""
    try:
        result = step.call(*arguments)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise _explained(step, arguments, error) from error
    inner = 0
    if step.nested:
        result, inner = result  # type: ignore[misc]
    outputs: tuple[Value, ...] = result if isinstance(result, tuple) else (result,)
    if step.macs is not None:
        inner += step.macs(arguments, outputs)
    return outputs, inner


def _explained(step: Step, arguments: tuple[Value, ...], error: Exception) -> GraphError:
    if isinstance(error, GraphError):
        return error if step.name in str(error) else GraphError(f"{step.name}: {error}")
    given = ", ".join(
        f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" if isinstance(x, Tensor)
        else type(x).__name__
        for x in arguments
    )  # fmt: skip
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return GraphError(f"{step.name} ({step.what}) cannot be executed on ({given}): {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """The call of a control-flow node: its function with its bodies bound to outer values."""

    function: Callable[..., object]
    bodies: Mapping[str, Block]
    """By keyword."""
    own_inputs: int
    captures: tuple[str, ...]

    def __call__(self, *inputs: Value) -> tuple[tuple[Value, ...], int]:
        """The node's outputs and the MACs spent in the bodies."""
        outer = dict(zip(self.captures, inputs[self.own_inputs :], strict=True))
        running = {name: Running(block=block, outer=outer) for name, block in self.bodies.items()}
        result = self.function(*inputs[: self.own_inputs], **running)
        outputs: tuple[Value, ...] = result if isinstance(result, tuple) else (result,)
        return outputs, sum(body.macs for body in running.values())


@dataclass(slots=True, kw_only=True)
class Running:
    """A body during one call of its node; it counts its MACs."""

    block: Block
    outer: Mapping[str, Value]
    macs: int = 0

    def __call__(self, *inputs: Value) -> tuple[Value, ...]:
        """The outputs of one pass."""
        block = self.block
        values = block.base.copy()
        for slot, value in zip(block.inputs, inputs, strict=True):
            on_device = isinstance(value, Tensor) and value.device != block.device
            values[slot] = value.to(block.device) if on_device else value  # type: ignore[union-attr]
        for name in block.captures:
            values[block.slots[name]] = self.outer[name]
        self.macs += run_steps(block.steps, block.frees, values)
        return tuple(values[slot] for slot in block.outputs)


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

    def __init__(self, graph: Graph, *, device: torch.device, is_body: bool = False) -> None:
        self.graph = graph
        self.device = device
        self.slots: dict[str, int] = {}
        self.size = ABSENT + 1
        self.constants: dict[int, Value] = {ABSENT: None}
        self.steps: list[Step] = []
        self.folded: list[Step] = []
        self.copies: dict[tuple[int, torch.device], int] = {}
        self.place: dict[int, torch.device] = {}
        self.captures = captured(graph) if is_body else ()

    def block(self) -> Block:
        """The compiled graph."""
        graph = self.graph
        for name in (*graph.inputs, *self.captures):
            self.place[self.slot(name)] = self.device
        for name, initializer in graph.initializers.items():
            if initializer.type.dtype != "string":
                self.constants[self.slot(name)] = to_torch(initializer.numpy())
        on_host: frozenset[str] = frozenset()
        if self.device != HOST:
            on_host = host_nodes(graph, graph.initializers)
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
        if node.op_type not in BORN_ON_HOST:  # those read shapes only, wherever the values are
            inputs = tuple(
                self.at(slot, HOST if name in on_host else device)
                for name, slot in zip(names, originals, strict=True)
            )
        step = self.compiled(node, device)
        self.place.update(dict.fromkeys(step.outputs, device))
        self.steps.append(replace(step, inputs=inputs, index=self.count))

    def outer(self, node: Node) -> tuple[str, ...]:
        """What the bodies of a node read from this graph."""
        return tuple(dict.fromkeys(name for body in bodies(node) for name in captured(body)))

    def compiled(self, node: Node, device: torch.device) -> Step:
        """The step of a node, its inputs not yet placed."""
        inner: dict[int, Block] = {}

        def body(graph: Graph) -> Block:
            merged = replace(graph, types={**self.graph.types, **graph.types})
            inner[len(inner)] = Compiler(merged, device=self.device, is_body=True).block()
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
