"""Copied layers compute what traced ones compute; layers that differ are not copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dse.execute.program.program import Program
from dse.imports import folder as imports
from dse.imports import layers
from dse.imports.checkpoint import read_checkpoint
from dse.imports.folder import open_folder
from dse.imports.layers import stacks
from dse.imports.network import build, read_config
from dse.imports.stamp import UnlikeError
from tests.imports import families

TOKENS = torch.arange(3, 14).reshape(1, 11)


def kinds(config: Any) -> tuple[str, ...]:
    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(config)
    (stack,) = stacks(network)
    return stack.kinds


def test_alternating_attention_makes_two_kinds() -> None:
    sizes = {**families.WIDE, "num_hidden_layers": 6}
    found = kinds(transformers.Gemma2Config(**sizes, sliding_window=4))
    assert found == found[:2] * 3
    assert found[0] != found[1]


def test_only_some_layers_are_traced(tmp_path: Path) -> None:
    folder = families.save("gemma2", tmp_path / "gemma2", num_hidden_layers=7)
    graph = open_folder(folder)
    names = [node.name for node in graph.nodes if node.name.endswith("self_attn.q_proj")]
    assert names == [f"model.layers.{layer}.self_attn.q_proj" for layer in range(7)]
    expected = families.reference(folder)(TOKENS).logits
    got = Program(graph).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_layer_that_computes_with_its_number_is_traced(tmp_path: Path) -> None:
    folder = families.save(
        "gpt2", tmp_path / "gpt2", n_layer=6, scale_attn_by_inverse_layer_idx=True
    )
    expected = families.reference(folder)(TOKENS).logits
    got = Program(open_folder(folder)).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_layers_that_only_look_alike_are_found_out_and_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_kind", lambda layer, listed: "alike")
    folder = families.save("gemma2", tmp_path / "gemma2", num_hidden_layers=5)
    network = build(read_config(folder), folder)
    checkpoint = read_checkpoint(folder)
    with pytest.raises(UnlikeError, match=r"differ|read"):
        imports._exported(network, checkpoint, shorten=True)
    expected = families.reference(folder)(TOKENS).logits
    got = Program(open_folder(folder)).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
