"""A folder in ModelOpt's format, decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dse.export.base import Inexpressible, Recipe, Refusal
from dse.export.hugging_face.calibrated import cache_scale, differing_scales
from dse.export.hugging_face.folder import Contents, network_entries
from dse.export.hugging_face.layers import Layers, layers_of
from dse.export.hugging_face.rows import NV_GROUP
from dse.export.modelopt.algorithms import KNOWN, MIXED, NVFP4, NVFP4_WEIGHT, Quantized, quantized

MIXED_PRECISION = "MIXED_PRECISION"
PRODUCER = {"name": "dse", "version": "1"}
SHARED = ("weight_scale", "weight_scale_2", "input_scale")
"""Tensors that runtimes keep once for layers that they load as one, where they have one element:
vLLM takes the largest and rounds FP8 weights again."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """The content of a folder; whole only where nothing is refused."""

    layers: Layers
    quantized: dict[str, Quantized] = field(default_factory=dict)
    """By module."""
    cache_scales: dict[str, Tensor] = field(default_factory=dict)
    """By full name; empty where keys and values stay in 16 bits."""
    refused: list[Refusal] = field(default_factory=list)

    @property
    def algorithm(self) -> str | None:
        """The algorithm of all layers; None without a quantized one."""
        found = {one.algorithm for one in self.quantized.values()}
        return MIXED_PRECISION if len(found) > 1 else min(found, default=None)

    def contents(self, source: Path) -> Contents:
        """The folder to write."""
        entries = network_entries(source, self.layers)
        if self.algorithm:
            entries["quantization_config"] = self._entry()
        tensors = {module: one.tensors for module, one in self.quantized.items()}
        return Contents(
            layers=self.layers, packed=tensors, others=self.cache_scales, config=entries
        )

    def document(self) -> dict[str, Any]:
        """`hf_quant_config.json`."""
        quantization: dict[str, Any] = {
            "quant_algo": self.algorithm,
            "kv_cache_quant_algo": "FP8" if self.cache_scales else None,
            "exclude_modules": self.layers.kept,
            **self._details(),
        }
        return {"producer": PRODUCER, "quantization": quantization}

    def _entry(self) -> dict[str, Any]:
        """The same in `config.json`, which vLLM prefers."""
        cache = {"num_bits": 8, "type": "float", "dynamic": False}
        return {
            "quant_method": "modelopt",
            "quant_algo": self.algorithm,
            "kv_cache_scheme": cache if self.cache_scales else None,
            "ignore": self.layers.kept,
            "producer": PRODUCER,
            **self._details(),
        }

    def _details(self) -> dict[str, Any]:
        if self.algorithm != MIXED_PRECISION:
            return _group(self.algorithm)
        return {
            "quantized_layers": {
                module: {"quant_algo": one.algorithm, **_group(one.algorithm)}
                for module, one in self.quantized.items()
            }
        }


def _group(algorithm: str | None) -> dict[str, int]:
    return {"group_size": NV_GROUP} if algorithm in (NVFP4, NVFP4_WEIGHT) else {}


def plan_of(recipe: Recipe) -> Plan | None:
    """The plan of a recipe; None where its model is no Hugging Face folder.

    Raises:
        CheckpointError: the folder is no longer what it was.
    """
    if recipe.checkpoint is None:
        return None
    layers = layers_of(recipe)
    plan = Plan(layers=layers, refused=list(layers.refused))
    names = {key: quantizer.name for key, quantizer in recipe.assignment}
    for module, layer in layers.quantized.items():
        weight = recipe.constant(layer.linear.weight_key)
        assert weight is not None, "a linear layer has a constant weight"
        try:
            plan.quantized[module] = quantized(layer, weight)
        except Inexpressible as why:
            plan.refused.append(_refusal(layer.linear.weight_key, names, why))
    _add_caches(plan, names)
    plan.refused += _silent(plan)
    single = {
        module: {name: one for name, one in layer.tensors.items() if one.numel() == 1}
        for module, layer in plan.quantized.items()
    }
    plan.refused += differing_scales(layers, single, SHARED)
    return plan


def _add_caches(plan: Plan, names: Mapping[str, str]) -> None:
    """Scales of keys and values, under the projections that make them."""
    modules = {linear.module for linear in plan.layers.linears.values()}
    for module, parts in plan.layers.caches.items():
        for part, cache in parts.items():
            maker = f"{module}.{part}_proj"
            try:
                scale = cache_scale(cache.quantize)
            except Inexpressible as why:
                plan.refused.append(_refusal(cache.key, names, why))
                continue
            plan.cache_scales[f"{maker}.{part}_scale"] = scale
            if maker not in modules:
                missing = Inexpressible(
                    f"ModelOpt keeps the scale of a cache at {maker}, which the network lacks",
                    instead="bf16 is written",
                )
                plan.refused.append(_refusal(cache.key, names, missing))


def _silent(plan: Plan) -> Iterable[Refusal]:
    """Layers that vLLM would leave unquantized without a word."""
    if plan.algorithm == MIXED_PRECISION:
        for module, one in plan.quantized.items():
            if one.algorithm not in MIXED:
                yield Refusal(
                    reason=f"{module}: where layers differ, vLLM leaves those of {one.algorithm} "
                    "unquantized without a word",
                    instead=KNOWN,
                )
    for kept in plan.layers.kept:
        taken = next((module for module in plan.quantized if kept in module), None)
        if taken is not None:
            yield Refusal(
                reason=f"{kept} is not quantized, and vLLM takes every module whose name contains "
                f"that for excluded, {taken} among them",
                instead=f"a format of ModelOpt's at {kept}, too, is written",
            )
    if plan.cache_scales and not plan.quantized:
        yield Refusal(
            reason="vLLM reads scales of caches with an algorithm for layers only",
            instead="a quantized layer beside them is written",
        )


def _refusal(key: str, names: Mapping[str, str], why: Inexpressible) -> Refusal:
    return Refusal(reason=why.reason, instead=why.instead, site=key, format=names.get(key, ""))
