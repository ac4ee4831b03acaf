"""A GGUF file becomes a folder, or one message says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.cli.app import run
from dse.errors import CheckpointError
from dse.imports.gguf import unpack


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        unpack(tmp_path / "model.gguf", tmp_path / "out")


def test_a_folder_in_use_is_not_written_to(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="exists already"):
        unpack(tmp_path / "model.gguf", llama)


def test_a_broken_file_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(20))
    assert run(["import", str(tmp_path / "model.gguf"), "-o", str(tmp_path / "out")]) == 2
    assert "cannot read it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_given_as_a_model_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    assert run(["predict", str(path), "--device", "h100-sxm"]) == 2
    assert f"dse import {path} -o model" in capsys.readouterr().err
