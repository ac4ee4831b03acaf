"""Repeated layers of a network: which are alike, and how many must be traced.

Tracing takes a second a layer. Layers that are built alike compute alike, so a few are traced and
the graph of the others is copied (`dse.imports.stamp`, which also checks one copy against a traced
layer).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

SHORTEST = 4
"""Fewer layers are all traced."""
POSITIONS = ("layer_idx", "layer_id", "layer_index", "layer_number")
"""Attributes that say where a layer stands; a layer that computes with one is found out by the
comparison of a copy with a traced layer."""
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A list of layers that a network runs one after the other."""

    path: str
    """Of the list among the network's modules, e.g. `model.layers`."""
    kinds: tuple[str, ...]
    """A digest of every layer's structure."""
    traced: int
    """The first so many layers are traced."""
    twins: tuple[int, int]
    """Two traced layers of one kind; the graph of the second is checked to be the first's."""

    @property
    def representatives(self) -> tuple[int, ...]:
        """The traced layer that every other one is a copy of, from the first copy on."""
        last = {kind: at for at, kind in enumerate(self.kinds[: self.traced])}
        return tuple(last[kind] for kind in self.kinds[self.traced :])


def stacks(network: Any, *, first: bool) -> tuple[Stack, ...]:
    """The lists of layers in which copies save work, outermost ones only.

    Args:
        network: in which they are looked for.
        first: a stack's first layer may be one of its twins, which saves the trace of another.
            It reads what comes before the stack, so that it can look unlike the others though
            they are alike.
    """
    found: list[Stack] = []
    for path, module in network.named_modules():
        inside = any(path.startswith(f"{stack.path}.") for stack in found)
        if not isinstance(module, nn.ModuleList) or len(module) < SHORTEST or inside:
            continue
        lists = list(_lists(network.config.to_dict(), len(module)))
        kinds = tuple(_kind(layer, [values[at] for values in lists])
                      for at, layer in enumerate(module))  # fmt: skip
        count = _enough(kinds, first=first)
        if count < len(kinds):
            twins = _twins(kinds[:count], first=first)[-1]
            found.append(Stack(path=path, kinds=kinds, traced=count, twins=twins))
    return tuple(found)


def shortened(network: Any, stack: Stack) -> None:
    """Leaves a network only the layers that are traced."""
    parent, _, name = stack.path.rpartition(".")
    owner = network.get_submodule(parent)
    layers = network.get_submodule(stack.path)
    setattr(owner, name, nn.ModuleList(list(layers)[: stack.traced]))


def _enough(kinds: Sequence[str], *, first: bool) -> int:
    """The fewest first layers that hold, the first one apart, every later kind, and twins.

    The first layer reads what comes before the stack, so that it is no pattern for others.
    """
    for count in range(2, len(kinds)):
        if set(kinds[count:]) <= set(kinds[1:count]) and _twins(kinds[:count], first=first):
            return count
    return len(kinds)


def _twins(kinds: Sequence[str], *, first: bool) -> list[tuple[int, int]]:
    return [
        (one, other)
        for other in range(len(kinds))
        for one in range(0 if first else 1, other)
        if kinds[one] == kinds[other]
    ]


def _kind(layer: nn.Module, listed: Sequence[object]) -> str:
    """A digest of classes, sizes, plain attributes and buffers; names of layers do not count."""
    total = hashlib.sha256(repr(listed).encode())
    for name, module in layer.named_modules():
        plain = {
            key: value
            for key, value in vars(module).items()
            if key not in POSITIONS and _is_plain(value)
        }
        parameters = [(key, tuple(value.shape), value.dtype)
                      for key, value in module.named_parameters(recurse=False)]  # fmt: skip
        total.update(repr((name, type(module), sorted(plain.items()), parameters)).encode())
        for key, buffer in module.named_buffers(recurse=False):
            total.update(key.encode() + _content(buffer))
    return total.hexdigest()


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, PLAIN)


def _content(buffer: Tensor) -> bytes:
    return b"" if buffer.is_meta else buffer.detach().cpu().numpy().tobytes()


def _lists(config: object, length: int) -> Iterator[list[object]]:
    """Lists of a configuration that have an entry a layer: kinds of attention, of experts."""
    values = config.values() if isinstance(config, dict) else ()
    for value in values:
        if isinstance(value, dict):
            yield from _lists(value, length)
        elif isinstance(value, list | tuple) and len(value) == length:
            yield list(value)
