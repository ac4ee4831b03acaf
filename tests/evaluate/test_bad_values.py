"""Weights and shapes that a quantizer cannot like, through `dse evaluate` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from dse.cli.app import main

DEPTH = 200
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 200] x) => (float[N, 3] y) <float[200, 6] first, float[6] shift, float[6, 3] second> {
  a = MatMul(x, first)
  b = Add(a, shift)
  r = Relu(b)
  y = MatMul(r, second)
}
"""
FORMATS = ("int4_g128", "nvfp4", "int3_channel:gptq", "w4a16:discquant", "uint4_g64")
Spoil = Callable[[np.ndarray], None]


@pytest.fixture
def measure(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    """Loss and standard error of a format on the network with a spoiled first weight."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "d.npz",
        x=rng.standard_normal((40, DEPTH)).astype(np.float32),
        labels=rng.integers(3, size=40),
    )

    def run(format: str, spoil: Spoil | None = None) -> tuple[int, float, str]:
        model = onnx.parser.parse_model(TEXT)
        for name, shape in (("first", (DEPTH, 6)), ("shift", (6,)), ("second", (6, 3))):
            values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
            if spoil is not None and name == "first":
                spoil(values)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        onnx.save(model, tmp_path / "m.onnx")
        with pytest.raises(SystemExit) as end:
            main([
                "evaluate", str(tmp_path / "m.onnx"), "--format", format,
                "--data", str(tmp_path / "d.npz"), "--samples", "8", "--json",
            ])  # fmt: skip
        text = capsys.readouterr()
        rows = json.loads(text.out) if text.out else []
        loss = rows[0]["loss"] if rows else None
        return (
            int(end.value.code or 0),
            float("inf") if loss is None else float(loss),
            text.err + caplog.text,
        )

    return run


@pytest.mark.parametrize("format", FORMATS)
def test_groups_that_do_not_divide_or_exceed_the_axis_are_short_groups(format, measure):
    """Depth 200 in groups of 128 leaves 72, depth 6 is less than one."""
    code, loss, _ = measure(format)
    assert code == 0
    assert 0 < loss < 2


@pytest.mark.parametrize("format", FORMATS)
def test_blocks_of_zeros_stay_zero(format, measure):
    def zero(weight: np.ndarray) -> None:
        weight[:128] = 0
        weight[:, 2] = 0

    code, loss, _ = measure(format, zero)
    assert code == 0
    assert 0 < loss < 2


@pytest.mark.parametrize("format", ["int4_channel", "w4a16:gptq"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_without_a_value_is_named(bad, format, measure):
    """NaN leaves nothing to be close to; Inf leaves the samples on which ReLU cuts it off."""

    def spoil(weight: np.ndarray) -> None:
        weight[3, 1] = bad

    code, _, error = measure(format, spoil)
    assert "weights that hold NaN or Inf: first" in error
    assert code == (2 if np.isnan(bad) else 0)
    assert ("output y is NaN or infinite on every sample" in error) == (code == 2)
