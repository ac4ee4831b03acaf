"""What a run needs is said before it starts, and mapped weights are read layer by layer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from dse.errors import GraphError
from dse.execute import memory
from dse.execute.memory import checked, memory_need
from dse.graph.load import load

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
    need = memory_need(load(deep), {"h0": (8, WIDTH)})
    assert need.mapped_bytes == WEIGHTS
    assert need.weight_bytes == 0
    assert need.layer_bytes == WIDTH * WIDTH * 4
    assert need.activation_bytes == 2 * 8 * WIDTH * 4


def test_what_does_not_fit_is_refused_with_both_numbers(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load(deep)
    need = memory_need(graph, {"h0": (8, WIDTH)})
    assert checked(need, graph) is need
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)
    with pytest.raises(GraphError, match=r"will need about 0\.0043 GB.*has 0\.001 GB free"):
        checked(need, graph)


STREAM = """
import resource, sys
import torch
from dse.execute.emulate import Emulator
from dse.execute.program import Program
from dse.graph.load import load
from hwmodels.catalog import quantizer

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
