"""A GGUF file as a Hugging Face folder, by `transformers`' own reader.

A GGUF file holds blocks of few bits; the folder holds the float32 numbers that they stand for, so
that it is a copy, and larger than the file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import torch

from dse.errors import CheckpointError, some
from dse.imports.network import CONFIG
from dse.imports.trace import quiet

LOGGER = logging.getLogger(__name__)
SUFFIX = ".gguf"
SHOWN = 5
"""Names in a message."""


def unpack(file: Path, folder: Path) -> None:
    """Writes configuration, weights and tokenizer of a GGUF file into a new folder.

    Raises:
        CheckpointError: No such file, a folder that is in use, or a file that `transformers`
            cannot read, or that lacks weights.
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
            network, loaded = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                dtype=torch.float32,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # the readers raise plain exceptions of many kinds
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{file}: transformers cannot read it: {reason}") from error
    _check_read(file, network, loaded["missing_keys"])
    # What was read is float32, which transformers would refuse to save as GGUF.
    network.config.__dict__.pop("quantization_config", None)
    network.hf_quantizer, network.is_quantized = None, False
    with quiet():
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _check_read(file: Path, network: torch.nn.Module, missing: Iterable[str]) -> None:
    """Says what of a file and of its network do not meet; `transformers` goes on without a word.

    Raises:
        CheckpointError: the network has weights that the file lacks, which were drawn at random.
    """
    if lacking := some(sorted(missing), SHOWN):
        raise CheckpointError(
            f"{file}: has no numbers for {lacking}, as transformers reads it: they would be drawn "
            "at random; take a file that holds the whole network, or the original weights"
        )
    from gguf import GGUFReader  # noqa: PLC0415 (an extra, which transformers has just used)

    kept = {id(one): one.numel() for one in network.parameters()}
    more = sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors) - sum(kept.values())
    if more > 0:
        LOGGER.warning(
            "%s: transformers leaves out %d of its numbers (biases, factors of positions or "
            "layers that its network of this architecture has not): the folder is another network "
            "than the file",
            file, more,
        )  # fmt: skip
