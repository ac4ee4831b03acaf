"""Processors: what more cores, bytes and bits do, and times that can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.devices.cpu import FittedFactor
from hwmodels.devices.device import Device, Measurement
from hwmodels.devices.load import device_names, load_device
from hwmodels.errors import WorkError
from hwmodels.estimators.cpu.constants import CONSTANTS, SOCKET_REACH, Constants
from hwmodels.estimators.cpu.demand import timing_of
from hwmodels.estimators.cpu.estimator import CpuEstimator
from hwmodels.estimators.cpu.fitting import fitted_factors
from hwmodels.estimators.cpu.lookup import lookup_macs_per_s
from hwmodels.estimators.cpu.memory import memory_s
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.estimators.cpu.product import product_demand
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.lookup import Lookup
from hwmodels.work.loops import ConvolutionLoops, ProductLoops, RowLoops

RUNTIME = load_runtime("torch-cpu")
NAMES = [name for name in device_names() if load_device(name).kind == "cpu"]
ZEN4 = load_device("zen4-2c")
PLAIN = Constants(factors=())
sizes = st.integers(1, 3000)
some = settings(max_examples=60, deadline=None)


def product(m: int, n: int, k: int, element: str = "fp32", stored: str = "") -> Kernel:
    held = catalog.format(stored or element)
    width = held.element.bits / 8
    return Kernel(
        kind="gemm", loops=ProductLoops(m=m, n=n, k=k), input_format=held, weight_format=held,
        output_format=held, weight_element=element, input_element=element,
        accumulator="int32" if element == "int8" else "fp32", input_bytes=round(m * k * width),
        weight_bytes=round(n * k * width), write_bytes=round(m * n * width),
    )  # fmt: skip


def convolution(channels: int, outputs: int, size: int, kernel: int, groups: int = 1) -> Kernel:
    held = catalog.format("fp32")
    return Kernel(
        kind="conv2d",
        loops=ConvolutionLoops(
            images=1, groups=groups, in_channels=channels, out_channels=outputs,
            in_size=(size, size), out_size=(size, size), kernel=(kernel, kernel),
        ),
        input_format=held, weight_format=held, output_format=held, weight_element="fp32",
        input_element="fp32", input_bytes=4 * channels * size**2,
        weight_bytes=4 * outputs * channels // groups * kernel**2,
        write_bytes=4 * outputs * size**2,
    )  # fmt: skip


def moved(count: int) -> Kernel:
    held = catalog.format("fp32")
    return Kernel(
        kind="pointwise", detail="add", loops=RowLoops(rows=1, cols=count), input_format=held,
        output_format=held, input_bytes=4 * count, write_bytes=4 * count,
    )  # fmt: skip


def cost(kernel: Kernel, device: Device = ZEN4) -> KernelCost:
    (found,) = CpuEstimator().estimate([kernel], device, RUNTIME)
    return found


def with_cores(device: Device, cores: int) -> Device:
    """The device with so many cores, whose shared levels stay as they are."""
    factor = cores / device.unit("matrix").count.value
    units = tuple(
        replace(
            unit,
            count=replace(unit.count, value=float(cores)),
            rates=tuple(
                replace(rate, ops_per_s=replace(
                    rate.ops_per_s, value=rate.ops_per_s.value * factor))
                for rate in unit.rates
            ),
        )
        for unit in device.units
    )  # fmt: skip
    return replace(device, units=units)


@some
@given(name=st.sampled_from(NAMES), shape=st.tuples(sizes, sizes, sizes),
       cores=st.integers(1, 40), more=st.integers(1, 40))  # fmt: skip
def test_more_cores_are_never_slower(
    name: str, shape: tuple[int, int, int], cores: int, more: int
) -> None:
    device, kernel = load_device(name), product(*shape)
    few, many = (
        cost(kernel, with_cores(device, count)).latency_s for count in (cores, cores + more)
    )
    assert many <= few * (1 + 1e-9)


@some
@given(name=st.sampled_from(NAMES), sides=st.tuples(sizes, sizes, sizes),
       axis=st.sampled_from("mnk"), more=st.integers(1, 500))  # fmt: skip
def test_a_larger_product_is_never_faster(
    name: str, sides: tuple[int, int, int], axis: str, more: int
) -> None:
    """Apart from kernels of a few rows, which are other code."""
    shape = {"m": sides[0] + 4, "n": sides[1], "k": sides[2]}
    device = load_device(name)
    grown = {**shape, axis: shape[axis] + more}
    small, large = (
        cost(product(one["m"], one["n"], one["k"]), device).latency_s for one in (shape, grown)
    )
    assert large >= small * (1 - 1e-9)


@some
@given(channels=st.integers(1, 64), size=st.integers(3, 40), more=st.integers(1, 30))
def test_a_larger_image_is_never_faster(channels: int, size: int, more: int) -> None:
    small, large = (
        cost(convolution(8 * channels, 32, one, 3)).latency_s for one in (size, size + more)
    )
    assert large >= small * (1 - 1e-9)


@some
@given(count=st.integers(1, 10**7), more=st.integers(1, 10**6))
def test_no_row_beats_the_memory_it_lies_in(count: int, more: int) -> None:
    """A longer one takes longer, and what fits no cache at least its way from main memory."""
    short, long = cost(moved(count)).latency_s, cost(moved(count + more)).latency_s
    assert long >= short
    processor = Processor.of(ZEN4, "torch-cpu", PLAIN)
    bytes_ = 8.0 * count
    assert memory_s(0.0, bytes_, processor, 2) >= bytes_ / processor.levels[0].rate(2)
    assert memory_s(bytes_, 0.0, processor, 2) == pytest.approx(bytes_ / 92e9)
    assert memory_s(bytes_, 0.0, processor, 1) == pytest.approx(bytes_ / 46e9)


def test_a_full_product_takes_its_cycles() -> None:
    """1152 x 1024 x 1024 on one core: 1152 is 96 tiles of 12 rows, 16 MACs a cycle at 3.7 GHz."""
    processor = Processor.of(ZEN4, "torch-cpu", PLAIN)
    demand = product_demand(product(1152, 1024, 1024), processor)
    assert demand.core_s == pytest.approx(1152 * 1024 * 1024 / 16 / 3.7e9)
    assert demand.pieces == 96 * 32
    assert demand.packed_s == pytest.approx(1024 * 1024 / 3.7e9)


def test_tails_count_rows_that_keep_adders_busy_and_lanes_that_are_empty() -> None:
    """13 rows are a tile of 12 and two rows; 17 columns two registers of 16."""
    processor = Processor.of(ZEN4, "torch-cpu", PLAIN)
    demand = product_demand(product(13, 17, 64), processor)
    assert demand.core_s == pytest.approx(14 * 32 * 64 / 16 / 3.7e9)


def test_a_cold_row_of_weights_is_bound_by_memory() -> None:
    """67 MB of float32 weights at 113 GB/s are 0.59 ms, whatever the cores do."""
    found = cost(product(1, 4096, 4096))
    assert found.traffic_bytes >= 4096 * 4096 * 4
    assert found.low_s >= 4096 * 4096 * 4 / 113e9


def test_onnx_runtime_packs_weights_once_and_torch_in_every_call() -> None:
    kernel = product(8, 2048, 2048)
    packed = [
        product_demand(kernel, Processor.of(ZEN4, name, PLAIN)).packed_s
        for name in ("torch-cpu", "onnxruntime-cpu")
    ]
    assert packed[0] > 0
    assert packed[1] == 0


def test_fewer_bits_are_faster_where_there_are_instructions() -> None:
    fp32, bf16, int8 = (cost(product(512, 1024, 1024, name)).latency_s
                        for name in ("fp32", "bf16", "int8"))  # fmt: skip
    assert int8 < bf16 < fp32


def test_a_socket_reaches_its_share_of_main_memory_and_two_cores_what_libraries_draw() -> None:
    """What was timed on two cores is theirs; all of a socket's together are not as slow."""
    slower = FittedFactor(term="memory", runtime="", family="dram", element="", factor=3.0)
    libraries = replace(PLAIN, factors=(slower,))
    socket = Processor.of(load_device("xeon-8480"), "torch-cpu", libraries).main
    assert socket.rate(2) == pytest.approx(2 * 14e9 / 3)
    assert socket.rate(56) == pytest.approx(SOCKET_REACH * 307.2e9)
    two = Processor.of(ZEN4, "torch-cpu", libraries).main
    assert two.rate(2) == pytest.approx(2 * 46e9 / 3)
    assert two.rate(96) == pytest.approx(113e9), "a measured bandwidth is reached"


def test_a_socket_decodes_between_its_bandwidth_and_half_of_it() -> None:
    """Users report 0.5 to 0.65 of it for int8 weights in 48 and 56 cores."""
    xeon = load_device("xeon-8480")
    weights = product(1, 4096, 14336, "bf16")
    latency = cost(weights, xeon).latency_s
    bytes_ = 4096 * 14336 * 2
    assert bytes_ / 307.2e9 < latency < 2.2 * bytes_ / 307.2e9


def test_bf16_without_instructions_costs_more_than_float32() -> None:
    """AVX2 converts it on the way, and multiplies in float32."""
    avx2 = load_device("cpu-avx2")
    plain, converted = product(1024, 1024, 1024), product(1024, 1024, 1024, "fp32", "bf16")
    processor = Processor.of(avx2, "torch-cpu", PLAIN)
    times = [timing_of(product_demand(one, processor), processor).latency_s
             for one in (plain, converted)]  # fmt: skip
    assert times[1] > times[0]


def test_sums_of_16_bits_gain_where_int8_takes_three_instructions_and_not_with_vnni() -> None:
    """FBGEMM's acc16 against its acc32 (arXiv:2101.05615)."""
    wide = product(256, 1024, 1024, "int8")
    narrow = replace(wide, accumulator="int16")
    for name, gains in (("cpu-avx2", True), ("xeon-8480", False)):
        processor = Processor.of(load_device(name), "torch-cpu", PLAIN)
        acc32, acc16 = (product_demand(one, processor).core_s for one in (wide, narrow))
        assert (acc16 < acc32) is gains


def test_outliers_take_what_they_are_of_the_product() -> None:
    narrow = replace(product(256, 1024, 1024, "int8"), accumulator="int16")
    processor = Processor.of(load_device("cpu-avx2"), "torch-cpu", PLAIN)
    none, few, many = (
        product_demand(replace(narrow, outliers=share), processor).core_s
        for share in (0.0, 0.005, 0.05)
    )
    assert none < few < many
    assert many - none == pytest.approx(10 * (few - none))


def test_narrow_sums_are_never_taken_unasked() -> None:
    avx2 = load_device("cpu-avx2")
    processor = Processor.of(avx2, "torch-cpu", PLAIN)
    assert processor.instructions(product(8, 8, 8, "int8")).accumulator == "int32"


def test_look_ups_go_by_the_table_and_the_instructions_of_one() -> None:
    """32 look-ups a shuffle, four instructions of two a cycle: 16 MACs; in memory two loads."""
    processor = Processor.of(load_device("cpu-avx2"), "torch-cpu", PLAIN)
    small = Lookup(index_bits=4, instructions=4)
    assert lookup_macs_per_s(small, processor) == pytest.approx(16 * 3.5e9)
    large = replace(small, index_bits=8)
    assert lookup_macs_per_s(large, processor) == pytest.approx(2 * 3.5e9)
    huge = replace(small, index_bits=17)
    assert lookup_macs_per_s(huge, processor) == pytest.approx(2 * 3.5e9 / 2)
    grouped = replace(small, products=4)
    assert lookup_macs_per_s(grouped, processor) == pytest.approx(4 * 16 * 3.5e9)


def test_tables_of_activations_are_made_in_every_call() -> None:
    processor = Processor.of(load_device("cpu-avx2"), "torch-cpu", PLAIN)
    table = Lookup(index_bits=4, instructions=4, products=4)
    kernel = replace(product(64, 256, 256, "int8"), lookup=table)
    made = replace(kernel, lookup=replace(table, of_activations=True))
    assert product_demand(kernel, processor).prepared_s == 0
    assert product_demand(made, processor).prepared_s > 0


def test_unfolding_costs_and_winograd_saves_multiplications() -> None:
    kernel = convolution(256, 256, 28, 3)
    direct, unfolded, transformed = (
        cost(replace(kernel, algorithm=name)) for name in ("direct", "im2col", "winograd")
    )
    assert direct.latency_s < unfolded.latency_s
    assert transformed.latency_s < direct.latency_s
    other = convolution(256, 256, 28, 1)
    assert cost(replace(other, algorithm="winograd")) == cost(other)


def test_depthwise_kernels_do_not_reach_the_rate_of_products() -> None:
    alone, dense = convolution(256, 256, 28, 3, 256), convolution(256, 256, 28, 3)
    rates = [one.macs / cost(one).latency_s for one in (alone, dense)]
    assert rates[0] < rates[1] / 2


def test_measurements_move_predictions_towards_them() -> None:
    kernel = product(128, 768, 768)
    before = cost(kernel)
    sizes_of = (("K", 768), ("M", 128), ("N", 768))
    timed = tuple(
        Measurement(op="gemm", sizes=sizes_of, dtype="fp32", runtime="torch-cpu",
                    median_us=3e6 * before.latency_s)
        for _ in range(3)
    )  # fmt: skip
    after = cost(kernel, replace(ZEN4, measurements=timed))
    assert before.latency_s < after.latency_s <= 3 * before.latency_s


def test_a_fitted_factor_changes_the_term_that_it_names() -> None:
    kernel = product(512, 1024, 1024)
    assert ZEN4.cpu is not None
    fitted = (FittedFactor(term="compute", family="product", factor=2.0),)
    slower = replace(ZEN4, cpu=replace(ZEN4.cpu, fitted=fitted))
    assert cost(kernel, slower).latency_s > 1.5 * cost(kernel).latency_s
    assert cost(moved(1000), slower) == cost(moved(1000))


def test_a_fit_finds_the_factor_that_times_were_made_with() -> None:
    """Products three times slower than predicted, in one element alone."""
    sides = [(m, k, n) for m in (64, 256, 512) for k in (256, 1024) for n in (512, 1024)]
    timed = [
        Measurement(op="gemm", sizes=(("K", k), ("M", m), ("N", n)), dtype=dtype,
                    runtime="torch-cpu",
                    median_us=1e6 * slower * cost(product(m, n, k, dtype)).latency_s)
        for m, k, n in sides
        for dtype, slower in (("fp32", 3.0), ("bf16", 1.0))
    ]  # fmt: skip
    factors = fitted_factors(timed, ZEN4, CONSTANTS)
    assert ZEN4.cpu is not None
    fitted = replace(ZEN4, cpu=replace(ZEN4.cpu, fitted=factors))
    for m, k, n in sides:
        before, after = (cost(product(m, n, k), one).latency_s for one in (ZEN4, fitted))
        assert after == pytest.approx(3 * before, rel=0.2)
        before, after = (cost(product(m, n, k, "bf16"), one).latency_s for one in (ZEN4, fitted))
        assert after == pytest.approx(before, rel=0.2)


def test_eager_torch_on_a_processor_is_the_runtime_of_processors() -> None:
    kernel = product(128, 768, 768)
    (eager,) = CpuEstimator().estimate([kernel], ZEN4, load_runtime("torch-eager"))
    assert eager == cost(kernel)


def test_shipped_factors_are_of_known_terms_and_runtimes() -> None:
    assert {one.runtime for one in CONSTANTS.factors} == {"", "torch-cpu", "onnxruntime-cpu"}
    assert all(0.02 < one.factor < 100 for one in CONSTANTS.factors)


def test_what_has_no_instructions_is_an_error() -> None:
    with pytest.raises(WorkError, match=r"zen4-2c has no unit that multiplies e4m3 with e4m3"):
        cost(product(8, 8, 8, "e4m3"))
