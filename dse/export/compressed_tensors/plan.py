"""A folder in compressed-tensors' format, decided before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.compressed_tensors.activations import (
    CACHE_ARGUMENTS,
    Met,
    met,
)
from dse.export.compressed_tensors.weights import Packed, packed
from dse.export.hugging_face.calibrated import cache_scale, differing_scales
from dse.export.hugging_face.folder import Contents, network_entries
from dse.export.hugging_face.layers import Layer, Layers, layers_of
from dse.export.hugging_face.linears import siblings_of

SHARED = ("weight_global_scale", "input_global_scale", "input_scale")
"""Tensors that runtimes keep once for layers that they load as one."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """The content of a folder; whole only where nothing is refused."""

    layers: Layers
    packed: dict[str, Packed] = field(default_factory=dict)
    """By module."""
    met: dict[str, Met] = field(default_factory=dict)
    """Quantized inputs by module."""
    cache_scales: dict[str, Tensor] = field(default_factory=dict)
    """By full name; empty where keys and values stay in 16 bits."""
    refused: list[Refusal] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Tensors that are written for each quantized layer."""
        return {
            module: {**one.tensors, **(self.met[module].tensors if module in self.met else {})}
            for module, one in self.packed.items()
        }

    def contents(self, source: Path) -> Contents:
        """The folder to write."""
        entries = network_entries(source, self.layers)
        if self.packed or self.cache_scales:
            entries["quantization_config"] = self._quantization()
        return Contents(
            layers=self.layers, packed=self.tensors, others=self.cache_scales, config=entries
        )

    def _quantization(self) -> dict[str, Any]:
        groups = self._groups()
        formats = {group["format"] for group in groups.values()}
        return {
            "quant_method": "compressed-tensors",
            "format": "mixed-precision" if len(formats) > 1 else min(formats, default="dense"),
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": self.layers.kept,
            "kv_cache_scheme": dict(CACHE_ARGUMENTS) if self.cache_scales else None,
            "global_compression_ratio": None,
        }

    def _groups(self) -> dict[str, dict[str, Any]]:
        """Layers that are described alike, under their full names."""
        found: dict[str, dict[str, Any]] = {}
        for module, one in self.packed.items():
            inputs = self.met.get(module)
            described = {
                "weights": dict(one.arguments),
                "input_activations": None if inputs is None else dict(inputs.arguments),
                "output_activations": None,
                "format": one.format,
            }
            entry = found.setdefault(json.dumps(described), {"targets": [], **described})
            entry["targets"].append(module)
        return {f"group_{number}": entry for number, entry in enumerate(found.values())}


def plan_of(recipe: Recipe) -> Plan | None:
    """The plan of a recipe; None where its model is no Hugging Face folder.

    Raises:
        CheckpointError: the folder is no longer what it was.
    """
    if recipe.checkpoint is None:
        return None
    layers = layers_of(recipe)
    plan = Plan(layers=layers, refused=list(layers.refused))
    groups = siblings_of(list(layers.linears.values()))
    fused = {linear.module for group in groups for linear in group}
    names = {key: quantizer.name for key, quantizer in recipe.assignment}
    for module, layer in layers.quantized.items():
        _add(plan, recipe, layer, names, fused=module in fused)
    _add_caches(plan, names)
    plan.refused += differing_scales(layers, plan.tensors, SHARED)
    return plan


def _add(
    plan: Plan, recipe: Recipe, layer: Layer, names: Mapping[str, str], *, fused: bool
) -> None:
    linear = layer.linear
    weight = recipe.constant(linear.weight_key)
    assert weight is not None, "a linear layer has a constant weight"
    key = linear.weight_key
    try:
        plan.packed[linear.module] = packed(layer, weight, fused=fused)
        if layer.input is not None:
            key = linear.input_key
            plan.met[linear.module] = met(layer.input)
    except Inexpressible as why:
        plan.refused.append(_refusal(key, names, why))


def _add_caches(plan: Plan, names: Mapping[str, str]) -> None:
    for module, parts in plan.layers.caches.items():
        for part, cache in parts.items():
            try:
                plan.cache_scales[f"{module}.{part}_scale"] = cache_scale(cache.quantize)
            except Inexpressible as why:
                plan.refused.append(_refusal(cache.key, names, why))


def _refusal(key: str, names: Mapping[str, str], why: Inexpressible) -> Refusal:
    return Refusal(reason=why.reason, instead=why.instead, site=key, format=names.get(key, ""))
