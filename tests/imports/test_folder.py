"""A Hugging Face folder is a model: the same outputs, its own weights, nothing copied."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from dse.errors import CheckpointError, GraphError
from dse.execute.program.program import Program
from dse.graph.annotations import read_annotations
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.imports.folder import open_folder, write_graph
from dse.model import open_model
from dse.space.annotate import annotated_copy, drafted
from dse.space.schema import Target
from tests.imports import families

TOKENS = torch.tensor([[5, 3, 99, 7, 0, 64, 21], [1, 2, 3, 4, 5, 6, 7]])


def test_outputs_equal_transformers(llama: Path) -> None:
    expected = families.reference(llama)(TOKENS).logits
    got = Program(open_folder(llama)).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_initializers_are_the_checkpoints_bytes(llama: Path) -> None:
    graph = open_folder(llama)
    stored = [item for item in graph.initializers.values() if item.type.dtype == "bfloat16"]
    index = json.loads((llama / "model.safetensors.index.json").read_text())["weight_map"]
    assert {item.name for item in stored} == set(index)
    assert len(set(index.values())) > 1
    for item in stored:
        with safe_open(llama / index[item.name], framework="pt") as shard:
            expected = shard.get_tensor(item.name)
        got = np.asarray(item.numpy()).view(np.uint16)
        np.testing.assert_array_equal(got, expected.view(torch.uint16).numpy())


def test_an_imported_graph_carries_the_candidates_of_a_draft(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "llama"))
    opened, out = open_model(str(folder)), tmp_path / "llama.onnx"
    stated = drafted(opened, (Target(device="b200-sxm", runtime="vllm"),))
    annotated_copy(opened, str(folder), stated, out)
    assert read_annotations(out) == stated
    assert any(len(formats) > 2 for formats in stated.candidates.values())
    assert load(out).digest == opened.graph.digest


def test_tied_weights_are_one(llama: Path) -> None:
    graph = open_folder(llama)
    assert "lm_head.weight" not in graph.initializers
    head = next(region for region in Analysis(graph).regions if region.role == "head")
    assert any(site.role == "weight" for site in head.sites)


def test_regions_are_those_of_the_architecture(llama: Path) -> None:
    names = {region.name for region in Analysis(open_folder(llama)).regions}
    layer = {"qkv", "rotary", "attention", "o", "gate_up", "down", "norm_1", "norm_2"}
    for block in range(4):
        assert {f"blocks.{block}/{role}" for role in layer} <= names
    assert {"embedding", "head"} <= names


def test_sites_are_named_after_modules(llama: Path) -> None:
    sites = {site.key for site in Analysis(open_folder(llama)).sites}
    for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"):
        assert f"model.layers.2.{module}/in1" in sites
    assert "lm_head/in1" in sites


def test_a_written_graph_refers_to_the_folder_and_runs_elsewhere(
    llama: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    write_graph(folder, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size < 200_000
    expected = families.reference(folder)(TOKENS).logits.detach().numpy()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (got,) = session.run(None, {"input_ids": TOKENS.numpy()})
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert load(tmp_path / "model.onnx").digest == open_folder(folder).digest


def test_a_graph_apart_from_its_weights_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a place in"):
        write_graph(llama, tmp_path / "model.onnx")


def test_a_snapshot_of_the_cache_is_read_through_its_links(llama: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(llama.iterdir())):
        shutil.copy(file, repository / "blobs" / f"{number:x}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:x}")
    assert open_folder(snapshot).digest == open_folder(llama).digest


def test_links_out_of_the_repository_are_refused(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plain" / "model"
    shutil.copytree(llama, folder)
    shard = next(folder.glob("*.safetensors"))
    os.replace(shard, tmp_path / shard.name)
    shard.symlink_to(tmp_path / shard.name)
    with pytest.raises(GraphError, match="outside the model's folder"):
        open_folder(folder)


def test_the_second_opening_reads_the_cache(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_folder(llama)
    monkeypatch.setattr("dse.imports.folder.export_folder", None)
    assert open_folder(llama).digest == first.digest


def test_a_folder_is_a_model_by_its_path(llama: Path) -> None:
    model = open_model("tiny-llama", folder=llama.parent)
    assert model.name == "tiny-llama"
    assert model.graph.has_weights


def test_the_graph_is_valid_onnx(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    write_graph(folder, folder / "model.onnx")
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
