"""The target `aimet`: an ONNX model in floats and its `.encodings`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from dse.errors import ExportError
from dse.export.aimet.plan import VERSION, Encoding, encodings_of
from dse.export.base import Check, Recipe, Refusal
from dse.export.onnx_qdq.exporter import save_model
from dse.graph.onnx.convert import ONNX_DOMAIN, domain_name

MODEL, DOCUMENT = "model.onnx", "model.encodings"
FIELDS = {"name", "output_dtype", "y_scale", "y_zero_point", "axis", "block_size"}
LEAST_OPSET = 25
"""The first with every type that an encoding may have."""
NEEDED = {"name", "output_dtype", "y_scale"}


class Aimet:
    """Scales and zero points by tensor, and the model that they belong to.

    Its weights lie on their grids already, so that learned codes are found again by rounding.
    """

    summary = "a folder with an ONNX model and AIMET's .encodings 2.0.0, for Qualcomm's compilers"

    def can_express(self, recipe: Recipe) -> tuple[Refusal, ...]:
        """Formats without an encoding, and tensors that are not rounded for all their readers."""
        return tuple(recipe.once(encodings_of).refused)

    def write(self, recipe: Recipe, out: Path) -> None:
        """Write the folder.

        Raises:
            OSError: it cannot be written there.
        """
        found = recipe.once(encodings_of)
        out.mkdir()
        model = found.model(recipe)
        document = found.document(model)
        (out / DOCUMENT).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        save_model(model, out / MODEL)

    def verify(self, recipe: Recipe, out: Path) -> tuple[Check, ...]:
        """The document by its specification, and every weight as its encoding rounds it.

        Raises:
            ExportError: it breaks the specification, or rounds to other values.
        """
        document = json.loads((out / DOCUMENT).read_text(encoding="utf-8"))
        model = onnx.load(out / MODEL)
        onnx.checker.check_model(model, full_check=True)
        encodings = _by_name(document, model)
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        made = {value: node for node in model.graph.node for value in node.output}
        by_name = {node.name: node for node in model.graph.node}
        worst, count = 0.0, 0
        for key in recipe.once(encodings_of).by_site:
            constant = recipe.constant(key)
            if constant is None:
                continue
            name, _, operand = key.rpartition("/")
            value = by_name[name].input[int(operand[2:])]
            value = value if value in stored else made[value].input[0]
            array = onnx.numpy_helper.to_array(stored[value])
            wanted = recipe.bound[key](constant.float()).numpy()
            found = _rounded(array, encodings[value], _opset(model))
            difference = float(np.abs(found - wanted).max(initial=0))
            if difference:
                raise ExportError(f"AIMET's encoding rounds {key} with a difference of "
                                  f"{difference:.3g}")  # fmt: skip
            worst, count = max(worst, difference), count + 1
        note = "AIMET itself was not run; an encoding of int8 reaches to -128"
        return (
            Check(checker=f"AIMET's specification {VERSION}", compared="structure"),
            Check(
                checker="onnx reference evaluator",
                compared=f"{count} weights rounded by their encodings",
                difference=worst,
                note=note,
            ),
        )


def _by_name(document: Mapping[str, Any], model: onnx.ModelProto) -> dict[str, Encoding]:
    """The encodings of a document that keeps to the specification."""
    graph = model.graph
    tensors = {one.name for one in (*graph.initializer, *graph.input)}
    tensors |= {value for node in graph.node for value in node.output}
    if set(document) != {"version", "encodings"} or document["version"] != VERSION:
        raise ExportError(f"AIMET's encodings: expected version {VERSION} and a list")
    found: dict[str, Encoding] = {}
    for one in document["encodings"]:
        if not set(one) >= NEEDED or not set(one) <= FIELDS:
            raise ExportError(f"AIMET's encodings: {one.get('name')} has the fields {sorted(one)}")
        if one["name"] not in tensors or one["name"] in found:
            raise ExportError(
                f"AIMET's encodings: {one['name']} is no tensor of the model, or twice there"
            )
        found[one["name"]] = one
    return found


def _rounded(array: npt.NDArray[Any], encoding: Encoding, opset: int) -> npt.NDArray[np.float32]:
    """A tensor as QuantizeLinear and DequantizeLinear of an encoding have it."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 (its first use costs)

    kind = getattr(onnx.TensorProto, encoding["output_dtype"].upper())
    scale = np.array(encoding["y_scale"], np.float32)
    zero = np.zeros(scale.shape) if "y_zero_point" not in encoding else encoding["y_zero_point"]
    zeros = np.array(zero).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    where = {name: encoding[name] for name in ("axis", "block_size") if name in encoding}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **where),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **where),
    ]
    values = onnx.helper.make_tensor_value_info
    inputs = [
        values("x", onnx.TensorProto.FLOAT, array.shape),
        values("s", onnx.TensorProto.FLOAT, scale.shape),
        values("z", kind, zeros.shape),
    ]
    outputs = [values("y", onnx.TensorProto.FLOAT, array.shape)]
    graph = onnx.helper.make_graph(nodes, "encoding", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", max(opset, LEAST_OPSET))]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    feeds = {"x": array.astype(np.float32), "s": scale, "z": zeros}
    found: npt.NDArray[np.float32] = ReferenceEvaluator(model).run(None, feeds)[0]
    return found


def _opset(model: onnx.ModelProto) -> int:
    opsets = {domain_name(one.domain): one.version for one in model.opset_import}
    return int(opsets[ONNX_DOMAIN])
