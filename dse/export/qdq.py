"""An assignment as Q/DQ nodes of an ONNX model, integers and 8-bit floats.

A constant becomes its codes and a DequantizeLinear; an activation passes QuantizeLinear and
DequantizeLinear with its calibrated scale; 16-bit floats without scales pass a pair of casts; a
corrected mean goes into the bias, or is added to the output. Where a symmetric integer
activation falls below its range, QuantizeLinear goes one step further than the emulator does
(-128 where the range ends at -127).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dse.errors import ExportError, WriteError
from dse.execute.operators.step import Quantize
from dse.execute.program.program import Program
from dse.export.edit import Editor
from dse.export.opset import raised
from dse.export.plan import plan_of
from dse.graph.onnx.load import model_proto
from dse.graph.onnx.unpack_weight import has_packed_weights

EXTERNAL_BYTES = 1 << 30
"""Models above this size keep their weights in a file beside them."""


def export_qdq(program: Program, bound: Mapping[str, Quantize], out: Path) -> None:
    """Writes the model of a program with Q/DQ where the emulator quantizes.

    Args:
        program: the model, with weights.
        bound: what stands at which site, as `dse.execute.quantizers.bound` says.
        out: the ONNX file to write.

    Raises:
        ExportError: formats that Q/DQ cannot express (all of them at once, with their sites),
            operators that onnx cannot bring to the opset that they need, or a model whose weights
            are packed already.
        WriteError: the file cannot be written.
    """
    plan = plan_of(program, bound)
    path = program.graph.path
    assert path is not None, "a program with weights was loaded from a file"
    found = model_proto(path)
    if has_packed_weights(found.graph):
        raise ExportError(
            f"{path}: has weights that are packed already (MatMulNBits, GatherBlockQuantized), "
            "which Q/DQ would round again; export the model that it was made from"
        )
    proto = raised(found, plan.opset, path)
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, path.parent)
    Editor(graph=model.graph, plan=plan).edit()
    RemoveUnusedNodesPass()(model)
    _save(model, out)


def _save(model: ir.Model, out: Path) -> None:
    total = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if total > EXTERNAL_BYTES:
            ir.save(model, out, external_data=f"{out.name}.data")
        else:
            ir.external_data.load_to_model(model)
            ir.save(model, out)
    except OSError as error:
        raise WriteError(f"{out}: cannot be written: {error.strerror or error}") from error
