"""Copies the nodes of a traced layer for every layer that is built like it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from dse.imports.layers import Stack


class UnlikeError(Exception):
    """Layers that look alike compute differently: all of them must be traced."""


@dataclass(slots=True)
class Layer:
    """The nodes that belong to one traced layer."""

    nodes: list[ir.Node] = field(default_factory=list)
    made: set[ir.Value] = field(default_factory=set)
    past: list[ir.Value] = field(default_factory=list)
    """Inputs of the graph that are read here alone: keys and values of earlier positions."""

    def present(self, graph: ir.Graph) -> list[ir.Value]:
        """Outputs of the graph that are made here: what the next call finds as `past`."""
        return [value for value in graph.outputs if self.past and value in self.made]


@dataclass(frozen=True, slots=True)
class Weights:
    """Initialisers of a layer's own, in an order that is the same for every layer."""

    names: Sequence[Sequence[str]]
    """By layer of the whole stack, copies included."""


def stamp(model: ir.Model, stack: Stack, weights: Weights) -> None:
    """Adds the layers that were not traced.

    Args:
        model: with the stack's first layers; initialisers of the others are added without data.
        stack: what is a copy of what.
        weights: which initialisers change from layer to layer.

    Raises:
        UnlikeError: two traced layers of one kind are no copies of each other, or a layer gives
            the next one more than one value.
    """
    graph = model.graph
    layers = _layers(graph, stack, weights)
    results = [_result(layers, at, graph) for at in range(stack.traced)]
    if stack.twins[0]:
        entry = results[stack.twins[0] - 1]
    else:
        entry = _entry(graph, stack, results[stack.twins[1] - 1])
        layers = _layers(graph, stack, weights, entry)
        results[0] = _result(layers, 0, graph)
    _check_twins(layers, (entry, results[stack.twins[1] - 1]), stack, weights)
    tail = _readers(layers, results[-1])
    previous, place = results[-1], layers[-1].nodes[-1]
    output = previous.name if previous.is_graph_output() else None
    if output is not None:  # copies are named after it; the last of them takes its name
        previous.name = f"{stack.path}.{stack.traced - 1}.{output}"
    for number, source in enumerate(stack.representatives, start=stack.traced):
        copied = {results[source - 1]: previous}
        copied |= dict(_other_weights(graph, weights.names[source], weights.names[number]))
        copied |= {value: _other_past(graph, value, number) for value in layers[source].past}
        made = layers[source].present(graph)
        names = _renaming(stack, weights, source, number)
        names |= {str(value.name): _numbered(value, number) for value in made}
        for node in layers[source].nodes:
            copy = _copy(node, copied, names)
            graph.insert_after(place, copy)
            place = copy
        previous = copied[results[source]]
        graph.outputs.extend(copied[value] for value in made)
    for node, index in tail:
        node.replace_input_with(index, previous)
    for index, value in enumerate(graph.outputs):
        if value is results[-1]:
            previous.name = output
            graph.outputs[index] = previous


def _entry(graph: ir.Graph, stack: Stack, other: ir.Value) -> ir.Value:
    """The input of the first layer where its twin reads `other`, by the names of their nodes.

    Raises:
        UnlikeError: there is no such value, or more than one.
    """
    start, twin = (f"{stack.path}.{at}." for at in stack.twins)
    nodes = {str(node.name): node for node in graph}
    found: dict[ir.Value | None, None] = {}
    for use in other.uses():
        node = nodes.get(str(use.node.name).replace(twin, start, 1))
        if node is not None and node.op_type == use.node.op_type:
            found[node.inputs[use.idx]] = None
    value = next(iter(found), None)
    if value is None or len(found) > 1:
        raise UnlikeError(f"the first layer of {stack.path} reads {len(found)} values")
    return value


def _layers(
    graph: ir.Graph, stack: Stack, weights: Weights, entry: ir.Value | None = None
) -> list[Layer]:
    """The nodes of every traced layer that depend on its weights or on its input.

    What they share (sizes, masks, rotary tables) belongs to none, wherever it was traced first.

    Args:
        graph: of the network, traced.
        stack: its layers.
        weights: of every layer.
        entry: the input of the first layer, where its nodes are asked for too.
    """
    owner: dict[ir.Value, int] = {} if entry is None else {entry: stack.traced}
    for number in range(stack.traced):
        for name in weights.names[number]:
            if name in graph.initializers:  # else nothing reads it: a part that is not called
                owner[graph.initializers[name]] = number
    layers = [Layer() for _ in range(stack.traced)]
    for value in graph.inputs:
        at = _reader(value, stack)
        if at is not None:
            owner[value] = at
            layers[at].past.append(value)
    for node in graph:
        at = _scope(node, stack)
        sources = {owner[value] for value in node.inputs if value in owner}
        # Caches of all layers are equally long: the length of one is nobody's own.
        if not sources or (node.op_type == "Shape" and node.inputs[0] in graph.inputs):
            continue
        if at is None and len(sources) == 1 and _is_static(node):
            at = next(iter(sources))
        if at is None:
            owner |= dict.fromkeys(node.outputs, stack.traced)
            continue
        owner |= dict.fromkeys(node.outputs, at)
        layers[at].nodes.append(node)
        layers[at].made.update(node.outputs)
    return layers


def _reader(value: ir.Value, stack: Stack) -> int | None:
    """The layer whose cache an input is; its size may be asked for elsewhere.

    Raises:
        UnlikeError: it is not numbered as the layer is.
    """
    places = {_scope(node, stack) for node in value.consumers() if node.op_type != "Shape"}
    if None in places or len(places) != 1:
        return None
    (at,) = places
    if f".{at}." not in str(value.name):
        raise UnlikeError(f"layer {at} reads {value.name}")
    return at


def _numbered(value: ir.Value, number: int) -> str:
    """The name of the same cache of another layer."""
    start, _, rest = str(value.name).partition(".")
    return f"{start}.{number}.{rest.partition('.')[2]}"


def _other_past(graph: ir.Graph, value: ir.Value, number: int) -> ir.Value:
    """The same input of another layer, added to the graph."""
    other = ir.Value(name=_numbered(value, number), shape=value.shape, type=value.type)
    graph.inputs.append(other)
    return other


def _scope(node: ir.Node, stack: Stack) -> int | None:
    """The layer that a node's name puts it in."""
    rest = str(node.name).partition(f"{stack.path}.")[2]
    number = rest.partition(".")[0]
    inside = str(node.name).startswith(f"{stack.path}.") and number.isdigit()
    return int(number) if inside else None


def _is_static(node: ir.Node) -> bool:
    """Whether a node computes with initialisers alone."""
    return all(
        value is None or value.is_initializer()
        or (value.producer() is not None and _is_static(value.producer()))
        for value in node.inputs
    )  # fmt: skip


def _result(layers: Sequence[Layer], at: int, graph: ir.Graph) -> ir.Value:
    """The value that a layer gives to what follows."""
    inside, caches = set(layers[at].nodes), set(layers[at].present(graph))
    found = {
        value: None
        for node in layers[at].nodes
        for value in node.outputs
        if any(reader not in inside for reader in value.consumers())
        or (value.is_graph_output() and value not in caches)
    }
    if len(found) != 1:
        raise UnlikeError(f"layer {at} gives {len(found)} values to what follows")
    return next(iter(found))


def _readers(layers: Sequence[Layer], result: ir.Value) -> list[tuple[ir.Node, int]]:
    inside = {node for layer in layers for node in layer.nodes}
    return [(use.node, use.idx) for use in result.uses() if use.node not in inside]


def _check_twins(
    layers: Sequence[Layer],
    entries: tuple[ir.Value, ir.Value],
    stack: Stack,
    weights: Weights,
) -> None:
    """Compares two traced layers node by node, as if one were the copy of the other.

    Args:
        layers: nodes of every traced layer.
        entries: what the two layers take from what comes before them.
        stack: names the two.
        weights: of every layer.

    Raises:
        UnlikeError: they are no copies.
    """
    first, second = stack.twins
    one, other = layers[first].nodes, layers[second].nodes
    if len(weights.names[first]) != len(weights.names[second]):
        raise UnlikeError(f"layers {first} and {second} have unlike tensors")
    alike: dict[str, str] = dict(zip(weights.names[first], weights.names[second], strict=True))
    if len(one) != len(other):
        raise UnlikeError(f"layers {first} and {second} have {len(one)} and {len(other)} nodes")
    alike[str(entries[0].name)] = str(entries[1].name)
    alike |= {str(value.name): _numbered(value, second) for value in layers[first].past}
    for a, b in zip(one, other, strict=True):
        if (a.op_type, a.domain, _attributes(a)) != (b.op_type, b.domain, _attributes(b)):
            raise UnlikeError(f"{a.name} and {b.name} differ")
        for x, y in zip(a.inputs, b.inputs, strict=True):
            expected = alike.get(str(x.name), str(x.name)) if x is not None else None
            got = str(y.name) if y is not None else None
            if expected != got:
                raise UnlikeError(f"{a.name} and {b.name} read {expected} and {got}")
        for u, v in zip(a.outputs, b.outputs, strict=True):
            alike[str(u.name)] = str(v.name)


def _attributes(node: ir.Node) -> list[tuple[str, str]]:
    return sorted((name, repr(attribute.value)) for name, attribute in node.attributes.items())


def _other_weights(
    graph: ir.Graph, old: Iterable[str], new: Iterable[str]
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The initialisers of another layer, added to the graph."""
    for before, after in zip(old, new, strict=True):
        if before not in graph.initializers:
            continue
        value = graph.initializers[before]
        if after not in graph.initializers:
            graph.initializers[after] = ir.Value(name=after, shape=value.shape, type=value.type)
        yield value, graph.initializers[after]


def _renaming(stack: Stack, weights: Weights, source: int, number: int) -> dict[str, str]:
    """Beginnings of names, old to new: the layer's path, or the name of a weight."""
    path = {f"{stack.path}.{source}.": f"{stack.path}.{number}."}
    return path | dict(zip(weights.names[source], weights.names[number], strict=True))


def _renamed(name: str | None, names: Mapping[str, str]) -> str:
    text = str(name)
    old = next((old for old in names if text.startswith(old)), "")
    if not old:
        raise UnlikeError(f"{text} has the name of no layer")
    return names[old] + text.removeprefix(old)


def _copy(node: ir.Node, copied: dict[ir.Value, ir.Value], names: Mapping[str, str]) -> ir.Node:
    """A node on the copies of its inputs, named after the other layer."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        [copied.get(value, value) if value is not None else None for value in node.inputs],
        list(node.attributes.values()),
        num_outputs=len(node.outputs),
        name=_renamed(node.name, names),
    )
    for before, after in zip(node.outputs, copy.outputs, strict=True):
        after.name = _renamed(before.name, names)
        after.shape, after.type = before.shape, before.type
        copied[before] = after
    return copy


def layer_weights(stack: Stack, made_from: Iterable[tuple[str, Sequence[str]]]) -> Weights:
    """The stored tensors of every layer, ordered by the parameter that they make.

    Args:
        stack: the layers.
        made_from: parameter and its stored tensors, for all layers.

    Raises:
        UnlikeError: a tensor is shared between layers, or layers have unlike tensors.
    """
    found: list[dict[str, Sequence[str]]] = [{} for _ in stack.kinds]
    for parameter, names in made_from:
        if parameter.startswith(f"{stack.path}."):
            number, _, rest = parameter.removeprefix(f"{stack.path}.").partition(".")
            found[int(number)][rest] = names
    flat = [[name for key in sorted(layer) for name in layer[key]] for layer in found]
    if len({name for names in flat for name in names}) != sum(map(len, flat)):
        raise UnlikeError("layers share weights")
    return Weights(flat)
