"""A GGUF file as a Hugging Face folder, by `transformers`' own reader.

A GGUF file holds blocks of few bits; the folder holds the float32 numbers that they stand for, so
that it is a copy, and larger than the file.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dse.errors import CheckpointError
from dse.imports.network import CONFIG
from dse.imports.trace import quiet

SUFFIX = ".gguf"


def unpack(file: Path, folder: Path) -> None:
    """Writes configuration, weights and tokenizer of a GGUF file into a new folder.

    Raises:
        CheckpointError: No such file, a folder that is in use, or a file that `transformers`
            cannot read.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    if (folder / CONFIG).exists() or folder.is_file():
        raise CheckpointError(f"{folder}: exists already; choose another --out")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, logging  # noqa: PLC0415
    except ImportError as error:
        raise CheckpointError(f"{file}: needs transformers: pip install 'dse[hf]'") from error
    logging.disable_progress_bar()
    try:
        with quiet():
            network = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # the readers raise plain exceptions of many kinds
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{file}: transformers cannot read it: {reason}") from error
    # What was read is float32, which transformers would refuse to save as GGUF.
    network.config.__dict__.pop("quantization_config", None)
    network.hf_quantizer, network.is_quantized = None, False
    with quiet():
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
