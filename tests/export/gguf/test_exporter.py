"""GGUF files of tiny networks: tensors, names, refusals; transformers and llama.cpp read them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dse.errors import ExportError
from dse.execute.emulate import Emulator
from dse.export import Check, Recipe, deliver, exporter
from dse.export.gguf import verify
from dse.export.gguf.metadata import Network, network_of
from dse.model import open_model
from tests.export import folders

SIZES = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 300}
MIXED = {
    "q_proj/in1": "q4_k", "k_proj/in1": "q8_0", "v_proj/in1": "q6_k", "o_proj/in1": "q5_0",
    "gate_proj/in1": "q4_1", "up_proj/in1": "iq4_nl", "down_proj/in1": "q3_k:output_mse",
    "layers.1.mlp.down_proj/in1": "q4_k:gptq", "lm_head/in1": "q5_k",
    "layers.1.self_attn.o_proj/in1": "bf16",
}  # fmt: skip


def tokenizer(folder: Path, size: int) -> None:
    """A byte-level one that splits digits, as SmolLM's does, smaller than the embedding."""
    made = Tokenizer(models.BPE())
    split = (pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence(list(split)), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 3,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        show_progress=False,
    )
    made.train_from_iterator(["the quick brown fox jumps over the lazy dog 1234 "] * 9, trainer)
    made.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}
    config = {**names, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def recipe(family: str, where: Path, formats: dict[str, str], **changes: object) -> Recipe:
    folders.folder(family, where, **{**SIZES, **changes})  # type: ignore[arg-type]
    tokenizer(where, 300)
    return folders.recipe(open_model(str(where)), formats)


def written(recipe: Recipe, out: Path) -> tuple[Check, ...]:
    return deliver(recipe, "gguf", out, verify=True)


def by_checker(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.checker.partition(" ")[0]: check for check in checks}


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_every_reader_has_the_emulators_numbers(family: str, tmp_path: Path) -> None:
    for needed in ("accelerate", "xllamacpp"):  # continuous integration has them and skips none
        pytest.importorskip(needed)
    changes = {"sliding_window": None} if family == "mistral" else {}
    given = recipe(family, tmp_path / "m", MIXED, **changes)
    ran = by_checker(written(given, tmp_path / "out.gguf"))
    assert ran["gguf-py"].difference == 0.0
    assert ran["transformers"].difference is not None
    assert ran["transformers"].difference < 1e-4
    assert ran["llama.cpp"].difference is not None


def test_llama_cpp_is_judged_by_what_its_rounding_does_to_the_emulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    given = recipe("llama", tmp_path / "m", {"proj/in1": "q4_0"})
    monkeypatch.setattr(verify, "ROUNDED_ACTIVATIONS", 0.0)
    found = by_checker(written(given, tmp_path / "out.gguf"))["llama.cpp"]
    mean, unrest = re.findall(r"(\S+) on average, which moves the emulator by (\S+)", found.note)[
        0
    ]
    assert 0 < float(mean) <= verify.UNREST * float(unrest)
    assert float(unrest) < 0.1
    monkeypatch.setattr(verify, "UNREST", 0.01)
    with pytest.raises(ExportError, match="more than its rounding of activations explains"):
        written(given, tmp_path / "other.gguf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cast_head_of_a_wider_table_has_a_tensor_of_its_own(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    where = tmp_path / "m"
    folders.folder("llama", where, dtype, **SIZES, tie_word_embeddings=True)
    tokenizer(where, 300)
    given = folders.recipe(open_model(str(where)), {"proj/in1": "q8_0", "lm_head/in1": "bf16"})
    ran = by_checker(written(given, tmp_path / "out.gguf"))
    assert ran["transformers"].difference is not None
    assert ran["transformers"].difference < 1e-4
    types = {
        one.name: one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "out.gguf").tensors
    }
    wide = dtype == torch.float32
    assert types["token_embd.weight"] == ("F32" if wide else "BF16")
    assert types.get("output.weight") == ("BF16" if wide else None)


BASE: dict[str, object] = {"rope_theta": 100.0, "factor": 4.0}
"""Waves that sixteen positions tell apart."""
UNREAD: dict[str, tuple[str, dict[str, object]]] = {
    "llama 3.1": ("llama", {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 32}),
    "linear": ("llama", {"rope_type": "linear"}),
    "yarn": ("qwen2", {"rope_type": "yarn", "original_max_position_embeddings": 32}),
}  # fmt: skip
"""Scaled rotary positions, which transformers does not read in GGUF files."""


@pytest.mark.parametrize("case", UNREAD)
def test_llama_cpp_scales_rotary_positions_as_the_folder_says(case: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    family, rotary = UNREAD[case]
    given = recipe(family, tmp_path / "m", {}, num_hidden_layers=1,
                   rope_parameters={**BASE, **rotary})  # fmt: skip
    ran = by_checker(written(given, tmp_path / "out.gguf"))
    assert "leaves out scalings" in ran["transformers"].note
    assert ran["llama.cpp"].difference is not None
    # Without the scaling outputs differ by 3.
    assert ran["llama.cpp"].difference < 0.1


def test_frequency_factors_are_those_of_transformers(tmp_path: Path) -> None:
    rotary = {**BASE, **UNREAD["llama 3.1"][1], "rope_theta": 500000.0}
    folders.folder("llama", tmp_path, rope_parameters=rotary)
    found = network_of(tmp_path)
    assert isinstance(found, Network)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](found.config, device="cpu")
    plain = 500000.0 ** -(np.arange(0, found.head_size, 2) / found.head_size)
    assert found.frequency_factors == pytest.approx(plain / scaled.numpy(), rel=1e-5)


MIXTURES = {
    "mixtral": {"intermediate_size": 256},
    "qwen3_moe": {"moe_intermediate_size": 256, "norm_topk_prob": True},
}


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_stacks(family: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    formats = {"experts.matmul/in1": "q4_k", "experts.matmul_1/in1": "q8_0"}
    given = recipe(family, tmp_path / "m", formats, num_hidden_layers=1, **MIXTURES[family])
    ran = by_checker(written(given, tmp_path / "out.gguf"))
    assert ran["gguf-py"].difference == 0.0
    assert ran["llama.cpp"].difference is not None
    tensors = {one.name: one for one in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    for name, kind, shape in (
        ("gate", "Q4_K", [256, 256, 4]), ("up", "Q4_K", [256, 256, 4]),
        ("down", "Q8_0", [256, 256, 4]),
    ):  # fmt: skip
        one = tensors[f"blk.0.ffn_{name}_exps.weight"]
        assert (one.tensor_type.name, one.shape.tolist()) == (kind, shape)
    assert tensors["blk.0.ffn_gate_inp.weight"].tensor_type.name == "F32"


def test_a_file_says_what_llama_cpp_wants(tmp_path: Path) -> None:
    given = recipe("llama", tmp_path / "m", MIXED)
    written(given, tmp_path / "out.gguf")
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    found = {name: field.contents() for name, field in reader.fields.items()}
    assert found["general.architecture"] == "llama"
    assert found["llama.attention.head_count_kv"] == 2
    assert found["tokenizer.ggml.pre"] == "smollm"
    assert len(found["tokenizer.ggml.tokens"]) == 300
    assert found["tokenizer.ggml.tokens"][299] == "[PAD299]"
    assert found["tokenizer.ggml.bos_token_id"] == 1
    assert found["tokenizer.ggml.eos_token_id"] == 0
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["blk.0.attn_q.weight"] == "Q4_K"
    assert types["output.weight"] == "Q5_K"
    assert types["blk.1.attn_output.weight"] == types["token_embd.weight"] == "BF16"
    assert types["output_norm.weight"] == "F32"
    lines = (tmp_path / "out.gguf.tensor-types.txt").read_text().splitlines()
    assert r"^blk\.1\.ffn_down\.weight$=q4_k" in lines
    assert not any("norm" in line for line in lines)


def test_the_file_has_the_bytes_that_formats_count(tmp_path: Path) -> None:
    formats = {"q_proj/in1": "q4_k", "down_proj/in1": "q6_k", "up_proj/in1": "q5_1"}
    given = recipe("llama", tmp_path / "m", formats)
    written(given, tmp_path / "out.gguf")
    sizes = {one.name: one.n_bytes for one in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    counted = {}
    for key, one in given.assignment:
        constant, emulator = given.constant(key), given.bound[key]
        assert constant is not None
        assert isinstance(emulator, Emulator)
        counted[key] = one.format.storage_bytes(tuple(constant.shape), emulator.axes)
    names = {"q_proj": "attn_q", "down_proj": "ffn_down", "up_proj": "ffn_up"}
    for key, expected in counted.items():
        block, module = key.split(".")[2], key.partition("/")[0].rpartition(".")[2]
        assert sizes[f"blk.{block}.{names[module]}.weight"] == expected


def test_a_file_that_was_changed_does_not_pass(tmp_path: Path) -> None:
    given = recipe("llama", tmp_path / "m", {"proj/in1": "q8_0"})
    out = tmp_path / "out.gguf"
    written(given, out)
    reader = gguf.GGUFReader(out)
    place = next(one for one in reader.tensors if one.name == "blk.0.attn_k.weight").data_offset
    content = bytearray(out.read_bytes())
    content[place + 5] ^= 1
    out.write_bytes(content)
    with pytest.raises(ExportError, match=r"reads blk\.0\.attn_k\.weight with a difference"):
        exporter("gguf").verify(given, out)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ({"q_proj/in1": "nvfp4"}, "no tensor type with the numbers of nvfp4"),
        ({"q_proj/in1": "int4_g128"}, "no tensor type with the numbers of int4_g128; q8_0"),
        ({"q_proj/in1": "q8_0", "q_proj/in0": "int8_token"}, "nothing about activations"),
        ({"q_proj/in1": "q8_0:smooth(0.5)"}, "computes around the codes"),
        ({"scores/in1": "q8_0"}, "nothing about caches"),
    ],
)
def test_what_has_no_place_is_refused(
    formats: dict[str, str], message: str, tmp_path: Path
) -> None:
    given = recipe("llama", tmp_path / "m", formats)
    with pytest.raises(ExportError, match=message):
        deliver(given, "gguf", tmp_path / "made" / "out.gguf")
    assert not (tmp_path / "made").exists()


def test_rows_that_are_no_whole_blocks_are_refused(tmp_path: Path) -> None:
    given = recipe("llama", tmp_path / "m", {"o_proj/in1": "q4_k"}, hidden_size=64)
    with pytest.raises(ExportError, match="rows of 64 elements are not whole blocks of 256; q8_0"):
        deliver(given, "gguf", tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("gpt2", "other tensors for the family gpt2"),
        ("mistral", "a window of 4 tokens"),
        ("qwen3_moe", "do not sum to 1 \\(norm_topk_prob\\)"),
    ],
)
def test_networks_that_llama_cpp_computes_otherwise_are_refused(
    family: str, message: str, tmp_path: Path
) -> None:
    given = folders.of(family, tmp_path / "m", {}, num_hidden_layers=1)
    with pytest.raises(ExportError, match=message):
        deliver(given, "gguf", tmp_path / "out.gguf")


def test_a_tokenizer_that_splits_otherwise_is_refused(tmp_path: Path) -> None:
    given = recipe("llama", tmp_path / "m", {})
    path = tmp_path / "m" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(content))
    with pytest.raises(ExportError, match=r"splits text as none of llama.cpp.s pre-tokenizers"):
        deliver(given, "gguf", tmp_path / "out.gguf")


def test_without_a_tokenizer_tokens_are_numbers(tmp_path: Path) -> None:
    given = folders.of("llama", tmp_path / "m", {"proj/in1": "q8_0"})
    checks = written(given, tmp_path / "out.gguf")
    assert checks[0].difference == 0.0
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "none"
    assert np.uint32(128) == fields["llama.vocab_size"].contents()
