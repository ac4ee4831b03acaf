"""The plan of a GGUF file, decided and checked before one is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export.base import Recipe, Refusal
from dse.export.gguf.blocks import packed
from dse.export.gguf.metadata import Network, network_of
from dse.export.gguf.types import HELD, TYPES, TensorType, type_of
from dse.export.gguf.vocabulary import Vocabulary, vocabulary_of
from dse.export.hugging_face.layers import Layer, Layers, layers_of
from dse.export.scales import scales_of

NO_FOLDER = Refusal(
    reason="it names tensors as llama.cpp does, and the model is no Hugging Face folder",
    instead="a folder with config.json and safetensors is written",
)
COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
"""Stored tensors that runtimes compute."""
ROUNDINGS = ("requant", "requant_floor")
"""Methods that compute with other scales than their format's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tensor of a file."""

    name: str
    """In the file."""
    stored: str
    """In the checkpoint."""
    layer: Layer | None = None
    """The sites where its weight is quantized."""
    type: TensorType | None = None
    """The blocks of such a weight."""
    heads: int = 0
    """Heads whose rows change places."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything in a file; whole only where nothing is refused."""

    recipe: Recipe
    network: Network | None = None
    vocabulary: Vocabulary | None = None
    layers: Layers | None = None
    entries: list[Entry] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def packed(self, entry: Entry) -> npt.NDArray[Any]:
        """The bytes of blocks, (rows, bytes), in the order of the file.

        Raises:
            Inexpressible: a weight that is not codes times scales.
        """
        assert entry.layer is not None
        assert entry.type is not None
        rows, values = _matrices(self.recipe, entry.layer)
        found = scales_of(rows, entry.layer.weight)
        shape = (len(rows), rows.shape[1] // entry.type.format.group)
        scales, offsets = (
            part if part is None else np.ascontiguousarray(np.broadcast_to(part, shape))
            for part in (found.scales, found.offsets)
        )
        assert scales is not None
        return packed(values, scales, offsets, entry.type)[_order(len(rows), entry.heads)]

    def plain(self, entry: Entry) -> Tensor:
        """A tensor without blocks in the type that it has in the file; vectors are float32."""
        assert self.layers is not None
        value = self.layers.replaced.get(entry.stored)
        if value is None:
            value = _stored(self.layers, entry.stored)
        value = value.float() if value.dim() == 1 else value
        return value[torch.from_numpy(_order(len(value), entry.heads))]

    def values(self, entry: Entry) -> npt.NDArray[np.float32]:
        """The float32 values that a reader must find."""
        if entry.layer is None:
            found: npt.NDArray[np.float32] = self.plain(entry).float().numpy()
            return found
        values = _matrices(self.recipe, entry.layer)[1]
        return values[_order(len(values), entry.heads)]


def plan_of(recipe: Recipe) -> Plan:
    """The plan of a recipe.

    Raises:
        ExportError: gguf-py is not installed.
    """
    plan = Plan(recipe=recipe)
    if recipe.checkpoint is None:
        plan.refused.append(NO_FOLDER)
        return plan
    found = network_of(recipe.checkpoint)
    vocabulary = vocabulary_of(recipe.checkpoint)
    plan.refused += [one for one in (found, vocabulary) if isinstance(one, Refusal)]
    if isinstance(found, Refusal):
        return plan
    plan.network = found
    plan.vocabulary = None if isinstance(vocabulary, Refusal) else vocabulary
    plan.layers = layers_of(recipe, fused=False)
    plan.refused += plan.layers.refused
    plan.refused += _refused(recipe, plan.layers)
    _name(plan, recipe.checkpoint)
    return plan


def _refused(recipe: Recipe, layers: Layers) -> Iterator[Refusal]:
    """Sites that the layers have, and a file has no place for."""
    names = {key: one.name for key, one in recipe.assignment}
    for caches in layers.caches.values():
        for cache in caches.values():
            yield Refusal(
                reason="a file says nothing about caches: llama.cpp quantizes them as its command "
                "line says, along other axes",
                instead="bf16 or fp16 is written",
                site=cache.key,
                format=names.get(cache.key, ""),
            )
    for layer in layers.quantized.values():
        if layer.input is not None:
            key = layer.linear.input_key
            yield Refusal(
                reason="a file says nothing about activations: llama.cpp rounds them as its "
                "kernels do",
                instead="bf16 or fp16 is written",
                site=key,
                format=names.get(key, ""),
            )
        why = _why_not(recipe, layer)
        if why is not None:
            key = layer.linear.weight_key
            yield Refusal(reason=why[0], instead=why[1], site=key, format=names.get(key, ""))


def _why_not(recipe: Recipe, layer: Layer) -> tuple[str, str] | None:
    """The reason why blocks cannot hold a weight, and what would work."""
    quantizer = layer.weight.quantizer
    found = type_of(quantizer.format)
    if found is None:
        return f"GGUF has no tensor type with the numbers of {quantizer.format.name}", HELD
    if quantizer.transforms:
        word = quantizer.transforms[0].partition("(")[0]
        return f"{word} computes around the codes", "the same format without transforms is written"
    if quantizer.rounding in ROUNDINGS:
        return f"{quantizer.rounding} has scales of wider codes", "nearest rounding is written"
    depth = _depth(recipe, layer)
    if depth % found.elements:
        whole = [one.format.name for one in TYPES if depth % one.elements == 0]
        return (
            f"rows of {depth} elements are not whole blocks of {found.elements}",
            f"{', '.join(whole)} and bf16 are written" if whole else "bf16 or fp16 is written",
        )
    return None


def _depth(recipe: Recipe, layer: Layer) -> int:
    weight = recipe.constant(layer.linear.weight_key)
    assert weight is not None, "a linear layer has a constant weight"
    return int(weight.shape[_axis(layer.weight)])


def _name(plan: Plan, folder: Path) -> None:
    """Adds the entries of all tensors of a checkpoint, and of layers that share one."""
    assert plan.layers is not None
    assert plan.network is not None
    table = _table(plan.network)
    layers = {one.linear.weight: one for one in plan.layers.quantized.values()}
    unshared = [name for name, one in layers.items() if one.linear.tied]
    for stored in [*plan.layers.checkpoint.tensors, *unshared]:
        if COMPUTED.search(stored):
            continue
        name = table.get_name(stored, try_suffixes=(".weight", ".bias"))
        if name is None:
            plan.refused.append(
                Refusal(
                    reason=f"llama.cpp's {plan.network.family.arch} has no tensor for {stored}",
                    instead="a checkpoint without it is written",
                )
            )
            continue
        layer = layers.get(stored)
        plan.entries.append(
            Entry(
                name=name,
                stored=stored,
                layer=layer,
                type=None if layer is None else type_of(layer.weight.quantizer.format),
                heads=plan.network.permuted_heads(stored),
            )
        )


def _table(network: Network) -> Any:
    try:
        import gguf  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ExportError("--to gguf needs gguf-py: pip install 'dse[gguf]'") from error
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == network.family.arch)
    return gguf.get_tensor_name_map(arch, network.layers)


def _axis(emulator: Emulator) -> int:
    """The axis of a matrix that is summed over."""
    return emulator.axes[0] % 2 if emulator.axes else 1


def _matrices(
    recipe: Recipe, layer: Layer
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(outputs, depth) of a weight in full precision, and as the emulator has it."""
    weight = recipe.constant(layer.linear.weight_key)
    assert weight is not None, "a linear layer has a constant weight"
    weight = weight.detach().float().cpu()
    parts = (weight, layer.weight(weight))
    if _axis(layer.weight) == 0:
        parts = (parts[0].T, parts[1].T)
    rows, values = (np.ascontiguousarray(part.numpy()) for part in parts)
    return rows, values


def _stored(layers: Layers, name: str) -> Tensor:
    """A tensor of the checkpoint as it is."""
    from safetensors import safe_open  # noqa: PLC0415 (its first use costs)

    tensor = layers.checkpoint.tensors[name]
    with safe_open(layers.checkpoint.folder / tensor.file, framework="pt") as file:
        found: Tensor = file.get_tensor(name)
    return found


def _order(rows: int, heads: int) -> npt.NDArray[np.int64]:
    """The order of rows: in each head, pairs of what were two halves."""
    order = np.arange(rows)
    return order.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1) if heads else order
