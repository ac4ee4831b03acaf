"""A tokenizer of bytes and a few merges, saved as folders have it."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = "the cat sat on the mat, and the dog sat on the log; what did the cat see? " * 3
TEMPLATE = (
    "{%- for message in messages %}{{ '<|' + message.role + '|>' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}"
    "{% else %}{{ message.content | trim }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def save(folder: Path, *, template: str | None = TEMPLATE) -> Path:
    """Writes tokenizer.json and tokenizer_config.json; 128 tokens at most, `<eos>` is number 0."""
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=128, special_tokens=["<eos>", "<|user|>", "<|assistant|>"],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXT + "ABCDEFGHIJ0123456789.!:\n"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<eos>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
