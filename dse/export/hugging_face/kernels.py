"""Layers of a folder that a server has a kernel for, as the catalogue of runtimes knows it."""

from __future__ import annotations

from functools import cache

from dse.export.hugging_face.layers import Layer, Layers
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.work import OperandName, OpKind

HALF = "bf16"


def without_kernel(layers: Layers, server: str) -> list[str]:
    """Quantized layers that a runtime of the catalogue has no kernel for, by module."""
    runtime = _runtime(server)
    return [module for module, layer in layers.quantized.items() if not _runs(layer, runtime)]


@cache
def _runtime(name: str) -> Runtime:
    return load_runtime(name)


def _runs(layer: Layer, runtime: Runtime) -> bool:
    operands: dict[OperandName, Quantizer] = {"weight": layer.weight.quantizer}
    if layer.input is not None:
        operands["input"] = layer.input.quantizer
    kind: OpKind = "gemm" if layer.linear.stack is None else "grouped_gemm"
    return any(mode.accepts(kind, operands, HALF) for mode in runtime.modes)
