"""Platforms: a device under the runtime that drives it, as people write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device
from hwmodels.errors import DeviceError
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.runtime import Runtime
from hwmodels.yaml_file import SUFFIXES

SEPARATOR = ":"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A device with its runtime."""

    device: Device
    runtime: Runtime
    runtime_origin: str
    """The name or file that the runtime was loaded by."""


def load_platform(text: str, *, runtime: str | None = None) -> Platform:
    """The platform of `DEVICE` or `DEVICE:RUNTIME`, each a name or a YAML file.

    Args:
        text: What `split_platform` takes.
        runtime: Runtime of a text that names none; by default the device's own.

    Raises:
        DeviceError: A text of another form, or a device that does not exist.
        RuntimeModeError: A runtime that does not exist.
    """
    device_origin, named = split_platform(text)
    device = load_device(device_origin)
    origin = named or runtime or device.default_runtime
    return Platform(device=device, runtime=load_runtime(origin), runtime_origin=origin)


def split_platform(text: str) -> tuple[str, str | None]:
    """Device and runtime of `DEVICE` or `DEVICE:RUNTIME`; None where no runtime is named.

    A folder may have a colon in its name: a device file ends at its suffix.

    Raises:
        DeviceError: No device, or nothing after the colon.
    """
    ends = (at for at, letter in enumerate(text) if letter == SEPARATOR and _ends(text[:at]))
    end = next(ends, None)
    device, runtime = (text, None) if end is None else (text[:end], text[end + 1 :])
    if not device or runtime == "":
        raise DeviceError(
            f"{text!r}: expected DEVICE or DEVICE:RUNTIME, e.g. h100-sxm:vllm or "
            "mine.yaml:torch-compile; see: dse devices, dse runtimes"
        )
    return device, runtime


def _ends(device: str) -> bool:
    """Whether a text before a colon can be a whole device: a name, or a file by its suffix."""
    return "/" not in device or Path(device).suffix in SUFFIXES
