"""Torch modules to ONNX files, with weights or as a shape alone.

Needs `onnxscript` (extra `[zoo]`); who only uses the embedded models does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from dse.imports.tidy import tidy
from dse.imports.trace import optimise, traced
from dse.zoo.llama import Llama, LlamaConfig, WithCache, rotary_frequencies

# Weights of a shape graph point into this file, which does not exist.
ABSENT_WEIGHTS = "weights-are-absent.bin"


def export(
    module: nn.Module,
    inputs: Mapping[str, Any],
    path: Path,
    *,
    outputs: Sequence[str] = ("logits",),
    dims: Mapping[str, Any],
) -> None:
    """Writes the module as one tidy ONNX file.

    Args:
        module: in eval mode; its forward takes `inputs` by name.
        inputs: example values, nested as the module wants them.
        path: the file to write.
        outputs: names of the graph's outputs.
        dims: dynamic dimensions, nested like `inputs`: axis -> dimension name.
    """
    model = traced(module, inputs, dims, outputs)
    optimise(model)
    tidy(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path)


def export_shape_graph(config: LlamaConfig, path: Path) -> None:
    """Writes the graph of a Llama of any size without creating or storing its weights.

    The graph has a key-value cache (inputs `past_key_values.<layer>.key` and `.value`, outputs
    `present.<layer>.key` and `.value`), so that its dimensions `batch`, `sequence` and `past`
    describe prefill (past = 0) as well as decoding (sequence = 1).
    """
    with FakeTensorMode():
        module = WithCache(Llama(config)).eval()
        cache = (2, config.kv_heads, 3, config.head_width)
        inputs = {
            "tokens": torch.zeros(2, 5, dtype=torch.int64),
            # A tensor each: the exporter would make one input of one tensor used twice.
            "past_key_values": [
                (torch.zeros(cache), torch.zeros(cache)) for _ in range(config.layers)
            ],
        }
        past = {0: "batch", 2: "past"}
        dims = {
            "tokens": {0: "batch", 1: "sequence"},
            "past_key_values": [(past, past)] * config.layers,
        }
        model = traced(module, inputs, dims, ("logits", *_cache_names("present", config.layers)))
    cache_inputs = model.graph.inputs[1:]
    for value, name in zip(
        cache_inputs, _cache_names("past_key_values", config.layers), strict=True
    ):
        value.name = name
    absent = _forget_weights(model.graph, {"model.frequencies": rotary_frequencies(config)})
    optimise(model)
    for name, tensor in absent.items():
        model.graph.initializers[name].const_value = tensor
    tidy(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    # `ir.save` would look for the weights; the proto only names their file.
    path.write_bytes(ir.to_proto(model).SerializeToString())


def _cache_names(prefix: str, layers: int) -> list[str]:
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def _forget_weights(graph: ir.Graph, kept: Mapping[str, Tensor]) -> dict[str, ir.ExternalTensor]:
    """Empties every initialiser but those `kept`; returns references to a file that is not there.

    They go in after optimisation, which would try to read small ones.
    """
    absent: dict[str, ir.ExternalTensor] = {}
    offset = 0
    for name, value in graph.initializers.items():
        fake = value.const_value
        if name in kept:
            value.const_value = ir.tensor(kept[name].numpy(), name=name)
        elif fake is not None and isinstance(getattr(fake, "raw", None), FakeTensor):
            absent[name] = ir.ExternalTensor(
                ABSENT_WEIGHTS, offset, fake.nbytes, fake.dtype, shape=fake.shape, name=name
            )
            value.const_value = None
            offset += fake.nbytes
    return absent
