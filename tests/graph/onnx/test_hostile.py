"""Files that no exporter writes: each is refused by name, before anything is computed with it."""

from __future__ import annotations

import math
import re
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dse.errors import GraphError
from dse.graph.onnx.inline import MOST_NODES
from dse.graph.onnx.load import load
from dse.graph.onnx.shapes import bound_types

W = np.ones((4, 4), np.float32)


def _model(nodes, *, tensors=(), functions=(), imports=(("", 18),)):
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "w"), *tensors],
    )  # fmt: skip
    opsets = [helper.make_opsetid(*one) for one in imports]
    return helper.make_model(graph, opset_imports=opsets, functions=functions)


@pytest.fixture
def product():
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"], "mm")])


@pytest.fixture
def loaded(tmp_path):
    def of(model):
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return load(path)

    return of


@pytest.mark.parametrize(
    ("old", "new"), [(b"\x02mm", b"\x02m\xff"), (b"MatMul", b"MatM\x80l"), (b"batch", b"b\xe5tch")]
)
def test_names_that_are_no_text_are_refused(loaded, product, old, new):
    content = product.SerializeToString()
    assert old in content
    with pytest.raises(GraphError, match="not UTF-8 text"):
        loaded(content.replace(old, new))


def test_an_element_type_that_onnx_lacks_is_named(loaded, product):
    product.graph.initializer[0].data_type = 99
    with pytest.raises(GraphError, match="tensor 'w': 99 is no element type"):
        loaded(product)


def test_data_of_another_length_than_the_sizes_are_refused(loaded, product):
    product.graph.initializer[0].dims[:] = [4, 5]
    with pytest.raises(GraphError, match=re.escape("'w': [4, 5] need 80 bytes, the file has 64")):
        loaded(product)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT2, TensorProto.FLOAT8E5M2])
def test_numbers_packed_in_fields_are_as_long_as_onnx_packs_them(loaded, product, kind):
    odd = helper.make_tensor("odd", kind, [3], [1, 0, 1])
    product.graph.initializer.append(odd)
    assert loaded(product).initializers["odd"].numpy().shape == (3,)
    odd.dims[:] = [9]
    product.graph.initializer[-1].CopyFrom(odd)
    with pytest.raises(GraphError, match="tensor 'odd'"):
        loaded(product)


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-4"), ("length", "²"), ("offset", "٣"), ("length", "0x40")]
)
def test_a_place_of_external_data_that_is_no_number_is_refused(
    loaded, product, tmp_path, key, value
):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    onnx.external_data_helper.set_external_data(product.graph.initializer[0], "w.bin")
    product.graph.initializer[0].external_data.add(key=key, value=value)
    with pytest.raises(GraphError, match=f"{key} of its external data"):
        loaded(product)


@pytest.mark.parametrize("location", ["n\0l", "a" * 5000, ".", "loop"])
def test_a_location_that_is_no_file_is_refused(loaded, product, tmp_path, location):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    onnx.external_data_helper.set_external_data(product.graph.initializer[0], location)
    if location == "loop":
        product.graph.initializer[0].dims[:] = [4, 4]
    with pytest.raises(GraphError, match="'w': external data at"):
        loaded(product)


def _function(name, calls):
    nodes = [helper.make_node(call, ["a"], [f"b{i}"], domain="own" if call != "Relu" else "")
             for i, call in enumerate(calls)]  # fmt: skip
    return helper.make_function(
        "own", name, ["a"], ["b0"], nodes,
        [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)],
    )  # fmt: skip


def test_functions_that_unfold_to_a_billion_nodes_are_refused_before_they_do(loaded):
    functions = [_function("F0", ["Relu"] * 10)]
    functions += [_function(f"F{i}", [f"F{i - 1}"] * 10) for i in range(1, 9)]
    call = helper.make_node("F8", ["x"], ["y"], "call", domain="own")
    model = _model([call], functions=functions, imports=(("", 18), ("own", 1)))
    with pytest.raises(GraphError, match=rf"unfold to 1e\+09 nodes, more than {MOST_NODES}"):
        loaded(model)


def test_functions_that_call_each_other_are_named_in_order(loaded):
    functions = [_function("A", ["B"]), _function("B", ["A"])]
    call = helper.make_node("A", ["x"], ["y"], "call", domain="own")
    model = _model([call], functions=functions, imports=(("", 18), ("own", 1)))
    with pytest.raises(GraphError, match="call themselves: A -> B -> A"):
        loaded(model)


def _constant(name, values, dtype=np.int64):
    return numpy_helper.from_array(np.array(values, dtype), name)


@pytest.mark.parametrize(
    ("node", "tensors"),
    [
        (helper.make_node("ConstantOfShape", ["s"], ["big"]), [_constant("s", [100_000] * 2)]),
        (helper.make_node("Expand", ["w", "s"], ["big"]), [_constant("s", [10**6, 10**4, 4, 4])]),
        (helper.make_node("Tile", ["w", "s"], ["big"]), [_constant("s", [10**6, 10**6])]),
        (helper.make_node("Pad", ["w", "s"], ["big"]), [_constant("s", [50_000] * 4)]),
        (helper.make_node("Range", ["z", "s", "o"], ["big"]),
         [_constant("z", 0), _constant("s", 10**10), _constant("o", 1)]),
    ],
)  # fmt: skip
def test_constants_that_unfold_to_gigabytes_stay_types(loaded, node, tensors):
    read = helper.make_node("Shape", ["big"], ["sizes"])
    product = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    types = bound_types(loaded(_model([node, read, product], tensors=tensors)), {"batch": 2})
    assert math.prod(cast("tuple[int, ...]", types["big"].shape)) >= 10**10


@pytest.mark.parametrize("group", [0, -1])
def test_convolutions_of_no_groups_are_refused(loaded, group):
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["image"]),
        helper.make_node("Conv", ["image", "k"], ["y"], "c", group=group),
    ]
    tensors = [_constant("s", [-1, 1, 2, 2]), _constant("k", np.ones((1, 1, 1, 1)), np.float32)]
    with pytest.raises(GraphError, match=r"node c \(Conv\): group: expected positive"):
        loaded(_model(nodes, tensors=tensors))


@pytest.mark.parametrize("equation", ["ij", "i!,jk", "i,jk->i->j", "...,ij,k"])
def test_equations_that_do_not_fit_are_refused(loaded, equation):
    with pytest.raises(GraphError, match="Einsum"):
        loaded(_model([helper.make_node("Einsum", ["x", "w"], ["y"], "e", equation=equation)]))


def test_a_domain_in_two_versions_is_refused(loaded, product):
    product.opset_import.append(helper.make_opsetid("", 17))
    with pytest.raises(GraphError, match="imported in 2 versions"):
        loaded(product)
