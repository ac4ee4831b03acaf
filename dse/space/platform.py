"""The device and the runtime that a target of a space names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.space.schema import Target
from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.devices.vary import DeviceFile
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.runtime import Runtime
from hwmodels.yaml_file import SUFFIXES


def platform_of(
    target: Target, folder: Path, devices: Mapping[str, Device] | None = None
) -> tuple[Device, Runtime]:
    """The device of a target and the runtime that drives it there.

    Args:
        target: of a space.
        folder: what relative device and runtime files are relative to.
        devices: by the name that a target uses, where it is not one of the catalogue or a file.

    Raises:
        HardwareError: unknown or wrong devices and runtimes.
    """
    device = (devices or {}).get(target.device) or _device(target, folder)
    runtime = load_runtime(located(target.runtime or device.default_runtime, folder))
    return device, runtime


def _device(target: Target, folder: Path) -> Device:
    """The device of a target's file, with what the target sets instead."""
    origin = located(target.device, folder)
    if not target.set:
        return load_device(origin)
    return DeviceFile(origin).varied(target.set, by="`set` of the target")


def located(name: str, folder: Path) -> str | Path:
    """A name as it is; a file relative to the space's folder."""
    return folder / name if Path(name).suffix in SUFFIXES else name
