"""The tokenizer of a Hugging Face folder: `tokenizer.json` by the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.errors import DataError
from dse.text.chat import Message, render

FILE, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """Text to token ids and back."""

    folder: Path
    fast: Any
    """The `tokenizers.Tokenizer`."""
    tokens: Mapping[str, str]
    """Special tokens by name."""
    template: str | None
    """The chat template; None without one."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; `special`: with what the tokenizer puts around a text."""
        ids: list[int] = self.fast.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens."""
        text: str = self.fast.decode(list(ids), skip_special_tokens=True)
        return text

    def chat(self, messages: Sequence[Message], *, prompt: bool = False) -> list[int]:
        """Token ids of a conversation; `prompt`: up to the beginning of an answer.

        Raises:
            DataError: The folder has no chat template, or it refuses these messages.
        """
        if self.template is None:
            raise DataError(
                f"{self.folder}: its tokenizer has no chat template ({TEMPLATE}, or "
                f"'chat_template' in {CONFIG}), so conversations cannot be read; give a JSONL "
                "with 'text' instead of 'messages'"
            )
        where = str(self.folder / TEMPLATE)
        text = render(self.template, messages, tokens=self.tokens, where=where, prompt=prompt)
        # The template has written the special tokens itself.
        return self.encode(text, special=False)

    def id_of(self, name: str) -> int | None:
        """Id of a special token by its name, e.g. `eos_token`."""
        token = self.tokens.get(name)
        found: int | None = self.fast.token_to_id(token) if token else None
        return found


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(
            f"{folder}: has no {FILE}, so text cannot be read; give token ids (.npy), or save "
            "the tokenizer into the folder (transformers: AutoTokenizer, save_pretrained)"
        )
    try:
        from tokenizers import Tokenizer as Fast  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f"{path}: needs tokenizers: pip install 'dse[hf]'") from error
    try:
        fast = Fast.from_file(str(path))
    except Exception as error:  # the library raises plain exceptions
        raise DataError(f"{path}: not a tokenizer: {error}") from error
    # Files may ask for truncation or padding, which is for whoever packs.
    fast.no_truncation()
    fast.no_padding()
    config = _json(folder / CONFIG)
    tokens = {name: text for name in SPECIAL if (text := _token(config.get(name)))}
    return Tokenizer(folder=folder, fast=fast, tokens=tokens, template=_template(folder, config))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _token(value: object) -> str:
    """A token is a string, or a mapping with its content."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The template's own file wins; of several named ones, `default` counts."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template")
                 for entry in found if isinstance(entry, dict)}  # fmt: skip
        found = named.get("default")
    return found if isinstance(found, str) else None
