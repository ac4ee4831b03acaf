"""The target `onnx-qdq`: an assignment as Q/DQ nodes of an ONNX model.

A constant becomes its codes and a DequantizeLinear (two of them where scales have scales); an
activation passes QuantizeLinear and DequantizeLinear with its calibrated scale; 16-bit floats
without scales pass a pair of casts; a corrected mean goes into the bias, or is added to the
output. Where a symmetric integer activation falls below its range, QuantizeLinear goes one step
further than the emulator does (-128 where the range ends at -127): a check counts them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from dse.errors import ExportError, some
from dse.export.base import Check, Recipe, Refusal
from dse.export.onnx_qdq.caveats import ROUNDED, SATURATION, SHOWN, rounded_inputs, saturating
from dse.export.onnx_qdq.edit import TENSORRT, Editor
from dse.export.onnx_qdq.opset import raised
from dse.export.onnx_qdq.plan import Plan, plan_of, without_zero_points
from dse.export.onnx_qdq.verify import checks
from dse.graph.ir.graph import Graph
from dse.graph.ir.initializer import FileInitializer
from dse.graph.onnx.load import model_proto
from dse.graph.onnx.unpack_weight import has_packed_weights

LOGGER = logging.getLogger(__name__)
EXTERNAL_BYTES = 1 << 30
"""Models above this size keep their weights in a file beside them."""


class OnnxQdq:
    """ONNX with QuantizeLinear and DequantizeLinear.

    Integers of 2 to 16 bits, floats of 4 to 16, scales in two levels and in powers of two.
    """

    summary = "an ONNX file with Q/DQ nodes, for ONNX Runtime, OpenVINO and TensorRT"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats, timings and transforms without Q/DQ, and models that have no place for it."""
        plan = recipe.once(_plan)
        return plan.refused or unwritable(recipe, plan)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the model of a recipe with Q/DQ where the emulator quantizes.

        Raises:
            OSError: it cannot be written there.
        """
        plan = recipe.once(_plan)
        write_model(recipe, plan, out)
        if names := saturating(plan):
            LOGGER.warning(SATURATION, len(names), some(names, SHOWN))
        if names := rounded_inputs(recipe, plan):
            LOGGER.warning(ROUNDED, len(names), some(names, SHOWN))

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """Onnx's full checker, its reference evaluator on weights, and runtimes on outputs.

        Raises:
            ExportError: one of them finds the model invalid, or computes something else.
        """
        return checks(recipe, out)


def _plan(recipe: Recipe) -> Plan:
    """The plan of a recipe as ONNX Runtime takes it."""
    return without_zero_points(recipe.once(plan_of))


def unwritable(recipe: Recipe, plan: Plan) -> tuple[Refusal, ...]:
    """Reasons why a model has no place for a plan that has one for every site."""
    try:
        _source(recipe, plan)
    except ExportError as error:
        return (Refusal(reason=str(error), instead="the target 'recipe' takes every model"),)
    return ()


def write_model(
    recipe: Recipe, plan: Plan, out: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the model of a recipe with what a plan says at its sites.

    Raises:
        OSError: it cannot be written there.
    """
    model = edited(recipe, plan)
    model.metadata_props.update(metadata or {})
    save_model(model, out)


def edited(recipe: Recipe, plan: Plan) -> ir.Model:
    """The model of a recipe with what a plan says at its sites."""
    model = ir.from_proto(_source(recipe, plan))
    ir.external_data.set_base_dir(model.graph, _data_folder(recipe.graph))
    Editor(graph=model.graph, plan=plan).edit()
    RemoveUnusedNodesPass()(model)
    if any(node.domain == TENSORRT for node in model.graph.all_nodes()):
        model.opset_imports[TENSORRT] = 1
    return model


def _source(recipe: Recipe, plan: Plan) -> onnx.ModelProto:
    """The model to edit, in the opset that the plan needs.

    Raises:
        ExportError: its weights are packed already, or onnx cannot convert an operator.
    """
    path = recipe.graph.path
    assert path is not None, "a program with weights was loaded from a file"
    found = model_proto(path)
    if has_packed_weights(found.graph):
        raise ExportError(
            f"{path}: has weights that are packed already (MatMulNBits, GatherBlockQuantized), "
            "which Q/DQ would round again; export the model that it was made from"
        )
    return raised(found, plan.opset, path)


def _data_folder(graph: Graph) -> Path:
    """The folder of external weights: the file's own, or that of a traced checkpoint."""
    assert graph.path is not None, "a program with weights was loaded from a file"
    external = (
        one.external.base_dir
        for one in graph.initializers.values()
        if isinstance(one, FileInitializer) and one.external is not None
    )
    return Path(next(external, graph.path.parent))


def save_model(model: ir.Model, out: Path) -> None:
    """Write a model, its weights beside it where they are large.

    Raises:
        OSError: it cannot be written there.
    """
    total = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if total > EXTERNAL_BYTES:
        ir.save(model, out, external_data=f"{out.name}.data")
    else:
        ir.external_data.load_to_model(model)
        ir.save(model, out)
