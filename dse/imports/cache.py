"""Keys and values of earlier positions as inputs and outputs of a graph: the serving form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from dse.imports.latent import is_latent
from dse.imports.names import PAST

POSITIONS = 3
"""Cached positions of the example: unequal to its other sizes."""
DIMS = {0: "batch", 2: "past"}
PARTS = ("key", "value")
JOINED = ("latent",)
"""The only cache of a layer that keeps one vector for all heads (MLA)."""

Caches = Mapping[str, Tensor]
"""Tensors (batch, heads, positions, channels) by name: `past_key_values.<layer>.<part>`."""


class Grown(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, of which none need be there."""

    parts: tuple[str, ...] = PARTS

    def get_seq_length(self) -> Any:
        """Positions so far; asking whether there are any would fix their number in a trace."""
        return self.keys.shape[-2] if self.is_initialized else 0

    def hold(self, *tensors: Tensor) -> None:
        """Lets the layer begin with cached tensors, one a part."""
        self.dtype, self.device = tensors[0].dtype, tensors[0].device
        self.keys, self.values, self.is_initialized = tensors[0], tensors[-1], True


class Joined(Grown):
    """Compressed keys and values with the rotated part of the keys, side by side."""

    parts = JOINED

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The cache with new positions, twice.

        key_states: (batch, 1, sequence, rank), value_states: (batch, 1, sequence, rotated).
        """
        new = torch.cat((key_states, value_states), dim=-1)
        self.hold(torch.cat((self.keys, new), dim=-2) if self.is_initialized else new)
        return self.keys, self.keys


def new_cache(network: Any) -> Cache:
    """A cache without positions, of the kind that a network is served with."""
    return Cache(layer_class_to_replicate=Joined if is_latent(network) else Grown)


def filled(network: Any, past: Caches) -> Cache:
    """A cache that holds the tensors of `past`."""
    cache = new_cache(network)
    made = cache.layer_class_to_replicate
    for name, tensor in past.items():
        number = int(name.removeprefix(f"{PAST}.").partition(".")[0])
        while len(cache.layers) <= number:
            cache.layers.append(made())
        layer = cache.layers[number]
        layer.hold(*((layer.keys, tensor) if layer.is_initialized else (tensor,)))
    return cache


def content(cache: Cache, prefix: str) -> dict[str, Tensor]:
    """The tensors of a cache by name; layers that share another one's have none."""
    return {
        f"{prefix}.{number}.{part}": tensor
        for number, layer in enumerate(cache.layers)
        if layer.is_initialized
        for part, tensor in zip(layer.parts, (layer.keys, layer.values), strict=False)
    }


def example(cache: Cache) -> dict[str, Tensor]:
    """Caches of `POSITIONS` positions, of the sizes that a run without any has left."""
    return {
        name: tensor.new_zeros((*tensor.shape[:2], POSITIONS, tensor.shape[3]))
        for name, tensor in content(cache, PAST).items()
    }


def ask_one(graph: ir.Graph) -> None:
    """Lets the sizes that all caches share, batch and positions, be asked of the first one.

    Otherwise every layer computes them anew, and each has sums and shapes of its own.
    """
    past = [value for value in graph.inputs if str(value.name).startswith(PAST)]
    for node in graph:
        axis = node.attributes.get("start")
        shared = axis is not None and axis.value in DIMS and node.op_type == "Shape"
        if shared and node.inputs[0] in past:
            node.replace_input_with(0, past[0])
