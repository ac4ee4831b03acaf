"""Estimators by name: ours, and those that other packages bring.

A package brings one as an entry point, an `Estimator` or a class of one without arguments::

    [project.entry-points."dse.estimators"]
    systolic = "acme_models.systolic:SystolicEstimator"

A device's kind says who prices it (`DEFAULT_ESTIMATORS`), unless its file names another
(`estimator: systolic`).
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from hwmodels.devices.device import Device
from hwmodels.errors import DeviceError, nearest
from hwmodels.estimators.array.estimator import ArrayEstimator
from hwmodels.estimators.base import Estimator
from hwmodels.estimators.gpu.estimator import GpuEstimator

GROUP = "dse.estimators"
"""Entry points of packages that bring more estimators."""
ESTIMATORS: dict[str, Estimator] = {"array": ArrayEstimator(), "gpu": GpuEstimator()}
"""The shipped ones."""


def estimator_names() -> tuple[str, ...]:
    """Names of all estimators, shipped ones first."""
    return (*ESTIMATORS, *sorted({point.name for point in entry_points(group=GROUP)}))


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
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not points:
        known = estimator_names()
        raise DeviceError(
            f"{device}: estimator: unknown estimator {name!r}{nearest(name, known)} "
            f"Known: {', '.join(known)}; other packages bring theirs as entry points {GROUP!r}"
        )
    if len(points) > 1:
        raise DeviceError(
            f"{device}: estimator: {name!r} is brought twice, by {' and '.join(points)}; "
            "uninstall one of the packages"
        )
    (point,) = points.values()
    try:
        found = point.load()
    except Exception as problem:  # whatever another package's import raises
        raise DeviceError(f"estimator {name!r} ({point.value}): {problem}") from problem
    estimator = found() if isinstance(found, type) else found
    if not isinstance(estimator, Estimator):
        raise DeviceError(
            f"estimator {name!r} ({point.value}): expected an Estimator with `kinds` and "
            f"`estimate`, got {type(estimator).__name__}"
        )
    return estimator
