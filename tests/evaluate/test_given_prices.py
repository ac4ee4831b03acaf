"""Prices of models that ONNX Runtime quantized: those of the integer products that they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from dse.errors import GraphError, SpaceError
from dse.execute.program.program import Program
from dse.graph.ir.assignment import Assignment
from dse.graph.lower.work import lower
from dse.model import Model, open_model
from dse.predict import AS_GIVEN, Prediction, Usage, predict
from dse.space.build import build_problem
from dse.space.init import Draft, space_text
from dse.space.schema import Space
from dse.space.uniform import uniform_assignment
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.quantizer import Quantizer

BATCH = 64
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, 3, 16, 16] image) => (float[batch, 10] logits)
{
    [first] a = Conv <pads = [1, 1, 1, 1]> (image, stem, bias)
    [relu] r = Relu (a)
    [second] c = Conv <pads = [1, 1, 1, 1]> (r, body)
    [flat] f = Flatten (c)
    [fc] logits = MatMul (f, matrix)
}
"""
SHAPES = {"stem": (16, 3, 3, 3), "bias": (16,), "body": (16, 16, 3, 3), "matrix": (4096, 10)}
WEIGHTS = {"first": 16 * 27, "second": 16 * 144, "fc": 40960}
CHANNELS = {"first": 16, "second": 16, "fc": 10}
IMAGES = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
TARGETS = (
    "ethos-u55",
    "eyeriss",
    "h100-sxm:free",
    "h100-sxm:torch-compile",
    "h100-sxm:onnxruntime",
)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.batches = iter([{"image": IMAGES}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = onnx.parser.parse_model(MODEL)
    rng = np.random.default_rng(1)
    for name, shape in SHAPES.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = tmp_path_factory.mktemp("plain") / "float.onnx"
    onnx.save(model, path)
    return path


def static(plain: Path, folder: Path, form: QuantFormat = QuantFormat.QDQ, **how: Any) -> Model:
    """The model quantized with static activations."""
    quantize_static(plain, folder / "q.onnx", _Reader(), quant_format=form, **how)
    return open_model(str(folder / "q.onnx"))


def priced(model: Model, target: str, assignment: Assignment | None = None) -> Prediction:
    usage = Usage(dims={"batch": BATCH})
    (found,) = predict(model.graph, [target], (), usage=usage, assignment=assignment)
    return found


def twin(plain: Path, weight: str, given: str, nodes: tuple[str, ...] = ()) -> Assignment:
    """The same formats as an assignment of the float model's sites."""
    sites: dict[str, Quantizer] = {}
    for node in nodes or WEIGHTS:
        sites |= {f"{node}/in0": quantizer(f"{given}:static"), f"{node}/in1": quantizer(weight)}
    return Assignment.of(sites)


def pairs_alone(model: Model, folder: Path, target: str) -> float:
    """Seconds of the pairs that no product reads: those of the result, and of what is rounded."""
    inside = {name for given in model.analysis.given.values() for name in given.inside}
    nodes = [n for n in model.graph.nodes if n.op_type == "QuantizeLinear"]
    shapes = [model.graph.types[n.inputs[0]].shape for n in nodes if n.name not in inside]
    inputs = ", ".join(
        f"float[{', '.join(map(str, shape or ()))}] x{at}" for at, shape in enumerate(shapes)
    )
    body = " ".join(
        f"q{at} = QuantizeLinear (x{at}, s, z) y{at} = DequantizeLinear (q{at}, s, z)"
        for at in range(len(shapes))
    )
    outputs = ", ".join(f"y{at}" for at in range(len(shapes)))
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g ({inputs}) => ({outputs}) <float s = {{1}}, uint8 z = {{1}}> {{ {body} }}
    """
    onnx.save(onnx.parser.parse_model(text), folder / "pairs.onnx")
    return priced(open_model(str(folder / "pairs.onnx")), target).cost.latency_s


WRITTEN = [
    ({"per_channel": True, "activation_type": QuantType.QUInt8}, "int8_channel", "uint8"),
    ({"activation_type": QuantType.QUInt8}, "int8", "uint8"),
    ({"activation_type": QuantType.QInt8}, "int8", "uint8"),
    (
        {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
        "int8",
        "int8",
    ),
    ({"weight_type": QuantType.QUInt8, "activation_type": QuantType.QUInt8}, "uint8", "uint8"),
]


@pytest.mark.parametrize(("how", "weight", "given"), WRITTEN)
def test_kernels_and_bytes_are_those_of_the_float_twin(
    plain: Path, tmp_path: Path, how: dict[str, Any], weight: str, given: str
) -> None:
    model = static(plain, tmp_path, **how)
    found = {f"{n}/in{at}": one.quantizer for (n, at), one in model.analysis.given.items()}
    assert found == twin(plain, weight, given).as_dict()
    scales = CHANNELS if weight.endswith("channel") else dict.fromkeys(CHANNELS, 1)
    point = 1 if weight == "uint8" else 0
    bias = 4 * 16  # int32, where the float twin has 16 bits
    stored = sum(WEIGHTS.values()) + sum((4 + point) * count for count in scales.values())
    for target in TARGETS:
        same = priced(open_model(str(plain)), target, twin(plain, weight, given))
        got = priced(model, target)
        assert got.format == AS_GIVEN
        by_name, asked = dict(got.cost.parts), dict(same.cost.parts)
        assert by_name.keys() == asked.keys()
        assert [by_name[name].status for name in asked] == [part.status for part in asked.values()]
        assert [by_name[name].note for name in asked] == [part.note for part in asked.values()]
        assert got.native_share == same.native_share
        if got.native_share == 1:
            assert got.cost.weight_bytes == stored + bias
            assert same.cost.latency_s <= got.cost.latency_s * 1.001
        overhead = pairs_alone(model, tmp_path, target)
        assert got.cost.latency_s <= (same.cost.latency_s + overhead) * 1.001


def test_without_an_integer_kernel_the_weights_stay_integers_in_memory(
    plain: Path, tmp_path: Path
) -> None:
    found = priced(static(plain, tmp_path, per_channel=True), "h100-sxm:onnxruntime")
    statuses = {name: part.status for name, part in found.cost.parts}
    assert set(statuses.values()) == {"emulated"}  # no QLinearConv for CUDA
    assert found.cost.weight_bytes == sum(WEIGHTS.values()) + 4 * 16


@pytest.mark.parametrize("weight", [QuantType.QInt8, QuantType.QUInt8])
def test_operators_over_integers_are_run_and_priced_as_integers(
    plain: Path, tmp_path: Path, weight: QuantType
) -> None:
    model = static(
        plain,
        tmp_path,
        QuantFormat.QOperator,
        weight_type=weight,
        activation_type=QuantType.QUInt8,
        op_types_to_quantize=["Conv"],
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "q.onnx", options)
    (wanted,) = session.run(None, {"image": IMAGES})
    program = Program(model.graph, analysis=model.analysis)
    got = program.run({"image": torch.from_numpy(IMAGES)}, {}).outputs["logits"].numpy()
    # A code more or less where a sum lies between two.
    assert np.abs(got - wanted).max() <= 0.02 * np.abs(wanted).max()
    name = "int8" if weight == QuantType.QInt8 else "uint8"
    nodes = [node for node, at in model.analysis.given if at == 3]
    assert len(nodes) == 2
    assert {g.quantizer.name for (_, at), g in model.analysis.given.items() if at == 3} == {name}
    asked = twin(plain, name, "uint8", ("first", "second"))
    for target in TARGETS:
        same = priced(open_model(str(plain)), target, asked)
        statuses = [part.status for name, part in same.cost.parts if name.startswith("conv")]
        found = [p.status for name, p in priced(model, target).cost.parts if "conv" in name]
        assert found == statuses


def test_dynamic_integers_are_priced_as_integers(plain: Path, tmp_path: Path) -> None:
    quantize_dynamic(plain, tmp_path / "q.onnx", weight_type=QuantType.QUInt8)
    model = open_model(str(tmp_path / "q.onnx"))
    kinds = {node.op_type for node in model.graph.nodes}
    assert {"ConvInteger", "MatMulInteger"} <= kinds
    names = {one.quantizer.name for one in model.analysis.given.values()}
    assert names == {"uint8"}  # ranges of the very tensor
    work = lower(model.analysis, {"batch": BATCH})
    weights = {
        op.name: operand.bytes
        for region in work.regions
        for op in region.ops
        for operand in op.operands
        if operand.name == "weight" and op.macs
    }
    assert sorted(weights.values()) == sorted(count + 4 + 1 for count in WEIGHTS.values())
    assert priced(model, "h100-sxm:free").native_share == 1


def test_a_search_leaves_what_comes_quantized_and_says_so(plain: Path, tmp_path: Path) -> None:
    model = static(plain, tmp_path, op_types_to_quantize=["Conv"])
    space: dict[str, Any] = {
        "model": "q.onnx", "data": {"source": "x.npz"},
        "scenario": {"phases": {"call": {"share": 1, "dims": {"batch": 1}}}},
        "targets": [{"device": "h100-sxm"}],
        "candidates": [{"match": {}, "use": ["bf16", "int8"]}],
    }  # fmt: skip
    regions = model.analysis.regions
    problem = build_problem(Space.model_validate(space), regions)
    assert {site.node for variable in problem.variables for site in variable.sites} == {"fc"}
    chosen = uniform_assignment(regions, "int8").as_dict()
    assert {key.partition("/")[0] for key in chosen} == {"fc"}
    note, rest = lower(model.analysis, {"batch": 1}).notes
    assert note.endswith("searches and --format leave as they are: first, second")
    assert rest.startswith("reads what was quantized before (Q/DQ), but multiplies no integers")
    assert rest.endswith(": fc")
    space["candidates"].insert(0, {"match": {"kind": "conv2d"}, "use": ["bf16"]})
    with pytest.raises(SpaceError, match="quantized already, left as they are: conv_1, conv_2"):
        build_problem(Space.model_validate(space), regions)
    draft = space_text(model, "q.onnx", Draft(data="x.npz", dims={"batch": 1}))
    assert "kind: conv2d" not in draft


def test_a_model_that_comes_quantized_as_a_whole_leaves_nothing_to_search(
    plain: Path, tmp_path: Path
) -> None:
    model = static(plain, tmp_path)
    with pytest.raises(GraphError, match="is quantized already"):
        space_text(model, "q.onnx", Draft())
    formats = ("int8", "fp32")
    usage = Usage(dims={"batch": 1})
    (found,) = predict(model.graph, ["ethos-u55"], formats, usage=usage)
    assert (found.format, found.native_share) == (AS_GIVEN, 1)


def test_an_assignment_that_names_them_replaces_the_formats(plain: Path, tmp_path: Path) -> None:
    model = static(plain, tmp_path)
    wide = Assignment.of(
        {f"{node}/in{at}": quantizer("bf16") for node in WEIGHTS for at in (0, 1)}
    )
    got = priced(model, "h100-sxm:onnxruntime", wide)
    assert got.native_share == 1
    assert got.cost.weight_bytes == 2 * sum(WEIGHTS.values()) + 4 * 16


def test_packed_weights_run_in_the_kernel_that_takes_their_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, depth, block = 128, 256, 32
    constants = {
        "w": rng.integers(0, 256, (rows, depth // block, block // 2), dtype=np.uint8),
        "s": rng.random((rows, depth // block)).astype(np.float16),
    }
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], name="narrow", domain="com.microsoft",
        K=depth, N=rows, bits=4, block_size=block,
    )  # fmt: skip
    floats = [
        onnx.helper.make_tensor_value_info(name, 10, [4, width])
        for name, width in (("x", depth), ("y", rows))
    ]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph([node], "packed", floats[:1], floats[1:], tensors)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx"
    )
    model = open_model(str(tmp_path / "m.onnx"))
    (found,) = predict(model.graph, ["h100-sxm:onnxruntime"], (), usage=Usage(dims={}))
    ((_, part),) = found.cost.parts
    assert part.status == "weight_only"
    assert found.cost.weight_bytes == rows * depth // 2 + 2 * rows * depth // block
    (note,) = found.remarks
    assert note.startswith("weights come quantized (weight int4_g32)")
    named = predict(model.graph, ["h100-sxm:onnxruntime"], ("int4_g32",), usage=Usage(dims={}))
    assert named[0].cost.weight_bytes == found.cost.weight_bytes
