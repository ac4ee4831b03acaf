"""The target `gguf`: one file with packed blocks, names and tokens as llama.cpp reads them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dse.errors import ExportError
from dse.export.base import Check, Inexpressible, Recipe, Refusal
from dse.export.gguf.metadata import write_metadata
from dse.export.gguf.plan import Entry, Plan, plan_of
from dse.export.gguf.verify import checks
from dse.export.gguf.vocabulary import write_vocabulary

FREQUENCIES = "rope_freqs.weight"
"""The tensor of factors that wavelengths of rotary positions are multiplied by."""
TENSOR_TYPES = ".tensor-types.txt"
"""End of the companion's name."""


class Gguf:
    """Weights in blocks; activations and caches stay what llama.cpp makes of them."""

    summary = "a GGUF file with packed weights, and its types as llama-quantize takes them"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats without a tensor type, what is no weight, families with converters of their own.

        Raises:
            ExportError: gguf-py is not installed.
        """
        return tuple(recipe.once(plan_of).refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the file, and beside it a line for each tensor that llama-quantize reads.

        Raises:
            ExportError: a weight that is not codes times scales.
            OSError: it cannot be written there.
        """
        plan = recipe.once(plan_of)
        _write(plan, out)
        types = out.with_name(out.name + TENSOR_TYPES)
        types.write_text("".join(f"{line}\n" for line in tensor_types(plan)), encoding="utf-8")

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The weights as gguf-py reads them; outputs of transformers and of llama.cpp.

        Raises:
            ExportError: one of them computes something else than the emulator.
        """
        return checks(recipe.once(plan_of), out)

    def launch(self, recipe: Recipe, out: Path) -> str:
        """`llama-server`."""
        return f"llama-server -m {shlex.quote(str(out))}"


def tensor_types(plan: Plan) -> list[str]:
    """Lines of `llama-quantize --tensor-type-file`: an expression for a name, and its type.

    That program chooses scales by itself; only the file has those of the recipe.
    """
    return [
        f"^{re.escape(entry.name)}$={_type_name(plan, entry).lower()}"
        for entry in plan.entries
        if entry.layers or plan.plain(entry).dim() > 1
    ]


def _type_name(plan: Plan, entry: Entry) -> str:
    if entry.type is not None:
        return entry.type.name
    return {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[
        plan.plain(entry).dtype
    ]


def _write(plan: Plan, out: Path) -> None:
    import gguf  # noqa: PLC0415 (an extra)

    network, folder = plan.network, plan.recipe.checkpoint
    assert network is not None
    assert folder is not None
    writer = gguf.GGUFWriter(out, network.family.arch, use_temp_file=False)
    write_metadata(writer, network, plan.recipe.name)
    write_vocabulary(writer, plan.vocabulary, folder, network.config.vocab_size)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if network.frequency_factors is not None:
        writer.add_tensor(FREQUENCIES, network.frequency_factors)
    for entry in plan.entries:
        _add(writer, plan, entry)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add(writer: Any, plan: Plan, entry: Entry) -> None:
    import gguf  # noqa: PLC0415 (an extra)

    kind = gguf.GGMLQuantizationType[_type_name(plan, entry)]
    if entry.layers:
        try:
            content = plan.packed(entry)
        except Inexpressible as why:
            key = entry.layers[0].linear.weight_key
            raise ExportError(f"gguf: {key}: {why.reason}; {why.instead}") from why
    else:
        value = plan.plain(entry).contiguous()
        if value.dtype == torch.bfloat16:
            content = value.view(torch.uint8).numpy()
        else:
            content = np.ascontiguousarray(value.numpy())
    writer.add_tensor(entry.name, content, raw_dtype=kind)
