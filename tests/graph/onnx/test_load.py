"""Loading: order, names, types, weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from dse.errors import GraphError
from dse.graph.onnx.load import load


def save_external(path: Path, weight: np.ndarray, location: str = "weights.bin") -> None:
    """A MatMul whose weight lies in an external file."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[N, 4] x) => (float[N, M] y) { y = MatMul(x, w) }"
    )
    tensor = onnx.numpy_helper.from_array(weight, "w")
    if location == "weights.bin":
        (path.parent / location).write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())


def test_nodes_come_in_topological_order_named_by_file_order(graph):
    g = graph("""
        g (float[N, 4] x) => (float[N, 4] y) {
            late = Add(early, x)
            y = Relu(late)
            early = Neg(x)
        }""")
    assert [node.name for node in g.nodes] == ["Neg_2", "Add_0", "Relu_1"]


def test_generated_names_avoid_given_ones(write):
    path = write("g (float[4] x) => (float[4] y) { a = Neg(x) y = Neg(a) }")
    model = onnx.load(path)
    model.graph.node[1].name = "Neg_0"
    onnx.save(model, path)
    names = [node.name for node in load(path).nodes]
    assert names[1] == "Neg_0"
    assert len(set(names)) == 2


def test_constants_become_initializers(graph):
    g = graph("""
        g (float[2, 2] x) => (float[4] y) {
            shape = Constant <value_ints = [4]> ()
            y = Reshape(x, shape)
        }""")
    assert [node.op_type for node in g.nodes] == ["Reshape"]
    assert g.initializers["shape"].numpy().tolist() == [4]


def test_types_are_inferred_with_symbolic_sizes(graph):
    g = graph("g (float[batch, 4] x) => (y) { a = Transpose(x) y = Relu(a) }")
    assert g.types["a"].shape == (4, "batch")
    assert g.types["a"].dtype == "float32"


def test_attributes_are_plain_python(graph):
    g = graph("""
        g (float[1, 2, 8, 8] x, float[3, 2, 3, 3] w) => (y) {
            y = Conv <pads = [1, 1, 1, 1], auto_pad = "NOTSET", group = 1> (x, w)
        }""")
    assert g.nodes[0].attributes == {"pads": (1, 1, 1, 1), "auto_pad": "NOTSET", "group": 1}


def test_bodies_are_graphs_whose_outer_reads_count(graph):
    g = graph("""
        g (float[4] x, bool c) => (float[4] y) {
            z = Neg(x)
            y = If (c) <
                then_branch = t () => (float[4] a) { a = Relu(z) },
                else_branch = e () => (float[4] b) { b = Identity(x) }>
        }""")
    branch = g.by_name["If_1"]
    assert branch.reads == ("c", "z", "x")
    assert [node.name for node in g.consumers["z"]] == ["If_1"]
    assert ("Neg_0", "If_1") in g.dag.edges


def test_model_local_functions_are_inlined(graph):
    g = graph("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N, 4] x) => (float[N, 4] y) { y = local.double(x) }
        <opset_import: ["" : 17], domain: "local">
        double (x) => (y) { y = Add(x, x) }""")
    assert [node.op_type for node in g.nodes] == ["Add"]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (ml_dtypes.bfloat16, "bfloat16"),
        (ml_dtypes.float8_e4m3fn, "float8_e4m3fn"),
        (ml_dtypes.int4, "int4"),
        (ml_dtypes.float4_e2m1fn, "float4_e2m1fn"),
    ],
)
def test_narrow_constants_keep_type_and_values(tmp_path, dtype, name):
    values = np.array([1, 2, -1, 0, 4], dtype=dtype)
    constant = ir.Value(name="c", const_value=ir.Tensor(values, name="c"))
    cast = ir.node("Cast", [constant], attributes={"to": 1})
    cast.outputs[0].name = "y"
    model = ir.Model(
        ir.Graph([], cast.outputs, nodes=[cast], initializers=[constant], name="g",
                 opset_imports={"": 23}),
        ir_version=11,
    )  # fmt: skip
    ir.save(model, tmp_path / "m.onnx")
    found = load(tmp_path / "m.onnx").initializers["c"]
    assert found.type.dtype == name
    assert found.numpy().astype(np.float32).tolist() == values.astype(np.float32).tolist()


def test_external_data_is_read(tmp_path):
    weight = np.arange(8, dtype=np.float32).reshape(4, 2)
    save_external(tmp_path / "m.onnx", weight)
    g = load(tmp_path / "m.onnx")
    assert g.has_weights
    np.testing.assert_array_equal(g.initializers["w"].numpy(), weight)


def test_absent_external_data_make_a_graph_without_weights(tmp_path):
    save_external(tmp_path / "m.onnx", np.zeros((4, 2), np.float32))
    (tmp_path / "weights.bin").unlink()
    g = load(tmp_path / "m.onnx")
    assert not g.has_weights
    assert g.types["w"].shape == (4, 2)
    with pytest.raises(GraphError, match="'w' has no data"):
        g.initializers["w"].numpy()


def test_truncated_external_data_are_refused(tmp_path):
    save_external(tmp_path / "m.onnx", np.zeros((4, 2), np.float32))
    (tmp_path / "weights.bin").write_bytes(b"\0" * 31)
    with pytest.raises(GraphError, match="needs 32 bytes"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "a/../../outside.bin", ""])
def test_external_data_outside_the_folder_are_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"\0" * 32)
    save_external(folder / "m.onnx", np.zeros((4, 2), np.float32), location)
    with pytest.raises(GraphError, match="outside the model's folder"):
        load(folder / "m.onnx")


def test_links_out_of_the_folder_are_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"\0" * 32)
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    save_external(folder / "m.onnx", np.zeros((4, 2), np.float32), "link.bin")
    with pytest.raises(GraphError, match="outside the model's folder"):
        load(folder / "m.onnx")


def test_digest_is_that_of_the_content_not_of_the_file(tmp_path):
    weight = np.arange(8, dtype=np.float32).reshape(4, 2)
    save_external(tmp_path / "m.onnx", weight)
    inline = onnx.load(tmp_path / "m.onnx")
    inline.metadata_props.add(key="note", value="saved again")
    onnx.save(inline, tmp_path / "renamed.onnx")
    save_external(tmp_path / "other.onnx", weight + 1)
    digest = load(tmp_path / "renamed.onnx").digest
    assert load(tmp_path / "other.onnx").digest != digest
    (tmp_path / "weights.bin").write_bytes(weight.tobytes())
    assert load(tmp_path / "m.onnx").digest == digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (float[4] x) => (float[4] y) { z = Add(y, x) y = Relu(z) }",
         r"cycle: Add_0 -> Relu_1 -> Add_0|cycle: Relu_1 -> Add_0 -> Relu_1"),
        ("g (float[4] data) => (float[4] y) { y = Relu(dota) }", "'dota'; did you mean 'data'"),
        ("g (float[4] x) => (float[4] y) { y = Relu(x) y = Neg(x) }", "written twice: 'y'"),
        ("g (float[4] x) => (float[4] y) { a = Foo(x) b = Bar(a) c = Foo(b) y = Relu(c) }",
         r"operator Foo of opset 17 \(Foo_0, Foo_2\); operator Bar of opset 17 \(Bar_1\)"),
        ('<ir_version: 8, opset_import: ["" : 99]> g (float[4] x) => (float[4] y) { y = Relu(x) }',
         "opset 99"),
        ('<ir_version: 8, opset_import: ["" : 1099511627776]> '
         "g (float[4] x) => (float[4] y) { y = Relu(x) }",
         "opset 1099511627776"),
        ("g (float x) => (float y) { y = Add(x, x, x) }", "not a valid ONNX model"),
    ],
)  # fmt: skip
def test_wrong_graphs_are_refused_with_the_reason(write, text, message):
    with pytest.raises(GraphError, match=message):
        load(write(text))


def test_inputs_without_shape_are_named(write):
    path = write("g (float[4] first, float[4] second) => (y) { y = Add(first, second) }")
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(GraphError, match="inputs without a shape: first, second"):
        load(path)


def test_initializers_of_one_name_are_refused(write):
    path = write("g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> { y = Add(x, w) }")
    model = onnx.load(path)
    model.graph.initializer.append(model.graph.initializer[0])
    onnx.save(model, path)
    with pytest.raises(GraphError, match="same name: w"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"hello, this is text", b"\x08\x08"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(GraphError, match="not an ONNX file, or truncated"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04\x00\x00", "PyTorch's checkpoints"),
        (b"GGUF\x03\x00", r"a GGUF file \(make a folder of it: dse import \S*m\.onnx -o m\)"),
        (b'{"a": 1}', "JSON text"),
    ],
)
def test_files_of_other_programs_are_called_by_their_name(tmp_path, content, what):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(GraphError, match=f"{what}.*expected an ONNX file"):
        load(tmp_path / "m.onnx")


def test_truncated_files_are_refused_wherever_they_end(write):
    path = write("g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> { y = Add(x, w) }")
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(GraphError):
            load(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(GraphError, match="does not exist"):
        load(tmp_path / "none.onnx")
    with pytest.raises(GraphError, match="is a folder"):
        load(tmp_path)


def hub(tmp_path: Path, below: str) -> Path:
    """A model as Hugging Face's cache has it: both of its files are links into `blobs`."""
    repository = tmp_path / "models--org--net"
    blobs, folder = repository / "blobs", repository / "snapshots" / "0123" / below
    for made in (blobs, folder):
        made.mkdir(parents=True)
    save_external(blobs / "graph", np.ones((4, 2), np.float32), "weights.bin")
    (blobs / "weights.bin").rename(blobs / "data")
    (folder / "m.onnx").symlink_to(blobs / "graph")
    (folder / "weights.bin").symlink_to(blobs / "data")
    return folder / "m.onnx"


@pytest.mark.parametrize("below", ["", "onnx", "onnx/fp32"])
def test_a_snapshot_of_the_hub_s_cache_loads_wherever_the_model_lies_in_it(tmp_path, below):
    g = load(hub(tmp_path, below))
    assert g.has_weights
    np.testing.assert_array_equal(g.initializers["w"].numpy(), np.ones((4, 2)))


def written_as_text(link: Path, target: str) -> None:
    """As git writes a link where there are none (core.symlinks=false)."""
    link.unlink()
    link.write_text(target)


@pytest.mark.parametrize("below", ["", "onnx"])
def test_links_that_are_written_as_text_lead_to_the_same_blobs(tmp_path, below):
    path = hub(tmp_path, below)
    up = "../../../blobs" if below else "../../blobs"
    written_as_text(path, f"{up}/graph")
    written_as_text(path.parent / "weights.bin", f"{up}/data")
    np.testing.assert_array_equal(load(path).initializers["w"].numpy(), np.ones((4, 2)))
    written_as_text(path, f"{up}/gone")
    with pytest.raises(GraphError, match=r"written as text, to .*gone, which is not there"):
        load(path)


@pytest.mark.parametrize("target", ["../../../../outside", "/etc/hostname", "../../blobs/../../x"])
def test_text_that_leads_elsewhere_is_no_link(tmp_path, target):
    path = hub(tmp_path, "")
    (tmp_path / "outside").write_bytes((path.parent / "m.onnx").read_bytes())
    written_as_text(path, target)
    with pytest.raises(GraphError, match="not an ONNX file"):
        load(path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "m.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(GraphError, match="git lfs pull"):
        load(tmp_path / "m.onnx")


def test_links_of_a_snapshot_to_anywhere_else_are_refused(tmp_path):
    path = hub(tmp_path, "onnx")
    data = path.parent / "weights.bin"
    data.unlink()
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GraphError, match="outside the model's folder"):
        load(path)


def test_constant_nodes_with_external_data_load_from_any_folder(tmp_path, monkeypatch):
    weight = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32)
    node = onnx.helper.make_node(
        "Constant", [], ["w"], name="held", value=onnx.numpy_helper.from_array(weight, "w")
    )
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    kind = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node, product],
        "g",
        [kind("x", onnx.TensorProto.FLOAT, ["n", 300])],
        [kind("y", onnx.TensorProto.FLOAT, ["n", 20])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "m.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, convert_attribute=True, location="m.data",
        size_threshold=0,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    g = load("there/m.onnx")
    np.testing.assert_array_equal(g.initializers["w"].numpy(), weight)
    assert g.nodes[0].name == "MatMul_1"  # counted in file order, the constant with it


def test_values_of_two_bodies_that_share_a_name_are_told_apart(graph):
    g = graph("""
    g (float[2] x, bool c) => (float[2] y) {
        [if] y = If (c) <
            then_branch = t () => (float[2] r) { m = Relu (x)  r = Neg (m) },
            else_branch = e () => (float[2] r) { m = Abs (x)  r = Neg (m) }
        >
    }""")
    bodies = [g.by_name["if"].attributes[f"{name}_branch"] for name in ("then", "else")]
    written = [value for body in bodies for node in body.nodes for value in node.outputs]
    assert len(set(written)) == 4
    assert {node.name for node in bodies[1].nodes} == {
        "if/else_branch/Abs_0",
        "if/else_branch/Neg_1",
    }


def test_sizes_of_minus_one_and_nought_side_by_side_are_both_free(write):
    text = "g (float[0, 4] x) => (float[1, 4] y) { y = Relu(x) }"
    path = write(text)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, path)
    loaded = load(path)
    assert loaded.types["x"].shape == (None, 4)
    assert not isinstance((loaded.types["y"].shape or (0,))[0], int)


def test_the_rank_behind_a_loop_is_that_of_its_body(write):
    g = load(
        write("""
    g (float[N, 4] x, int64 n, bool c) => (float[N, 4] y)
    { last, all = Loop<body = b (int64 i, bool go, float[N, 4] h) => (bool on, k, k2)
        { on = Identity(go)  k = Relu(h)  k2 = Relu(k) }>(n, c, x)
      y = Relu(last)  z = Relu(all) }
    """)
    )
    assert [len(g.types[value].shape or ()) for value in ("last", "all")] == [2, 3]
