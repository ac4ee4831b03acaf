"""What calibration data decide about weights: learned roundings, corrected means, their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from dse.errors import AssignmentError, DseError
from dse.execute.program.program import Program
from dse.execute.quantizers import bound
from dse.execute.weights import moments
from dse.execute.weights.calibrate import Calibration
from dse.execute.weights.learn import WeightStates
from dse.execute.weights.moments import observe_moments
from dse.execute.weights.product import products_of
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.numerics import quantize
from hwmodels.formats.catalog import quantizer

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4, 9, 8] x) => (float[N, 5] y)
<float[6, 2, 3, 3] kernel, float[6] offset, float[7, 6] dense, float[7] shift, float[7, 5] last,
 int64[2] shape = {-1, 6}> {
  [conv] c = Conv <group = 2, strides = [2, 1], pads = [1, 0, 2, 1], dilations = [1, 2]>
                  (x, kernel, offset)
  r = Relu(c)
  p = GlobalAveragePool(r)
  f = Reshape(p, shape)
  [gemm] d = Gemm <alpha = 0.5, transB = 1> (f, dense, shift)
  [matmul] y = MatMul(d, last)
}
"""
WEIGHTS = ("conv/in1", "gemm/in1", "matmul/in1")
EMPTY = Calibration(statistics={})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A grouped, strided, dilated convolution with uneven pads, a Gemm and a bare MatMul."""
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (6, 2, 3, 3), "offset": (6,), "dense": (7, 6), "shift": (7,),
              "last": (7, 5)}  # fmt: skip
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = tmp_path_factory.mktemp("learn") / "m.onnx"
    onnx.save(model, path)
    return Program(load(path))


@pytest.fixture(scope="module")
def sites(network: Program) -> Mapping[str, Site]:
    return Analysis(network.graph).by_key


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, Tensor]]:
    """Two batches with channels of different means."""
    generator = torch.Generator().manual_seed(1)
    offsets = torch.arange(4.0).reshape(1, 4, 1, 1) - 1
    draw = (torch.randn(8, 4, 9, 8, generator=generator) for _ in range(2))
    return [{"x": x + offsets} for x in draw]


class Seen:
    """Keeps what passes."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.values.append(x)
        return x


def outputs_at(network: Program, feeds, quantizers, node: str) -> Tensor:
    seen = Seen()
    key = f"{node}/out0"
    given = quantizers.get(key)
    hooks = {**quantizers, key: (lambda x: seen(given(x))) if given else seen}
    for batch in feeds:
        network.run(batch, hooks)
    return torch.cat(seen.values)


def states_of(network, sites, feeds, **options) -> WeightStates:
    return WeightStates(network, sites, lambda: feeds, **options)


@pytest.mark.parametrize("key", WEIGHTS)
def test_rows_times_the_matrix_are_the_node(key, network, sites, feeds):
    weight = network.constant(sites[key].value)
    product = products_of(network.graph, {key: weight.shape})[key]
    seen = Seen()
    network.run(feeds[0], {product.activation: seen})
    rows = product.rows(seen.values[0])
    got = (rows @ product.matrix(weight).mT * product.scale).transpose(0, 1).flatten(1)
    whole = outputs_at(network, feeds[:1], {}, sites[key].node)
    if product.bias is not None:
        bias = network.constant(sites[key].node and product.node.inputs[2])
        whole = whole - product.along_outputs(bias)
    expected = whole.movedim(1, -1).reshape(-1, whole.shape[1])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(product.weight(product.matrix(weight)), weight)


@pytest.mark.parametrize("key", WEIGHTS)
@pytest.mark.parametrize(
    "name", ["int2_channel:bias_corrected", "int3_channel:gptq:bias_corrected"]
)
def test_corrected_outputs_have_the_mean_of_full_precision(name, key, network, sites, feeds):
    node = sites[key].node
    assignment = Assignment.of({key: quantizer(name)})
    corrected = bound(assignment, sites, EMPTY, states_of(network, sites, feeds))
    plain = {key: corrected[key]}
    others = [0, 2, 3] if node == "conv" else [0]
    reference, without, with_it = (
        outputs_at(network, feeds, hooks, node).mean(others) for hooks in ({}, plain, corrected)
    )
    torch.testing.assert_close(with_it, reference, rtol=1e-4, atol=1e-4)
    assert (without - reference).abs().max() > 1e-2


def test_narrow_integers_are_corrected_unasked_where_there_is_a_bias(network, sites, feeds):
    assignment = Assignment.of(dict.fromkeys(WEIGHTS, quantizer("int4_channel")))
    found = bound(assignment, sites, EMPTY, states_of(network, sites, feeds))
    assert sorted(found) == ["conv/in1", "conv/in2", "gemm/in1", "gemm/in2", "matmul/in1"]
    asked = Assignment.of({"matmul/in1": quantizer("int4_channel:bias_corrected")})
    assert "matmul/out0" in bound(asked, sites, EMPTY, states_of(network, sites, feeds))
    for name in ("int8_channel:uncorrected", "int16_channel", "mxfp4"):
        wide = Assignment.of(dict.fromkeys(WEIGHTS, quantizer(name)))
        assert sorted(bound(wide, sites, EMPTY, states_of(network, sites, feeds))) == list(WEIGHTS)


@pytest.mark.parametrize("key", WEIGHTS)
def test_coarse_weights_take_ranges_of_least_output_error(key, network, sites, feeds):
    node = sites[key].node
    reference = outputs_at(network, feeds, {}, node)

    def error(name):
        states = states_of(network, sites, feeds)
        found = bound(Assignment.of({key: quantizer(name)}), sites, EMPTY, states)
        return (outputs_at(network, feeds, found, node) - reference).square().mean()

    others = [error(f"int3_channel:{statistic}:uncorrected") for statistic in ("absmax", "mse")]
    assert error("int3_channel:uncorrected") <= min(others) * 1.0001
    assert error("int3_channel:bias_corrected") < error("int3_channel:uncorrected")


def test_eight_bits_take_the_largest_magnitude(network, sites, feeds):
    weight, axes = network.constant(sites["gemm/in1"].value), sites["gemm/in1"].contraction_axes
    states = states_of(network, sites, feeds)
    found = bound(Assignment.of({"gemm/in1": quantizer("int8")}), sites, EMPTY, states)
    expected = quantize(weight, quantizer("int8:absmax"), axes=axes)
    assert torch.equal(found["gemm/in1"](weight), expected)


@pytest.mark.parametrize(("method", "share"), [("gptq", 0.8), ("discquant", 0.96)])
def test_learned_roundings_lower_the_error_of_the_layer(method, share, network, sites, feeds):
    """Inputs are nearly uncorrelated here, which leaves little to gain."""
    key = "conv/in1"
    reference = outputs_at(network, feeds, {}, "conv")

    def error(name):
        states = states_of(network, sites, feeds)
        found = bound(Assignment.of({key: quantizer(name)}), sites, EMPTY, states)
        return (outputs_at(network, feeds, found, "conv") - reference).square().mean()

    learned = error(f"int3_channel:absmax:{method}:uncorrected")
    assert learned < share * error("int3_channel:absmax:uncorrected")


@pytest.mark.parametrize("key", WEIGHTS)
@pytest.mark.parametrize("method", ["nearest_even", "gptq", "discquant", "blockwise"])
def test_outputs_of_coarse_weights_are_as_strong_as_in_full_precision(
    method, key, network, sites, feeds
):
    """But for GPTQ's damping, which stands for inputs that were not seen."""
    most = 0.05 if method == "gptq" else 2e-3
    node = sites[key].node
    reference = outputs_at(network, feeds, {}, node).movedim(1, -1).flatten(0, -2)

    def strength(correction):
        states = states_of(network, sites, feeds)
        given = Assignment.of({key: quantizer(f"int3_channel:{method}:{correction}")})
        found = outputs_at(network, feeds, bound(given, sites, EMPTY, states), node)
        pair = [x - x.mean(0) for x in (reference, found.movedim(1, -1).flatten(0, -2))]
        return (pair[0] * pair[1]).sum(0) / pair[0].square().sum(0)

    with_it, without = strength("bias_corrected") - 1, strength("uncorrected") - 1
    assert with_it.abs().max() < most
    assert with_it.mean().abs() < without.mean().abs() / 3


@pytest.mark.parametrize("name", ["int3_channel", "int4_g32", "uint4_g64"])
def test_nearest_weights_keep_their_codes_under_scales_that_restore_outputs(
    name, network, sites, feeds
):
    plain, whole = quantizer(f"{name}:uncorrected"), quantizer(f"{name}:bias_corrected")
    states = states_of(network, sites, feeds)
    before, after = (states.state("gemm/in1", each) for each in (plain, whole))
    assert before is not None
    assert after is not None
    assert before.values is None
    assert after.values is not None
    assert before.scales is not None
    assert after.scales is not None
    weight, axes = network.constant("dense"), sites["gemm/in1"].contraction_axes
    nearest = quantize(weight, plain.settled(weight=True), axes=axes, state=before)
    # Moments about the mean choose another range for some rows; these are of one range.
    same = (after.scales / before.scales - 1).abs().amax(1) < 0.05
    assert bool(same.any())
    codes, kept = (nearest / before.scales).round(), (after.values / after.scales).round()
    assert torch.equal(codes[same], kept[same])
    assert not bool((before.scales == after.scales)[same].any())


def test_nearest_weights_without_a_bias_stay_what_others_round_them_to(network, sites, feeds):
    states = states_of(network, sites, feeds)
    for key, corrected in {"conv/in1": True, "gemm/in1": True, "matmul/in1": False}.items():
        state = states.state(key, quantizer("int4_channel"))
        assert state is not None
        assert (state.values is not None) is corrected
    for name in ("mxfp4:output_mse:bias_corrected", "int8_channel:bias_corrected"):
        state = states.state("gemm/in1", quantizer(name))
        assert state is not None
        assert state.values is None


def test_states_reload_to_the_same_numbers(network, sites, feeds, tmp_path: Path):
    names = ("int3_channel:gptq", "int4_channel", "int4_channel:discquant")
    pairs = dict(zip(WEIGHTS, map(quantizer, names), strict=True))
    first = states_of(network, sites, feeds)
    found = bound(Assignment.of(pairs), sites, EMPTY, first)
    digest = first.save(tmp_path)
    again = states_of(network, sites, None)  # without data nothing can be learned anew
    again.load(tmp_path)
    reloaded = bound(Assignment.of(pairs), sites, EMPTY, again)
    assert again.macs == 0 < first.macs
    assert again.save(tmp_path / "copy") == digest
    for one, two in ((found, reloaded),):
        torch.testing.assert_close(
            outputs_at(network, feeds, one, "matmul"), outputs_at(network, feeds, two, "matmul"),
            rtol=0, atol=0,
        )  # fmt: skip


def test_a_torn_state_is_refused(network, sites, feeds, tmp_path: Path):
    states = states_of(network, sites, feeds)
    states.prepare([("conv/in1", quantizer("int4_channel"))])
    states.save(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DseError, match="no readable state file"):
        states_of(network, sites, feeds).load(tmp_path)


def test_little_memory_takes_more_passes_to_the_same_numbers(network, sites, feeds):
    pairs = [(key, quantizer("int4_channel:gptq")) for key in WEIGHTS]
    large, small = (
        states_of(network, sites, feeds),
        states_of(network, sites, feeds, memory_bytes=1),
    )
    large.prepare(pairs)
    small.prepare(pairs)
    for pair in pairs:
        in_one, in_many = large.state(*pair), small.state(*pair)
        assert in_one is not None
        assert in_one.values is not None
        assert in_many is not None
        assert in_many.values is not None
        assert torch.equal(in_one.values, in_many.values)
    forward = sum(network.run(batch).macs for batch in feeds)
    assert small.macs - large.macs == 2 * forward


def test_equal_inputs_share_their_moments(network, sites, feeds):
    weight = network.constant(sites["gemm/in1"].value)
    product = products_of(network.graph, {"gemm/in1": weight.shape})["gemm/in1"]
    found, _ = observe_moments(network, feeds, [product, product], second=frozenset())
    assert len(found) == 1


def test_nan_inputs_count_as_zero(network, sites, feeds):
    spoiled = {"x": feeds[0]["x"].clone()}
    spoiled["x"][0, 0, 0, 0] = float("nan")
    states = states_of(network, sites, [spoiled])
    state = states.state("conv/in1", quantizer("int4_channel:gptq"))
    assert state is not None
    assert state.values is not None
    assert state.values.isfinite().all()
    assert state.output_shift is not None
    assert state.output_shift.isfinite().all()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("conv/in0", r"'conv/in0' \(activation\).*only weights can"),
        ("nowhere/in1", r"\(unknown\)"),
    ],
)
def test_only_weights_learn(key, message, network, sites, feeds):
    with pytest.raises(AssignmentError, match=message):
        states_of(network, sites, feeds).prepare([(key, quantizer("int4:gptq"))])


def test_a_stack_of_matrices_has_no_such_form(tmp_path: Path, feeds):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3, 4] x) => (float[2, 3, 5] y) <float[2, 4, 5] w = {ZEROS}>
    { [experts] y = MatMul(x, w) }
    """
    model = onnx.parser.parse_model(text.replace("ZEROS", ",".join(["1"] * 40)))
    onnx.save(model, tmp_path / "m.onnx")
    program = Program(load(tmp_path / "m.onnx"))
    sites = Analysis(program.graph).by_key
    states = states_of(program, sites, feeds)
    assert states.state("experts/in1", quantizer("int4_channel")) is None
    with pytest.raises(AssignmentError, match="one weight matrix on the right"):
        states.state("experts/in1", quantizer("int4_channel:gptq"))


@pytest.mark.parametrize(
    "name",
    ["int4_channel", "int4_channel:gptq", "int3_channel:discquant", "int3_channel:blockwise"],
)
def test_what_is_learned_is_codes_times_scales(name, network, sites, feeds):
    """An exporter finds both in the state."""
    chosen = quantizer(name)
    states = states_of(network, sites, feeds)
    found = bound(Assignment.of({"conv/in1": chosen}), sites, EMPTY, states)
    values = found["conv/in1"](network.constant("kernel"))
    state = states.state("conv/in1", chosen)
    assert state is not None
    assert state.scales is not None
    codes = values / state.scales.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert codes.abs().max() <= chosen.format.element.max + 1e-4


SIBLINGS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 32] x) => (float[N, 4] y, float[N, 6] z)
<float[32, 4] small, float[32, 6] large> {
  [first] y = MatMul(x, small)
  [second] z = MatMul(x, large)
}
"""


@pytest.mark.parametrize("name", ["nvfp4", "nvfp4:gptq"])
def test_matrices_that_multiply_one_value_share_their_second_level(
    name: str, tmp_path: Path
) -> None:
    model = onnx.parser.parse_model(SIBLINGS)
    rng = np.random.default_rng(0)
    for constant, shape, size in (("small", (32, 4), 0.1), ("large", (32, 6), 3.0)):
        values = (size * rng.standard_normal(shape)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, constant))
    onnx.save(model, tmp_path / "m.onnx")
    program = Program(load(tmp_path / "m.onnx"))
    sites = Analysis(program.graph).by_key
    rows = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    weights = WeightStates(program, sites, lambda: [{"x": rows}])
    states = [weights.state(key, quantizer(name)) for key in ("first/in1", "second/in1")]
    levels = [state.tensor_scale for state in states if state is not None]
    large = program.constant("large")
    assert large is not None
    assert levels == [pytest.approx(float(large.abs().max()) / (6 * 448))] * 2
    again = weights.state("first/in1", quantizer(name))
    assert again is states[0], "equal states are one object, as quantizers are compared by them"


@pytest.mark.parametrize("key", ["conv/in1"])
def test_windows_of_a_coarser_lattice_are_some_of_all(key, network, sites, feeds):
    """Each is one of the windows, and borders are among them."""
    weight = network.constant(sites[key].value)
    product = products_of(network.graph, {key: weight.shape})[key]
    every = product.rows(feeds[0]["x"])
    assert torch.equal(product.rows(feeds[0]["x"], most=every.shape[1]), every)
    some = product.rows(feeds[0]["x"], most=every.shape[1] // 4)
    assert every.shape[1] // 16 <= some.shape[1] <= every.shape[1] // 2
    known = {tuple(row) for row in every[0].tolist()}
    assert {tuple(row) for row in some[0].tolist()} <= known


def test_moments_of_some_windows_are_near_those_of_all(network, sites, monkeypatch):
    weight = network.constant(sites["conv/in1"].value)
    product = products_of(network.graph, {"conv/in1": weight.shape})["conv/in1"]
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(4, 4, generator=generator)
    x = torch.einsum("nchw,cd->ndhw", torch.randn(2048, 4, 9, 8, generator=generator), mixed) + 1
    found = {}
    for elements in (1 << 24, 1 << 17):
        monkeypatch.setattr(moments, "ELEMENTS", elements)
        second = frozenset([product.operand])
        found[elements], _ = observe_moments(network, [{"x": x}], [product], second=second)
    few, every = (found[elements][product.operand] for elements in (1 << 17, 1 << 24))
    assert few.macs < every.macs / 2
    torch.testing.assert_close(few.mean, every.mean)
    torch.testing.assert_close(few.largest, every.largest)
    wanted = every.second(centred=True)
    assert (few.second(centred=True) - wanted).norm() / wanted.norm() < 0.15


DEAD = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 12, 12] x) => (float[N, 3, H, W] y) <float[3, 1, 3, 3] kernel, float[3] offset> {
  [conv] y = Conv <group = 3, pads = [1, 1, 1, 1]> (x, kernel, offset)
}
"""


@pytest.mark.parametrize("border", [False, True])
def test_a_channel_that_never_changes_can_be_rounded_by_its_inputs(border, tmp_path):
    """Deviations from its mean are none, or those of the zeros around an image: no rounding."""
    model = onnx.parser.parse_model(DEAD)
    if not border:
        del model.graph.node[0].attribute[1]
    rng = np.random.default_rng(0)
    for name, shape in (("kernel", (3, 1, 3, 3)), ("offset", (3,))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "m.onnx")
    program = Program(load(tmp_path / "m.onnx"))
    x = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.0842198
    states = WeightStates(program, Analysis(program.graph).by_key, lambda: [{"x": x}] * 4)
    state = states.state("conv/in1", quantizer("int4_channel:gptq"))
    assert state is not None
    assert state.values is not None
    assert bool(state.values.isfinite().all())


def test_moments_of_deviations_do_not_drown_in_a_large_mean(network, sites):
    weight = network.constant(sites["gemm/in1"].value)
    product = products_of(network.graph, {"gemm/in1": weight.shape})["gemm/in1"]
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(5, n, 6, generator=generator).double() for n in (40, 300, 41)]
    found = [moments.Moments(product, torch.device("cpu"), second=True) for _ in range(2)]
    for part in parts[:2]:
        found[0](1000 + 0.1 * part.float())
    found[1](1000 + 0.1 * parts[2].float())
    whole = moments.together(found)
    rows = torch.cat([(1000 + 0.1 * part.float()).double().reshape(-1, 6) for part in parts])
    wanted = torch.cov(rows.T, correction=0)
    assert (whole.second(centred=True)[0] - wanted).norm() / wanted.norm() < 1e-4
    wanted = rows.T @ rows / len(rows)
    torch.testing.assert_close(whole.second(centred=False)[0], wanted, rtol=1e-6, atol=0)
