"""A GGUF file becomes a folder, or one message says why not."""

from __future__ import annotations

import logging
from pathlib import Path

import gguf
import numpy as np
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


WIDTH, ENTRIES = 32, 40
LAYER: dict[str, tuple[int, ...]] = {
    "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH), "ffn_gate": (64, WIDTH), "ffn_up": (64, WIDTH),
    "ffn_down": (WIDTH, 64), "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,),
}  # fmt: skip
"""Shapes of a Llama's layer as llama.cpp calls its weights."""


def write_llama(path: Path, *, without: str = "", beside: str = "") -> Path:
    """A Llama of one layer with its vocabulary, without one tensor or with one more."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(ENTRIES)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"▁t{i}" for i in range(ENTRIES - 3))])
    writer.add_token_scores([0.0] * ENTRIES)
    writer.add_token_types([2, 3, 3, *[1] * (ENTRIES - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (ENTRIES, WIDTH),
        "output.weight": (ENTRIES, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    shapes |= {f"blk.0.{name}.weight": shape for name, shape in LAYER.items()}
    if beside:
        shapes[beside] = (WIDTH,)
    draws = np.random.default_rng(0)
    for name, shape in shapes.items():
        if name != without:
            writer.add_tensor(name, draws.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("without", ["blk.0.ffn_up.weight", "blk.0.attn_norm.weight"])
def test_weights_that_a_file_lacks_are_not_drawn_at_random(without: str, tmp_path: Path) -> None:
    file = write_llama(tmp_path / "m.gguf", without=without)
    with pytest.raises(CheckpointError, match=r"has no numbers for model\.layers\.0\."):
        unpack(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("without", "beside", "left_out"),
    [("", "", ""), ("output.weight", "", ""), ("", "blk.0.attn_q.bias", f"leaves out {WIDTH} ")],
)
def test_numbers_that_the_network_does_not_take_are_counted(
    without: str, beside: str, left_out: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file without an output matrix ties it to the embedding, which lacks nothing."""
    file = write_llama(tmp_path / "m.gguf", without=without, beside=beside)
    with caplog.at_level(logging.WARNING):
        unpack(file, tmp_path / "out")
    assert ("leaves out" in caplog.text) is bool(left_out)
    assert left_out in caplog.text
