"""A folder in ModelOpt's format, decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dse.export.base import Recipe, Refusal
from dse.export.hugging_face.folder import Contents, network_entries
from dse.export.hugging_face.linears import mixtures_of
from dse.export.hugging_face.plan import Plan, plan_of
from dse.export.hugging_face.rows import NV_GROUP
from dse.export.modelopt.algorithms import (
    FP8_ROWS,
    KNOWN,
    MIXED,
    NVFP4,
    NVFP4_WEIGHT,
    Quantized,
    quantized,
)

MIXED_PRECISION = "MIXED_PRECISION"
PRODUCER = {"name": "dse", "version": "1"}
SHARED = ("weight_scale", "weight_scale_2", "input_scale")
"""Tensors that runtimes keep once for layers that they load as one, where they have one element:
vLLM takes the largest and rounds FP8 weights again."""


FolderPlan = Plan[Quantized]


def plan(recipe: Recipe) -> FolderPlan:
    """The plan of a recipe whose model is a Hugging Face folder.

    Raises:
        CheckpointError: the folder is no longer what it was.
    """
    found = plan_of(
        recipe,
        lambda layer, rows, _: quantized(layer, rows),
        shared=SHARED,
        cache_module="{module}.{part}_proj",
    )
    found.refused += [*_without_projection(found), *_silent(found)]
    return found


def algorithm_of(plan: FolderPlan) -> str | None:
    """The algorithm of all layers; None without a quantized one."""
    found = {one.algorithm for one in plan.packed.values()}
    return MIXED_PRECISION if len(found) > 1 else min(found, default=None)


def contents(plan: FolderPlan, source: Path) -> Contents:
    """The folder to write."""
    entries = network_entries(source, plan.layers)
    if algorithm_of(plan):
        entries["quantization_config"] = _entry(plan)
    return Contents(
        layers=plan.layers, packed=plan.tensors, others=plan.cache_scales, config=entries
    )


def document(plan: FolderPlan) -> dict[str, Any]:
    """`hf_quant_config.json`."""
    quantization: dict[str, Any] = {
        "quant_algo": algorithm_of(plan),
        "kv_cache_quant_algo": "FP8" if plan.cache_scales else None,
        "exclude_modules": _excluded(plan),
        **_details(plan),
    }
    return {"producer": PRODUCER, "quantization": quantization}


def _entry(plan: FolderPlan) -> dict[str, Any]:
    """The same in `config.json`, which vLLM prefers."""
    cache = {"num_bits": 8, "type": "float", "dynamic": False}
    return {
        "quant_method": "modelopt",
        "quant_algo": algorithm_of(plan),
        "kv_cache_scheme": cache if plan.cache_scales else None,
        "ignore": _excluded(plan),
        "producer": PRODUCER,
        **_details(plan),
    }


def _excluded(plan: FolderPlan) -> list[str]:
    """Layers that stay as they are, and the parents of such experts, which vLLM asks for."""
    kept = plan.layers.kept
    mixtures = mixtures_of(plan.layers.linears[module] for module in kept)
    return sorted([*kept, *mixtures])


def _details(plan: FolderPlan) -> dict[str, Any]:
    algorithm = algorithm_of(plan)
    if algorithm != MIXED_PRECISION:
        return _group(algorithm)
    return {
        "quantized_layers": {
            module: {"quant_algo": one.algorithm, **_group(one.algorithm)}
            for module, one in plan.packed.items()
        }
    }


def _group(algorithm: str | None) -> dict[str, int]:
    return {"group_size": NV_GROUP} if algorithm in (NVFP4, NVFP4_WEIGHT) else {}


def _without_projection(plan: FolderPlan) -> Iterable[Refusal]:
    """Caches whose keys or values no layer makes that could hold their scale."""
    for module, parts in plan.layers.caches.items():
        for part, cache in parts.items():
            maker = f"{module}.{part}_proj"
            if maker not in plan.layers.linears:
                yield Refusal(
                    reason=f"ModelOpt keeps the scale of a cache at {maker}, which the network "
                    "lacks",
                    instead="bf16 is written",
                    site=cache.key,
                    format=cache.quantize.quantizer.name,
                )


def _silent(plan: FolderPlan) -> Iterable[Refusal]:
    """Layers that vLLM would leave unquantized without a word."""
    if algorithm_of(plan) == MIXED_PRECISION:
        for module, one in plan.packed.items():
            if one.algorithm not in MIXED:
                yield Refusal(
                    reason=f"{module}: where layers differ, vLLM leaves those of {one.algorithm} "
                    "unquantized without a word",
                    instead=KNOWN,
                )
    for module, one in plan.packed.items():
        if one.algorithm == FP8_ROWS and plan.layers.linears[module].stack is not None:
            yield Refusal(
                reason=f"{module}: vLLM loads experts of ModelOpt's FP8 with one scale each only",
                instead="e4m3_tensor with e4m3_tensor:static is written, nvfp4 with nvfp4:static",
            )
    for kept in plan.layers.kept:
        taken = next((module for module in plan.packed if kept in module), None)
        if taken is not None:
            yield Refusal(
                reason=f"{kept} is not quantized, and vLLM takes every module whose name contains "
                f"that for excluded, {taken} among them",
                instead=f"a format of ModelOpt's at {kept}, too, is written",
            )
    if plan.cache_scales and not plan.packed:
        yield Refusal(
            reason="vLLM reads scales of caches with an algorithm for layers only",
            instead="a quantized layer beside them is written",
        )
