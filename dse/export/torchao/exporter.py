"""The target `torchao`: a configuration that names every module, in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dse.export.base import Check, Inexpressible, Recipe, Refusal
from dse.export.hugging_face.layers import NO_FOLDER, Layers, layers_of, unsaid
from dse.export.torchao.configs import Config, config_of, configuration
from dse.export.torchao.floor import refuse_raised
from dse.export.torchao.verify import checks


class TorchAo:
    """Formats of linear layers by name; torchao works out codes and scales when it loads it."""

    summary = "a torchao FqnToConfig as JSON; scales are recomputed from the network's weights"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats without a configuration, and whatever was learned about values."""
        plan = recipe.once(_plan)
        return (NO_FOLDER,) if plan is None else tuple(plan.refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the file.

        Raises:
            OSError: it cannot be written there.
        """
        plan = recipe.once(_plan)
        assert plan is not None, "can_express has asked for a folder"
        out.write_text(json.dumps(configuration(plan.configs), indent=1) + "\n", encoding="utf-8")

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The weights and outputs of the network that torchao quantizes.

        Raises:
            ExportError: they are further from the emulator's than scales of another rule explain.
        """
        plan = recipe.once(_plan)
        assert plan is not None, "can_express has asked for a folder"
        return checks(recipe, plan.layers, out)


@dataclass(slots=True, kw_only=True)
class _Plan:
    layers: Layers
    configs: dict[str, Config] = field(default_factory=dict)
    """By module."""
    refused: list[Refusal] = field(default_factory=list)


def _plan(recipe: Recipe) -> _Plan | None:
    if recipe.checkpoint is None:
        return None
    layers = layers_of(recipe, fused=False, experts=False)
    plan = _Plan(layers=layers, refused=[*layers.refused, *_unsaid(recipe, layers)])
    given = recipe.assignment.as_dict()
    for module, layer in layers.quantized.items():
        key = layer.linear.weight_key
        weight = recipe.constant(key)
        assert weight is not None, "a linear layer has a constant weight"
        try:
            plan.configs[module] = config_of(layer, given)
            refuse_raised(weight, layer.weight)
        except Inexpressible as why:
            plan.refused.append(recipe.refusal(key, why.reason, why.instead))
    return plan


def _unsaid(recipe: Recipe, layers: Layers) -> Iterator[Refusal]:
    """Parts of a recipe that a configuration has no place for."""
    caches = "torchao quantizes modules, and a cache of keys or values is none"
    yield from unsaid(recipe, layers, caches=caches)
    for linear in layers.linears.values():
        if linear.bias in layers.replaced:
            yield recipe.refusal(
                linear.weight_key,
                "a configuration holds no tensors, and this layer's bias was corrected",
                "the same with 'uncorrected' is written",
            )
