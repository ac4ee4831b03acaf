"""Constants as a file stores them, against onnx_ir's reading of the same protos."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from dse.graph.ir.initializer import dtype_name, from_proto
from dse.graph.onnx.proto import ELEM_TYPES, tensor_proto

KINDS = [kind for kind in ir.DataType if kind not in (ir.DataType.STRING, ir.DataType.UNDEFINED)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_element_type_has_the_name_of_its_numpy_type(kind: ir.DataType) -> None:
    assert dtype_name(kind.value) == kind.numpy().name
    assert ELEM_TYPES[kind.numpy().name] == kind.value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("copied", [False, True], ids=["read", "pickled"])
def test_values_and_bytes_are_those_that_onnx_ir_reads(kind: ir.DataType, copied: bool) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind.numpy())
    proto = ir.serde.serialize_tensor(ir.Tensor(values, name="w"))
    found = from_proto(proto, Path(), "model.onnx")
    if copied:
        found = pickle.loads(pickle.dumps(found))
    assert found.numpy().dtype == values.dtype
    assert found.numpy().tobytes() == values.tobytes()
    assert found.tobytes() == ir.Tensor(values).tobytes()
    assert tensor_proto("w", values).raw_data == proto.raw_data


def test_values_in_the_fields_of_a_proto_are_read_too() -> None:
    proto = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.5, -2.0])
    assert not proto.HasField("raw_data")
    found = from_proto(proto, Path(), "model.onnx")
    assert found.numpy().tolist() == [1.5, -2.0]
    assert found.tobytes() == np.array([1.5, -2.0], np.float32).tobytes()
