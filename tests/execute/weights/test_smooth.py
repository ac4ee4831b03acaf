"""Smoothing: ranges of activation channels that move into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dse.errors import AssignmentError
from dse.execute.program.program import Program
from dse.execute.quantizers import bound
from dse.execute.weights.calibrate import Calibration, observe
from dse.execute.weights.learn import WeightStates
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.formats.catalog import quantizer

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 8, 6, 6] x) => (float[N, 5] y, float[N, 5] z)
<float[12, 8, 3, 3] kernel, float[12, 1, 3, 3] each, float[12, 5] first, float[12, 5] second,
 int64[2] shape = {-1, 12}> {
  [conv] c = Conv <pads = [1, 1, 1, 1]> (x, kernel)
  [depthwise] d = Conv <group = 12> (c, each)
  p = GlobalAveragePool(d)
  f = Reshape(p, shape)
  [first] y = MatMul(f, first)
  [second] z = MatMul(f, second)
}
"""

SMOOTH = ("int8_channel:smooth", "int8:smooth")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Two convolutions, and two products that read one value."""
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (12, 8, 3, 3), "each": (12, 1, 3, 3), "first": (12, 5), "second": (12, 5)}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path: Path = tmp_path_factory.mktemp("smooth") / "m.onnx"
    onnx.save(model, path)
    return Program(load(path))


@pytest.fixture(scope="module")
def sites(network: Program) -> Mapping[str, Site]:
    return Analysis(network.graph).by_key


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, torch.Tensor]]:
    """One channel is forty times as large as the others."""
    x = torch.randn(16, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    x[:, 3] *= 40
    return [{"x": x}]


def run(network, sites, feeds, *, specs, nodes):
    """The outputs under quantizers at some nodes."""
    chosen = {f"{node}/in1": quantizer(specs[0]) for node in nodes}
    chosen |= {f"{node}/in0": quantizer(specs[1]) for node in nodes}
    observed = [sites[f"{node}/in0"] for node in nodes]
    calibration = observe(network, feeds, observed)
    states = WeightStates(network, sites, lambda: feeds)
    hooks = bound(Assignment.of(chosen), sites, calibration, states)
    return torch.cat(list(network.run(feeds[0], hooks).outputs.values())), hooks


@pytest.mark.parametrize("timing", ["", ":static"])
def test_smoothing_lowers_the_error_of_an_outlier_channel(timing, network, sites, feeds):
    reference = torch.cat(list(network.run(feeds[0]).outputs.values()))
    plain, smooth = (
        run(
            network,
            sites,
            feeds,
            specs=(f"int8_channel{word}", f"int8{timing}{word}"),
            nodes=["conv"],
        )[0]
        for word in ("", ":smooth(0.5)")
    )
    assert (smooth - reference).norm() < 0.4 * (plain - reference).norm()


def test_factors_cancel_between_the_operands(network, sites, feeds):
    """SmoothQuant, arXiv 2211.10438, equation 4: (X / s)(s W)."""
    _, hooks = run(network, sites, feeds, specs=SMOOTH, nodes=["conv"])
    left, right = (hooks[f"conv/{side}"].state.channel_factors for side in ("in0", "in1"))
    torch.testing.assert_close(left.repeat_interleave(9) * right, torch.ones(72))
    largest = feeds[0]["x"].abs().amax((0, 2, 3))
    weight = network.constant("kernel").abs().amax((0, 2, 3))
    torch.testing.assert_close(1 / left, (largest / weight).sqrt())


def test_products_of_one_value_share_their_factors(network, sites, feeds):
    specs = ("int8_channel:smooth", "int8:static:smooth")
    _, hooks = run(network, sites, feeds, specs=specs, nodes=["first", "second"])
    assert hooks["first/in0"] == hooks["second/in0"]
    assert hooks["first/in1"].state is not hooks["second/in1"].state


@pytest.mark.parametrize(
    ("key", "message"),
    [("depthwise/in0", "is a convolution in 12 groups"), ("conv/out0", "meets no weight")],
)
def test_what_cannot_be_smoothed_is_refused(key, message, network, sites, feeds):
    states = WeightStates(network, sites, lambda: feeds)
    assignment = Assignment.of({key: quantizer("int8:smooth")})
    with pytest.raises(AssignmentError, match=message):
        bound(assignment, sites, Calibration(statistics={}), states)
