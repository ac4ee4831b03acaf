"""Device files: YAML to `Device`, all errors at once with field path and file name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from hwmodels.devices.check import absurd_figures
from hwmodels.devices.content import Content
from hwmodels.devices.device import Device
from hwmodels.errors import DeviceError
from hwmodels.file_catalogue import FileCatalogue
from hwmodels.validation import validated
from hwmodels.yaml_file import SUFFIXES, read_yaml

DEVICE_FILE = TypeAdapter(Device)
"""The reader of a device's content."""


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
    return plausible(read_device(content, origin), origin)


def read_device(content: object, origin: str) -> Device:
    """The device of a file's content, whose figures may still contradict each other.

    Raises:
        DeviceError: Missing or unknown entries, units of another dimension, figures out of range.
    """
    sources = content.get("sources") if isinstance(content, dict) else None
    return validated(
        DEVICE_FILE,
        content,
        origin,
        DeviceError,
        context=sources if isinstance(sources, dict) else {},
    )


def plausible(device: Device, origin: str) -> Device:
    """The device itself.

    Raises:
        DeviceError: Figures that contradict each other.
    """
    if problems := absurd_figures(device):
        raise DeviceError("\n".join(f"{origin}: {problem}" for problem in problems))
    return device


def device_content(name_or_path: str | Path) -> tuple[Path, Content]:
    """The file of a device, and what it holds; a runtime's file is named by its absolute path.

    Raises:
        DeviceError: A name or file that does not exist, or a file that is no mapping.
    """
    named = Path(name_or_path).suffix not in SUFFIXES
    path = DEVICES.path(str(name_or_path)) if named else Path(name_or_path)
    content = _content(path)
    if not isinstance(content, dict):
        raise DeviceError(f"{path}: expected the mapping of a device file")
    return path, content


def _content(path: Path) -> object:
    """Content of a file; a runtime's file beside it keeps its place, wherever it is named next."""
    content = read_yaml(path, DeviceError, what="device file")
    runtime = content.get("runtime") if isinstance(content, dict) else None
    if isinstance(runtime, str) and Path(runtime).suffix in SUFFIXES:
        assert isinstance(content, dict), "it has a runtime"
        content["runtime"] = str((path.parent / runtime).absolute())
    return content


def _read(path: Path) -> Device:
    return checked_device(_content(path), str(path))


def _essence(device: Device) -> object:
    """Figures of a GPU: its trees, samples and intervals are looked up by its name.

    Not what is measured or corrected, which a file brings itself, as all other kinds do.
    """
    if device.kind != "gpu":
        return None
    return replace(
        device, title="", vendor="", runtime="", validation="", measurements=(), corrections=(),
        price_usd_per_h=None, area_mm2=None,
    )  # fmt: skip


DEVICES = FileCatalogue(
    kind="device",
    folder=Path(__file__).parent,
    group="dse.devices",
    error=DeviceError,
    read=_read,
    essence=_essence,
)
