"""A folder in compressed-tensors' format, decided before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dse.export.base import Inexpressible, Recipe
from dse.export.compressed_tensors.activations import (
    CACHE_ARGUMENTS,
    Met,
    met,
)
from dse.export.compressed_tensors.weights import Packed, packed
from dse.export.hugging_face.folder import Contents, network_entries
from dse.export.hugging_face.layers import Layer
from dse.export.hugging_face.linears import EXPERT
from dse.export.hugging_face.plan import Plan, plan_of
from dse.export.hugging_face.rows import Rows

SHARED = ("weight_global_scale", "input_global_scale", "input_scale")
"""Tensors that runtimes keep once for layers that they load as one."""
PROJECTIONS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
"""Names that vLLM looks experts up by, whatever the checkpoint calls them (`get_moe_method`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A layer in the file: its weight, and what is said about its input."""

    weight: Packed
    input: Met | None = None

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By the end of the name, behind the module's."""
        return {**self.weight.tensors, **(self.input.tensors if self.input else {})}


FolderPlan = Plan[Written]


def plan(recipe: Recipe) -> FolderPlan:
    """The plan of a recipe whose model is a Hugging Face folder.

    Raises:
        CheckpointError: the folder is no longer what it was.
    """
    return plan_of(recipe, _written, shared=SHARED, cache_module="{module}")


def _written(layer: Layer, rows: Rows, fused: bool) -> Written:
    weight = packed(layer, rows, fused=fused)
    if layer.input is None:
        return Written(weight=weight)
    try:
        return Written(weight=weight, input=met(layer.input))
    except Inexpressible as why:
        key = layer.linear.input_key
        raise Inexpressible(why.reason, instead=why.instead, site=key) from why


def contents(plan: FolderPlan, source: Path) -> Contents:
    """The folder to write."""
    entries = network_entries(source, plan.layers)
    if plan.packed or plan.cache_scales:
        entries["quantization_config"] = _quantization(plan)
    return Contents(
        layers=plan.layers, packed=plan.tensors, others=plan.cache_scales, config=entries
    )


def _quantization(plan: FolderPlan) -> dict[str, Any]:
    groups = _groups(plan)
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision" if len(formats) > 1 else min(formats, default="dense"),
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name for module in plan.layers.kept for name in names_of(module)],
        "kv_cache_scheme": dict(CACHE_ARGUMENTS) if plan.cache_scales else None,
        "global_compression_ratio": None,
    }


def _groups(plan: FolderPlan) -> dict[str, dict[str, Any]]:
    """Layers that are described alike, under their full names."""
    found: dict[str, dict[str, Any]] = {}
    for module, one in plan.packed.items():
        described = {
            "weights": dict(one.weight.arguments),
            "input_activations": None if one.input is None else dict(one.input.arguments),
            "output_activations": None,
            "format": one.weight.format,
        }
        entry = found.setdefault(json.dumps(described), {"targets": [], **described})
        entry["targets"] += names_of(module)
    return {f"group_{number}": entry for number, entry in enumerate(found.values())}


def names_of(module: str) -> Iterator[str]:
    """The name of a module, and for an expert the one that vLLM asks for, where it is another."""
    yield module
    match = EXPERT.fullmatch(module)
    if match and (called := PROJECTIONS.get(match["name"])):
        yield f"{match['experts']}.{match['number']}.{called}"


def has_experts(plan: FolderPlan) -> bool:
    """Whether experts are quantized."""
    return any(layer.linear.stack is not None for layer in plan.layers.quantized.values())


def derives_integers(inputs: Iterable[Written]) -> bool:
    """Whether scales of integer activations are worked out while the network runs."""
    return any(
        one.input is not None
        and one.input.arguments["type"] == "int"
        and one.input.arguments["dynamic"]
        for one in inputs
    )


def meets_mxfp4(inputs: Iterable[Written]) -> bool:
    """Whether activations are MXFP4, whose scales servers derive by rules of their own."""
    return any(
        one.input is not None
        and one.input.arguments["num_bits"] == 4
        and one.input.arguments.get("scale_dtype") == "torch.uint8"
        for one in inputs
    )
