"""Copied layers compute what traced ones compute; layers that differ are not copied."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dse.evaluate.phases import phase_work
from dse.execute.program.program import Program
from dse.graph.patterns.analysis import Analysis
from dse.imports import folder as imports
from dse.imports import layers
from dse.imports.checkpoint import read_checkpoint
from dse.imports.folder import open_folder
from dse.imports.layers import Stack, stacks
from dse.imports.network import build, read_config
from dse.imports.stamp import UnlikeError
from tests.imports import families

TOKENS = torch.arange(3, 14).reshape(1, 11)


def stack_of(config: Any, *, first: bool) -> Stack:
    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(config)
    (stack,) = stacks(network, first=first)
    return stack


def test_alternating_attention_makes_two_kinds() -> None:
    sizes = {**families.WIDE, "num_hidden_layers": 6}
    config = transformers.Gemma2Config(**sizes, sliding_window=4)
    found = stack_of(config, first=True)
    assert found.kinds == found.kinds[:2] * 3
    assert found.kinds[0] != found.kinds[1]
    assert (found.traced, found.twins) == (3, (0, 2))
    apart = stack_of(config, first=False)
    assert (apart.traced, apart.twins) == (4, (1, 3))


@pytest.mark.parametrize(("first", "traced", "twins"), [(True, 2, (0, 1)), (False, 3, (1, 2))])
def test_alike_layers_are_traced_twice_or_thrice(
    first: bool, traced: int, twins: tuple[int, int]
) -> None:
    config = transformers.LlamaConfig(**{**families.GROUPED, "num_hidden_layers": 9})
    found = stack_of(config, first=first)
    assert (found.traced, found.twins) == (traced, twins)
    assert set(found.representatives) == {traced - 1}


def test_only_some_layers_are_traced(tmp_path: Path) -> None:
    folder = families.save("gemma2", tmp_path / "gemma2", num_hidden_layers=7)
    graph = open_folder(folder)
    names = [node.name for node in graph.nodes if node.name.endswith("self_attn.q_proj")]
    assert names == [f"model.layers.{layer}.self_attn.q_proj" for layer in range(7)]
    expected = families.reference(folder)(TOKENS).logits
    got = Program(graph).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_parts_of_layers_that_are_not_called_are_left_out(tmp_path: Path) -> None:
    """A decoder of Whisper's without an encoder calls no attention to one."""
    sizes = families.CONFIGS["whisper"][1]
    config = transformers.WhisperConfig(**{**sizes, "decoder_layers": 4})
    network = transformers.WhisperForCausalLM(config).eval()
    network.save_pretrained(tmp_path / "decoder")
    graph = open_folder(tmp_path / "decoder")
    assert not [name for name in graph.initializers if "encoder_attn" in name]
    (note,) = phase_work(Analysis(graph), {"batch": 1, "sequence": 8}, 1).notes
    assert "not priced, as logits does not depend on them: model.decoder.layers.0.enc" in note
    assert re.search(r"and \d+ more: \d\d\.\d% of the stored parameters", note)
    got = Program(graph).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, network(TOKENS).logits, atol=1e-4, rtol=1e-4)


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
    checkpoint = read_checkpoint(folder)
    for first in (True, False):
        network = build(read_config(folder), folder)
        with pytest.raises(UnlikeError, match=r"differ|read"):
            imports._exported(network, checkpoint, partial(stacks, first=first))
    expected = families.reference(folder)(TOKENS).logits
    got = Program(open_folder(folder)).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_where_the_first_layer_alone_is_unlike_the_others_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_kind", lambda layer, listed: "alike")
    folder = families.save("deepseek_v2", tmp_path / "deepseek", num_hidden_layers=6)
    tried: list[tuple[int, ...]] = []
    exported = imports._exported

    def counted(network: Any, checkpoint: Any, find_stacks: Any, *, served: bool) -> Any:
        tried.append(tuple(stack.traced for stack in find_stacks(network)))
        return exported(network, checkpoint, find_stacks, served=served)

    monkeypatch.setattr(imports, "_exported", counted)
    graph = open_folder(folder)
    assert tried == [(2,), (3,)]
    expected = families.reference(folder)(TOKENS).logits
    got = Program(graph).run({"input_ids": TOKENS}).outputs["logits"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_layers_whose_last_result_is_the_networks_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = families.save("bert", tmp_path / "bert", num_hidden_layers=6)
    networks: list[Any] = []

    def built(config: Any, folder: Path) -> Any:
        networks.append(config)
        return build(config, folder)

    monkeypatch.setattr(imports, "build", built)
    graph = open_folder(folder)
    assert len(networks) == 1
    assert graph.outputs == ("last_hidden_state",)
    given = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    network = transformers.AutoModel.from_pretrained(folder).eval()
    expected = network(**given).last_hidden_state
    inputs = {name: value for name, value in given.items() if name in graph.inputs}
    got = Program(graph).run(inputs).outputs["last_hidden_state"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_first_layer_is_compared_with_its_own_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first layer that adds something to what it reads is no copy of the others."""
    folder = families.save("llama", tmp_path / "llama", num_hidden_layers=6)
    network = build(read_config(folder), folder)
    first = network.model.layers[0]
    plain = first.forward
    monkeypatch.setattr(first, "forward", lambda hidden, **others: plain(hidden + 1, **others))
    with pytest.raises(UnlikeError):
        imports._exported(network, read_checkpoint(folder), partial(stacks, first=True))
