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


def _read(path: Path) -> Device:
    content = read_yaml(path, DeviceError, what="device file")
    sources = content.get("sources") if isinstance(content, dict) else None
    device = validated(
        _ADAPTER,
        content,
        str(path),
        DeviceError,
        context=sources if isinstance(sources, dict) else {},
    )
    if problems := absurd_figures(device):
        raise DeviceError("\n".join(f"{path}: {problem}" for problem in problems))
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
