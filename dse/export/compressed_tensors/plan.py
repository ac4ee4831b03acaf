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
    cache_scale,
    met,
)
from dse.export.compressed_tensors.weights import Packed, packed
from dse.export.hugging_face.folder import Contents, network_entries
from dse.export.hugging_face.layers import Layer, Layers, layers_of
from dse.export.hugging_face.linears import siblings_of

NO_FOLDER = Refusal(
    reason="the model is no Hugging Face folder, whose names and configuration it needs",
    instead="search the folder itself, or take 'onnx-qdq' or 'recipe' for this model",
)


@dataclass(slots=True, kw_only=True)
class Plan:
    """What the folder will hold; whole only where nothing is refused."""

    layers: Layers
    packed: dict[str, Packed] = field(default_factory=dict)
    """By module."""
    met: dict[str, Met] = field(default_factory=dict)
    """Quantized inputs by module."""
    cache_scales: dict[str, Tensor] = field(default_factory=dict)
    """By full name; empty where keys and values stay in 16 bits."""
    refused: list[Refusal] = field(default_factory=list)

    def contents(self, source: Path) -> Contents:
        """The folder to write."""
        tensors: dict[str, dict[str, Tensor]] = {
            module: dict(one.tensors) for module, one in self.packed.items()
        }
        for module, one in self.met.items():
            tensors[module] |= one.tensors
        entries = network_entries(source, self.layers)
        if self.packed or self.cache_scales:
            entries["quantization_config"] = self._quantization()
        return Contents(
            layers=self.layers, packed=tensors, others=self.cache_scales, config=entries
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
    for group in groups:
        _check_scales(plan, [linear.module for linear in group])
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
    """Scales of keys and values: of every attention, or of none."""
    found = plan.layers.caches
    missing = [
        f"{module} ({part})"
        for module in sorted(plan.layers.attentions)
        for part in ("k", "v")
        if part not in found.get(module, {})
    ]
    if found and missing:
        plan.refused.append(
            Refusal(
                reason="one cache format holds for the whole network, and this assignment leaves "
                f"out {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}",
                instead="the same format for keys and values of every layer is written",
            )
        )
    for module, parts in found.items():
        for part, cache in parts.items():
            try:
                plan.cache_scales[f"{module}.{part}_scale"] = cache_scale(cache.quantize)
            except Inexpressible as why:
                plan.refused.append(_refusal(cache.key, names, why))


def _check_scales(plan: Plan, modules: list[str]) -> None:
    """What runtimes keep once for layers that they load as one must be equal."""
    for name in ("weight_global_scale", "input_global_scale", "input_scale"):
        values = {
            module: float(tensors[name])
            for module in modules
            for tensors in (_tensors(plan, module),)
            if name in tensors
        }
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{module} {value:.6g}" for module, value in values.items())
            plan.refused.append(
                Refusal(
                    reason=f"runtimes load them as one layer with one {name}, and theirs differ "
                    f"({listed})",
                    instead="formats without a tensor's own scale are written",
                )
            )


def _tensors(plan: Plan, module: str) -> dict[str, Tensor]:
    found = dict(plan.packed[module].tensors) if module in plan.packed else {}
    return found | (dict(plan.met[module].tensors) if module in plan.met else {})


def _refusal(key: str, names: Mapping[str, str], why: Inexpressible) -> Refusal:
    return Refusal(reason=why.reason, instead=why.instead, site=key, format=names.get(key, ""))
