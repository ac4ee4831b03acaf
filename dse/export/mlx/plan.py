"""A folder in MLX's format, decided before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.hugging_face.folder import CONFIG, Contents, network_entries
from dse.export.hugging_face.layers import Layers, layers_of, unsaid
from dse.export.mlx.modes import Packed, packed
from dse.export.mlx.rotary import rotary_entries
from dse.imports.checkpoint import read_json
from hwmodels.formats.quantizer import Format

READ = "model*.safetensors"
"""The files that mlx-lm reads."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """The content of the folder; whole only where nothing is refused."""

    layers: Layers
    packed: dict[str, Packed] = field(default_factory=dict)
    """By module."""
    refused: list[Refusal] = field(default_factory=list)

    @property
    def bias_bytes(self) -> int:
        """Bytes that formats do not have, and the cost model does not count.

        They are biases in place of no offsets, or of zero points, whose scales are wider, too.
        """
        return sum(
            _beyond(one, self.layers.quantized[module].weight.quantizer.format)
            for module, one in self.packed.items()
            if "biases" in one.tensors
        )

    def contents(self, source: Path) -> Contents:
        """The folder to write."""
        entries = network_entries(source, self.layers) | rotary_entries(read_json(source / CONFIG))
        if self.packed:
            entries["quantization"] = self._quantization()
        tensors = {module: one.tensors for module, one in self.packed.items()}
        return Contents(layers=self.layers, packed=tensors, config=entries)

    def _quantization(self) -> dict[str, Any]:
        """The commonest settings, then those of every layer by name."""
        counted = Counter(tuple(one.settings.items()) for one in self.packed.values())
        (common, _), *_ = counted.most_common(1)
        return {
            **dict(common),
            **dict.fromkeys(self.layers.kept, False),
            **{self.layers.home(module): one.settings for module, one in self.packed.items()},
        }


def _beyond(one: Packed, format: Format) -> int:
    if format.offset is not None or format.scale is None:
        return 0
    scales, biases = one.tensors["scales"], one.tensors["biases"]
    zeros = 0 if format.zero_point is None else format.zero_point.bits
    counted = scales.numel() * (format.scale.encoding.bits + zeros)
    return scales.nbytes + biases.nbytes - -(-counted // 8)


def plan_of(recipe: Recipe) -> Plan | None:
    """The plan of a recipe; None where its model is no Hugging Face folder.

    Raises:
        CheckpointError: the folder is no longer what it was.
    """
    if recipe.checkpoint is None:
        return None
    layers = layers_of(recipe, fused=False, experts=False, tables=True)
    plan = Plan(layers=layers, refused=[*layers.refused, *_unsaid(recipe, layers)])
    for module, layer in layers.quantized.items():
        key = layer.linear.weight_key
        weight = recipe.constant(key)
        assert weight is not None, "a linear layer has a constant weight"
        try:
            plan.packed[module] = packed(layer, weight)
        except Inexpressible as why:
            plan.refused.append(recipe.refusal(key, why.reason, why.instead))
    return plan


def _unsaid(recipe: Recipe, layers: Layers) -> Iterator[Refusal]:
    """Sites that the layers have, and a folder has no place for."""
    yield from unsaid(
        recipe,
        layers,
        caches="a folder says nothing about caches: mlx-lm quantizes them as its command line "
        "says (--kv-bits), in affine groups",
        inputs="mlx-lm multiplies activations in 16 bits, or those of the whole network in the "
        "mode of its weights with scales by a rule of its own",
    )
    files = {tensor.file for tensor in layers.checkpoint.tensors.values()}
    for file in sorted(files):
        if not fnmatch(file, READ):
            yield Refusal(
                reason=f"mlx-lm reads files named {READ}, and the folder has {file}",
                instead="the same folder with its files (and those in its index) renamed is read",
            )
