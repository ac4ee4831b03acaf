"""The tokenizer of a Hugging Face folder as llama.cpp reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.export.base import Refusal
from dse.imports.checkpoint import read_json

TOKENIZER = "tokenizer.json"
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS: Mapping[str, str] = {
    _LLAMA_3: "llama-bpe",
    _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2",
}
"""Expressions that split text before merges, by llama.cpp's name (`llama-vocab.cpp`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The entries under `tokenizer.ggml` of a file."""

    content: Mapping[str, Any]
    """Of tokenizer.json."""
    splits: str
    """Name of the pre-tokenizer in llama.cpp; empty for a vocabulary of SentencePiece."""


def vocabulary_of(folder: Path) -> Vocabulary | Refusal | None:
    """The tokenizer of a folder; None where there is none.

    Raises:
        CheckpointError: its file is no JSON.
    """
    if not (folder / TOKENIZER).is_file():
        return None
    content = read_json(folder / TOKENIZER)
    model = content.get("model") or {}
    if model.get("type") == "BPE" and model.get("byte_fallback"):
        return Vocabulary(content=content, splits="")
    splits = _splits(content.get("pre_tokenizer") or {}) if model.get("type") == "BPE" else None
    if splits is None:
        return Refusal(
            reason=f"{TOKENIZER}: it splits text as none of llama.cpp's pre-tokenizers "
            "gpt-2, smollm, llama-bpe and qwen2 does, and tokens would be others",
            instead=f"a folder without {TOKENIZER} is written with token numbers only",
        )
    return Vocabulary(content=content, splits=splits)


def _splits(given: Mapping[str, Any]) -> str | None:
    """The pre-tokenizer of llama.cpp that splits alike; None where none is known to."""
    parts = given.get("pretokenizers") or [given]
    kinds = [part.get("type") for part in parts]
    if kinds[-1] != "ByteLevel" or parts[-1].get("add_prefix_space"):
        return None
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        return PATTERNS.get((parts[0].get("pattern") or {}).get("Regex", ""))
    return None


def write_vocabulary(writer: Any, vocabulary: Vocabulary | None, folder: Path, size: int) -> None:
    """Put tokens, merges and special tokens into a writer of gguf-py.

    Args:
        writer: a `gguf.GGUFWriter`.
        vocabulary: None for a model of token numbers only.
        folder: where the tokenizer's other files are.
        size: rows of the embedding; what the tokenizer lacks is padded.
    """
    import gguf  # noqa: PLC0415 (an extra)

    if vocabulary is None:
        writer.add_tokenizer_model("none")
        return
    tokens, kinds = _tokens(vocabulary.content, size)
    if vocabulary.splits:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(vocabulary.splits)
        writer.add_token_list(tokens)
    else:
        found = list(gguf.LlamaHfVocab(folder).all_tokens())
        padding = [(token.encode(), -10000.0, gguf.TokenType.UNUSED) for token in tokens]
        found += padding[len(found) :]
        tokens, kinds = [text for text, _, _ in found], [int(kind) for _, _, kind in found]
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores([score for _, score, _ in found])
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=bool(vocabulary.splits), n_vocab=size)
    special.add_to_gguf(writer, quiet=True)


def _tokens(content: Mapping[str, Any], size: int) -> tuple[list[Any], list[int]]:
    """Every token by number with its kind."""
    import gguf  # noqa: PLC0415 (an extra)

    found = dict(_numbered(content))
    kinds = gguf.TokenType
    added = {int(one["id"]): bool(one.get("special")) for one in content.get("added_tokens", ())}

    def kind(number: int) -> int:
        if number in added:
            return int(kinds.CONTROL if added[number] else kinds.USER_DEFINED)
        return int(kinds.NORMAL if number in found else kinds.UNUSED)

    tokens = [found.get(number, f"[PAD{number}]") for number in range(size)]
    return tokens, [kind(number) for number in range(size)]


def _numbered(content: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for token, number in content["model"].get("vocab", {}).items():
        yield int(number), token
    for one in content.get("added_tokens", ()):
        yield int(one["id"]), one["content"]
