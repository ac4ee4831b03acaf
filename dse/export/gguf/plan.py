"""The plan of a GGUF file, decided and checked before one is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
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
from dse.export.hugging_face.layers import Layer, Layers, layers_of, unsaid
from dse.export.hugging_face.linears import EXPERT
from dse.export.scales import scales_of

NO_FOLDER = Refusal(
    reason="it names tensors as llama.cpp does, and the model is no Hugging Face folder",
    instead="a folder with config.json and safetensors is written",
)
COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
"""Stored tensors that runtimes compute."""
ROUTER = "ffn_gate_inp.weight"
"""The end of a name: llama.cpp keeps what chooses experts in float32."""
ROUNDINGS = ("requant", "requant_floor")
"""Methods that compute with other scales than their format's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tensor of a file."""

    name: str
    """In the file."""
    stored: tuple[str, ...]
    """In the checkpoint: one tensor, or one of each expert, which the file has as a stack."""
    layers: tuple[Layer, ...] = ()
    """The layers of these where their weights are quantized."""
    type: TensorType | None = None
    """The blocks of such weights."""
    heads: int = 0
    """Heads whose rows change places."""

    @property
    def is_stack(self) -> bool:
        """Whether it has the matrices of several experts."""
        return len(self.stored) > 1

    def order(self, rows: int) -> npt.NDArray[np.int64]:
        """Places of the tensor's rows among those of what the graph multiplies."""
        stacks = [layer.linear.stack for layer in self.layers if layer.linear.stack is not None]
        if not stacks:
            return _order(rows, self.heads)
        return np.concatenate(
            [one.expert * one.outputs + np.arange(one.first, one.last) for one in stacks]
        )

    def shaped(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows in the shape of the file: (experts, outputs, ...) of a stack."""
        return rows.reshape(len(self.stored), -1, *rows.shape[1:]) if self.is_stack else rows


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
        assert entry.type is not None, "a quantized weight has one"
        emulator = entry.layers[0].weight
        rows, values = self._matrices(entry)
        found = scales_of(rows, emulator)
        shape = (len(rows), rows.shape[1] // entry.type.format.group)
        scales, offsets = (
            part if part is None else np.ascontiguousarray(np.broadcast_to(part, shape))
            for part in (found.scales, found.offsets)
        )
        assert scales is not None
        return entry.shaped(packed(values, scales, offsets, entry.type)[entry.order(len(rows))])

    def plain(self, entry: Entry) -> Tensor:
        """A tensor without blocks in the type that it has in the file; vectors are float32."""
        assert self.layers is not None
        parts = [self.layers.replaced.get(name) for name in entry.stored]
        values = [
            _stored(self.layers, name) if part is None else part
            for name, part in zip(entry.stored, parts, strict=True)
        ]
        if entry.is_stack:
            return torch.stack(values)
        value = values[0]
        if value.dim() == 1 or entry.name.endswith(ROUTER):
            value = value.float()
        return value[torch.from_numpy(_order(len(value), entry.heads))]

    def values(self, entry: Entry) -> npt.NDArray[np.float32]:
        """The float32 values that a reader must find."""
        if not entry.layers:
            found: npt.NDArray[np.float32] = self.plain(entry).float().numpy()
            return found
        values = self._matrices(entry)[1]
        return entry.shaped(values[entry.order(len(values))])

    def _matrices(self, entry: Entry) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Rows of what the graph multiplies, in full precision and as the emulator has them."""
        layer = entry.layers[0]
        weight = self.recipe.constant(layer.linear.weight_key)
        assert weight is not None, "a linear layer has a constant weight"
        plain = weight.detach().float().cpu()
        rows, values = (
            np.ascontiguousarray(part.movedim(_axis(layer.weight), -1).flatten(0, -2).numpy())
            for part in (plain, layer.weight(plain))
        )
        return rows, values


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
    plan.layers = layers_of(recipe, fused=False, tables=True)
    plan.refused += plan.layers.refused
    plan.refused += _refused(recipe, plan.layers)
    _name(plan, recipe.checkpoint)
    return plan


def _refused(recipe: Recipe, layers: Layers) -> Iterator[Refusal]:
    """Sites that the layers have, and a file has no place for."""
    yield from unsaid(
        recipe,
        layers,
        caches="a file says nothing about caches: llama.cpp quantizes them as its command line "
        "says, along other axes",
        inputs="a file says nothing about activations: llama.cpp rounds them as its kernels do",
    )
    for layer in layers.quantized.values():
        why = _why_not(recipe, layer)
        if why is not None:
            yield recipe.refusal(layer.linear.weight_key, *why)


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
    shared = plan.layers.shared
    layers = {
        shared.get(module, one.linear.weight): one for module, one in plan.layers.quantized.items()
    }
    # What its look-up reads otherwise is no table that a head could share.
    heads = (one for one in plan.layers.linears.values() if one.tied and one.module not in shared)
    unshared = [
        one.weight for one in heads if one.weight in layers or one.weight in plan.layers.replaced
    ]
    for called, stored in _joined([*plan.layers.checkpoint.tensors, *unshared]).items():
        name = table.get_name(called, try_suffixes=(".weight", ".bias"))
        if name is None:
            plan.refused.append(
                Refusal(
                    reason=f"llama.cpp's {plan.network.family.arch} has no tensor for {called}",
                    instead="a checkpoint without it is written",
                )
            )
            continue
        found = tuple(layers[one] for one in stored if one in layers)
        plan.entries.append(
            Entry(
                name=name,
                stored=stored,
                layers=found,
                type=type_of(found[0].weight.quantizer.format) if found else None,
                heads=plan.network.permuted_heads(called),
            )
        )


def _joined(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Stored tensors by the name that gguf-py's table has: those of experts together."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = EXPERT.fullmatch(name.removesuffix(".weight"))
        if match:
            called, number = f"{match['experts']}.{match['name']}.weight", int(match["number"])
            found.setdefault(called, []).append((number, name))
        elif not COMPUTED.search(name):
            found[name] = [(0, name)]
    return {called: tuple(name for _, name in sorted(parts)) for called, parts in found.items()}


def _table(network: Network) -> Any:
    try:
        import gguf  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ExportError("--to gguf needs gguf-py: pip install 'dse[gguf]'") from error
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == network.family.arch)
    return gguf.get_tensor_name_map(arch, network.layers)


def _axis(emulator: Emulator) -> int:
    """The axis of a weight that is summed over."""
    return emulator.axes[0] if emulator.axes else -1


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
