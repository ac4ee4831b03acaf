"""Quantizers in the bodies of control flow: the same numbers as in a graph without any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dse.execute.emulate import emulators
from dse.execute.program.program import Program
from dse.execute.weights.calibrate import observe
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from hwmodels.formats import catalog

Open = Callable[[str], Program]
HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'
WEIGHTS = "<float[16, 16] w, int64 times = {3}, bool go = {1}>"

BRANCH = f"""
g (float[4, 16] x, bool use) => (float[4, 16] y) {WEIGHTS}
{{
    [pick] y = If (use) <
        then_branch = t () => (float[4, 16] p) {{ [fc] m = MatMul (x, w)  p = Tanh (m) }},
        else_branch = e () => (float[4, 16] p) {{ p = Identity (x) }}
    >
}}
"""
LOOP = f"""
g (float[4, 16] x) => (float[4, 16] y) {WEIGHTS}
{{
    [turns] y = Loop (times, go, x) <
        body = b (int64 i, bool on, float[4, 16] s) => (bool on2, float[4, 16] r) {{
            on2 = Identity (on)
            wt = Transpose <perm = [1, 0]> (w)
            [fc] m = MatMul (s, wt)
            r = Tanh (m)
        }}
    >
}}
"""
STRAIGHT = f"""
g (float[4, 16] x) => (float[4, 16] y) {WEIGHTS}
{{
    wt = Transpose <perm = [1, 0]> (w)
    [fc0] a = MatMul (x, wt)  b = Tanh (a)
    [fc1] c = MatMul (b, wt)  d = Tanh (c)
    [fc2] e = MatMul (d, wt)  y = Tanh (e)
}}
"""


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def program(text: str) -> Program:
        model = onnx.parser.parse_model(HEADER + text)
        data = np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32) / 4
        del model.graph.value_info[:]
        model.graph.initializer.append(onnx.numpy_helper.from_array(data, "w"))
        onnx.save(model, tmp_path / "model.onnx")
        return Program(load(tmp_path / "model.onnx"))

    return program


def feeds(**others: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), **others}


def quantized(program: Program, prefix: str, name: str, data: dict[str, torch.Tensor]):
    sites = program.analysis.by_key
    keys = [key for key in sites if key.startswith(prefix) and "/in" in key]
    assignment = Assignment.of({key: catalog.quantizer(name) for key in keys})
    calibration = observe(program, [data], [sites[key] for key in keys])
    return emulators(assignment, sites, calibration)


@pytest.mark.parametrize("name", ["int4", "e4m3", "bf16"])
def test_a_loop_runs_its_quantizers_in_every_iteration(opened: Open, name: str) -> None:
    loop = opened(LOOP)
    found = loop.run(feeds(), quantized(loop, "turns/body/fc", name, feeds())).outputs["y"]
    straight = opened(STRAIGHT)
    sites = quantized(straight, "fc", name, feeds())
    # One site in the loop has one range, that of all iterations.
    shared = quantized(loop, "turns/body/fc", name, feeds())
    sites = {key: shared[f"turns/body/fc/{key.rpartition('/')[2]}"] for key in sites}
    assert torch.equal(found, straight.run(feeds(), sites).outputs["y"])
    assert not torch.equal(found, loop.run(feeds()).outputs["y"])


def test_a_branch_runs_its_quantizers_when_it_is_taken(opened: Open) -> None:
    program = opened(BRANCH)
    taken, other = feeds(use=torch.tensor(True)), feeds(use=torch.tensor(False))
    bound = quantized(program, "pick/then_branch/fc", "int4", taken)
    assert not torch.equal(program.run(taken, bound).outputs["y"], program.run(taken).outputs["y"])
    assert torch.equal(program.run(other, bound).outputs["y"], other["x"])


def test_a_rerun_sees_a_change_inside_of_a_body(opened: Open) -> None:
    program = opened(LOOP)
    bound = quantized(program, "turns/body/fc", "int4", feeds())
    trace = program.trace(feeds())
    assert torch.equal(
        program.rerun(trace, bound).outputs["y"], program.run(feeds(), bound).outputs["y"]
    )


def test_full_precision_is_that_of_onnx_runtime(opened: Open) -> None:
    program = opened(LOOP)
    assert program.graph.path is not None
    session = onnxruntime.InferenceSession(program.graph.path)
    (expected,) = session.run(None, {"x": feeds()["x"].numpy()})
    np.testing.assert_allclose(program.run(feeds()).outputs["y"].numpy(), expected, rtol=1e-5)
