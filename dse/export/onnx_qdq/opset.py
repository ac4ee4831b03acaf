"""A model's opset raised to what Q/DQ of narrow types needs."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import version_converter

from dse.errors import ExportError
from dse.graph.onnx.convert import ONNX_DOMAIN, domain_name

DETACHED_BYTES = 1 << 16
"""Constants above this size stay out of the converter, which copies the model."""


def raised(model: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    """The model in at least this opset, with the IR version that it needs.

    Raises:
        ExportError: onnx has no conversion for one of its operators.
    """
    opsets = {domain_name(entry.domain): entry.version for entry in model.opset_import}
    current = opsets.get(ONNX_DOMAIN, 1)
    if current < opset:
        model = _converted(model, current, opset, path)
    needed = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.ir_version = max(model.ir_version, needed)
    return model


def _converted(model: onnx.ModelProto, current: int, opset: int, path: Path) -> onnx.ModelProto:
    light = onnx.ModelProto()
    light.CopyFrom(model)
    weights = [tensor for tensor in light.graph.initializer if _is_heavy(tensor)]
    kept = [tensor for tensor in light.graph.initializer if not _is_heavy(tensor)]
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    declared = {value.name for value in light.graph.input}
    added = [tensor for tensor in weights if tensor.name not in declared]
    light.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in added
    )
    try:
        result = version_converter.convert_version(light, opset)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(
            f"{path}: these formats need opset {opset}, the model has {current}, and onnx cannot "
            f"convert it: {reason}; export the model in opset {opset}"
        ) from error
    names = {tensor.name for tensor in added}
    inputs = [value for value in result.graph.input if value.name not in names]
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    result.graph.initializer.extend(weights)
    return result


def _is_heavy(tensor: onnx.TensorProto) -> bool:
    external = onnx.external_data_helper.uses_external_data(tensor)
    return external or len(tensor.raw_data) > DETACHED_BYTES
