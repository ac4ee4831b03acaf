"""What every estimator promises, ours or another's (`hwmodels.estimators.base.Estimator`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwmodels.devices.device import Device
from hwmodels.devices.load import device_names, load_device
from hwmodels.errors import DeviceError, WorkError
from hwmodels.estimators import registry
from hwmodels.estimators.base import Estimator
from hwmodels.estimators.registry import ESTIMATORS, estimator_names, estimator_of
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import AttentionLoops, ConvolutionLoops, ProductLoops, RowLoops

RUNTIME = load_runtime("free")
ELEMENTS = ("bf16", "fp16", "int8", "fp32")
SHIPPED = [load_device(name) for name in device_names()]
sizes = st.integers(1, 16384)
NOT_MONOTONE = 0.8
"""Trees over shapes step down here and there; 0.86 is the worst of 9,000 random GEMMs."""

ROOFLINE = '''
"""An estimator of another package: the roofline."""

from hwmodels.work.kernel import KernelCost


class Roofline:
    """The larger of computing and moving, after the launch."""

    kinds = frozenset({"gpu", "cpu", "array", "npu"})

    def estimate(self, kernels, device, runtime):
        return tuple(self._cost(kernel, device) for kernel in kernels)

    def _cost(self, kernel, device):
        rate = device.rate(kernel.weight_element, kernel.input_element)
        if kernel.macs and rate is None:
            from hwmodels.errors import WorkError
            raise WorkError(f"{device.name} multiplies no {kernel.input_element}")
        compute_s = 2 * kernel.macs / rate.ops_per_s.value if kernel.macs else 0.0
        memory_s = kernel.bytes / device.main_memory.bandwidth_bytes_per_s.value
        seconds = device.launch_s.value + max(compute_s, memory_s)
        return KernelCost(
            latency_s=seconds, low_s=seconds, high_s=2 * seconds,
            energy_j=device.power.idle_w.value * seconds, traffic_bytes=float(kernel.bytes),
            bound="compute" if compute_s > memory_s else "memory",
        )
'''


@pytest.fixture(name="others_package", scope="module")
def others_package_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed package that brings estimators, as `pip install` leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "acme_models.py").write_text(ROOFLINE + "\n\nNOTHING = 3\n")
    info = folder / "acme_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dse.estimators]\nroofline = acme_models:Roofline\nnothing = acme_models:NOTHING\n"
        "absent = acme_models:Absent\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        registry._brought.cache_clear()
        yield folder
    registry._brought.cache_clear()


@pytest.fixture(name="devices", scope="module")
def devices_fixture(others_package: Path) -> list[Device]:
    """Every shipped device, and three that another package's estimator prices."""
    assert others_package.exists()
    named = [load_device(name) for name in ("h100-sxm", "xeon-8480", "ethos-u55")]
    return [*SHIPPED, *(replace(device, estimator="roofline") for device in named)]


def _element(device: Device) -> str:
    return next(name for name in ELEMENTS if device.rate(name, name) is not None)


def _gemm(device: Device, m: int, n: int, k: int) -> Kernel:
    element = _element(device)
    stored = catalog.format(element)
    width = stored.element.bits // 8
    return Kernel(
        kind="gemm",
        loops=ProductLoops(m=m, n=n, k=k),
        input_format=stored,
        weight_format=stored,
        output_format=stored,
        weight_element=element,
        input_element=element,
        accumulator="int32" if element == "int8" else "fp32",
        input_bytes=m * k * width,
        weight_bytes=n * k * width,
        write_bytes=m * n * width,
    )


def _others(device: Device) -> list[Kernel]:
    """A kernel of every other kind than a GEMM and a collective."""
    element = _element(device)
    stored = catalog.format(element)
    multiplied = Kernel(
        kind="conv2d",
        loops=ConvolutionLoops(
            images=1, groups=1, in_channels=64, out_channels=64, in_size=(28, 28),
            out_size=(28, 28), kernel=(3, 3),
        ),
        input_format=stored,
        weight_format=stored,
        weight_element=element,
        input_element=element,
        input_bytes=64 * 28 * 28,
        weight_bytes=64 * 64 * 9,
        write_bytes=64 * 28 * 28,
    )  # fmt: skip
    attention = AttentionLoops(batch=2, heads=8, kv_heads=8, queries=64, keys=64, depth=64)
    moved = Kernel(
        kind="pointwise", loops=RowLoops(rows=512, cols=1024), input_format=stored,
        output_format=stored, input_bytes=1 << 20, write_bytes=1 << 20,
    )  # fmt: skip
    return [
        multiplied,
        replace(multiplied, kind="attention", loops=attention),
        replace(
            multiplied, kind="tiled_gemm", loops=ProductLoops(m=784, n=64, k=576), tile=(16, 8)
        ),
        moved,
        replace(moved, kind="rowwise", detail="softmax"),
        replace(moved, kind="reduce", detail="compute_scale", write_bytes=4),
        replace(moved, kind="embedding"),
        replace(moved, kind="quantize", detail="token", grid=catalog.format("int8_token")),
    ]


def _cold_bytes(device: Device, kernel: Kernel) -> float:
    """Bytes of weights in main memory, where some NPUs hold them coded: normal ones to 3/4."""
    share = 1.0 if device.npu is None else device.npu.weights.share or 0.75
    return share * kernel.weight_bytes if kernel.weight_is_cold else 0.0


def _light_s(device: Device, kernel: Kernel) -> float:
    rate = device.rate(kernel.weight_element, kernel.input_element)
    compute = 2 * kernel.macs / rate.ops_per_s.value if kernel.macs and rate else 0.0
    bandwidth = device.main_memory.bandwidth_bytes_per_s.value
    return max(compute, _cold_bytes(device, kernel) / bandwidth)


def _holds_the_laws(device: Device, kernel: Kernel, cost: KernelCost) -> None:
    assert all(map(math.isfinite, (cost.low_s, cost.high_s, cost.energy_j, cost.traffic_bytes)))
    assert cost.low_s >= _light_s(device, kernel) * (1 - 1e-9)
    assert 0 < cost.low_s <= cost.latency_s <= cost.high_s
    assert cost.latency_s >= device.launch_s.value
    assert 0 < cost.energy_j <= device.power.limit_w.value * cost.latency_s * (1 + 1e-9)
    assert cost.traffic_bytes >= _cold_bytes(device, kernel) * (1 - 1e-9)


def some(devices: list[Device]) -> st.SearchStrategy[Device]:
    return st.sampled_from(devices)


quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(data=st.data(), m=sizes, n=sizes, k=sizes)
def test_nothing_is_faster_than_light_and_intervals_hold_the_estimate(
    devices: list[Device], data: st.DataObject, m: int, n: int, k: int
) -> None:
    device = data.draw(some(devices))
    kernel = _gemm(device, m, n, k)
    (cost,) = estimator_of(device).estimate([kernel], device, RUNTIME)
    _holds_the_laws(device, kernel, cost)


def test_every_kind_of_kernel_has_a_cost_within_the_laws(devices: list[Device]) -> None:
    for device in devices:
        kernels = _others(device)
        costs = estimator_of(device).estimate(kernels, device, RUNTIME)
        assert len(costs) == len(kernels)
        for kernel, cost in zip(kernels, costs, strict=True):
            _holds_the_laws(device, kernel, cost)


@quick
@given(data=st.data(), m=sizes, n=sizes, k=st.integers(1, 8192))
def test_twice_the_depth_never_costs_less(
    devices: list[Device], data: st.DataObject, m: int, n: int, k: int
) -> None:
    """Within the learned part, which is not monotone, and the filling of an array, which is not
    either.
    """
    device = data.draw(some(devices))
    short, long = estimator_of(device).estimate(
        [_gemm(device, m, n, k), _gemm(device, m, n, 2 * k)], device, RUNTIME
    )
    assert long.latency_s >= short.latency_s * NOT_MONOTONE


@quick
@given(data=st.data(), m=sizes, n=sizes, k=sizes)
def test_more_bytes_never_cost_less(
    devices: list[Device], data: st.DataObject, m: int, n: int, k: int
) -> None:
    device = data.draw(some(devices))
    kernel = _gemm(device, m, n, k)
    heavier = replace(kernel, weight_bytes=2 * kernel.weight_bytes)
    light, heavy = estimator_of(device).estimate([kernel, heavier], device, RUNTIME)
    assert heavy.latency_s >= light.latency_s * NOT_MONOTONE
    assert heavy.traffic_bytes > light.traffic_bytes


def test_many_kernels_at_once_cost_what_each_costs_alone_in_order(devices: list[Device]) -> None:
    for device in devices:
        estimator = estimator_of(device)
        kernels = [_gemm(device, 64, 64, 64), *_others(device), _gemm(device, 8192, 8192, 8192)]
        alone = [estimator.estimate([kernel], device, RUNTIME)[0] for kernel in kernels]
        assert list(estimator.estimate(kernels, device, RUNTIME)) == alone
        assert estimator.estimate((), device, RUNTIME) == ()


def test_what_no_unit_multiplies_is_an_error(devices: list[Device]) -> None:
    for device in devices:
        odd = replace(_gemm(device, 64, 64, 64), weight_element="decoded", input_element="decoded")
        with pytest.raises(WorkError, match=device.name):
            estimator_of(device).estimate([odd], device, RUNTIME)


@pytest.mark.parametrize("device", SHIPPED, ids=lambda device: device.name)
def test_the_kind_of_every_shipped_device_names_an_estimator_that_prices_it(
    device: Device,
) -> None:
    estimator = estimator_of(device)
    assert isinstance(estimator, Estimator)
    assert estimator is ESTIMATORS[device.priced_by]
    assert device.kind in estimator.kinds


def test_another_package_brings_an_estimator(others_package: Path) -> None:
    assert (others_package / "acme_models.py").exists()
    assert "roofline" in estimator_names()
    device = replace(load_device("eyeriss"), estimator="roofline")
    assert type(estimator_of(device)).__name__ == "Roofline"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpo", r"eyeriss: estimator: unknown estimator 'gpo'.*'gpu'.*Known: array, cpu, gpu"),
        ("gpu", r"gpu prices devices of kind gpu, not 'array'"),
        ("nothing", r"estimator: 'nothing': expected an Estimator.*got int"),
        ("absent", r"absent = acme_models:Absent: .*Absent"),
    ],
)
def test_a_wrong_estimator_is_named(others_package: Path, name: str, message: str) -> None:
    assert others_package.exists()
    with pytest.raises(DeviceError, match=message):
        estimator_of(replace(load_device("eyeriss"), estimator=name))
