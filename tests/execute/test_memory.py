"""What a run needs is said before it starts, and mapped weights are read layer by layer."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from dse.errors import GraphError
from dse.execute import memory, pace, room
from dse.execute.memory import Caches, memory_need, shaped, with_kept
from dse.execute.pace import least_seconds
from dse.execute.room import room_for
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.formats.catalog import quantizer

LAYERS, WIDTH = 24, 1024
WEIGHTS = LAYERS * WIDTH * WIDTH * 4


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 products with 4 MiB weights each, in an external file."""
    path = tmp_path_factory.mktemp("deep") / "deep.onnx"
    weight = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / 32
    helper = onnx.helper
    kind = onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"], name=f"layer{i}")
        for i in range(LAYERS)
    ]
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("h0", kind, ["batch", WIDTH])],
        [helper.make_tensor_value_info(f"h{LAYERS}", kind, ["batch", WIDTH])],
        [onnx.numpy_helper.from_array(weight, f"w{i}") for i in range(LAYERS)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path, save_as_external_data=True, location="deep.bin")
    return path


def test_need_counts_mapped_weights_apart(deep: Path) -> None:
    graph = load(deep)
    need = memory_need(graph, shaped(graph, {"h0": (8, WIDTH)}))
    assert need.mapped_bytes == WEIGHTS
    assert need.weight_bytes == 0
    assert need.layer_bytes == WIDTH * WIDTH * 4
    assert need.activation_bytes == 2 * 8 * WIDTH * 4


def test_a_pass_is_timed_where_products_take_seconds(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_macs_a_second", lambda: 1e10)
    graph = load(deep)
    types = shaped(graph, {"h0": (8, WIDTH)})
    macs = LAYERS * 8 * WIDTH * WIDTH
    assert least_seconds(graph, types, 1000) == pytest.approx(1000 * macs / 1e10)
    assert least_seconds(graph, types, 100) == 0
    assert least_seconds(graph, {}, 1000) == 0


def test_what_does_not_fit_is_refused_with_both_numbers(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load(deep)
    need = memory_need(graph, shaped(graph, {"h0": (8, WIDTH)}))
    assert room_for(need, graph).caches == need.caches
    for module in (memory, room):
        monkeypatch.setattr(module, "available_bytes", lambda: 1_000_000)
    with pytest.raises(GraphError, match=r"will need about 0\.0043 GB.*has 0\.001 GB free"):
        room_for(need, graph)


def kept(deep: Path, *specs: str, budget: int = 1 << 30, biased: bool = False):
    """The need with caches, where each of these may stand at every weight."""
    graph = load(deep)
    by_key = Analysis(graph).by_key
    pairs = [
        (key, quantizer(spec))
        for key, site in by_key.items()
        for spec in specs
        if site.role == "weight"
    ]
    types = shaped(graph, {"h0": (8, WIDTH)})
    budgets = Caches(weight_bytes=budget, trace_bytes=budget)
    need = memory_need(graph, types)
    return graph, with_kept(
        need, graph, types, by_key, pairs, batches=3, budgets=budgets,
        biased=[key for key, _ in pairs] if biased else (),
    )  # fmt: skip


def test_caches_count_with_what_they_can_hold(deep: Path) -> None:
    """A copy of every weight a format, and every value of every batch, of two assignments."""
    _, need = kept(deep, "int8_channel", "int4_channel")
    assert need.caches.weight_bytes == 2 * WEIGHTS
    assert need.caches.trace_bytes == 2 * 3 * LAYERS * 8 * WIDTH * 4
    assert need.learned_bytes == 0
    assert "and up to 0.21 GB for caches" in str(need)


def test_caches_count_no_more_than_their_budgets(deep: Path) -> None:
    _, need = kept(deep, "int8_channel", budget=1000)
    assert need.caches == Caches(weight_bytes=1000, trace_bytes=1000)


def test_learned_roundings_must_fit(deep: Path) -> None:
    _, plain = kept(deep, "int4_channel")
    _, learned = kept(deep, "int4_channel:gptq")
    assert learned.total_bytes - plain.total_bytes == WEIGHTS


def test_weights_whose_outputs_get_their_strength_back_must_fit(deep: Path) -> None:
    for name, values in {"int4_channel": WEIGHTS, "int8_channel": 0, "mxfp4": 0}.items():
        _, need = kept(deep, name, biased=True)
        assert need.learned_bytes == values


def test_caches_shrink_to_what_is_left(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, need = kept(deep, "int8_channel")
    left = need.caches.bytes // 4
    monkeypatch.setattr(room, "available_bytes", lambda: need.total_bytes + left)
    granted = room_for(replace(need, copies_bytes=0), graph).caches
    assert left - 2 <= granted.bytes <= left
    shares = (
        granted.weight_bytes / need.caches.weight_bytes,
        granted.trace_bytes / need.caches.trace_bytes,
    )
    assert shares == pytest.approx((0.25, 0.25), rel=1e-3)


def test_weights_of_few_bits_count_as_they_are_read_and_as_floats(tmp_path: Path) -> None:
    """64 x 32 elements: a byte each, and four once they are dequantized."""
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[2, 64] x) => (float[2, 32] y) <float[64, 32] s> {
        w = DequantizeLinear <axis = 0, block_size = 1> (q, s)
        y = MatMul (x, w)
    }"""
    model = onnx.parser.parse_model(text)
    kind = onnx.TensorProto.UINT4
    for name, array in (("q", np.zeros(1024, np.uint8)), ("s", np.ones((64, 32), np.float32))):
        if name == "s":
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        else:
            model.graph.initializer.append(
                onnx.TensorProto(
                    name=name, data_type=kind, dims=[64, 32], raw_data=array.tobytes()
                )
            )
    onnx.save(model, tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    need = memory_need(graph, shaped(graph, {}))
    assert need.weight_bytes == 64 * 32 * (1 + 4)
    assert need.folded_bytes == 64 * 32 * 4


STREAM = """
import resource, sys
import torch
from dse.execute.emulate import Emulator
from dse.execute.program.program import Program
from dse.graph.onnx.load import load
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.catalog import quantizer

torch.set_num_threads(1)  # stacks of threads count as data
graph = load(sys.argv[1])
emulator = Emulator(quantizer=quantizer("int8_channel"), axes=(0,))
emulator(torch.ones(1024, 1024))  # compiles
lines = open("/proc/self/status").read().splitlines()
(used,) = [int(line.split()[1]) for line in lines if line.startswith("VmData:")]
resource.setrlimit(resource.RLIMIT_DATA, (1024 * used + int(sys.argv[2]),) * 2)
program = Program(graph, weight_cache_bytes=8 << 20)
sites = {f"{node.name}/in1": emulator for node in graph.nodes}
y = program.run({"h0": torch.ones(8, 1024)}, sites).outputs[graph.outputs[0]]
assert torch.isfinite(y).all()
"""


def test_a_model_larger_than_memory_runs_layer_by_layer(deep: Path) -> None:
    """Weights of 96 MiB run quantized where 48 MiB may be allocated."""
    command = [sys.executable, "-c", STREAM, str(deep), str(WEIGHTS // 2)]
    # What is freed goes back to the system at once: the limit is on what is mapped.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
