"""Folders that cannot be used are refused with one message that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dse.cli.app import run
from dse.errors import CheckpointError
from dse.imports import folder as imports
from dse.imports.folder import open_folder
from dse.imports.network import read_config


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(content))


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder)
    return str(caught.value)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"shards are missing: {shard.name}" in refused(folder)


def test_a_truncated_shard_is_named(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    assert f"{shard.name}: truncated" in refused(folder)


def test_a_pointer_instead_of_weights_is_told(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refused(folder)


def test_custom_code_never_runs(folder: Path) -> None:
    (folder / "code.py").write_text("raise SystemExit('ran')")
    change(folder, model_type="mine", auto_map={"AutoModelForCausalLM": "code.Mine"})
    assert "code of its own" in refused(folder)


def test_an_unknown_family_is_named_with_the_nearest(folder: Path) -> None:
    change(folder, model_type="lama")
    message = refused(folder)
    assert "'lama'" in message
    assert "llama" in message


@pytest.mark.parametrize(
    ("key", "content", "name"),
    [
        ("quantization_config", {"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}, "gptq"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "bitsandbytes"),
        ("quantization_config", {"quant_method": "fp8"}, "fp8"),
        ("compression_config", {"quant_algo": "NVFP4"}, "NVFP4"),
        ("quantization_config", "mine", "no method named"),
    ],
)
def test_every_kind_of_quantised_checkpoint_is_refused_by_name(
    folder: Path, key: str, content: Any, name: str
) -> None:
    change(folder, **{key: content})
    assert f"quantised already ({name})" in refused(folder)


def test_a_file_of_quantisation_beside_the_configuration_is_seen(folder: Path) -> None:
    (folder / "hf_quant_config.json").write_text("{}")
    assert "hf_quant_config.json" in refused(folder)


def test_codes_that_no_configuration_speaks_of_are_no_weights(folder: Path) -> None:
    for shard in folder.glob("*.safetensors"):
        tensors = {
            name: value.to(torch.float8_e4m3fn) if "q_proj" in name else value
            for name, value in load_file(shard).items()
        }
        save_file(tensors, shard, metadata={"format": "pt"})
    assert "self_attn.q_proj.weight is stored as F8_E4M3" in refused(folder)


def test_an_index_that_names_another_folder_is_refused(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shard = next(iter(content["weight_map"].values()))
    (folder.parent / "elsewhere.safetensors").write_bytes((folder / shard).read_bytes())
    places = {
        name: "../elsewhere.safetensors" if file == shard else file
        for name, file in content["weight_map"].items()
    }
    index.write_text(json.dumps({"weight_map": places}))
    assert "names '../elsewhere.safetensors'; expected files of the folder" in refused(folder)


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, b"\x10" + bytes(7) + b'{"a": [1, 2', b"[]"])
def test_a_torn_header_is_told(folder: Path, header: bytes) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(header)
    assert f"{shard.name}: not a safetensors file, or truncated" in refused(folder)


def test_a_family_that_is_known_needs_none_of_its_folders_code(folder: Path) -> None:
    (folder / "code.py").write_text("raise SystemExit('ran')")
    change(folder, auto_map={"AutoModelForCausalLM": "code.Mine", "AutoConfig": "code.Mine"})
    assert read_config(folder).model_type == "llama"


def test_untied_weights_without_a_head_are_told(folder: Path) -> None:
    change(folder, tie_word_embeddings=False)
    assert "lack lm_head.weight" in refused(folder)


def test_more_layers_than_tensors_are_not_built(folder: Path) -> None:
    change(folder, num_hidden_layers=10**9)
    assert "num_hidden_layers is 1000000000" in refused(folder)


def test_a_call_beyond_the_context_is_said(
    llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dims = ["--dim", "batch=1", "--dim", "sequence=129"]
    assert run(["predict", str(llama), "--device", "h100-sxm", *dims]) == 0
    said = "129 positions are priced, but the model has a context of 128"
    assert said in capsys.readouterr().out


def test_weights_of_another_size_are_told(folder: Path) -> None:
    change(folder, hidden_size=128)
    assert "expected [128" in refused(folder)


def test_weights_that_lack_a_layer_are_told(folder: Path) -> None:
    change(folder, num_hidden_layers=5)
    assert "lack model.layers.4." in refused(folder)


def test_pickles_are_named(folder: Path) -> None:
    for shard in folder.glob("*.safetensors*"):
        shard.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    message = refused(folder)
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message


def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(tmp_path), "--device", "h100-sxm"]) == 2
    assert "config.json" in capsys.readouterr().err


def test_what_fails_after_the_trace_is_refused_by_the_networks_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(module: Any, *rest: object) -> SimpleNamespace:
        module.tell("logits")
        outputs = [SimpleNamespace(name="")]
        return SimpleNamespace(graph=SimpleNamespace(outputs=outputs, initializers={}))

    def fails(model: object) -> None:
        raise RuntimeError(".numpy() is not supported for tensor subclasses.")

    monkeypatch.setattr(imports, "_traced", traced)
    monkeypatch.setattr(imports, "optimise", fails)
    change(folder, rope_theta=77.0)  # no graph of such a folder is kept
    assert "LlamaForCausalLM cannot be exported: .numpy() is not supported" in refused(folder)
