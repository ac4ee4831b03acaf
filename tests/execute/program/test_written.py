"""One kernel for what exporters write out, whichever way the graph's patterns know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from dse.execute.program.program import Program
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from tests.execute.program.test_fusion import Identity
from tests.graph.patterns.test_patterns import ATTENTIONS, NORMS

SIZES = {"b": 2, "s": 6, "t": 6, "n": 5}
CAPPED = "capped scores in float16"
"""The kernel knows neither caps nor sums in float16: it would compute other numbers."""


@dataclass(frozen=True)
class Written:
    """A model with random inputs, a hidden row among them, and the other runtime's answer."""

    program: Program
    feeds: dict[str, Tensor]
    expected: Tensor


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Written]:
    def build(text: str) -> Written:
        source = f'<ir_version: 8, opset_import: ["": 17]> {text}'
        proto = onnx.parser.parse_model(source)
        path = tmp_path / "m.onnx"
        onnx.save(proto, path)
        graph = load(path)
        generator = torch.Generator().manual_seed(0)
        feeds = {name: _feed(graph.types[name], generator) for name in graph.inputs}
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {name: x.numpy() for name, x in feeds.items()})
        return Written(Program(graph), feeds, torch.from_numpy(np.asarray(expected)))

    return build


def _feed(kind: object, generator: torch.Generator) -> Tensor:
    shape = [SIZES[size] if isinstance(size, str) else size for size in kind.shape]  # type: ignore[attr-defined]
    x = torch.randn(shape, generator=generator)
    if kind.dtype == "bool":  # type: ignore[attr-defined]
        keep = x > 0
        keep[1] = False
        return keep
    return x.half() if kind.dtype == "float16" else x  # type: ignore[attr-defined]


def _agrees(model: Written, kernels: list[str], *, inside: str, absolute: float = 1e-5) -> None:
    """`inside` is a site at which a quantizer, which changes nothing, keeps the steps apart."""
    assert [fusion.step.what for fusion in model.program._planner.fusions] == kernels
    fused = model.program.run(model.feeds)
    apart = model.program.run(model.feeds, {inside: Identity()})
    for run in (fused, apart):
        torch.testing.assert_close(run.outputs["y"], model.expected, rtol=1e-4, atol=absolute)
    assert fused.macs == apart.macs


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_runs_as_one_kernel_however_it_is_written(
    name: str, written: Callable[[str], Written]
) -> None:
    model = written(ATTENTIONS[name])
    (attention,) = Analysis(model.program.graph).attentions
    kernels = [] if name == CAPPED else ["attention"]
    absolute = 2e-3 if name == CAPPED else 1e-5  # the other runtime rounds to float16 elsewhere
    _agrees(model, kernels, inside=f"{attention.scores.name}/out0", absolute=absolute)


TURNED = """g (float[b, s, 3, 8] q, float[t, b, 3, 8] k, float[b, 3, 5, t] v) => (y) {
    a = Einsum <equation = "bshd,tbhd->bhst"> (q, k)
    p = Softmax <axis = -1> (a)
    y = Einsum <equation = "bhst,bhet->bseh"> (p, v)
}"""


def test_products_of_turned_operands_run_as_one_kernel(written: Callable[[str], Written]) -> None:
    _agrees(written(TURNED), ["attention"], inside="Einsum_0/out0")


def test_a_sum_over_another_axis_than_the_softmax_is_no_attention(
    written: Callable[[str], Written],
) -> None:
    model = written(ATTENTIONS["einsum"].replace("bhst,bhtd->bhsd", "bhts,bhtd->bhsd"))
    _agrees(model, [], inside="Einsum_0/out0")


@pytest.mark.parametrize("name", [name for name in NORMS if name != "one operator"])
def test_a_norm_runs_as_one_kernel_however_it_is_written(
    name: str, written: Callable[[str], Written]
) -> None:
    kind, text = NORMS[name]
    text = text.replace("float[4] w = {1, 1, 1, 1}", "float[4] w = {1, 2, 0.5, -1}")
    text = text.replace("float[4] c = {0, 0, 0, 0}", "float[4] c = {1, 0, -1, 3}")
    kernels = [{"rmsnorm": "rms_norm", "layernorm": "layer_norm"}[kind]]
    model = written(text)
    mean = next(n for n in model.program.graph.nodes if n.op_type == "ReduceMean")
    _agrees(model, kernels, inside=f"{mean.name}/out0")


UNARY = "g (float[n, 4] x) => (y) <float one = {1}, float half = {0.5}, float c = {0.044715}, " \
        "float k = {0.7978845608}, float three = {3}, float root = {1.4142135624}, " \
        "float q = {1.702}> "  # fmt: skip
ACTIVATIONS = {
    "silu": (["silu"], "{ s = Sigmoid(x) y = Mul(x, s) }"),
    "gelu": (["gelu"],
        "{ d = Div(x, root) e = Erf(d) a = Add(one, e) m = Mul(x, a) y = Mul(m, half) }"),
    "gelu, half first": (["gelu"],
        "{ d = Div(x, root) e = Erf(d) a = Add(e, one) h = Mul(half, x) y = Mul(h, a) }"),
    "gelu by tanh": (["gelu_tanh"], """{
        h = Mul(x, half) p = Pow(x, three) u = Mul(p, c) a = Add(x, u) z = Mul(a, k) t = Tanh(z)
        o = Add(t, one) y = Mul(h, o) }"""),
    "a gelu of other numbers": ([], """{
        d = Mul(x, half) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half) }"""),
    "quick gelu": ([], "{ z = Mul(x, q) s = Sigmoid(z) y = Mul(x, s) }"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_runs_as_the_kernel_that_computes_the_same(
    name: str, written: Callable[[str], Written]
) -> None:
    kernels, body = ACTIVATIONS[name]
    model = written(UNARY + body)
    _agrees(model, kernels, inside=f"{model.program.graph.nodes[-2].name}/out0")
