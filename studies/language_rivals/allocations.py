"""Where scores of each tool put 4 and 8 bits, under one rounding and in equal real bytes.

`python -m studies.language_rivals.allocations WORK`, after `auto_scheme`, `auto_quantize` and
`dse_scores`: their scores lie in AutoRound's cache, in WORK and in WORK/run. Each scores' best
allocation is the knapsack's; what is compared is the scores, and what a rounding is worth beside
them.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.explore.solve.solver import Budget, solve
from dse.numerics import output_range, quantize
from hwmodels.formats.catalog import quantizer
from studies.language_rivals import auto_quantize, layers, network, score, text

BUDGETS = (4.5, 5.0, 6.0)
WIDTHS = (4, 8)
NAMES = {f"int{width}": width for width in WIDTHS}
CACHE = Path.home() / ".cache" / "auto_round"
FUSED = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",),
         ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))  # fmt: skip
"""Matrices that runtimes execute as one which fuse siblings."""
Floats = NDArray[np.float32]
Bits = dict[str, float]


Scores = dict[tuple[str, ...], dict[int, float]]
"""Matrices that take one format -> width -> score."""


def of_dse(work: Path) -> Scores:
    """Scores of single matrices."""
    found: Scores = {}
    with (work / "run" / "sensitivity.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["choice"] in NAMES and row["modules"].endswith("_proj"):
                found.setdefault((row["modules"],), {})[NAMES[row["choice"]]] = float(row["loss"])
    return found


def fused(scores: Scores) -> Scores:
    """The scores of matrices that fusing runtimes execute as one: sums."""
    return {
        names: {width: sum(scores[name,][width] for name in names) for width in WIDTHS}
        for layer in range(network.LAYERS)
        for group in FUSED
        for names in [tuple(f"model.layers.{layer}.{kind}" for kind in group)]
    }


def of_auto_round() -> Scores:
    """The same of AutoScheme."""
    found: Scores = {}
    for path in CACHE.glob("scheme_*.json"):
        content = json.loads(path.read_text())
        for name, (_, value) in content["layer_scores"].items():
            found.setdefault((name,), {})[int(content["scheme"]["bits"])] = float(value)
    return found


def of_modelopt(work: Path) -> tuple[dict[str, Scores], dict[str, float]]:
    """The same of every way of AutoQuantize, and the CPU seconds that each took."""
    kept = json.loads((work / auto_quantize.SCORES).read_text())
    found = {
        tool: {
            tuple(names): {int(width): value for width, value in by_width.items()}
            for names, by_width in one["scores"]
        }
        for tool, one in kept.items()
    }
    return found, {tool: float(one["cpu_seconds"]) for tool, one in kept.items()}


def allocation(
    scores: Mapping[tuple[str, ...], Mapping[int, float]],
    weights: Mapping[str, Floats],
    budget: float,
) -> Bits:
    """Bits of every matrix: the least sum of scores within so many real bits a weight."""
    groups = list(scores)
    costs = tuple(
        np.array([
            layers.held_bytes(dict.fromkeys(names, float(width)), weights) for width in WIDTHS
        ])
        for names in groups
    )  # fmt: skip
    elements = sum(weights[f"{name}.weight"].size for names in groups for name in names)
    losses = [np.array([scores[names][width] for width in WIDTHS]) for names in groups]
    point = solve(losses, [Budget(costs=costs, limit=elements * budget / 8)])
    assert point is not None
    return {
        name: float(WIDTHS[choice])
        for names, choice in zip(groups, point, strict=True)
        for name in names
    }


def moments(work: Path, full: Mapping[str, Floats]) -> dict[str, tuple[Tensor, Tensor]]:
    """Second moments of what every matrix multiplies, on either half of the 16 windows."""
    model = score.model_of(full)
    sums: dict[str, Tensor] = {}
    halves: list[dict[str, Tensor]] = []

    def seen(name: str) -> Any:
        def hook(_module: object, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            sums[name] = sums.get(name, torch.zeros(())) + rows.T @ rows

        return hook

    for name, module in model.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(seen(name))
    # What the head multiplies, by the name of its table.
    last = seen(network.EMBEDDING.removesuffix(".weight"))
    model.model.norm.register_forward_hook(lambda norm, _inputs, output: last(norm, (output,)))
    with torch.inference_mode():
        for half in range(2):
            for split in ("calibration", "search"):
                for window in text.split(work, split)[half::2]:
                    model(torch.from_numpy(window[None, :-1]))
            halves.append(dict(sums))
            sums.clear()
    first, second = halves
    return {name: (first[name], second[name]) for name in first}


def rounded(
    full: Mapping[str, Floats], name: str, seen: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Floats]:
    """Every matrix under one quantizer, as (inputs, outputs)."""
    chosen = quantizer(name).settled(weight=True)
    found = {}
    for key, given in full.items():
        if not key.endswith("_proj.weight"):
            continue
        weight = torch.from_numpy(np.ascontiguousarray(given.T))
        state = None
        if chosen.statistic == "output_mse":
            first, second = seen[key.removesuffix(".weight")]
            state = output_range(weight, first + second, chosen)
        found[key] = np.array(quantize(weight, chosen, axes=(1,), state=state).numpy().T)
    return found


def main() -> None:
    """Every allocation under both roundings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    full = network.weights_of(work / "relabelled.onnx")
    wide = rounded(full, "int8_g64:absmax", {})
    seen = moments(work, full)
    fours = {
        "searched ranges": rounded(full, "int4_g64", seen),
        "nearest": rounded(full, "int4_g64:absmax", {}),
    }
    own = of_dse(work)
    others, theirs = of_modelopt(work)
    tools = {"dse": own, "dse, fused": fused(own), "AutoRound": of_auto_round(), **others}
    spent = score.spent(work) | theirs
    for rounding, narrow in fours.items():
        kinds: dict[float, Mapping[str, Floats]] = {
            layers.SCALE_BITS: full,
            WIDTHS[0]: narrow,
            WIDTHS[1]: wide,
        }
        uniform = dict.fromkeys((k.removesuffix(".weight") for k in narrow), 4.0)
        _score(work, "uniform", f"4.25, {rounding}", uniform, kinds, seconds=0.0)
        for budget in BUDGETS if rounding == "searched ranges" else ():
            for tool, scores in tools.items():
                bits = allocation(scores, full, budget)
                seconds = spent.get(tool, spent[tool.partition(",")[0]])
                _score(work, tool, f"{budget}, {rounding}", bits, kinds, seconds=seconds)


def _score(
    work: Path,
    tool: str,
    recipe: str,
    bits: Bits,
    kinds: Mapping[float, Mapping[str, Floats]],
    *,
    seconds: float,
) -> None:
    """The row of an allocation; `kinds` has the weights by width, `seconds` the scores took."""
    full = kinds[layers.SCALE_BITS]
    weights = dict(full)
    for name, width in bits.items():
        weights[f"{name}.weight"] = kinds[width][f"{name}.weight"]
    score.append(
        work, tool=tool, recipe=recipe, weights=weights, held=layers.held_bytes(bits, full),
        whole=False, cpu_seconds=seconds, forwards=float("nan"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
