"""Folders for MLX: what MLX unpacks, what mlx-lm computes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export import Recipe, deliver, exporter
from dse.model import Model, open_model
from tests.export import folders

pytest.importorskip("mlx_lm", reason="needs mlx and mlx-lm")

MIXED = {
    "q_proj/in1": "int4@g64/bf16", "k_proj/in1": "int3@g32/bf16", "v_proj/in1": "int8_g64",
    "o_proj/in1": "mxfp4", "gate_proj/in1": "mxfp8", "up_proj/in1": "e2m1@g16/e4m3",
    "down_proj/in1": "uint4@g64/bf16-fitted~~bf16",
    "layers.1.mlp.down_proj/in1": "int6@g128/bf16:gptq",
    "layers.1.mlp.up_proj/in1": "uint5@g32/fp16-fitted~~fp16",
    "layers.1.mlp.gate_proj/in1": "int2@g32/bf16",
    "lm_head/in1": "int8@g64/bf16",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    where = tmp_path_factory.mktemp("folders")
    return {
        family: open_model(str(folders.folder(family, where / family)))
        for family in ("llama", "qwen3")
    }


@pytest.fixture(scope="module")
def mixed(models: dict[str, Model]) -> Recipe:
    return folders.recipe(models["llama"], MIXED)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_mlx_has_the_emulators_numbers(
    family: str, models: dict[str, Model], tmp_path: Path
) -> None:
    given = folders.recipe(models[family], MIXED)
    weights, outputs = deliver(given, "mlx", tmp_path / "out", verify=True)
    assert weights.checker.startswith("MLX 0")
    assert weights.compared == "15 weights"
    assert weights.difference == 0.0
    assert outputs.checker.startswith("mlx-lm 0")
    assert outputs.difference is not None
    assert outputs.difference < 1e-4


LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "sizes"),
    [("qwen2", {}), ("llama", {"rope_parameters": LLAMA3}), ("phi4", {"rope_theta": 2.5e5}),
     ("mistral", {"rope_theta": 1e6, "sliding_window": None})],
)  # fmt: skip
def test_positions_are_those_of_the_network(
    family: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    """Of most families mlx-lm reads no `rope_parameters`, where transformers 5 saves them."""
    path = folders.folder(family, tmp_path / family, **sizes)
    given = folders.recipe(open_model(str(path)), {"down_proj/in1": "int4@g32/bf16"})
    _, outputs = deliver(given, "mlx", tmp_path / "out", verify=True)
    assert outputs.checker.startswith("mlx-lm 0")
    assert outputs.difference is not None
    assert outputs.difference < 1e-4


def test_every_path_has_its_settings(models: dict[str, Model], tmp_path: Path) -> None:
    given = folders.recipe(models["llama"], {**MIXED, "layers.0.mlp.up_proj/in1": "bf16"})
    deliver(given, "mlx", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    assert found["model.layers.0.self_attn.q_proj"] == {
        "group_size": 64, "bits": 4, "mode": "affine"
    }  # fmt: skip
    assert found["model.layers.1.self_attn.o_proj"]["mode"] == "mxfp4"
    assert found["model.layers.0.mlp.up_proj"] is False
    assert {"group_size", "bits", "mode"} <= set(found)


def test_the_bytes_are_those_that_formats_count(mixed: Recipe, tmp_path: Path) -> None:
    """Biases apart, where a format has no offsets: a check says how many bytes they are."""
    weights = deliver(mixed, "mlx", tmp_path / "out", verify=True)[0]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    biases = 0
    for key, one in mixed.assignment:
        constant, emulator = mixed.constant(key), mixed.bound[key]
        assert constant is not None
        assert isinstance(emulator, Emulator)
        module = key.removesuffix("/in1")
        parts = {
            part: tensors[f"{module}.{part}"].nbytes
            for part in ("weight", "scales", "biases")
            if f"{module}.{part}" in tensors
        }
        if one.format.offset is None:
            biases += parts.pop("biases", 0)
        assert sum(parts.values()) == one.format.storage_bytes(constant.shape, emulator.axes)
    assert f"a bias for every group, {biases} bytes" in weights.note


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_zero_points_are_exact_biases_of_float32(
    bits: int, models: dict[str, Model], tmp_path: Path
) -> None:
    given = folders.recipe(models["llama"], {"proj/in1": f"uint{bits}_g32"})
    weights, outputs = deliver(given, "mlx", tmp_path / "out", verify=True)
    assert weights.difference == 0.0
    assert outputs.difference is not None
    assert outputs.difference < 1e-4
    # Zero points of two bits may leave 16 bits for their products.
    assert bits == 2 or "some scales are float32" in weights.note
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    beyond = 0
    for key, one in given.assignment:
        constant, emulator = given.constant(key), given.bound[key]
        assert constant is not None
        assert isinstance(emulator, Emulator)
        module = key.removesuffix("/in1")
        stored = sum(tensors[f"{module}.{x}"].nbytes for x in ("weight", "scales", "biases"))
        beyond += stored - one.format.storage_bytes(constant.shape, emulator.axes)
    assert beyond > 0
    assert f"{beyond} bytes" in weights.note


@pytest.mark.parametrize("format", ["int8@g64/bf16", "mxfp8", "uint4@g64/bf16-fitted~~bf16"])
def test_a_table_that_a_look_up_shares_is_stored_once(
    format: str, models: dict[str, Model], tmp_path: Path
) -> None:
    given = folders.shared(models["llama"], format)
    weights, outputs = deliver(given, "mlx", tmp_path / "out", verify=True)
    assert (weights.compared, weights.difference) == ("1 weights", 0.0)
    assert outputs.difference is not None
    assert outputs.difference < 1e-4
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert "bits" in config["quantization"]["model.embed_tokens"]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert not any(name.startswith("lm_head") for name in tensors)
    (tie,) = models["llama"].analysis.ties
    table = given.constant(tie.products[0].site.key)
    assert table is not None
    one = dict(given.assignment)[tie.look_up.key]
    parts = {
        part: tensors[name].nbytes
        for part in ("weight", "scales", "biases")
        if (name := f"model.embed_tokens.{part}") in tensors
    }
    if one.format.offset is None:
        parts.pop("biases", None)
    assert sum(parts.values()) == one.format.storage_bytes(tuple(table.T.shape), (1,))


def test_scales_of_another_type_than_the_networks_are_told(
    models: dict[str, Model], tmp_path: Path
) -> None:
    given = folders.recipe(models["llama"], {"o_proj/in1": "int4_g64"})
    note = deliver(given, "mlx", tmp_path / "out", verify=True)[0].note
    assert "its network is bfloat16 and some scales are float16" in note


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ({"o_proj/in1": "nvfp4"}, "by no scale of the tensor; int4@g64/bf16"),
        ({"o_proj/in1": "int8_channel"}, "no mode with the numbers of int8_channel"),
        ({"o_proj/in1": "q4_k"}, "no mode with the numbers of q4_k"),
        ({"o_proj/in1": "uint4@g64/fp32~uint4"}, "gives other values than those of uint4"),
        ({"o_proj/in1": "int4_g128"}, "groups of 128 do not divide the depth 64"),
        ({"o_proj/in1": "int4@g64/bf16:hadamard"}, "computes around the codes"),
        ({"o_proj/in1": "mxfp8", "o_proj/in0": "mxfp8"}, "scales by a rule of its own"),
        ({"scores/in1": "mxfp8", "mix/in1": "mxfp8"}, "nothing about caches"),
    ],
)
def test_what_mlx_has_not_is_refused_and_leaves_nothing(
    formats: dict[str, str], message: str, models: dict[str, Model], tmp_path: Path
) -> None:
    given = folders.recipe(models["llama"], formats)
    with pytest.raises(ExportError) as caught:
        deliver(given, "mlx", tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_changed_does_not_pass(models: dict[str, Model], tmp_path: Path) -> None:
    given = folders.recipe(models["llama"], {"down_proj/in1": "int4@g64/bf16"})
    deliver(given, "mlx", tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.down_proj.weight"].view(torch.int32)[3, 4] ^= 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"reads model\.layers\.0\.mlp\.down_proj with a differ"):
        exporter("mlx").verify(given, tmp_path / "out")


def test_the_command_serves_the_folder(models: dict[str, Model], tmp_path: Path) -> None:
    given = folders.recipe(models["llama"], {"down_proj/in1": "mxfp4"})
    assert exporter("mlx").launch(given, tmp_path / "a b") == (  # type: ignore[attr-defined]
        f"mlx_lm.server --model '{tmp_path / 'a b'}'"
    )
