"""Blocks and cycles of single operations, against Arm's Vela 5.2 (`--verbose-performance`)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.estimators.npu.blocks import tiling_of
from hwmodels.estimators.npu.operation import Map, Operation, OperationKind
from hwmodels.estimators.npu.schedule import Schedule, schedule, schedules
from hwmodels.estimators.npu.system import System, system_of
from hwmodels.estimators.npu.weights import coded_bits, weight_bytes


def system(device: str) -> System:
    return system_of(load_device(device))


def operation(kind: OperationKind, source: Map, target: Map, kernel: int = 1, stride: int = 1,
              ) -> Operation:  # fmt: skip
    return Operation(
        kind=kind, source=source, target=target, kernel=(kernel, kernel), stride=(stride, stride),
        weight_bits=0 if kind in ("pool", "elementwise") else 8,
    )  # fmt: skip


WIDE = operation("convolution", (28, 28, 32), (28, 28, 32), 3)
DEEP = operation("convolution", (14, 14, 64), (14, 14, 64), 3)
STRIDED = operation("convolution", (28, 28, 32), (14, 14, 64), 1, 2)
FEW = operation("convolution", (8, 8, 8), (8, 8, 24))
NARROW = operation("convolution", (24, 24, 48), (24, 24, 16))
BROAD = operation("convolution", (10, 10, 48), (10, 10, 80))
HALVED = replace(operation("convolution", (32, 32, 16), (16, 16, 32), 1, 2), bits=16)
FIVE = operation("convolution", (53, 113, 64), (27, 57, 32), 5, 2)
ALONE = operation("depthwise", (8, 8, 24), (8, 8, 24), 3)


@pytest.mark.parametrize(
    ("device", "one", "block", "walk"),
    [
        ("ethos-u55", WIDE, (6, 14, 32), "depth"),
        ("ethos-u55", DEEP, (8, 14, 16), "depth"),
        ("ethos-u55", STRIDED, (2, 14, 64), "depth"),
        ("ethos-u55", FEW, (8, 8, 24), "taps"),
        ("ethos-u55", ALONE, (8, 8, 16), "depthwise"),
        ("ethos-u55-128", WIDE, (4, 16, 16), "depth"),
        ("ethos-u55-128", DEEP, (8, 8, 16), "depth"),
        ("ethos-u65-512", DEEP, (8, 14, 16), "depth"),
        ("ethos-u85-512", WIDE, (16, 16, 16), "taps"),
        ("ethos-u85-512", DEEP, (14, 14, 16), "taps"),
        ("ethos-u85-512", NARROW, (4, 24, 16), "depth"),
        ("ethos-u85-512", BROAD, (4, 10, 80), "depth"),
        ("ethos-u85-512", HALVED, (2, 16, 32), "taps"),
        ("ethos-u85-512", ALONE, (8, 8, 32), "depthwise"),
        # Of 25 taps none is left over, for which the compiler still counts two.
        ("ethos-u85-512", FIVE, (4, 4, 32), "depth"),
        # Windows of these do not overlap: every block moves as much, and rounding decides.
        ("ethos-u55", operation("pool", (34, 104, 32), (17, 52, 32), 2, 2), (2, 22, 16), "pool"),
        ("ethos-u55", operation("pool", (125, 46, 96), (62, 23, 96), 2, 2), (4, 4, 96), "pool"),
        ("ethos-u55", operation("pool", (56, 56, 64), (28, 28, 64), 2, 2), (18, 6, 16), "pool"),
    ],
)
def test_the_block_is_the_compiler_s(device: str, one: Operation, block: Map, walk: str) -> None:
    found = tiling_of(one, system(device).npu)
    assert found.block == block
    assert found.steps.walk == walk


@pytest.mark.parametrize(
    ("one", "block", "cycles"),
    [
        # All of the map's rows or columns, or neither; a pool of two goes deeper.
        (operation("depthwise", (56, 14, 24), (28, 7, 24), 3, 2), (38, 4, 16), 1968),
        (operation("depthwise", (44, 9, 160), (22, 5, 160), 5, 2), (22, 6, 16), 9878),
        (operation("depthwise", (25, 50, 24), (13, 25, 24), 7, 2), (6, 14, 16), 10257),
        (operation("depthwise", (50, 26, 96), (50, 26, 96), 7), (34, 14, 16), 103926),
        (operation("depthwise", (7, 49, 128), (4, 25, 128), 5, 2), (2, 26, 16), 6249),
        (operation("depthwise", (6, 42, 64), (3, 21, 64), 5, 2), (3, 24, 64), 3340),
        (operation("pool", (23, 30, 160), (21, 28, 160), 3), (28, 16, 16), 54321),
        (operation("pool", (35, 41, 256), (17, 20, 256), 3, 2), (17, 8, 16), 49886),
        (operation("pool", (18, 17, 64), (9, 8, 64), 2, 2), (9, 8, 32), 1864),
    ],
)
def test_areas_are_fitted_to_the_map_as_the_compiler_fits_them(
    one: Operation, block: Map, cycles: int
) -> None:
    one = replace(one, result="maximum") if one.kind == "pool" else one
    found = schedule(one, system("ethos-u85-512"), 1e5)
    assert found.tiling is not None
    assert found.tiling.block == block
    assert found.cycles == pytest.approx(cycles, rel=0.002)


@pytest.mark.parametrize(
    ("device", "one", "cycles"),
    [
        ("ethos-u55", WIDE, 30104),
        ("ethos-u55", DEEP, 30276),
        ("ethos-u55", FEW, 896),
        ("ethos-u55", ALONE, 1152),
        ("ethos-u55-128", WIDE, 57852),
        ("ethos-u55-128", ALONE, 1984),
        ("ethos-u65-512", WIDE, 15084),
        ("ethos-u85-512", WIDE, 20074),
        ("ethos-u85-512", DEEP, 20350),
    ],
)
def test_computing_takes_the_cycles_of_the_vendor_s_estimate(
    device: str, one: Operation, cycles: int
) -> None:
    assert schedule(one, system(device)).compute_cycles == pytest.approx(cycles, rel=1e-3)


@pytest.mark.parametrize(
    ("device", "cycles"),
    [("ethos-u55", 18816), ("ethos-u55-128", 37632), ("ethos-u65-512", 9408)],
)
def test_a_sum_takes_cycles_an_element(device: str, cycles: int) -> None:
    """0.75 cycles for each of 28 x 28 x 32 results on a U55 of 256 MACs."""
    one = replace(operation("elementwise", (28, 28, 32), (28, 28, 32)), result="add", others=1)
    found = schedule(one, system(device))
    assert found.cycles == cycles
    assert found.traffic.input_bytes == 2 * 28 * 28 * 32


def test_channels_are_computed_and_moved_in_bricks() -> None:
    """8 channels are stored and added as 16."""
    one = replace(operation("elementwise", (16, 16, 8), (16, 16, 8)), result="add")
    found = schedule(one, system("ethos-u55"))
    assert found.cycles == 0.75 * 16 * 16 * 16
    assert found.traffic.output_bytes == 16 * 16 * 16


def test_weights_that_are_read_once_come_from_the_store_and_rule() -> None:
    """A fully connected layer streams its weights at the byte a cycle that flash gives."""
    one = operation("product", (1, 1, 640), (1, 1, 128))
    found = schedule(one, system("ethos-u55"))
    assert found.traffic.staged_bytes == 0
    assert found.traffic.stored_bytes == pytest.approx(77744, rel=0.01)  # Vela's
    assert found.cycles == found.traffic.store_cycles == found.traffic.stored_bytes


def test_weights_that_blocks_read_again_are_staged_once() -> None:
    found = schedule(WIDE, system("ethos-u55"))
    assert found.tiling is not None
    high, wide, _ = found.tiling.counts(WIDE)
    assert found.traffic.staged_bytes > 0
    assert found.traffic.streamed_bytes == high * wide * found.traffic.staged_bytes


def test_activations_of_16_bits_take_twice_the_array_s_cycles() -> None:
    """Half the channels a step; the rest of the pipeline is longer, too."""
    narrow = operation("convolution", (16, 16, 128), (16, 16, 128), 3)
    wide = replace(narrow, bits=16, target_bits=16)
    u55 = system("ethos-u55")
    ratio = schedule(wide, u55).compute_cycles / schedule(narrow, u55).compute_cycles
    assert ratio == pytest.approx(2.0, abs=0.1)


def _cycles(one: Operation, device: str) -> Schedule:
    return schedule(one, system(device))


def test_the_array_is_filled_by_no_more_than_its_macs() -> None:
    for device, most in (("ethos-u55", 256), ("ethos-u55-128", 128), ("ethos-u65-512", 512),
                         ("ethos-u85-512", 512), ("edge-npu", 1024)):  # fmt: skip
        big = operation("convolution", (64, 64, 256), (64, 64, 256), 3)
        share = big.macs / _cycles(big, device).compute_cycles / most
        assert 0.6 < share <= 1


def test_inputs_of_more_bits_than_there_are_steps_for_are_an_error() -> None:
    with pytest.raises(WorkError, match=r"npu\.steps: nothing walks over inputs of 32 bits"):
        tiling_of(replace(WIDE, bits=32), system("ethos-u55").npu)


def test_an_operation_without_a_block_that_fits_is_an_error() -> None:
    """A stride of 64 reads 65 rows and columns for two of a micro-block: 135 KB of inputs."""
    far = operation("convolution", (256, 256, 32), (4, 4, 32), 8, 64)
    with pytest.raises(WorkError, match=r"npu\.buffers: no block of a convolution fits"):
        tiling_of(far, system("ethos-u55").npu)


def test_an_area_that_does_not_fit_is_an_error() -> None:
    """A stride of 64 reads 66 rows and columns for two of a micro-block: 69 KB of inputs."""
    far = operation("depthwise", (256, 256, 16), (4, 4, 16), 8, 64)
    with pytest.raises(WorkError, match=r"no block of a depthwise fits, not even .* 2 x 2 x 16"):
        tiling_of(far, system("ethos-u85-512").npu)


def plain(device: str) -> System:
    """The system with weights as normal ones of a scale a tensor are coded."""
    known = system(device)
    stream = replace(known.npu.weights, share=1.0, padding=0.28)
    return replace(known, npu=replace(known.npu, weights=stream))


def layers(*widths: int) -> list[Operation]:
    """Fully connected layers one after another."""
    return [
        operation("product", (1, 1, source), (1, 1, target)) for source, target in pairwise(widths)
    ]


@pytest.mark.parametrize(
    ("widths", "cycles"),
    [
        ((128,) * 7, (3598, 1394, 1482, 3598, 1394, 1487)),
        ((256,) * 6, (7122,) * 5),
        ((64, 64, 128), (1696, 754)),
        ((640, 128, 128, 128, 8, 128, 128, 640), (7694, 1394, 1477, 290, 790, 3598, 7661)),
    ],
)
def test_a_layer_s_cycles_follow_from_what_the_layer_before_leaves_time_for(
    widths: tuple[int, ...], cycles: tuple[int, ...]
) -> None:
    """Vela's cycles on a U65: the same 128 x 128 weights take 1,394 or 3,598."""
    found = schedules(layers(*widths), system("ethos-u65-512"), 0.0)
    assert [run.cycles for run in found] == pytest.approx(cycles, rel=0.03)


@pytest.mark.parametrize(
    ("inputs", "outputs", "cycles"),
    [
        (64, 24, 677), (64, 28, 782), (64, 36, 279), (64, 48, 324),
        (128, 56, 1610), (128, 64, 730),
        (160, 64, 1960), (160, 128, 1714), (160, 256, 6354),
        (192, 64, 2088), (256, 384, 9622),
    ],
)  # fmt: skip
def test_weights_are_read_where_copying_and_reading_the_copy_takes_longer(
    inputs: int, outputs: int, cycles: int
) -> None:
    """Vela's cycles on a U65 behind a layer that would hide any copy."""
    (one,) = layers(inputs, outputs)
    assert schedule(one, plain("ethos-u65-512"), 1e5).cycles == pytest.approx(cycles, rel=0.01)


@pytest.mark.parametrize(
    ("slack", "slices", "wait"),
    [
        (464, (64, 64), 198),
        (763, (64, 64), 0),
        (2000, (128,), 0),
    ],
)
def test_an_operation_waits_for_the_slice_that_is_not_there_before(
    slack: float, slices: tuple[int, ...], wait: float
) -> None:
    """16 x 128 weights on a U65: Vela's 687, 489 and 489 cycles."""
    (one,) = layers(16, 128)
    found = schedule(one, plain("ethos-u65-512"), slack)
    assert found.staging is not None
    assert found.staging.slices == slices
    assert found.staging.wait_cycles == pytest.approx(wait, abs=10)
    assert found.cycles == pytest.approx(489 + wait, rel=0.01)


def test_a_convolution_that_only_reads_is_staged_where_that_ends_sooner() -> None:
    """First in a network, 6 to 24 channels, 9 x 1: 3,648 cycles on the smaller U55, 3,094 here."""
    one = replace(operation("convolution", (128, 1, 6), (64, 1, 24)), kernel=(9, 1), stride=(2, 1))
    one = replace(one, linear_source=True)
    small, large = (schedule(one, plain(name), 0.0) for name in ("ethos-u55-128", "ethos-u55"))
    assert small.staging is None
    assert large.staging is not None
    assert large.staging.slices == (16, 8)
    assert large.cycles == pytest.approx(3094, rel=0.06)


@pytest.mark.parametrize(
    ("device", "one", "linear", "bricks"),
    [
        ("ethos-u85-512", operation("pool", (125, 46, 96), (62, 23, 96), 2, 2), 129600, 38056),
        ("ethos-u85-512", operation("depthwise", (123, 62, 32), (62, 31, 32), 5, 2), 80000, 30923),
        ("ethos-u55", operation("depthwise", (123, 62, 32), (62, 31, 32), 5, 2), 101786, 60672),
    ],
)
def test_a_map_that_the_caller_writes_is_read_pixel_by_pixel(
    device: str, one: Operation, linear: float, bricks: float
) -> None:
    """Vela's cycles of first layers, and of what its NPU computes in them."""
    read = schedule(replace(one, linear_source=True), plain(device), 0.0)
    assert read.cycles == pytest.approx(linear, rel=0.01)
    assert schedule(one, plain(device), 0.0).cycles == pytest.approx(bricks, rel=0.06)


def test_pixels_of_all_the_channels_of_a_block_are_read_in_one_piece() -> None:
    few, all_of = (
        replace(operation("depthwise", (40, 40, c), (40, 40, c), 3), linear_source=True)
        for c in (8, 16)
    )
    less, more = (schedule(one, system("ethos-u85-512")).traffic for one in (few, all_of))
    assert more.input_bytes < less.input_bytes


def test_what_the_caller_takes_is_written_in_pieces_of_a_brick() -> None:
    """Of 24 channels, a piece of 16 bytes is a quarter of a burst; in bricks they are 32."""
    one = operation("convolution", (20, 20, 16), (20, 20, 24), 1)
    written = [
        schedule(replace(one, linear_target=linear), system("ethos-u85-512")).traffic.output_bytes
        for linear in (False, True)
    ]
    assert written == [20 * 20 * 32, 20 * 20 * 24 * 4]


def test_images_of_one_or_two_channels_take_half_of_the_steps() -> None:
    """A U85 takes two weights of four; Vela's cycles of first layers, 1 and 2 channels."""
    gray = operation("convolution", (78, 48, 1), (78, 48, 10), 5)
    pair = operation("convolution", (117, 35, 2), (117, 35, 64), 3)
    whole = operation("convolution", (117, 35, 3), (117, 35, 64), 3)
    grays, pairs, wholes = (
        schedule(replace(one, linear_source=True), plain("ethos-u85-512"), 0.0)
        for one in (gray, pair, whole)
    )
    assert grays.cycles == pytest.approx(14623, rel=0.03)
    assert pairs.compute_cycles < 0.7 * wholes.compute_cycles


def test_an_operation_alone_has_nothing_to_hide_a_copy_behind() -> None:
    alone = schedule(WIDE, system("ethos-u55"))
    hidden = schedule(WIDE, system("ethos-u55"), 1e5)
    assert alone.store_cycles == alone.traffic.store_cycles > hidden.store_cycles
    assert alone.staging == hidden.staging


@pytest.mark.parametrize(
    ("widths", "slices"),
    [
        (
            (96, 480, 24, 144, 384, 24, 48, 48),
            ((16, 128, 128, 128, 80), None, (144,), None, None, (48,), None),
        ),
        (
            (216, 16, 16, 136, 56, 296, 24, 152),
            (None, None, (80, 56), None, (160, 128, 8), None, (152,)),
        ),
        (
            (8, 72, 24, 224, 48, 40, 16, 392),
            (None, None, (112, 112), None, (40,), None, (112, 128, 128, 24)),
        ),
        (
            (784, 256, 192, 96, 320, 64, 48, 160, 32),
            (None, None, None, (160, 128, 32), None, (48,), None, None),
        ),
        (
            (640, 128, 128, 128, 8, 128, 128, 640),
            (None, (128,), (64, 64), None, (48, 80), None, (288, 256, 96)),
        ),
    ],
)
def test_weights_are_cut_as_the_vendor_s_compiler_cuts_them(
    widths: tuple[int, ...], slices: tuple[tuple[int, ...] | None, ...]
) -> None:
    """Output channels of each slice that Vela's schedule prints for a U65; None: not staged."""
    found = schedules(layers(*widths), system("ethos-u65-512"), 0.0)
    cut = [None if run.staging is None else run.staging.slices for run in found]
    assert cut == [*slices]


def test_few_weights_a_channel_code_worse_and_zeros_that_fill_up_are_not_free() -> None:
    """Bytes of Vela 5.2 for a U65, whose two cores take whole micro-blocks of channels each."""
    u65 = system("ethos-u65-512").npu
    for one, coded in (
        (operation("convolution", (16, 16, 96), (16, 16, 40)), 4256),
        (operation("product", (1, 1, 768), (1, 1, 32)), 22832),
        (operation("product", (1, 1, 128), (1, 1, 32)), 4080),
        (operation("convolution", (16, 16, 24), (16, 16, 96)), 2720),
    ):
        assert weight_bytes(one, tiling_of(one, u65), u65) == pytest.approx(coded, rel=0.06)


def test_a_code_takes_no_more_bits_than_weights_have() -> None:
    for count in (1, 9, 64, 576, 4608):
        bits = [coded_bits(count, float(width)) for width in range(2, 9)]
        assert bits == sorted(bits)
        assert all(0 < found <= width for width, found in enumerate(bits, 2))
