"""The operators that ONNX Runtime makes of an export on a CPU are those that its runtime has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest

from dse.export import deliver
from dse.model import Model
from dse.space.load import parse_space
from dse.space.targeted import targeted_problem
from tests.export.litert import networks

SPACE = """
model: m
data: {source: d.npz}
targets: ["cpu-avx2:onnxruntime-cpu"]
candidates: [{use: [w8a8_int8_static]}]
"""
FLOATS = {"Gemm", "MatMul", "Add", "AveragePool"}


def fused(path: Path) -> Counter[str]:
    """The operators of a model once ONNX Runtime has optimised it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # that the file is for this machine alone
    options.optimized_model_filepath = str(path.with_suffix(".fused.onnx"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(
    ("make", "joined"), [(networks.mobile_net, 0), (networks.pre_activation, 2)]
)
def test_products_and_sums_of_a_search_are_integer_operators(
    make: Callable[[Path], Model], joined: int, tmp_path: Path
) -> None:
    """All but convolutions that a Concat joins: what is rounded is the result of that."""
    model = make(tmp_path)
    problem = targeted_problem(parse_space(SPACE, origin="s.yaml"), model.analysis, Path())
    recipe = networks.assigned(model, problem.assignment([0] * len(problem.variables)))
    deliver(recipe, "onnx-qdq", tmp_path / "q.onnx")
    before = Counter(node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node)
    found = fused(tmp_path / "q.onnx")
    assert found["QLinearConv"] == before["Conv"] - joined
    assert found["QLinearAdd"] == before["Add"] > 0
    assert found["QGemm"] + found["QLinearMatMul"] == before["Gemm"] + before["MatMul"]
    assert not FLOATS & found.keys()
