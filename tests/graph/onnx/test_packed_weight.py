"""ONNX Runtime's operators over weights of 2, 4 and 8 bits, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from dse.errors import ExportError, GraphError
from dse.execute.emulate import Emulator
from dse.execute.program.program import Program
from dse.export import Recipe, deliver
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.initializer import FileInitializer
from dse.graph.lower.work import lower
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.formats.catalog import quantizer

Arrays = dict[str, np.ndarray]
DOMAIN = "com.microsoft"
ROWS, TOKENS = 24, 3


def model(node: onnx.NodeProto, fed: Arrays, constants: Arrays, width: int) -> onnx.ModelProto:
    """One node with its constants; inputs with the types of `fed`, one float output."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in fed.items()}
    output = next((k for k in kinds.values() if k != onnx.TensorProto.INT64), 1)
    graph = helper.make_graph(
        [node],
        "packed",
        [
            helper.make_tensor_value_info(n, kinds[n], ["tokens", *x.shape[1:]])
            for n, x in fed.items()
        ],
        [helper.make_tensor_value_info("y", output, ["tokens", width])],
        [onnx.numpy_helper.from_array(x, name) for name, x in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def product(
    bits: int, depth: int, block: int, zeros: str = "", *, bias: bool = False,
    grouped: bool = False, dtype: type = np.float32, seed: int = 0, **attributes: int,
) -> tuple[onnx.ModelProto, Arrays]:  # fmt: skip
    """A MatMulNBits with random weights, and what to feed it."""
    rng = np.random.default_rng(seed)
    blocks = -(-depth // block)
    constants = {
        "w": rng.integers(0, 256, (ROWS, blocks, block * bits // 8), dtype=np.uint8),
        "s": (rng.random((ROWS, blocks)) * 0.1 + 0.01).astype(dtype),
    }
    if zeros == "packed":
        size = (ROWS, -(-blocks * bits // 8))
        constants["z"] = rng.integers(0, 256, size, dtype=np.uint8)
    elif zeros == "float":
        constants["z"] = (rng.random((ROWS, blocks)) * 2**bits).astype(dtype)
    if grouped:
        constants["g"] = rng.permutation(np.arange(depth) // block).astype(np.int32)
    if bias:
        constants["b"] = rng.standard_normal(ROWS).astype(dtype)
    inputs = ["x", *(name if name in constants else "" for name in "wszgb")]
    node = helper.make_node(
        "MatMulNBits", inputs, ["y"], name="narrow", domain=DOMAIN,
        K=depth, N=ROWS, bits=bits, block_size=block, **attributes,
    )  # fmt: skip
    fed: Arrays = {"x": rng.standard_normal((TOKENS, depth)).astype(dtype)}
    return model(node, fed, constants, ROWS), fed


def check(folder: Path, proto: onnx.ModelProto, fed: Arrays) -> None:
    """The executor's output is ONNX Runtime's, to rounding in the model's own precision."""
    path = folder / "m.onnx"
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, fed)
    outputs = Program(load(path)).run({k: torch.from_numpy(v) for k, v in fed.items()}).outputs
    found = outputs["y"].numpy()
    assert found.dtype == expected.dtype
    bound = 1e-5 if expected.dtype == np.float32 else 2e-3
    scale = float(np.abs(expected).max()) or 1.0
    assert np.abs(found.astype(np.float64) - expected).max() <= bound * scale


@settings(deadline=None, max_examples=40)
@given(
    bits=st.sampled_from([2, 4, 8]),
    depth=st.integers(1, 12).map(lambda n: 16 * n),
    block=st.sampled_from([16, 32, 64, 128]),
    zeros=st.sampled_from(["", "packed", "float"]),
    bias=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float16]),
    seed=st.integers(0, 100),
)
def test_products_agree_with_onnxruntime(
    tmp_path_factory: pytest.TempPathFactory, bits: int, zeros: str, **case: object
) -> None:
    zeros = "packed" if bits == 8 and zeros else zeros  # it has no float zero points of 8 bits
    folder = tmp_path_factory.mktemp("narrow")
    check(folder, *product(bits, zeros=zeros, **case))  # type: ignore[arg-type]


@pytest.mark.parametrize("zeros", ["", "float"])
def test_rows_in_another_order_find_their_scales(zeros: str, tmp_path: Path) -> None:
    check(tmp_path, *product(4, 96, 32, zeros, grouped=True))


def table(kind: str, bits: int, *, zeros: bool) -> tuple[onnx.ModelProto, Arrays]:
    """A GatherBlockQuantized with random rows of 64 elements, and what to feed it."""
    rng = np.random.default_rng(0)
    sizes = {"w": (ROWS, 64), "z": (ROWS, 2)}
    constants: Arrays = {}
    for name, (rows, columns) in sizes.items():
        if kind == "uint8":
            data = rng.integers(0, 256, (rows, -(-columns * bits // 8)), dtype=np.uint8)
        else:
            dtype = helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, kind.upper()))
            data = rng.integers(0, 8, (rows, columns)).astype(dtype)
        constants[name] = data
    constants["s"] = (rng.random((ROWS, 2)) + 0.1).astype(np.float32)
    if not zeros:
        del constants["z"]
    given = {"bits": bits} if kind == "uint8" else {}
    node = helper.make_node(
        "GatherBlockQuantized", ["w", "i", "s", "z" if zeros else ""], ["y"], name="rows",
        domain=DOMAIN, block_size=32, gather_axis=0, quantize_axis=1, **given,
    )  # fmt: skip
    fed: Arrays = {"i": rng.integers(0, ROWS, TOKENS)}
    return model(node, fed, constants, 64), fed


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [("uint4", 4), ("int4", 4), ("uint8", 4), ("uint8", 8)])
def test_tables_agree_with_onnxruntime(kind: str, bits: int, zeros: bool, tmp_path: Path) -> None:
    check(tmp_path, *table(kind, bits, zeros=zeros))


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A product with 4-bit weights whose constants lie in a file of their own."""
    proto, _ = product(4, 64, 32, "packed")
    onnx.save(
        proto, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    return tmp_path / "m.onnx"


def test_weights_are_sites_and_count_as_stored(narrow: Path) -> None:
    graph = load(narrow)
    found = Analysis(graph).regions
    (site,) = (s for region in found for s in region.sites if s.role == "weight")
    assert (site.key, site.shape, site.contraction_axes) == ("narrow/in1", (64, ROWS), (0,))
    ((operation,),) = (work.ops for work in lower(Analysis(graph), {"tokens": TOKENS}).regions)
    assert operation.sizes == {"M": TOKENS, "K": 64, "N": ROWS}
    assert {operand.name: operand.bits for operand in operation.operands}["weight"] == 4


def test_external_bytes_stay_in_their_file(narrow: Path) -> None:
    found = load(narrow).initializers
    assert found["w"].type.dtype == "uint4"
    assert isinstance(found["w"], FileInitializer)
    assert found["w"].external is not None


def test_weights_take_another_format(narrow: Path) -> None:
    """Rounded to 16 bits they hardly change the output, rounded to 2 bits they do."""
    program = Program(load(narrow))
    feeds = {"x": torch.ones(TOKENS, 64)}
    plain = program.run(feeds).outputs["y"]
    differences = []
    for name in ("bf16", "int2_g32"):
        emulator = Emulator(quantizer=quantizer(name), axes=(0,))
        other = program.run(feeds, {"narrow/in1": emulator}).outputs["y"]
        differences.append(((other - plain).abs().max() / plain.abs().max()).item())
    assert 0 < differences[0] < 0.01
    assert differences[1] > 0.1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"bits": 3}, "3 bits in UINT8; known are 2, 4, 8 bits"),
        ({"weight_prepacked": 1}, "weight_prepacked = 1 is for one GPU only"),
        ({"K": 128}, "w has 768 elements; 24 rows of 128 in blocks of 32 need 1536"),
    ],
)
def test_what_cannot_be_unpacked_is_named(
    change: dict[str, int], fault: str, tmp_path: Path
) -> None:
    proto, _ = product(4, 64, 32)
    attributes = proto.graph.node[0].attribute
    for name, value in change.items():
        for old in [a for a in attributes if a.name == name]:
            attributes.remove(old)
        attributes.append(helper.make_attribute(name, value))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(GraphError, match=r"com\.microsoft\.MatMulNBits narrow") as caught:
        load(tmp_path / "m.onnx")
    assert fault in str(caught.value)


def unpackable(proto: onnx.ModelProto) -> None:
    """Makes the weights an input."""
    tensor = proto.graph.initializer[0]
    kind = helper.make_tensor_value_info("w", tensor.data_type, tensor.dims)
    proto.graph.input.append(kind)
    proto.graph.initializer.remove(tensor)


def read_twice(proto: onnx.ModelProto) -> None:
    """Another node reads the packed bytes."""
    proto.graph.node.append(helper.make_node("Shape", ["w"], ["size"], name="other"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [(unpackable, "needs w as an initializer"), (read_twice, "which Shape other reads, too")],
)
def test_weights_of_other_uses_are_named(
    change: Callable[[onnx.ModelProto], None], fault: str, tmp_path: Path
) -> None:
    proto, _ = product(4, 64, 32)
    change(proto)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(GraphError, match=fault):
        load(tmp_path / "m.onnx")


def test_group_index_with_packed_zero_points_is_refused(tmp_path: Path) -> None:
    proto, _ = product(4, 64, 32, "packed", grouped=True)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(GraphError, match="g_idx with packed zero points"):
        load(tmp_path / "m.onnx")


def test_packed_weights_are_not_exported_again(narrow: Path, tmp_path: Path) -> None:
    program = Program(load(narrow))
    recipe = Recipe(name="packed", program=program, assignment=Assignment(), bound={})
    with pytest.raises(ExportError, match="packed already"):
        deliver(recipe, "onnx-qdq", tmp_path / "out.onnx")
