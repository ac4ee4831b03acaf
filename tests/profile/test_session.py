"""Operators of ONNX Runtime in a profile: graphs that compute them, rows that name it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dse.profile.clock import Repeats
from dse.profile.onnx_graph import BUILDERS, graph_of
from dse.profile.plan import ONNX_RUNTIME, PROCESSOR, Operator
from dse.profile.processor_plan import MOST_WORK, drawn_shapes, processor_plan
from dse.profile.run import profile
from dse.profile.size import work_size
from hwmodels.operators.optable import read_optable

ort = pytest.importorskip("onnxruntime")

SHAPES = {
    "gemm": {"M": 3, "K": 32, "N": 16},
    "bmm": {"B": 2, "M": 3, "K": 8, "N": 4},
    "conv2d": {"N": 1, "C": 16, "H": 8, "W": 8, "O": 16, "k": 3, "stride": 1, "groups": 1},
}
ROWS = {"rows": 4, "cols": 32}
SHORT = Repeats(replays=1, replay_s=1e-4, cold_bytes=2**20, energy_s=0)


def _operator(op: str, dtype: str) -> Operator:
    return Operator.of(op, SHAPES.get(op, ROWS), dtype, ONNX_RUNTIME)


@pytest.mark.parametrize(("op", "dtype"), list(BUILDERS))
def test_every_copy_of_an_operator_is_executed(op: str, dtype: str) -> None:
    """As many nodes as copies, in a graph that runs."""
    graph = graph_of(_operator(op, dtype), 5)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.model(), options, providers=["CPUExecutionProvider"])
    kind = next(node.op_type for node in graph.nodes)
    assert sum(node.op_type == kind for node in graph.nodes) == 5
    (found,) = session.run(None, graph.feeds)
    assert np.isfinite(np.asarray(found, dtype=np.float64)).all()


def test_a_product_s_graph_computes_it() -> None:
    graph = graph_of(_operator("gemm", "fp32"), 2)
    session = ort.InferenceSession(graph.model(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, graph.feeds)
    wanted = [float(graph.feeds["x"][0] @ graph.constants[f"w{i}"][:, 0]) for i in range(2)]
    assert found.ravel() == pytest.approx(wanted, rel=1e-4)


def test_a_profile_has_rows_of_both_runtimes(tmp_path: Path) -> None:
    shape = SHAPES["gemm"]
    wanted = [Operator.of("gemm", shape, "fp32", name) for name in (PROCESSOR, ONNX_RUNTIME)]
    done = profile(
        wanted, tmp_path / "ops.csv", device_name="mine", device=torch.device("cpu"),
        seconds=60, repeats=SHORT,
    )  # fmt: skip
    assert (done.measured, done.refused) == (2, ())
    frame = read_optable(tmp_path / "ops.csv", timed=True).frame
    assert list(frame["runtime"]) == [PROCESSOR, ONNX_RUNTIME]
    assert [text.split()[0] for text in frame["software"]] == ["torch", "onnxruntime"]


def test_an_operator_without_a_kernel_is_refused_by_name(tmp_path: Path) -> None:
    wanted = [Operator.of("gemm", SHAPES["gemm"], "bf16", ONNX_RUNTIME)]
    done = profile(
        wanted, tmp_path / "ops.csv", device_name="mine", device=torch.device("cpu"),
        seconds=60, repeats=SHORT,
    )  # fmt: skip
    assert [what for what, _ in done.refused] == ["gemm bf16 onnxruntime-cpu"]


def test_the_plan_of_a_processor_is_short_and_covers_both_runtimes() -> None:
    plan = processor_plan()
    assert {one.runtime for one in plan} == {PROCESSOR, ONNX_RUNTIME}
    assert max(map(work_size, plan)) <= MOST_WORK
    convolutions = [dict(shape) for shape in drawn_shapes("conv2d", 0)]
    assert {shape["C"] for shape in convolutions} & {1, 3, 4}
    assert any(shape["groups"] == shape["C"] > 1 for shape in convolutions)
    assert any(shape["M"] == 1 for shape in drawn_shapes("gemm", 0))
