"""Estimators by name: ours, and those that other packages bring.

A package brings one as an entry point, an `Estimator` or a class of one without arguments::

    [project.entry-points."dse.estimators"]
    systolic = "acme_models.systolic:SystolicEstimator"

A device's kind says who prices it (`DEFAULT_ESTIMATORS`), unless its file names another
(`estimator: systolic`).
"""

from __future__ import annotations

from functools import cache

from hwmodels.devices.device import Device
from hwmodels.errors import DeviceError, PluginError, nearest
from hwmodels.estimators.array.estimator import ArrayEstimator
from hwmodels.estimators.base import Estimator
from hwmodels.estimators.cpu.estimator import CpuEstimator
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.npu.estimator import NpuEstimator
from hwmodels.plugins import plugin, plugin_names

GROUP = "dse.estimators"
"""Entry points of packages that bring more estimators."""
ESTIMATORS: dict[str, Estimator] = {
    "array": ArrayEstimator(),
    "cpu": CpuEstimator(),
    "gpu": GpuEstimator(),
    "npu": NpuEstimator(),
}
"""The shipped ones."""


def estimator_names() -> tuple[str, ...]:
    """Names of all estimators, shipped ones first."""
    return tuple(dict.fromkeys([*ESTIMATORS, *plugin_names(GROUP)]))


def estimator_of(device: Device) -> Estimator:
    """The estimator that prices the device's kernels.

    Raises:
        DeviceError: The device's file names one that nobody brings, or that does not price its
            kind of device.
    """
    name = device.priced_by
    # A shipped one is had without a look at the installed packages, which takes 30 ms.
    estimator = ESTIMATORS[name] if name in ESTIMATORS else _brought(name, device.name)
    if device.kind not in estimator.kinds:
        raise DeviceError(
            f"{device.name}: estimator: {name} prices devices of kind "
            f"{', '.join(sorted(estimator.kinds))}, not {device.kind!r}; name another, or none"
        )
    return estimator


@cache
def _brought(name: str, device: str) -> Estimator:
    """The estimator of another package; `device` names the file in errors."""
    known = estimator_names()
    if name not in known:
        raise DeviceError(
            f"{device}: estimator: unknown estimator {name!r}{nearest(name, known)} "
            f"Known: {', '.join(known)}; other packages bring theirs as entry points {GROUP!r}"
        )
    try:
        found = plugin(GROUP, name)
    except PluginError as problem:
        raise DeviceError(f"{device}: estimator: {problem}") from problem
    estimator = found() if isinstance(found, type) else found
    if not isinstance(estimator, Estimator):
        raise DeviceError(
            f"{device}: estimator: {name!r}: expected an Estimator with `kinds` and "
            f"`estimate`, got {type(estimator).__name__}"
        )
    return estimator
