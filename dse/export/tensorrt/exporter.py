"""The target `tensorrt`: ONNX with Q/DQ that TensorRT's parser and builder take."""

from __future__ import annotations

from pathlib import Path

import onnx

from dse.errors import ExportError
from dse.export.base import Check, Recipe, Refusal
from dse.export.onnx_qdq.exporter import unwritable, write_model
from dse.export.onnx_qdq.verify import checks
from dse.export.tensorrt.plan import ELEMENTS, dynamic_sites, plan_of

DYNAMIC = "TRT_FP4DynamicQuantize"
QDQ = ("QuantizeLinear", "DequantizeLinear")


class TensorRt:
    """Symmetric int8 and FP8, int4 and NVFP4 weights; FP4 activations by TensorRT's operator.

    A file with such activations is marked: its domain `trt` and the metadata `dse.needs` say that
    nothing but TensorRT runs it.
    """

    summary = "an ONNX file with Q/DQ under TensorRT's rules (strongly typed, explicit)"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats, zero points and blocks that TensorRT has not."""
        plan = recipe.once(plan_of)
        return plan.refused or unwritable(recipe, plan)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the model.

        Raises:
            OSError: it cannot be written there.
        """
        plan = recipe.once(plan_of)
        needs = {"dse.needs": "TensorRT"} if dynamic_sites(plan.placements) else {}
        write_model(recipe, plan, out, metadata=needs)

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """Onnx's checker, weights, runtimes where no operator is TensorRT's own; and its rules.

        Raises:
            ExportError: the file breaks a rule, or a program computes something else.
        """
        model = onnx.load(out, load_external_data=False)
        if broken := _broken(model):
            raise ExportError(f"TensorRT's rules: {broken}")
        count = sum(node.op_type in QDQ for node in model.graph.node)
        own = len(dynamic_sites(recipe.once(plan_of).placements))
        note = "TensorRT itself was not run"
        if own:
            note += f"; {own} activations are quantized by its own operator, which no other runs"
        rules = Check(checker="TensorRT's rules", compared=f"{count} Q/DQ nodes", note=note)
        return (*checks(recipe, out), rules)


def _broken(model: onnx.ModelProto) -> str:
    """The first rule that a file breaks; empty where it keeps them all."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {value: node for node in model.graph.node for value in node.output}
    for node in model.graph.node:
        if node.op_type not in QDQ:
            continue
        zero = stored.get(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and onnx.numpy_helper.to_array(zero).astype("float32").any():
            return f"{node.name} has a zero point"
        scale = stored.get(node.input[1])
        single = scale is not None and not scale.dims
        if node.op_type == "QuantizeLinear" and not single:
            return f"{node.name} quantizes an activation by more than one scale"
        data = stored.get(node.input[0])
        if data is not None and _element(data) not in ELEMENTS:
            return f"{node.name} reads {_element(data)}"
        own = made.get(node.input[0])
        unmade = own is not None and own.op_type not in ("QuantizeLinear", DYNAMIC)
        if unmade and node.op_type == "DequantizeLinear":
            return f"{node.name} reads what nothing has quantized"
    return ""


def _element(tensor: onnx.TensorProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name)
