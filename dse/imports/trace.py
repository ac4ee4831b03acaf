"""A torch module to an ONNX graph in memory, by torch's own exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import nn

OPSET = 20
"""The newest set before attention, norms and rotary embedding became single operators: runtimes
of every age read it."""

LOGGERS = (
    "torch.onnx", "torch.export", "torch.utils._pytree", "torchao", "transformers", "onnx_ir",
)  # fmt: skip


def traced(
    module: nn.Module, inputs: Mapping[str, Any], dims: Mapping[str, Any], outputs: Sequence[str]
) -> ir.Model:
    """The exporter's graph, not optimised.

    Args:
        module: in eval mode; its forward takes `inputs` by name.
        inputs: example values, nested as the module wants them.
        dims: dynamic dimensions, nested like `inputs`: axis -> dimension name.
        outputs: names of the graph's outputs.
    """
    with quiet():
        program = torch.onnx.export(
            module,
            kwargs=dict(inputs),
            dynamo=True,
            opset_version=OPSET,
            output_names=list(outputs),
            dynamic_shapes=dict(dims),
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model: ir.Model = program.model
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporter and transformers say about themselves."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Deprecations inside torch's own exporter are not ours to act on.
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def optimise(model: ir.Model) -> None:
    """Constant folding and clean-up, none of which reads large weights."""
    with quiet():
        optimizer.optimize_ir(model)
        common.CommonSubexpressionEliminationPass()(model)
        common.IdentityEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
