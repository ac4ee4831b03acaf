"""The serving form of a decoder: outputs, regions, cache and parameters are the config's."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from dse.errors import CheckpointError
from dse.execute.program.program import Program
from dse.graph.ir.graph import Graph
from dse.graph.patterns.analysis import Analysis
from dse.imports.folder import open_folder
from dse.predict import Usage, predict
from hwmodels.formats import catalog
from tests.imports import families
from tests.imports.store import exported

LAYERS = 2
DECODER = {"attention": LAYERS, "o": LAYERS}
GATED = {**DECODER, "qkv": LAYERS, "gate_up": LAYERS, "down": LAYERS}
ROUTED = {**DECODER, "qkv": LAYERS, "experts_gate_up": LAYERS, "experts_down": LAYERS}
ROLES = {
    "gpt2": {**DECODER, "qkv": LAYERS, "fc1": LAYERS, "fc2": LAYERS},
    "deepseek_v2": {**DECODER, "gate_up": LAYERS, "experts_gate_up": LAYERS - 1},
    **dict.fromkeys(("gpt_oss", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe"), ROUTED),
}
"""Regions by role; of any other family those of a gated decoder."""
DECODERS = sorted(families.CONFIGS.keys() - {"bert", "clip", "vit", "roberta", "whisper"})
PAST, NEW = 7, 4


@pytest.fixture(scope="module", params=DECODERS)
def folder(
    request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    changes: dict[str, Any] = {families.depth(request.param): LAYERS}
    where = tmp_path_factory.mktemp("served") / request.param
    return exported(families.save(request.param, where, **changes), store, served=True)


def run(graph: Graph, tokens: torch.Tensor, past: dict[str, torch.Tensor]) -> dict[str, Any]:
    """One call; without `past` nothing is cached yet."""
    feeds = {"input_ids": tokens}
    for name in graph.inputs[1:]:
        shape = cast("tuple[Any, ...]", graph.types[name].shape)
        empty = torch.zeros(len(tokens), shape[1], 0, shape[3])
        feeds[name] = past.get(name.replace("past_key_values", "present"), empty)
    return dict(Program(graph).run(feeds).outputs)


def cached_channels(config: Any) -> int:
    """Numbers that one position of one layer leaves in the cache."""
    if hasattr(config, "kv_lora_rank"):
        return int(config.kv_lora_rank + config.qk_rope_head_dim)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * heads * width)


def cached_positions(config: Any, total: int) -> list[int]:
    """Positions that every layer keeps."""
    window = getattr(config, "sliding_window", None) or getattr(
        config, "attention_chunk_size", None
    )
    kinds = getattr(config, "layer_types", None)
    slides = [kind != "full_attention" for kind in kinds] if kinds else [bool(window)] * LAYERS
    return [min(total, window) if one and window else total for one in slides]


def test_a_prompt_and_a_step_compute_what_the_whole_text_computes(folder: Path) -> None:
    graph = open_folder(folder, served=True)
    tokens = torch.randint(3, 120, (2, PAST + NEW), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = families.reference(folder)(tokens).logits
    prompt = run(graph, tokens[:, :PAST], {})
    step = run(graph, tokens[:, PAST:], prompt)
    got = torch.cat((prompt["logits"], step["logits"]), dim=1)
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_cache_and_parameters_are_those_of_the_configuration(folder: Path) -> None:
    graph = open_folder(folder, served=True)
    roles = Counter(region.role for region in Analysis(graph).regions)
    expected = ROLES.get(folder.name, GATED)
    assert {role: roles[role] for role in expected} == expected
    network = families.reference(folder)
    stored = {parameter.data_ptr(): parameter.numel() for parameter in network.parameters()}
    sizes = [
        math.prod(cast("tuple[int, ...]", item.type.shape))
        for item in graph.initializers.values()
        if item.name.endswith((".weight", ".bias", "sinks", "_proj", "_proj_bias"))
    ]
    assert sum(sizes) == sum(stored.values())
    for dims in ({"sequence": 1, "past": 9}, {"sequence": 10, "past": 0}):
        (found,) = predict(graph, ["b200-sxm:vllm"], (), usage=Usage(dims={"batch": 3, **dims}))
        channels = cached_channels(network.config)
        assert found.cost.kv_bytes == 2 * 3 * channels * sum(cached_positions(network.config, 10))


def test_the_format_of_the_cache_is_a_choice(llama: Path) -> None:
    graph = open_folder(llama, served=True)
    usage = Usage(dims={"batch": 4096, "sequence": 1, "past": 4095})
    eight = Usage(dims=usage.dims, kv=catalog.uniform("e4m3"))
    wide, narrow = (predict(graph, ["h100-sxm:vllm"], (), usage=u)[0].cost for u in (usage, eight))
    scales = 4 * len(graph.inputs[1:])  # a float32 a tensor
    assert narrow.kv_bytes == wide.kv_bytes / 2 + scales
    assert narrow.latency_s < wide.latency_s


def test_both_forms_have_the_same_sites(llama: Path) -> None:
    plain, served = (Analysis(open_folder(llama, served=form)) for form in (False, True))
    assert {site.key for site in plain.sites} == {site.key for site in served.sites}


def test_copied_layers_have_caches_of_their_own(llama: Path) -> None:
    graph = open_folder(llama, served=True)  # four layers, of which three are traced
    names = [f"{layer}.{part}" for layer in range(4) for part in ("key", "value")]
    assert list(graph.inputs[1:]) == [f"past_key_values.{name}" for name in names]
    assert list(graph.outputs[1:]) == [f"present.{name}" for name in names]
    tokens = torch.arange(3, 14).reshape(1, 11)
    expected = families.reference(llama)(tokens).logits
    step = run(graph, tokens[:, 7:], run(graph, tokens[:, :7], {}))
    torch.testing.assert_close(step["logits"], expected[:, 7:], atol=1e-4, rtol=1e-4)


def test_an_encoder_has_no_past(tmp_path: Path) -> None:
    folder = families.save("bert", tmp_path / "bert", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match="keeps no keys and values"):
        open_folder(folder, served=True)
