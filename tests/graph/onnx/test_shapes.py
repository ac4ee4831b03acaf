"""Concrete shapes: every value, checked against what ONNX Runtime computes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest

from dse.errors import GraphError
from dse.graph.onnx.dimension import dimensions
from dse.graph.onnx.load import load
from dse.graph.onnx.shapes import bind_sizes, bound_types
from dse.graph.patterns.analysis import Analysis

GRAPHS = {
    "reshape by shape arithmetic": """
        g (float[batch, seq, 12] x) => (float[N, M, K, L] y) {
            shape = Shape(x)
            zero = Constant <value_ints = [0]> ()
            one = Constant <value_ints = [1]> ()
            batch_ = Gather(shape, zero)
            seq_ = Gather(shape, one)
            rest = Constant <value_ints = [3, -1]> ()
            target = Concat <axis = 0> (batch_, seq_, rest)
            y = Reshape(x, target)
        }""",
    "expand by constant of shape, where and equal": """
        g (float[batch, 1, seq] x) => (float[N, M, K] y) {
            wanted = Constant <value_ints = [-1, 3, -1]> ()
            count = Shape(wanted)
            ones = ConstantOfShape <value = int64[1] {1}> (count)
            minus = Constant <value_int = -1> ()
            keep = Equal(wanted, minus)
            target = Where(keep, ones, wanted)
            y = Expand(x, target)
        }""",
    "range over a length": """
        g (int64[batch, seq] x) => (int64[M] y) {
            shape = Shape <start = 1> (x)
            axes = Constant <value_ints = [0]> ()
            length = Squeeze(shape, axes)
            zero = Constant <value_int = 0> ()
            one = Constant <value_int = 1> ()
            y = Range(zero, length, one)
        }""",
    "operators that are functions": """
        g (float[batch, 4, seq] x) => (float[N, M, K] y) {
            a = MeanVarianceNormalization <axes = [0, 2]> (x)
            y = Softsign(a)
        }""",
    "branch with a known condition": """
        g (float[batch, 1, seq] x) => (y) {
            shape = Shape <start = 1, end = 2> (x)
            one = Constant <value_ints = [1]> ()
            axes = Constant <value_ints = [0]> ()
            equal = Equal(shape, one)
            condition = Squeeze(equal, axes)
            y = If (condition) <
                then_branch = t () => (a) { s = Constant <value_ints = [1]> () a = Squeeze(x, s) },
                else_branch = e () => (b) { b = Identity(x) }>
        }""",
    "split into a sequence of unequal parts": """
        g (float[batch, seq, 7] x) => (float[N, M, K] y) {
            lengths = Constant <value_ints = [3, 4]> ()
            parts = SplitToSequence <axis = 2> (x, lengths)
            one = Constant <value_int = 1> ()
            y = SequenceAt(parts, one)
        }""",
    "a size that is taken apart, with nothing behind it": """
        g (float[batch, seq, 12] x) => (float[N, M, K, L] y) {
            shape = Shape(x)
            zero = Constant <value_ints = [0]> ()
            last = Constant <value_ints = [2]> ()
            end = Constant <value_ints = [3]> ()
            most = Constant <value_ints = [9223372036854775807]> ()
            before = Slice(shape, zero, last)
            parts = Constant <value_ints = [3, 4]> ()
            behind = Slice(shape, end, most)
            target = Concat <axis = 0> (before, parts, behind)
            y = Reshape(x, target)
        }""",
    "float arithmetic that becomes a size": """
        g (float[batch, 1, 8, seq] x) => (float[N, M, K, L] y) {
            scales = Constant <value_floats = [1.0, 1.0, 2.0, 1.5]> ()
            y = Resize <mode = "nearest"> (x, , scales)
        }""",
}  # fmt: skip


def runtime_shapes(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shapes of all node outputs that are tensors, as ONNX Runtime computes them."""
    model = onnx.load(path)
    names = [v for node in model.graph.node for v in node.output if node.op_type != "Constant"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    results = zip(names, session.run(names, feeds), strict=True)
    return {name: array.shape for name, array in results if isinstance(array, np.ndarray)}


@pytest.mark.parametrize("text", GRAPHS.values(), ids=GRAPHS)
def test_every_shape_is_what_onnxruntime_computes(write, text):
    path = write(text)
    g = load(path)
    types = bound_types(g, {"batch": 3, "seq": 6})
    shapes = {name: cast("tuple[int, ...]", types[name].shape) for name in g.inputs}
    feeds = {name: np.ones(shape, types[name].dtype) for name, shape in shapes.items()}
    found = runtime_shapes(path, feeds)
    assert found
    assert {name: types[name].shape for name in found} == found


def test_measured_graphs_keep_their_declared_shapes(measured):
    paths = sorted(measured.glob("*-b1[-.]*"))
    assert len(paths) == 19
    for path in paths:
        g = load(path)
        assert dict(bound_types(g, {})) == dict(g.types)


def test_sums_of_names_are_sizes(graph):
    g = graph("g (float[past, 4] a, float[seq, 4] b) => (y) { y = Concat <axis = 0> (a, b) }")
    assert bound_types(g, {"past": 5, "seq": 2})["y"].shape == (7, 4)


def test_arithmetic_in_a_name_is_worked_out(write):
    path = write("g (float[past, 4] a, float[total, 4] b) => (y) { y = Concat <axis = 0> (a, b) }")
    model = onnx.load(path)
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "past + 2 * seq"
    onnx.save(model, path)
    g = load(path)
    assert dimensions(g) == ("past", "seq")
    assert bound_types(g, {"past": 5, "seq": 3})["b"].shape == (11, 4)


def test_sizes_without_a_name_are_called_after_input_and_axis(write):
    path = write("g (float[n, 4] x) => (y) { y = Relu(x) }")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    onnx.save(model, path)
    g = load(path)
    assert dimensions(g) == ("x.0",)
    assert bound_types(g, {"x.0": 3})["y"].shape == (3, 4)


@pytest.mark.parametrize("name", ["?", "*", "None", "-1"])
def test_what_stands_for_no_name_is_not_one_size(write, name):
    path = write("g (float[n, 4, h, w] x) => (y) { y = Relu(x) }")
    model = onnx.load(path)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, path)
    g = load(path)
    assert dimensions(g) == ("n", "x.2", "x.3")
    assert bound_types(g, {"n": 1, "x.2": 48, "x.3": 192})["y"].shape == (1, 4, 48, 192)


def test_a_quotient_by_nothing_is_no_size(write):
    path = write("g (float[n, h] x) => (y) { y = Relu(x) }")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "n/0"
    onnx.save(model, path)
    with pytest.raises(GraphError, match=r"y\.1=N"):
        bound_types(load(path), {"n": 2})


SIZES_BY_ROUNDABOUT_WAYS = """
g (float[batch, 4, seq] x) => (float[batch, 8] z)
<float[8, 8] w> {
    shape = Shape(x)
    narrow = Cast <to = 6> (shape)
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    first = Slice(narrow, zero, one, zero, one)
    wide = Cast <to = 7> (first)
    eight = Constant <value_ints = [8]> ()
    target = Concat <axis = 0> (wide, eight)
    y = Reshape(x, target)
    z = MatMul(y, w)
}"""


def test_a_rank_follows_from_how_many_sizes_there_are(weighted):
    g = weighted(SIZES_BY_ROUNDABOUT_WAYS)
    kind = g.types["y"]
    assert len(kind.shape or ()) == 2
    (region,) = (one for one in Analysis(g).regions if one.kind == "gemm")
    assert region.nodes
    assert bound_types(g, {"batch": 3, "seq": 2})["y"].shape == (3, 8)


def test_empty_sizes_are_sizes(graph):
    g = graph("g (float[past, 4] a, float[seq, 4] b) => (y) { y = Concat <axis = 0> (a, b) }")
    assert bound_types(g, {"past": 0, "seq": 2})["y"].shape == (2, 4)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"batch": 1}, "'sequence' is not bound; dimensions of the graph: batch, sequence"),
        ({"batch": 1, "sequence": 2, "bach": 3}, "'bach' is not a .*did you mean 'batch'"),
        ({"batch": -1, "sequence": 2}, "'batch' must be an integer of at least 0 .* got -1"),
        ({"batch": 2**31, "sequence": 2}, "'batch' must be .* at most 2147483647, got"),
    ],
)
def test_wrong_dimensions_are_named(graph, dims, message):
    g = graph("g (float[batch, sequence] x) => (y) { y = Relu(x) }")
    with pytest.raises(GraphError, match=message):
        bound_types(g, dims)


def test_sizes_that_do_not_fit_name_the_node(graph):
    g = graph("g (float[n, 4] x, float[m, 2] w) => (y) { y = MatMul(x, w) }")
    with pytest.raises(GraphError, match=r"node MatMul_0 \(MatMul\): shapes do not fit"):
        bound_types(g, {"n": 2, "m": 3})


def test_sizes_that_only_a_run_knows_are_the_most_there_can_be_or_what_is_said(graph):
    g = graph("g (float[4] x) => (int64[1, found] y) { y = NonZero(x) }")
    found = bind_sizes(g, {})
    assert found.types["y"].shape == (1, 4)
    (note,) = found.notes
    assert "NonZero_0 (NonZero): found is known only when it runs; priced with 4" in note
    assert bound_types(g, {"found": 2})["y"].shape == (1, 2)
    assert not bind_sizes(g, {"found": 2}).notes


def test_boxes_that_are_kept_are_bounded_by_the_limit_of_a_class(graph):
    text = """
        g (float[2, 50, 4] boxes, float[2, 3, 50] scores) => (int64[n, 3] kept)
        <int64 limit = {10}> { kept = NonMaxSuppression(boxes, scores, limit) }"""
    assert bound_types(graph(text), {})["kept"].shape == (2 * 3 * 10, 3)
    assert bound_types(graph(text.replace("{10}", "{99}")), {})["kept"].shape == (2 * 3 * 50, 3)


def test_sizes_of_data_that_nothing_bounds_are_asked_for(graph):
    g = graph("g (float[n] x, int64[2] to) => (float[a, b] y) { y = Reshape(x, to) }")
    with pytest.raises(GraphError, match=r"Reshape_0 \(Reshape\): size 0 of 'y' .* --dim a=N"):
        bound_types(g, {"n": 6})
    assert bound_types(g, {"n": 6, "a": 2, "b": 3})["y"].shape == (2, 3)


def test_declared_shapes_serve_operators_that_onnx_does_not_know(graph):
    g = graph("""
        <ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
        g (float[n, 4] x) => (float[n, 4] y) { y = com.example.Mystery(x) }""")
    assert bound_types(g, {"n": 3})["y"].shape == (3, 4)


def test_repeated_blocks_are_inferred_once(graph):
    """Thousands of nodes of 40 kinds take well under a second."""
    layer = (
        "a{0} = MatMul(x{0}, w) b{0} = Sigmoid(a{0}) c{0} = Mul(a{0}, b{0}) x{1} = Add(c{0}, x{0})"
    )
    body = "\n".join(layer.format(i, i + 1) for i in range(1000))
    g = graph(f"g (float[n, 8] x0, float[8, 8] w) => (x1000) {{ {body} }}")
    start = time.perf_counter()
    types = bound_types(g, {"n": 4})
    assert time.perf_counter() - start < 2
    assert types["x1000"].shape == (4, 8)


def test_sizes_of_nothing_are_refused_and_empty_caches_are_not(graph):
    g = graph("""
        g (float[batch, seq, 8] x, float[batch, old, 8] kept) => (float[batch, T, 8] y) {
            y = Concat <axis = 1> (kept, x)
        }""")
    assert bound_types(g, {"batch": 1, "seq": 2, "old": 0})["y"].shape == (1, 2, 8)
    for name in ("batch", "seq"):
        with pytest.raises(GraphError, match=f"'{name}' is 0, so that nothing is computed"):
            bound_types(g, {"batch": 1, "seq": 2, "old": 0, name: 0})
