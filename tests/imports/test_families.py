"""Every family computes what `transformers` computes; its regions are the architecture's."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dse.execute.program.program import Program
from dse.graph.patterns.analysis import Analysis
from dse.imports.folder import open_folder
from dse.imports.signature import output_name, signature
from tests.imports import families
from tests.imports.store import exported

LAYERS = 4
DECODER = {"qkv": LAYERS, "attention": LAYERS, "o": LAYERS}
GATED = {**DECODER, "gate_up": LAYERS, "down": LAYERS, "head": 1, "embedding": 1}
PLAIN = {**DECODER, "fc1": LAYERS, "fc2": LAYERS}
ROUTED = {**DECODER, "router": LAYERS, "experts_gate_up": LAYERS, "experts_down": LAYERS}
LATENT = {"attention": LAYERS, "q": LAYERS, "o": LAYERS, "gate_up": LAYERS, "down": LAYERS,
          "router": LAYERS - 1, "experts_gate_up": LAYERS - 1}  # fmt: skip
BOTH = {"attention": 6, "o": 6, "fc1": 4, "fc2": 4, "conv": 2, "head": 1}
"""Two layers of an encoder, two of a decoder that looks at it."""
TOWERS = {role: 2 * count for role, count in PLAIN.items()}
ROLES = {
    "clip": TOWERS, "whisper": BOTH,
    "gpt2": PLAIN, "bert": PLAIN, "vit": PLAIN, "gpt_oss": ROUTED, "mixtral": ROUTED,
    "roberta": PLAIN, "qwen2_moe": ROUTED, "qwen3_moe": ROUTED, "olmoe": ROUTED,
    "deepseek_v2": LATENT, "llama4_text": {**ROUTED, "gate_up": LAYERS, "down": LAYERS},
}  # fmt: skip
"""Regions by role; of any other family those of a gated decoder."""


@pytest.fixture(scope="module", params=sorted(families.CONFIGS))
def folder(
    request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    where = tmp_path_factory.mktemp("families") / request.param
    return exported(families.save(request.param, where), store)


def feeds_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    asked = signature(network)
    generator = torch.Generator().manual_seed(1)
    feeds = {}
    for name, example in asked.inputs.items():
        shape = (example.shape[0], 11) if 1 in asked.dims[name] else example.shape
        if name == "attention_mask":
            feeds[name] = torch.ones(shape, dtype=torch.int64)
            feeds[name][0, -3:] = 0
        elif example.is_floating_point():
            feeds[name] = torch.randn(shape, generator=generator)
        else:
            feeds[name] = torch.randint(3, 120, shape, generator=generator)
    return feeds


def test_outputs_equal_and_regions_are_those_of_the_architecture(folder: Path) -> None:
    graph = open_folder(folder)
    network = families.reference(folder)
    feeds = feeds_of(network)
    with torch.no_grad():
        result = network(**feeds, return_dict=True)
    name = output_name(result)
    assert graph.outputs == (name,)
    got = Program(graph).run(feeds).outputs[name]
    scale = float(result[name].abs().max())
    assert float((got - result[name]).abs().max()) <= 1e-5 * scale
    roles = Counter(region.role for region in Analysis(graph).regions)
    expected = ROLES.get(folder.name, GATED)
    assert {role: roles[role] for role in expected} == expected


def test_every_stored_number_is_in_the_graph_once(folder: Path) -> None:
    graph = open_folder(folder)
    with safe_open(folder / "model.safetensors", framework="pt") as stored:
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in list(stored.keys())}
    unused = {name for name in shapes if name not in graph.initializers}
    assert unused <= {"pooler.dense.weight", "pooler.dense.bias"}
    read = {name: graph.initializers[name] for name in shapes.keys() - unused}
    assert {name: item.type.shape for name, item in read.items()} == {
        name: shapes[name] for name in read
    }
    sizes = [
        math.prod(cast("tuple[int, ...]", item.type.shape or ()))
        for item in graph.initializers.values()
    ]
    others = sum(sizes) - sum(int(np.prod(shapes[name])) for name in read)
    assert others < 4096  # constants: axes, rotary frequencies
