"""The target `modelopt`: a Hugging Face folder as NVIDIA's ModelOpt writes them."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch
from torch import Tensor

from dse.errors import ExportError
from dse.export.base import Check, Recipe, Refusal
from dse.export.hugging_face.folder import read_tensors, write_folder, write_json
from dse.export.hugging_face.layers import NO_FOLDER
from dse.export.hugging_face.plan import emulated
from dse.export.modelopt.plan import algorithm_of, contents, document, plan
from hwmodels.formats.encodings import ENCODINGS

DOCUMENT = "hf_quant_config.json"


class ModelOpt:
    """FP8 and NVFP4 layers with calibrated activations, and which layer has which algorithm.

    The same stands in `hf_quant_config.json` and in `config.json`.
    """

    summary = "a Hugging Face folder as ModelOpt writes it, for TensorRT-LLM, vLLM and SGLang"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats that no algorithm has, and layers that vLLM would leave out or round again."""
        return (NO_FOLDER,) if recipe.checkpoint is None else tuple(recipe.once(plan).refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the folder.

        Raises:
            OSError: it cannot be written there.
        """
        found, source = recipe.once(plan), recipe.checkpoint
        assert source is not None, "can_express has asked for one"
        write_folder(source, out, contents(found, source))
        if algorithm_of(found):
            write_json(out / DOCUMENT, document(found))

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """Every weight decoded from the file, since no consumer of the format runs on a CPU.

        Raises:
            ExportError: it holds other values than the emulator has.
        """
        layers, tensors = recipe.once(plan).layers, read_tensors(out)
        worst = 0.0
        for module, wanted in emulated(recipe, layers):
            difference = float((_decoded(tensors, module) - wanted).abs().max())
            if difference:
                raise ExportError(f"{module} is read with a difference of {difference:.3g}")
            worst = max(worst, difference)
        return (
            Check(
                checker="decoded from the file",
                compared=f"{len(layers.quantized)} weights",
                difference=worst,
                note="outputs not run: no consumer of ModelOpt's format computes on a CPU",
            ),
        )

    def launch(self, recipe: Recipe, out: Path) -> str:
        """The commands of TensorRT-LLM and vLLM."""
        where = shlex.quote(str(out))
        return f"trtllm-serve {where} (or: vllm serve {where})"


def _decoded(tensors: dict[str, Tensor], module: str) -> Tensor:
    """A weight as its tensors say: (outputs, depth) float32."""
    weight, scale = tensors[f"{module}.weight"], tensors[f"{module}.weight_scale"].float()
    if weight.dtype != torch.uint8:
        return weight.float() * scale.reshape(-1, 1)
    positive = torch.tensor([ENCODINGS["e2m1"].float_value(code) for code in range(8)])
    table = torch.cat([positive, -positive])
    codes = torch.stack([weight & 0xF, weight >> 4], dim=-1).flatten(1).long()
    total = scale * tensors[f"{module}.weight_scale_2"]
    return table[codes] * total.repeat_interleave(codes.shape[1] // total.shape[1], dim=1)
