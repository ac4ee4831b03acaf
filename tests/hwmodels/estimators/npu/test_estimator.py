"""Kernels on NPUs: residuals, hosts, levels, what is coded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.devices.npu import Npu
from hwmodels.errors import WorkError
from hwmodels.estimators.npu.estimator import NpuEstimator
from hwmodels.estimators.npu.lowering import operations_of
from hwmodels.estimators.npu.memory import Scratch, map_bytes, scratch_of
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import ConvolutionLoops, MapLoops, ProductLoops, RowLoops
from hwmodels.work.work import Operand

INT8 = catalog.format("int8")
SIZE, CHANNELS = 28, 32
MAP = SIZE * SIZE * CHANNELS


def convolution(residual: int = 0) -> Kernel:
    return Kernel(
        kind="conv2d",
        loops=ConvolutionLoops(
            images=1, groups=1, in_channels=CHANNELS, out_channels=CHANNELS,
            in_size=(SIZE, SIZE), out_size=(SIZE, SIZE), kernel=(3, 3),
        ),
        input_format=INT8, weight_format=INT8, output_format=INT8, weight_element="int8",
        input_element="int8", accumulator="int32", input_bytes=MAP,
        weight_bytes=9 * CHANNELS**2, other_bytes=residual, write_bytes=MAP,
    )  # fmt: skip


def product(rows: int, *, cold: bool) -> Kernel:
    return Kernel(
        kind="gemm", loops=ProductLoops(m=rows, n=64, k=96), input_format=INT8,
        weight_format=INT8, output_format=INT8, weight_element="int8", input_element="int8",
        accumulator="int32", input_bytes=rows * 96, weight_bytes=64 * 96, weight_is_cold=cold,
        write_bytes=rows * 64,
    )  # fmt: skip


def cost(kernel: Kernel, device: Device | str) -> KernelCost:
    known = load_device(device) if isinstance(device, str) else device
    (found,) = NpuEstimator().estimate([kernel], known, load_runtime("vela"))
    return found


def cycles(kernel: Kernel, device: str) -> float:
    found = cost(kernel, device).spatial
    assert found is not None
    return found.cycles


def test_a_residual_is_a_pass_of_its_own_but_where_the_output_unit_chains_it() -> None:
    """On a U55 Vela adds 18816 cycles; on a U85 20202 become of 20074."""
    plain, added = convolution(), convolution(residual=MAP)
    assert cycles(added, "ethos-u55") - cycles(plain, "ethos-u55") == 18816
    assert cycles(plain, "ethos-u85-512") == pytest.approx(20074, rel=1e-3)
    assert cycles(added, "ethos-u85-512") == pytest.approx(20202, rel=1e-3)


def test_a_product_of_activations_runs_column_by_column_without_an_array_for_it() -> None:
    """64 x 96 times 96 x 64: 2240 cycles on a U85 by Vela, a hundred times as many on a U55."""
    one = product(64, cold=False)
    assert cycles(one, "ethos-u85-512") == pytest.approx(2240, rel=2e-3)
    u55 = load_device("ethos-u55").npu
    assert u55 is not None
    assert [one.repeats for one in operations_of(one, u55)] == [64, 64]
    assert cycles(one, "ethos-u55") > 200_000


def test_rows_lie_as_a_square_map() -> None:
    u55 = load_device("ethos-u55").npu
    assert u55 is not None
    (found,) = operations_of(product(64, cold=True), u55)
    assert found.target == (8, 8, 64)
    (prime,) = operations_of(product(7, cold=True), u55)
    assert prime.target == (1, 7, 64)


def test_energy_and_bytes_are_told_by_level() -> None:
    found = cost(convolution(), "ethos-u55")
    assert found.spatial is not None
    levels = {(one.level, one.tensor): one for one in found.spatial.traffic}
    assert set(levels) == {
        ("sram", "input"), ("sram", "weight"), ("sram", "output"), ("flash", "weight")
    }  # fmt: skip
    assert levels["sram", "output"].write_bytes == MAP
    flash = levels["flash", "weight"]
    assert flash.energy_j == pytest.approx(250e-12 * flash.read_bytes)
    assert found.spatial.macs == 9 * CHANNELS * MAP
    assert found.spatial.peak_macs_per_cycle == 256
    assert found.spatial.utilisation == pytest.approx(9 * CHANNELS * MAP / 256 / 30104, rel=1e-3)
    assert found.traffic_bytes == sum(
        one.read_bytes + one.write_bytes for one in found.spatial.traffic
    )


def test_how_well_weights_code_is_an_assumption_of_the_file() -> None:
    device = load_device("ethos-u55")
    assert device.npu is not None
    full, pruned = (
        replace(device, npu=replace(device.npu, weights=replace(
            device.npu.weights, share=share, padding=0.1
        ))) for share in (0.92, 0.46)
    )  # fmt: skip
    one = replace(product(1, cold=True), loops=ProductLoops(m=1, n=128, k=640),
                  weight_bytes=128 * 640)  # fmt: skip
    scales = 1280 / 500e6
    half = cost(one, pruned).latency_s - scales
    assert half == pytest.approx((cost(one, full).latency_s - scales) / 2, rel=0.01)


def test_a_mean_is_a_kernel_a_channel_and_a_scaling() -> None:
    """49 taps of 128 channels: 9752 and 144 cycles by Vela."""
    one = Kernel(
        kind="reduce", detail="reducemean",
        loops=MapLoops(
            rows=128, cols=49, images=1, channels=128, out_size=(1, 1), window=(7, 7)
        ),
        input_format=INT8, output_format=INT8, input_bytes=49 * 128, write_bytes=128,
    )  # fmt: skip
    assert cycles(one, "ethos-u55") == pytest.approx(9752 + 144, rel=0.02)


@pytest.mark.parametrize(
    ("device", "vela"),
    [("ethos-u55-128", (77774, 65882)), ("ethos-u55", (66157, 54298)),
     ("ethos-u65-512", (20268, 21217)), ("ethos-u85-512", (19397, 59370))],
)  # fmt: skip
def test_a_softmax_is_as_many_passes_as_the_compiler_makes(
    device: str, vela: tuple[int, int]
) -> None:
    """Of 64 x 64 and of 16 x 256 elements: one number a device lies between the two."""
    one = Kernel(
        kind="rowwise", detail="softmax", loops=RowLoops(rows=64, cols=64), input_format=INT8,
        output_format=INT8, input_bytes=4096, write_bytes=4096,
    )  # fmt: skip
    assert min(vela) * 0.97 < cycles(one, device) < max(vela) * 1.03


def test_floats_run_on_the_host() -> None:
    """At one operation a nanosecond, whatever the array does."""
    wide = catalog.format("fp32")
    one = Kernel(
        kind="pointwise", detail="add", loops=RowLoops(rows=1, cols=1000), input_format=wide,
        output_format=wide, input_bytes=4000, write_bytes=4000,
    )  # fmt: skip
    found = cost(one, "ethos-u55")
    assert found.spatial is None
    assert found.latency_s == pytest.approx(4000 / 1e9, rel=1e-3)


def test_floats_that_no_unit_takes_are_one_error_that_says_what_to_do() -> None:
    """Whichever kernel of the network comes first: one that multiplies, or a pass."""
    wide = catalog.format("fp32")
    relu = Kernel(
        kind="pointwise", detail="relu", loops=RowLoops(rows=1, cols=1000), input_format=wide,
        output_format=wide, input_bytes=4000, write_bytes=4000,
    )  # fmt: skip
    with pytest.raises(
        WorkError, match=r"edge-npu has no unit that takes fp32; it has bf16, "
    ) as error:
        cost(relu, "edge-npu")
    assert "--format w8a8_int8_static, or add a unit of role `host`" in str(error.value)


def test_floats_are_rounded_to_integers_on_the_host() -> None:
    """A model's float input is no block of the array's, which takes 16 bits at most."""
    one = Kernel(
        kind="quantize", detail="quantizelinear", loops=RowLoops(rows=1, cols=1000),
        input_format=catalog.format("fp32"), output_format=INT8, input_bytes=4000,
        write_bytes=1000,
    )  # fmt: skip
    assert cost(one, "ethos-u55").spatial is None


def test_what_is_only_named_takes_no_time() -> None:
    """A part of a concatenation is written where it belongs."""
    one = Kernel(
        kind="pointwise", detail="concat", loops=RowLoops(rows=1, cols=64), input_format=INT8,
        output_format=INT8, input_bytes=64, write_bytes=64,
    )  # fmt: skip
    assert cost(one, "ethos-u55").latency_s == load_device("ethos-u55").launch_s.value


def test_maps_are_stored_in_bricks_and_images_are_not() -> None:
    u55, h100 = load_device("ethos-u55"), load_device("h100-sxm")
    narrow, image, row = (
        Operand(name="input", value="x", shape=shape)
        for shape in ((1, 24, 8, 8), (1, 3, 8, 8), (64, 24))
    )
    assert map_bytes(narrow, 1536, u55) == 2048
    assert map_bytes(image, 192, u55) == 192
    assert map_bytes(row, 1536, u55) == 1536
    assert map_bytes(narrow, 1536, u55, linear=True) == 1536
    assert map_bytes(image, 192, u55, linear=False) == 1024
    assert map_bytes(narrow, 1536, h100) == 1536


def test_weights_are_held_whole_where_they_are_staged_before_and_else_in_two_slices() -> None:
    """36,864 weights and scales take as many cycles from flash; four slices of 16 channels."""
    u55 = load_device("ethos-u55")
    deep = replace(
        convolution(),
        loops=ConvolutionLoops(
            images=1, groups=1, in_channels=64, out_channels=64, in_size=(14, 14),
            out_size=(14, 14), kernel=(3, 3),
        ),
        weight_bytes=9 * 64 * 64,
    )  # fmt: skip
    coded = 35232  # Vela's
    whole, sliced = (scratch_of([deep], u55, slack) for slack in (40_000, 16_000))
    assert whole.held_bytes == whole.early_bytes == pytest.approx(coded, rel=0.01)
    assert whole.tail_bytes == whole.held_bytes
    assert sliced.held_bytes == pytest.approx(coded / 2, rel=0.01)
    assert sliced.early_bytes == sliced.tail_bytes == pytest.approx(coded / 4, rel=0.01)
    assert whole.operations == 1
    assert whole.slack_cycles == pytest.approx(30276, rel=1e-3)
    assert 30276 / 4 < sliced.slack_cycles < 30276 / 3.5  # the last slice, with its filling


@pytest.mark.parametrize(
    ("outputs", "inputs", "slack", "held"),
    [
        (128, 640, 0, 0),  # nothing hides the slices: 7,694 cycles are fewer
        (128, 128, 7694, 17360),
        (128, 128, 1394, 17312),
        (8, 128, 1394, 0),  # fewer channels than a slice has
        (128, 128, 61, 0),
        (640, 128, 3598, 73472),  # slices of 304 and 240 channels
    ],
)
def test_a_u65_stages_weights_of_fully_connected_layers_as_vela_does(
    outputs: int, inputs: int, slack: float, held: int
) -> None:
    """`held` are the weights in Vela's staging usage of MLPerf Tiny's autoencoder."""
    one = replace(
        product(1, cold=True), loops=ProductLoops(m=1, n=outputs, k=inputs), input_bytes=inputs,
        weight_bytes=outputs * inputs, write_bytes=outputs,
    )  # fmt: skip
    found = scratch_of([one], load_device("ethos-u65-512"), slack)
    assert found.held_bytes == pytest.approx(held, rel=0.06)  # coded to 0.98, not 0.92


def test_sums_of_a_product_by_columns_are_held_beside_the_maps() -> None:
    found = scratch_of([product(64, cold=False)], load_device("ethos-u55"), 0)
    assert found.held_bytes == 4 * 64 * 96


def test_other_devices_hold_nothing() -> None:
    assert scratch_of([convolution()], load_device("h100-sxm"), 0) == Scratch()


def strided(
    channels: int, size: int, kernel: int, stride: int, *, same: bool = False, groups: int = 1
) -> Kernel:
    """A convolution to 32 channels, or one a channel."""
    places = -(-size // stride) if same else (size - kernel) // stride + 1
    outputs = channels if groups > 1 else 32
    loops = ConvolutionLoops(
        images=1, groups=groups, in_channels=channels, out_channels=outputs,
        in_size=(size, size), out_size=(places, places), kernel=(kernel, kernel),
        stride=(stride, stride),
    )  # fmt: skip
    return replace(
        convolution(), loops=loops, input_bytes=channels * size * size,
        weight_bytes=channels // groups * outputs * kernel * kernel,
        write_bytes=outputs * places * places, linear_input=True, linear_output=False,
        slack_cycles=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "one", "cycles", "off"),
    [
        ("ethos-u55", strided(3, 224, 16, 16), 6_094_908, 0.01),
        ("ethos-u55", strided(3, 96, 4, 4), 1_401_604, 0.06),
        ("ethos-u85-512", strided(3, 112, 11, 4, same=True), 755_000, 0.15),
        ("ethos-u85-512", strided(16, 64, 4, 4, groups=16), 18_500, 0.1),
    ],
)
def test_windows_that_step_far_are_operations_of_their_own(
    device: str, one: Kernel, cycles: float, off: float
) -> None:
    """Vela's cycles of patch embeddings, and tap by tap of padded and depthwise ones."""
    hertz = load_device(device).unit("matrix").clock_hz.value
    assert cost(one, device).latency_s * hertz == pytest.approx(cycles, rel=off)


def test_what_cannot_be_unrolled_runs_on_the_host_or_is_refused() -> None:
    padded, u55 = strided(3, 112, 11, 4, same=True), load_device("ethos-u55")
    host = next(unit for unit in u55.units if unit.role == "host")
    least_s = 2 * padded.macs / max(rate.ops_per_s.value for rate in host.rates)
    assert cost(padded, "ethos-u55").latency_s >= least_s
    assert cost(strided(3, 112, 11, 3, same=True), "ethos-u55").latency_s < least_s / 10
    alone = replace(u55, units=tuple(unit for unit in u55.units if unit.role != "host"))
    with pytest.raises(
        WorkError, match="no unit for convolutions of stride 4 x 4 that are padded"
    ):
        NpuEstimator().estimate([padded], alone, load_runtime("vela"))


def test_one_place_steps_nowhere() -> None:
    whole = strided(16, 8, 8, 8)
    hertz = load_device("ethos-u55").unit("matrix").clock_hz.value
    assert cost(whole, "ethos-u55").latency_s * hertz < 40_000


@pytest.mark.parametrize(
    ("device", "dilation", "alone", "compiled"),
    [
        ("ethos-u55", 1, False, 26574),
        ("ethos-u55", 2, False, 26664),
        ("ethos-u55", 3, False, 109314),
        ("ethos-u55", 4, False, 59264),
        ("ethos-u55", 4, True, 16128),
        ("ethos-u85-512", 3, False, 55502),
        ("ethos-u85-512", 4, False, 30096),
        ("ethos-u85-512", 4, True, 8720),
    ],
)
def test_kernels_of_far_taps_are_filled_up_with_zeros(
    device: str, dilation: int, alone: bool, compiled: int
) -> None:
    """16 channels of 32 x 32, 3 x 3 taps, to 32 channels or one a channel: Vela's cycles."""
    outputs = 16 if alone else 32
    loops = ConvolutionLoops(
        images=1, groups=16 if alone else 1, in_channels=16, out_channels=outputs,
        in_size=(32, 32), out_size=(32, 32), kernel=(3, 3), dilation=(dilation, dilation),
    )  # fmt: skip
    one = replace(
        convolution(), loops=loops, input_bytes=16 * 1024, write_bytes=outputs * 1024,
        weight_bytes=9 * outputs * (1 if alone else 16), slack_cycles=5000.0,
    )  # fmt: skip
    assert cycles(one, device) == pytest.approx(compiled, rel=0.02)
    (operation, *_) = operations_of(one, npu_of(device))
    assert operation.weights == 9 * outputs * (1 if alone else 16)


def npu_of(device: str) -> Npu:
    npu = load_device(device).npu
    assert npu is not None
    return npu
