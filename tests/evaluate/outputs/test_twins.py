"""One network written in every way that exporters write an output has one loss.

The full-precision outputs are ONNX Runtime's, the losses numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser
from scipy.special import softmax
from scipy.stats import entropy

from dse.errors import DataError
from dse.evaluate.model import Evaluation, evaluate_model
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data, QualityOf
from dse.space.uniform import uniform_assignment

SAMPLES, DEPTH, CLASSES = 32, 32, 6
TRUNK = "a = MatMul(x, w1) h = Relu(a) z = MatMul(h, w2)"
Twin = tuple[str, str]
"""Declared outputs and the nodes after the logits."""

WRITTEN: dict[str, Twin] = {
    "logits": ("float[N, 6] y", "y = Identity(z)"),
    "softmax": ("float[N, 6] y", "y = Softmax(z)"),
    "softmax of 16 bits": ("float[N, 6] y", "p = Softmax(z) q = Cast<to=10>(p) y = Cast<to=1>(q)"),
    "log_softmax": ("float[N, 6] y", "y = LogSoftmax<axis=1>(z)"),
    "log of softmax": ("float[N, 6] y", "p = Softmax(z) y = Log(p)"),
    "written out": (
        "float[N, 6] y",
        "m = ReduceMax<axes=[1]>(z) c = Sub(z, m) e = Exp(c) s = ReduceSum(e, axis) y = Div(e, s)",
    ),
    "argmax": ("int64[N] y", "y = ArgMax<axis=1, keepdims=0>(z)"),
    "argmax of softmax": ("int64[N, 1] y", "p = Softmax(z) y = ArgMax<axis=1>(p)"),
    "name of the argmax": (
        "int64[N, 1] y",
        "k = ArgMax<axis=1>(z) y = Gather<axis=0>(names, k)",
    ),
    "argmax as float": ("float[N, 1] y", "k = ArgMax<axis=1>(z) y = Cast<to=1>(k)"),
    "top": ("float[N, 2] y, int64[N, 2] i", "y, i = TopK(z, two)"),
    "both": ("float[N, 6] y, int64[N] k", "y = Softmax(z) k = ArgMax<axis=1, keepdims=0>(z)"),
    "logits beside": ("float[N, 6] z, float[N, 6] y", "y = Softmax(z)"),
    "twice": ("float[N, 6] y, float[N, 6] u", "y = Softmax(z) v = Add(z, zero) u = Softmax(v)"),
    "masked": (
        "float[N, 7] y",
        "n = Shape<start=0, end=1>(z) t = Concat<axis=0>(n, axis) l = Expand(lost, t) "
        "v = Concat<axis=1>(z, l) y = Identity(v)",
    ),
}


def _weights(outputs: int = CLASSES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "w1": rng.standard_normal((DEPTH, 48)).astype(np.float32) / 4,
        "w2": rng.standard_normal((48, outputs)).astype(np.float32) / 2,
        "axis": np.array([1]),
        "two": np.array([2]),
        "names": np.arange(CLASSES)[::-1].copy(),
        "zero": np.array([0], np.float32),
        "lost": np.full((1, 1), -np.inf, np.float32),
    }


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., Evaluation]:
    """Quality of a format on the trunk with some outputs and some labels."""

    def run(
        twin: Twin,
        *,
        labels: np.ndarray | None = None,
        weights: dict[str, np.ndarray] | None = None,
        format: str = "int4_channel:absmax",
        quality: QualityOf | None = None,
        opset: int = 17,
        trunk: str = TRUNK,
    ) -> Evaluation:
        outputs, tail = twin
        text = (
            f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[N, {DEPTH}] x) => '
            f"({outputs}) {{ {trunk} {tail} }}"
        )
        model = parser.parse_model(text)
        for name, values in (weights or _weights()).items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        path = tmp_path / "m.onnx"
        onnx.save(model, path)
        x = np.random.default_rng(1).standard_normal((SAMPLES, DEPTH)).astype(np.float32)
        np.savez(tmp_path / "d.npz", x=x, **({} if labels is None else {"labels": labels}))  # type: ignore[arg-type]
        graph = load(path)
        data = Data(source=str(tmp_path / "d.npz"), report=24)
        analysis = Analysis(graph)
        chosen = uniform_assignment(analysis.regions, format)
        return evaluate_model(analysis, chosen, data, quality=quality or QualityOf())

    return run


def _labels() -> np.ndarray:
    return np.random.default_rng(2).integers(0, CLASSES, SAMPLES)


@pytest.mark.parametrize("name", WRITTEN)
def test_every_twin_has_the_loss_of_the_logits(evaluate, name: str) -> None:
    expected = evaluate(WRITTEN["logits"], labels=_labels())
    found = evaluate(WRITTEN[name], labels=_labels())
    tolerance = 2e-2 if name == "softmax of 16 bits" else 1e-5
    assert expected.quantized.loss > 1e-3
    assert found.quantized.loss == pytest.approx(expected.quantized.loss, rel=tolerance)
    assert found.quantized.flip_rate == expected.quantized.flip_rate
    assert found.reference.metric == expected.reference.metric
    assert found.constant.loss == pytest.approx(expected.constant.loss, rel=1e-4)


def test_softmax_of_an_early_opset_normalises_all_later_axes(evaluate) -> None:
    expected = evaluate(WRITTEN["logits"], labels=_labels())
    found = evaluate(WRITTEN["softmax"], labels=_labels(), opset=11)
    assert found.quantized.loss == pytest.approx(expected.quantized.loss, rel=1e-6)


def test_the_loss_is_that_of_onnx_runtimes_outputs(evaluate, tmp_path: Path) -> None:
    """bf16 operands are rounded by ml_dtypes, the rest is ONNX Runtime and scipy."""
    import ml_dtypes  # noqa: PLC0415

    found = evaluate(WRITTEN["softmax"], format="bf16")
    model = onnx.load(tmp_path / "m.onnx")
    x = np.load(tmp_path / "d.npz")["x"]
    run = onnxruntime.InferenceSession(tmp_path / "m.onnx").run
    p = run(None, {"x": x})[0]

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(ml_dtypes.bfloat16).astype(np.float32)

    w = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    # The operands of products are of 16 bits; their results are float32, the logits included.
    hidden = np.maximum(rounded(x) @ rounded(w["w1"]), 0)
    q = softmax(rounded(hidden) @ rounded(w["w2"]), -1)
    measured = np.sort(np.random.default_rng(0).permutation(SAMPLES)[:24])
    expected = entropy(p.astype(np.float64), q.astype(np.float64), axis=1)[measured].mean()
    assert found.quantized.loss == pytest.approx(expected, rel=1e-3)


BINARY: dict[str, Twin] = {
    "sigmoid": ("float[N, 1] y", "y = Sigmoid(z)"),
    "flat sigmoid": ("float[N] y", "p = Sigmoid(z) y = Squeeze(p, axis)"),
    "sigmoid written out": (
        "float[N, 1] y", "n = Neg(z) e = Exp(n) s = Add(e, unit) y = Div(unit, s)",
    ),
    "decided": ("bool[N, 1] y", "p = Sigmoid(z) y = Greater(p, half)"),
    "logit": ("float[N, 1] y", "y = Identity(z)"),
    "two classes": ("float[N, 2] y", "n = Mul(z, zero) v = Concat<axis=1>(n, z) y = Softmax(v)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
def test_one_logit_is_two_classes(evaluate, name: str) -> None:
    weights = {
        **_weights(1), "unit": np.array([[1]], np.float32), "half": np.array([[0.5]], np.float32),
    }  # fmt: skip
    labels = np.random.default_rng(2).integers(0, 2, SAMPLES)
    expected = evaluate(BINARY["two classes"], labels=labels, weights=weights)
    found = evaluate(BINARY[name], labels=labels, weights=weights)
    assert expected.quantized.loss > 1e-3
    assert found.quantized.loss == pytest.approx(expected.quantized.loss, rel=1e-4)
    assert found.reference.metric == expected.reference.metric
    assert found.task.metric == "accuracy"
    if "sigmoid" in name and "out" not in name:
        alone = evaluate(BINARY[name], weights=weights)
        assert alone.quantized.loss == pytest.approx(expected.quantized.loss, rel=1e-6)


def test_one_number_is_a_regression_until_somebody_says_more(evaluate, caplog) -> None:
    twin = ("float[N] y", "y = Squeeze(z, axis)")
    found = evaluate(twin, weights=_weights(1))
    assert found.task.outputs[0].kind == "regression"
    assert "output y: taken for regression" in caplog.text
    said = evaluate(twin, weights=_weights(1), quality=QualityOf(kind="binary"))
    expected = evaluate(BINARY["sigmoid"], weights=_weights(1))
    assert said.quantized.loss == pytest.approx(expected.quantized.loss, rel=1e-6)
    named = evaluate(("float[N] logit", "logit = Squeeze(z, axis)"), weights=_weights(1))
    assert named.quantized.loss == said.quantized.loss


def test_what_the_user_says_wins(evaluate) -> None:
    probabilities = WRITTEN["softmax"]
    as_is = evaluate(probabilities, quality=QualityOf(kind="regression"))
    assert as_is.task.outputs[0].value == "y"
    assert math.isnan(as_is.quantized.flip_rate)
    logits = evaluate(WRITTEN["logits"], quality=QualityOf(kinds={"y": "logits"}))
    assert logits.quantized.loss == pytest.approx(evaluate(probabilities).quantized.loss, rel=1e-6)


HEADS = "y = Softmax(z) b = MatMul(h, w3) c = Relu(b) boxes = MatMul(c, w4)"


def _heads() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    more = {"w3": (48, 40), "w4": (40, 4)}
    return _weights() | {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in more.items()
    }


def test_all_outputs_count_by_their_weights(evaluate) -> None:
    twin = ("float[N, 6] y, float[N, 4] boxes", HEADS)

    def loss(**said: object) -> float:
        quality = QualityOf.model_validate(said)
        return evaluate(twin, weights=_heads(), quality=quality, labels=_labels()).quantized.loss

    classes, boxes = loss(output="y"), loss(output="boxes")
    assert classes != pytest.approx(boxes, rel=0.1)
    assert loss() == pytest.approx((classes + boxes) / 2, rel=1e-5)
    assert loss(weights={"y": 3}) == pytest.approx((3 * classes + boxes) / 4, rel=1e-5)
    assert loss(weights={"boxes": 0}) == pytest.approx(classes, rel=1e-6)


def test_labels_belong_to_the_output_that_is_a_distribution(evaluate) -> None:
    """A bare output of the same width in front of it does not take them."""
    twin = ("float[N, 6] e, float[N, 6] y", "e = MatMul(h, w2) y = Softmax(z)")
    task = evaluate(twin, labels=_labels()).task
    assert {one.name: one.kind for one in task.outputs} == {"e": "regression", "y": "logits"}
    assert task.labelled == "y"


def test_layers_that_no_measured_output_reaches_are_named(evaluate, caplog) -> None:
    twin = ("float[N, 6] y, float[N, 4] boxes", HEADS)
    evaluate(twin, weights=_heads(), quality=QualityOf(output="y"))
    assert "no measured output is reached from MatMul_" in caplog.text
    caplog.clear()
    evaluate(twin, weights=_heads())
    assert "no measured output is reached" not in caplog.text


def test_ruin_is_said(evaluate) -> None:
    assert "nothing of the network is left" in evaluate(
        WRITTEN["softmax"], labels=_labels(), format="int2"
    ).verdict  # fmt: skip
    assert evaluate(WRITTEN["softmax"], labels=_labels(), format="bf16").verdict == ""


def test_a_network_that_answers_the_same_to_everything_is_said(evaluate) -> None:
    weights = _weights() | {"w1": np.zeros((DEPTH, 48), np.float32)}
    found = evaluate(WRITTEN["softmax"], weights=weights)
    assert found.quantized.loss == pytest.approx(0, abs=1e-9)
    assert "answers the same to every sample" in found.verdict


PASSED_ON: dict[str, Twin] = {
    "an input": ("float[N, 6] y, float[N, 32] u", "y = Softmax(z) u = Identity(x)"),
    "a constant": ("float[N, 6] y, float[1] u", "y = Softmax(z) u = Identity(zero)"),
}


@pytest.mark.parametrize("name", PASSED_ON)
def test_outputs_that_no_format_reaches_dilute_no_loss(evaluate, name: str) -> None:
    found = evaluate(PASSED_ON[name])
    assert found.quantized.loss == evaluate(WRITTEN["softmax"]).quantized.loss
    assert "output u is not counted: no number format reaches it" in found.task.notes


def test_labels_beyond_the_classes_are_refused(evaluate) -> None:
    with pytest.raises(DataError, match=r"largest is 6, but output y has 6 classes \(0\.\.5\)"):
        evaluate(WRITTEN["logits"], labels=np.full(SAMPLES, 6))


def test_labels_that_leave_every_position_out_are_refused(evaluate) -> None:
    with pytest.raises(DataError, match=r"labels: all \d+ are negative.*output y"):
        evaluate(WRITTEN["logits"], labels=np.full(SAMPLES, -1))


def test_an_unknown_output_is_refused(evaluate) -> None:
    with pytest.raises(DataError, match=r"no output 'yy'; did you mean 'y'"):
        evaluate(WRITTEN["logits"], quality=QualityOf(output="yy"))


def test_what_comes_after_the_scores_is_not_run(evaluate) -> None:
    """A detector is scored at its boxes and scores; the choice among them needs no executor."""
    tail = (
        "b0 = MatMul(h, w3) b1 = MatMul(b0, w4) boxes = Unsqueeze(b1, axis) "
        "s = Unsqueeze(z, two) sel = NonMaxSuppression(boxes, s)"
    )
    twin = ("int64[found, 3] sel", tail)
    found = evaluate(twin, weights=_heads())
    assert {output.value for output in found.task.outputs} == {"boxes", "s"}
    assert found.quantized.loss > 0
