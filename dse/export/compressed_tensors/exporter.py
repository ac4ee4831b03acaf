"""The target `compressed-tensors`: a Hugging Face folder whose linear layers are packed."""

from __future__ import annotations

import shlex
from pathlib import Path

from dse.export.base import Check, Recipe, Refusal
from dse.export.compressed_tensors.plan import contents, plan
from dse.export.compressed_tensors.verify import checks
from dse.export.hugging_face.folder import write_folder
from dse.export.hugging_face.kernels import without_kernel
from dse.export.hugging_face.layers import NO_FOLDER

SERVER = "vllm"


class CompressedTensors:
    """Packed weights, static scales and zero points under the names of their modules.

    Every group of layers says its own format; dynamic scales of activations are worked out by the
    runtime, as they are in the emulator.
    """

    summary = "a Hugging Face folder with packed weights, for vLLM, SGLang and transformers"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats without a packing, sites that are no linear layers, siblings that differ."""
        return (NO_FOLDER,) if recipe.checkpoint is None else tuple(recipe.once(plan).refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the folder.

        Raises:
            OSError: it cannot be written there.
        """
        assert recipe.checkpoint is not None, "can_express has asked for one"
        write_folder(recipe.checkpoint, out, contents(recipe.once(plan), recipe.checkpoint))

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The package's own schema and decompression, and transformers on samples.

        Raises:
            ExportError: it computes something else than the emulator.
        """
        return checks(recipe, recipe.once(plan), out)

    def launch(self, recipe: Recipe, out: Path) -> str:
        """`vllm serve`, where vLLM has a kernel for every layer."""
        found = recipe.once(plan)
        if without_kernel(found.layers, SERVER):
            return ""
        cache = " --kv-cache-dtype fp8" if found.cache_scales else ""
        return f"vllm serve {shlex.quote(str(out))}{cache}"
