"""A configuration without weights is priced, and says what is missing for more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from dse.cli.app import run
from dse.errors import GraphError
from dse.imports.checkpoint import read_checkpoint
from dse.imports.folder import open_folder
from dse.predict import Usage, predict


@pytest.fixture(scope="module")
def folder(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("shape") / "model"
    where.mkdir()
    shutil.copy(llama / "config.json", where)
    return where


def test_a_configuration_has_the_tensors_and_the_price_of_its_checkpoint(
    folder: Path, llama: Path
) -> None:
    shape, whole = (open_folder(one, served=True) for one in (folder, llama))
    stored = {name: tensor.shape for name, tensor in read_checkpoint(llama).tensors.items()}
    absent = {
        name: cast("tuple[int, ...]", item.type.shape)
        for name, item in shape.initializers.items()
        if not item.has_data
    }
    assert absent == stored
    usage = Usage(dims={"batch": 4, "sequence": 1, "past": 99})
    ours, theirs = (
        predict(graph, ["b200-sxm:vllm"], (), usage=usage)[0].cost for graph in (shape, whole)
    )
    assert ours == theirs


def test_quality_without_weights_says_what_is_absent(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "tokens.npy", np.zeros(200, dtype=np.int64))
    command = ["evaluate", str(folder), "--format", "bf16", "--data", str(tmp_path / "tokens.npy")]
    assert run(command) == 2
    assert "model.safetensors is absent" in capsys.readouterr().err


def test_a_depth_that_nobody_could_build_is_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "config.json").read_text()
    deep = text.replace('"num_hidden_layers": 4', '"num_hidden_layers": 1000000000')
    (tmp_path / "config.json").write_text(deep)
    with pytest.raises(GraphError, match="num_hidden_layers is 1000000000"):
        open_folder(tmp_path)
