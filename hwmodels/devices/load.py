"""Device files: YAML to `Device`, all errors at once with field path and file name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from hwmodels.devices.check import absurd_figures
from hwmodels.devices.device import Device
from hwmodels.errors import DeviceError
from hwmodels.file_catalogue import FileCatalogue
from hwmodels.validation import validated
from hwmodels.yaml_file import SUFFIXES, read_yaml

_ADAPTER = TypeAdapter(Device)


def device_names() -> tuple[str, ...]:
    """Names of the devices that are shipped or that other packages bring."""
    return DEVICES.names()


def load_device(name_or_path: str | Path) -> Device:
    """The device of that name, or of that YAML file.

    Raises:
        DeviceError: An unknown name, or a file with missing, unknown, absurd or contradictory
            entries; the message lists all of them.
    """
    return DEVICES.load(name_or_path)


def checked_device(content: object, origin: str) -> Device:
    """The device of a file's content; `origin` begins every message.

    Raises:
        DeviceError: As `load_device`.
    """
    sources = content.get("sources") if isinstance(content, dict) else None
    device = validated(
        _ADAPTER,
        content,
        origin,
        DeviceError,
        context=sources if isinstance(sources, dict) else {},
    )
    if problems := absurd_figures(device):
        raise DeviceError("\n".join(f"{origin}: {problem}" for problem in problems))
    return device


def _read(path: Path) -> Device:
    device = checked_device(read_yaml(path, DeviceError, what="device file"), str(path))
    if device.runtime is not None and Path(device.runtime).suffix in SUFFIXES:
        return replace(device, runtime=str((path.parent / device.runtime).absolute()))
    return device


DEVICES = FileCatalogue(
    kind="device",
    folder=Path(__file__).parent,
    group="dse.devices",
    error=DeviceError,
    read=_read,
)
