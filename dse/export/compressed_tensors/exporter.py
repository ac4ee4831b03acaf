"""The target `compressed-tensors`: a Hugging Face folder whose linear layers are packed."""

from __future__ import annotations

import shlex
from pathlib import Path

from dse.export.base import Check, Recipe, Refusal
from dse.export.compressed_tensors.plan import Plan, plan_of
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
        plan = plan_of(recipe)
        return (NO_FOLDER,) if plan is None else tuple(plan.refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the folder.

        Raises:
            OSError: it cannot be written there.
        """
        plan, source = _plan(recipe), recipe.checkpoint
        assert source is not None, "can_express has asked for one"
        write_folder(source, out, plan.contents(source))

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The package's own schema and decompression, and transformers on samples.

        Raises:
            ExportError: it computes something else than the emulator.
        """
        return checks(recipe, _plan(recipe), out)

    def launch(self, recipe: Recipe, out: Path) -> str:
        """`vllm serve`, where vLLM has a kernel for every layer."""
        plan = _plan(recipe)
        if without_kernel(plan.layers, SERVER):
            return ""
        cache = " --kv-cache-dtype fp8" if plan.cache_scales else ""
        return f"vllm serve {shlex.quote(str(out))}{cache}"


def _plan(recipe: Recipe) -> Plan:
    plan = plan_of(recipe)
    assert plan is not None, "can_express has asked for a folder"
    return plan
