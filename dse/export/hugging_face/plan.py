"""A folder with packed layers, decided before it is written; a target says how one is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.hugging_face.calibrated import cache_scale, differing_scales
from dse.export.hugging_face.layers import Layer, Layers, layers_of
from dse.export.hugging_face.rows import Rows, rows_of


class Packed(Protocol):
    """A layer as a checkpoint holds it."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By what stands behind the module's name."""


P = TypeVar("P", bound=Packed)
Pack = Callable[[Layer, Rows, bool], P]
"""From a layer, the codes of its weight, and whether runtimes load it as one with others, to what
a checkpoint holds; raises `Inexpressible`."""


@dataclass(slots=True, kw_only=True)
class Plan(Generic[P]):
    """The content of a folder; whole only where nothing is refused."""

    layers: Layers
    packed: dict[str, P] = field(default_factory=dict)
    """By module."""
    cache_scales: dict[str, Tensor] = field(default_factory=dict)
    """By full name; empty where keys and values stay in 16 bits."""
    refused: list[Refusal] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of each quantized layer."""
        return {module: one.tensors for module, one in self.packed.items()}


def plan_of(recipe: Recipe, pack: Pack[P], *, shared: Sequence[str], cache_module: str) -> Plan[P]:
    """The plan of a recipe whose model is a Hugging Face folder.

    Args:
        recipe: the recipe.
        pack: how the target holds a layer.
        shared: names of tensors that runtimes keep once for layers that they load as one, where
            they have one element.
        cache_module: module that has the scale of a cache, with `{module}` for that of the
            attention and `{part}` for `k` or `v`.

    Raises:
        CheckpointError: the folder is no longer what it was.
    """
    layers = layers_of(recipe)
    plan: Plan[P] = Plan(layers=layers, refused=list(layers.refused))
    fused = layers.fused

    def refuse(key: str, why: Inexpressible) -> None:
        plan.refused.append(recipe.refusal(why.site or key, why.reason, why.instead))

    for key, members in layers.by_weight.items():
        try:
            rows = rows_of(_weight(recipe, key), members[0].weight)
            for layer in members:
                module = layer.linear.module
                part = rows.part(layer.linear.stack)
                plan.packed[module] = pack(layer, part, module in fused)
        except Inexpressible as why:
            refuse(key, why)
    for module, parts in layers.caches.items():
        for part_name, cache in parts.items():
            place = cache_module.format(module=module, part=part_name)
            try:
                plan.cache_scales[f"{place}.{part_name}_scale"] = cache_scale(cache.quantize)
            except Inexpressible as why:
                refuse(cache.key, why)
    plan.refused += differing_scales(layers, _single(plan.tensors), shared)
    return plan


def emulated(recipe: Recipe, layers: Layers) -> Iterator[tuple[str, Tensor]]:
    """Modules of quantized layers with the emulator's weights, (outputs, depth) float32."""
    for key, members in layers.by_weight.items():
        values = members[0].weight(_weight(recipe, key).detach().float())
        for layer in members:
            yield layer.linear.module, layer.linear.matrix(values)


def _weight(recipe: Recipe, key: str) -> Tensor:
    weight = recipe.constant(key)
    assert weight is not None, "a linear layer has a constant weight"
    return weight


def _single(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {
        module: {name: one for name, one in parts.items() if one.numel() == 1}
        for module, parts in tensors.items()
    }
