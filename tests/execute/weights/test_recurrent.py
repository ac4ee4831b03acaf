"""Weights of recurrences have inputs too: the layer's own, and the states that it puts out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.emulate import emulators
from dse.execute.program.program import Program
from dse.execute.weights.calibrate import Calibration
from dse.execute.weights.learn import WeightStates
from dse.execute.weights.moments import observe_moments
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.formats.catalog import quantizer

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[S, B, 12] x) => (float[S, 2, B, 16] y, float[S, 1, B, 8] z, float[1, B, 4] end)
<float[2, 64, 12] w0, float[2, 64, 16] r0, float[1, 24, 12] w1, float[1, 24, 8] r1,
 float[1, 4, 12] w2, float[1, 4, 4] r2> {
  [lstm] y = LSTM <hidden_size = 16, direction = "bidirectional"> (x, w0, r0)
  [gru] z = GRU <hidden_size = 8> (x, w1, r1)
  [rnn] o, end = RNN <hidden_size = 4> (x, w2, r2)
}
"""
SIZES = {"w0": (2, 64, 12), "r0": (2, 64, 16), "w1": (1, 24, 12), "r1": (1, 24, 8),
         "w2": (1, 4, 12), "r2": (1, 4, 4)}  # fmt: skip
WEIGHTS = ("lstm/in1", "lstm/in2", "gru/in1", "gru/in2", "rnn/in1")


def _batches() -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.1, 4, 12)  # inputs of unequal size: the layer's error is not MSE
    for _ in range(3):
        yield {"x": torch.randn(7, 4, 12, generator=generator) * spread}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> WeightStates:
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in SIZES.items():
        values = rng.standard_t(4, shape).astype(np.float32) / 4
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    rnn = next(node for node in model.graph.node if node.op_type == "RNN")
    rnn.output[0] = ""  # only the last state is wanted
    path = tmp_path_factory.mktemp("recurrent") / "m.onnx"
    onnx.save(model, path)
    graph = load(path)
    return WeightStates(Program(graph), Analysis(graph).by_key, _batches)


def _error(states: WeightStates, key: str, name: str) -> float:
    """Mean squared error of what the quantized weight multiplies, from the rows themselves."""
    product = states.product(key)
    assert product is not None
    program, sites = states._program, states._sites
    weight = program.constant(sites[key].value)
    assert weight is not None
    assignment = Assignment.of({key: quantizer(name)})
    states.prepare(assignment)
    emulate = emulators(assignment, sites, Calibration(statistics={}), states)[key]
    seen: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x

    with torch.inference_mode():
        for feeds in _batches():
            program.run(feeds, {product.activation: keep})
    rows = torch.cat([product.rows(x) for x in seen], 1)
    wrong = product.matrix(emulate(weight) - weight)
    return float((rows @ wrong.mT).square().mean())


@pytest.mark.parametrize("key", WEIGHTS)
@pytest.mark.parametrize("name", ["int4", "int4_channel", "int4_g32", "int3_channel"])
def test_default_ranges_err_less_than_the_whole_range(
    states: WeightStates, key: str, name: str
) -> None:
    chosen, whole = _error(states, key, name), _error(states, key, f"{name}:absmax:uncorrected")
    assert chosen <= whole * (1 + 1e-6)


def test_default_ranges_err_less_over_all(states: WeightStates) -> None:
    gains = [
        _error(states, key, "int4_channel")
        / _error(states, key, "int4_channel:absmax:uncorrected")
        for key in WEIGHTS
    ]
    assert np.mean(gains) < 0.9


@pytest.mark.parametrize("key", WEIGHTS[:4])
def test_learned_roundings_err_less_than_nearest(states: WeightStates, key: str) -> None:
    nearest = _error(states, key, "int4_channel:absmax:uncorrected")
    assert _error(states, key, "int4_channel:absmax:uncorrected:gptq") < nearest


def test_moments_are_those_of_the_rows(states: WeightStates) -> None:
    product = states.product("lstm/in2")
    assert product is not None
    operand = frozenset({product.operand})
    found, _ = observe_moments(states._program, _batches(), [product], second=operand)
    with torch.inference_mode():
        outputs = [states._program.run(feeds).outputs["y"] for feeds in _batches()]
    rows = torch.cat([x.permute(1, 0, 2, 3).reshape(2, -1, 16) for x in outputs], 1).double()
    expected = rows.mT @ rows / rows.shape[1]
    torch.testing.assert_close(
        found[product.operand].second(centred=False), expected, rtol=1e-5, atol=1e-6
    )


def test_states_that_no_output_shows_leave_the_whole_range(states: WeightStates) -> None:
    assert states.product("rnn/in2") is None
    for name in ("int4_channel", "int4_channel:absmax:uncorrected"):
        assignment = Assignment.of({"rnn/in2": quantizer(name)})
        states.prepare(assignment)
        found = emulators(assignment, states._sites, Calibration(statistics={}), states)
        assert found["rnn/in2"].quantizer.statistic == "absmax"
    with pytest.raises(AssignmentError, match="states are an output"):
        states.prepare(Assignment.of({"rnn/in2": quantizer("int4_channel:gptq")}))


@pytest.mark.parametrize("words", ["bias_corrected", "smooth(0.5)", "equalize"])
def test_what_moves_outputs_or_channels_is_refused(states: WeightStates, words: str) -> None:
    with pytest.raises(AssignmentError, match="lstm/in1"):
        states.prepare(Assignment.of({"lstm/in1": quantizer(f"int4_channel:{words}")}))
