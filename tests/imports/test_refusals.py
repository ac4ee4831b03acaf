"""Folders that cannot be used are refused with one message that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dse.cli.app import run
from dse.errors import CheckpointError
from dse.imports.folder import open_folder


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


def test_a_quantised_checkpoint_is_refused(folder: Path) -> None:
    change(folder, quantization_config={"quant_method": "awq", "bits": 4})
    assert "quantised already (awq)" in refused(folder)


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
