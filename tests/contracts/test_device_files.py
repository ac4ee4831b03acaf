"""Laws of device and runtime files that every shipped one keeps."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest

from hwmodels.devices.device import DEFAULT_RUNTIMES, Device
from hwmodels.devices.load import DEVICES, device_names, load_device
from hwmodels.devices.quantity import SourcedValue
from hwmodels.formats.encodings import ENCODINGS
from hwmodels.runtimes.load import RUNTIMES, load_runtime, runtime_names
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.work import CONTRACTING

# Elements of units that no format of the catalogue is stored in.
BEYOND_FORMATS = {"fp32", "tf32", "int16", "fp64"}


def _native_modes(runtime: Runtime, device: Device) -> list[str]:
    return [
        mode.name
        for mode in runtime.modes
        if mode.status == "native"
        and runtime.exists_for(device.architecture)
        and mode.runs_on(device.architecture)
        and device.widened(*mode.compute) is not None
    ]


def _figures(record: object) -> list[SourcedValue]:
    if isinstance(record, SourcedValue):
        return [record]
    if isinstance(record, tuple):
        return [figure for item in record for figure in _figures(item)]
    if is_dataclass(record):
        return [one for item in fields(record) for one in _figures(getattr(record, item.name))]
    return []


@pytest.mark.parametrize("name", device_names())
def test_a_device_is_called_as_its_file_and_every_figure_has_a_source(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    figures = _figures(device)
    assert len(figures) >= 15
    assert all(figure.source.strip() and figure.value > 0 for figure in figures)
    assert device.figures == tuple(figures)


@pytest.mark.parametrize("name", device_names())
def test_the_default_runtime_exists_and_has_a_native_kernel_there(name: str) -> None:
    device = load_device(name)
    runtime = load_runtime(device.default_runtime)
    assert runtime.exists_for(device.architecture)
    assert runtime.every_combination or _native_modes(runtime, device)


@pytest.mark.parametrize("name", device_names())
def test_units_multiply_elements_that_are_known(name: str) -> None:
    for unit in load_device(name).units:
        for rate in unit.rates:
            assert {*rate.weight, *rate.input} <= {*ENCODINGS, *BEYOND_FORMATS}


@pytest.mark.parametrize("name", device_names())
def test_a_device_is_opened_once_a_process_and_cannot_be_changed(name: str) -> None:
    device = load_device(name)
    assert load_device(name) is device
    assert hash(device) == hash(load_device(DEVICES.path(name)))
    with pytest.raises(AttributeError):
        device.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", runtime_names())
def test_a_runtime_is_called_as_its_file_and_exists_for_some_device(name: str) -> None:
    runtime = load_runtime(name)
    assert runtime.name == name
    assert runtime.source.strip()
    assert load_runtime(RUNTIMES.path(name)) == runtime
    devices = [load_device(device) for device in device_names()]
    here = [
        device
        for device in devices
        if runtime.exists_for(device.architecture) and device.runtime in (None, name)
    ]  # a device whose file names another runtime of its family may have no kernels here
    assert here
    assert runtime.every_combination or all(_native_modes(runtime, device) for device in here)


@pytest.mark.parametrize("name", runtime_names())
def test_modes_are_of_ops_that_multiply(name: str) -> None:
    for mode in load_runtime(name).modes:
        assert set(mode.ops) <= set(CONTRACTING)
        assert mode.source.strip()


def test_every_kind_of_device_has_a_default_runtime_that_is_shipped() -> None:
    assert set(DEFAULT_RUNTIMES) == {load_device(name).kind for name in device_names()}
    assert set(DEFAULT_RUNTIMES.values()) <= set(runtime_names())
