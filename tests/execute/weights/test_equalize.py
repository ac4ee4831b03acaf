"""Cross-layer equalisation: emulated values are those of the network with folded factors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dse.errors import AssignmentError
from dse.execute.program.program import Program
from dse.execute.quantizers import bound
from dse.execute.weights.calibrate import observe
from dse.execute.weights.learn import WeightStates
from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.numerics import QuantizeError
from hwmodels.formats.catalog import quantizer

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 8, 8] x) => (float[N, 5] y) <SIZES> {
  [first] a = Conv <pads = [1, 1, 1, 1]> (x, w_first, b_first)
  ra = Relu (a)
  [each] b = Conv <group = 8, pads = [1, 1, 1, 1]> (ra, w_each, b_each)
  rb = Relu (b)
  [point] c = Conv (rb, w_point, b_point)
  [six] rc = Clip (c, zero, top)
  [wide] d = Conv (rc, w_wide)
  [shift] e = Add (d, bias)
  rd = LeakyRelu <alpha = 0.2> (e)
  p = GlobalAveragePool (rd)
  f = Flatten (p)
  [hidden] h = MatMul (f, w_hidden)
  [gelu] k = Sigmoid (h)
  [head] y = Gemm <transB = 1> (k, w_head)
}
"""
SIZES = {
    "w_first": (8, 3, 3, 3), "b_first": (8,), "w_each": (8, 1, 3, 3), "b_each": (8,),
    "w_point": (12, 8, 1, 1), "b_point": (12,), "w_wide": (6, 12, 1, 1), "bias": (1, 6, 1, 1),
    "w_hidden": (6, 7), "w_head": (5, 7), "zero": (), "top": (),
}  # fmt: skip
PAIRED = ("first", "each", "point", "wide", "hidden")
FOLDED = {
    "each": (("w_first", 0), ("b_first", 0), ("w_each", 0)),
    "point": (("w_each", 0), ("b_each", 0), ("w_point", 1)),
    "hidden": (("w_wide", 0), ("bias", 1), ("w_hidden", 0)),
}
"""By the weight that a pair ends with: what its factors divide, twice, and what they multiply."""


def scaled(values: dict[str, np.ndarray], node: str, scale: np.ndarray) -> None:
    """Divides what makes the channels before a node and multiplies what reads them, in place."""
    *divided, multiplied = FOLDED[node]
    for name, axis in divided:
        values[name] = values[name] / along(scale, axis, values[name].ndim)
    name, axis = multiplied
    values[name] = values[name] * along(scale, axis, values[name].ndim)


def along(scale: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Factors in a shape that broadcasts along one axis."""
    return scale.reshape([-1 if at == axis else 1 for at in range(rank)])


def constants() -> dict[str, np.ndarray]:
    """Random weights between which channels are scaled by up to two orders of magnitude."""
    rng = np.random.default_rng(0)
    found = {name: rng.standard_normal(size).astype(np.float32) for name, size in SIZES.items()}
    found["zero"], found["top"] = np.array(0, np.float32), np.array(6, np.float32)
    for node, (_, (shift, _), _) in FOLDED.items():
        channels = found[shift].size
        scaled(found, node, 10 ** rng.uniform(-1, 1, channels).astype(np.float32))
    return found


def program(folder: Path, values: dict[str, np.ndarray]) -> Program:
    """The network with these constants."""
    model = onnx.parser.parse_model(TEXT.replace("<SIZES>", ""))
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()
    )
    onnx.save(model, folder / "m.onnx")
    return Program(load(folder / "m.onnx"))


@pytest.fixture
def network(tmp_path: Path) -> Program:
    return program(tmp_path, constants())


def feeds() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


def emulated(network: Program, weight: str, activation: str | None, nodes=PAIRED):
    """The output with one quantizer at the weights of some nodes, and what stands at sites."""
    sites = Analysis(network.graph).by_key
    chosen = {f"{node}/in1": quantizer(weight) for node in nodes}
    if activation is not None:
        chosen |= {f"{node}/in0": quantizer(activation) for node in nodes}
    calibration = observe(network, [feeds()], [sites[f"{node}/in0"] for node in nodes])
    states = WeightStates(network, sites, lambda: [feeds()])
    hooks = bound(Assignment.of(chosen), sites, calibration, states)
    return network.run(feeds(), hooks).outputs["y"], hooks


def folded(hooks) -> dict[str, np.ndarray]:
    """The constants with the emulated factors folded in."""
    values = constants()
    for node in FOLDED:
        scaled(values, node, 1 / hooks[f"{node}/in0"].state.channel_factors.numpy())
    return values


def test_folding_changes_nothing_in_float_and_evens_the_ranges(network, tmp_path):
    """Nagel et al., equation 11: after it both weights of a pair have the same channel ranges."""
    plain = network.run(feeds()).outputs["y"]
    _, hooks = emulated(network, "int8:equalize", "int8:static")
    values = folded(hooks)
    torch.testing.assert_close(program(tmp_path, values).run(feeds()).outputs["y"], plain)
    made = np.abs(values["w_first"]).max((1, 2, 3))
    read = np.abs(values["w_each"]).max((1, 2, 3))
    np.testing.assert_allclose(made, read, rtol=1e-3)
    np.testing.assert_allclose(
        np.abs(values["w_wide"]).max((1, 2, 3)), np.abs(values["w_hidden"]).max(1), rtol=1e-3
    )


@pytest.mark.parametrize("bits", ["int8", "int4:absmax:uncorrected"])
@pytest.mark.parametrize("timing", ["", ":static"])
def test_emulation_is_the_folded_network_quantized(bits, timing, network, tmp_path):
    found, hooks = emulated(network, f"{bits}:equalize", f"int8{timing}")
    other = program(tmp_path, folded(hooks))
    expected, _ = emulated(other, bits, f"int8{timing}")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_equalisation_lowers_the_error_of_weights_per_tensor(network):
    reference = network.run(feeds()).outputs["y"]
    plain, equal = (
        (emulated(network, f"int4:absmax:uncorrected{word}", None)[0] - reference).norm()
        for word in ("", ":equalize")
    )
    assert equal < 0.5 * plain


def test_only_neighbours_that_both_ask_are_equalised(network):
    """The first and the third weight have a neighbour, but it is rounded as it is."""
    nodes = ("first", "point")
    apart, _ = emulated(network, "int8:equalize", "int8", nodes)
    plain, _ = emulated(network, "int8", "int8", nodes)
    assert torch.equal(apart, plain)
    both, _ = emulated(network, "int8:equalize", "int8", ("first", "each"))
    assert not torch.equal(both, emulated(network, "int8", "int8", ("first", "each"))[0])


def test_values_between_that_are_quantized_elsewhere_keep_their_ranges(network):
    """A quantizer at an output would see scaled values, which it was not calibrated for."""
    sites = Analysis(network.graph).by_key
    weights = {f"{node}/in1": quantizer("int8:equalize") for node in ("first", "each")}
    states = WeightStates(network, sites, lambda: [feeds()])
    chosen = Assignment.of(weights | {"first/out0": quantizer("int8")})
    assert all(not q.transforms for _, q in states.settled(chosen))


def test_states_are_kept_and_found_again(network, tmp_path):
    """Factors need no calibration data."""
    sites = Analysis(network.graph).by_key
    states = WeightStates(network, sites, lambda: [])
    chosen = Assignment.of({f"{n}/in1": quantizer("int8:equalize") for n in PAIRED})
    settled = states.settled(chosen)
    states.prepare(settled)
    states.save(tmp_path)
    again = WeightStates(network, sites, lambda: [])
    again.load(tmp_path)
    for key, chosen_quantizer in settled:
        before, after = states.state(key, chosen_quantizer), again.state(key, chosen_quantizer)
        assert before is not None
        assert after is not None
        assert before.channel_factors is not None
        assert after.channel_factors is not None
        assert torch.equal(before.channel_factors, after.channel_factors)


def test_the_word_at_an_operand_adds_nothing(network):
    """It follows its weight, also where nothing before it is scaled."""
    plain, _ = emulated(network, "int8:equalize", "int8:static")
    words, _ = emulated(network, "int8:equalize", "int8:static:equalize")
    assert torch.equal(plain, words)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("head/in1", r"'gelu' \(Sigmoid\) stands before it"),
        ("head/in0", r"'gelu' \(Sigmoid\) stands before it"),
        ("wide/out0", "no convolution or matrix product reads it"),
    ],
)
def test_what_has_no_neighbour_is_refused(key, message, network):
    sites = Analysis(network.graph).by_key
    states = WeightStates(network, sites, lambda: [feeds()])
    with pytest.raises(AssignmentError, match=message):
        states.prepare([(key, quantizer("int8:equalize"))])


def test_smoothing_and_equalisation_exclude_each_other(network):
    with pytest.raises(AssignmentError, match="scale the same channels"):
        emulated(network, "int8:smooth:equalize", "int8")


def test_a_learned_rounding_takes_no_factors(network):
    with pytest.raises(QuantizeError, match="expected rounding gptq or discquant without transf"):
        emulated(network, "int4_channel:gptq:equalize", None)
