"""Folders in ModelOpt's format, decoded by other hands' readers."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from safetensors.torch import load_file, save_file
from torch import Tensor

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export import Recipe, deliver, exporter
from tests.export import folders

NV = {"proj/in1": "nvfp4", "proj/in0": "nvfp4:static"}
MIXED = {
    **NV,
    "o_proj/in1": "e4m3_tensor", "o_proj/in0": "e4m3_tensor:static",
    "layers.1.mlp.down_proj/in1": "nvfp4", "layers.1.mlp.down_proj/in0": "bf16",
}  # fmt: skip
CACHES = {"scores/in1": "e4m3_tensor:static", "mix/in1": "e4m3_tensor:static"}


def read(tensors: dict[str, Tensor], module: str) -> Tensor:
    """A weight by ml_dtypes (FP8) and the compressed-tensors package (FP4)."""
    weight = tensors[f"{module}.weight"]
    scale = tensors[f"{module}.weight_scale"].float()
    if weight.dtype == torch.float8_e4m3fn:
        codes = weight.view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn)
        return torch.from_numpy(codes.astype(np.float32)) * scale.reshape(-1, 1)
    codes = unpack_fp4_from_uint8(weight, len(weight), weight.shape[1] * 2, torch.float32)
    blocks = (
        codes.unflatten(1, (-1, 16)) * (scale * tensors[f"{module}.weight_scale_2"])[..., None]
    )
    return blocks.flatten(1)


def refused(formats: dict[str, str], where: Path) -> str:
    with pytest.raises(ExportError) as caught:
        deliver(folders.of("llama", where / "in", formats), "modelopt", where / "out")
    assert not (where / "out").exists()
    return str(caught.value)


def written(formats: dict[str, str], where: Path) -> Recipe:
    recipe = folders.of("llama", where / "in", formats)
    deliver(recipe, "modelopt", where / "out", verify=True)
    return recipe


def test_mixed_layers_are_read_with_the_emulators_values(tmp_path: Path) -> None:
    recipe = written(MIXED, tmp_path)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for key, emulator in recipe.bound.items():
        weight = recipe.constant(key)
        if weight is not None:
            torch.testing.assert_close(
                read(tensors, key.removesuffix("/in1")), emulator(weight.float()).T,
                rtol=0, atol=0,
            )  # fmt: skip


def test_both_documents_say_which_layer_has_which_algorithm(tmp_path: Path) -> None:
    written(MIXED, tmp_path)
    document = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]
    entry = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert document["quant_algo"] == entry["quant_algo"] == "MIXED_PRECISION"
    assert document["quantized_layers"] == entry["quantized_layers"]
    assert document["exclude_modules"] == entry["ignore"] == ["lm_head"]
    found = document["quantized_layers"]
    assert len(found) == 14
    assert found["model.layers.0.self_attn.o_proj"] == {"quant_algo": "FP8"}
    assert found["model.layers.0.mlp.up_proj"] == {"quant_algo": "NVFP4", "group_size": 16}
    assert found["model.layers.1.mlp.down_proj"]["quant_algo"] == "W4A16_NVFP4"


def test_scales_multiply_and_are_the_calibrated_ones(tmp_path: Path) -> None:
    recipe = written({**NV, **CACHES}, tmp_path)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    place = "model.layers.1.mlp.down_proj"
    met = recipe.bound[f"{place}/in0"]
    assert isinstance(met, Emulator)
    assert met.statistics is not None
    assert float(tensors[f"{place}.input_scale"]) == pytest.approx(met.statistics.absmax / 2688)
    keys = recipe.bound["model.layers.1.self_attn.scores/in1"]
    assert isinstance(keys, Emulator)
    assert keys.statistics is not None
    scale = float(tensors["model.layers.1.self_attn.k_proj.k_scale"])
    assert scale == pytest.approx(keys.statistics.absmax / 448)
    document = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]
    assert document["quant_algo"] == "NVFP4"
    assert document["kv_cache_quant_algo"] == "FP8"


def test_one_algorithm_of_rows_is_written_where_all_layers_have_it(tmp_path: Path) -> None:
    written({"proj/in1": "e4m3_channel", "proj/in0": "e4m3_token"}, tmp_path)
    document = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]
    assert document["quant_algo"] == "FP8_PER_CHANNEL_PER_TOKEN"


def test_layers_that_are_loaded_as_one_have_one_scale(tmp_path: Path) -> None:
    recipe = written({"proj/in1": "e4m3_tensor", "proj/in0": "e4m3_tensor:static"}, tmp_path)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    place = "model.layers.0.self_attn"
    scales = {float(tensors[f"{place}.{name}_proj.weight_scale"]) for name in "qkv"}
    weights = [recipe.constant(f"{place}.{name}_proj/in1") for name in "qkv"]
    largest = max(float(weight.abs().max()) for weight in weights if weight is not None)
    assert len(scales) == 1
    assert scales.pop() == pytest.approx(largest / 448)


@pytest.mark.parametrize("formats", [NV, {"proj/in1": "e4m3_tensor"}])
def test_experts_are_written_one_by_one(formats: dict[str, str], tmp_path: Path) -> None:
    weight = formats["proj/in1"]
    of_experts = {
        f"experts.{name}/{operand}": weight if operand == "in1" else f"{weight}:static"
        for name in ("matmul", "matmul_1")
        for operand in ("in0", "in1")
    }
    recipe = folders.of("mixtral", tmp_path / "in", of_experts, num_hidden_layers=1)
    checks = deliver(recipe, "modelopt", tmp_path / "out", verify=True)
    assert [(one.compared, one.difference) for one in checks] == [("12 weights", 0.0)]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    stack = recipe.bound["model.layers.0.mlp.experts.matmul/in1"]
    constant = recipe.constant("model.layers.0.mlp.experts.matmul/in1")
    assert constant is not None
    values = stack(constant.float()).mT.reshape(-1, 64)
    parts = [
        read(tensors, f"model.layers.0.block_sparse_moe.experts.{number}.{name}")
        for number in range(4)
        for name in ("w1", "w3")
    ]
    assert torch.equal(torch.cat(parts), values)


def test_experts_that_stay_are_excluded_as_a_whole(tmp_path: Path) -> None:
    recipe = folders.of("mixtral", tmp_path / "in", {"o_proj/in1": "nvfp4"}, num_hidden_layers=1)
    deliver(recipe, "modelopt", tmp_path / "out")
    entry = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert "model.layers.0.block_sparse_moe.experts" in entry["ignore"]


REFUSED = {
    "integers": ({"o_proj/in1": "int8_channel"}, "load no algorithm of ModelOpt"),
    "weights of FP8 alone": ({"o_proj/in1": "e4m3_tensor"}, "and 16-bit activations"),
    "silently unquantized": (
        {"o_proj/in1": "e4m3_channel", "o_proj/in0": "e4m3_token", "down_proj/in1": "nvfp4"},
        "unquantized without a word",
    ),
    "rounded again": (
        {"proj/in1": "e4m3_tensor:gptq", "proj/in0": "e4m3_tensor:static"},
        "one weight_scale, and theirs differ (model.layers.0.self_attn.q_proj",
    ),
    "a level in flight": ({"o_proj/in1": "nvfp4", "o_proj/in0": "nvfp4"}, "a calibrated one"),
    "siblings": ({"up_proj/in1": "nvfp4"}, "model.layers.0.mlp.gate_proj: not quantized"),
    "caches alone": (CACHES, "with an algorithm for layers only"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_be_what_it_was_is_refused(case: str, tmp_path: Path) -> None:
    formats, reason = REFUSED[case]
    assert reason in refused(formats, tmp_path)


def test_a_folder_that_was_changed_does_not_pass(tmp_path: Path) -> None:
    recipe = written({"down_proj/in1": "nvfp4"}, tmp_path)
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.down_proj.weight"][3, 4] ^= 0x01
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"layers\.0\.mlp\.down_proj is read with a difference"):
        exporter("modelopt").verify(recipe, tmp_path / "out")
