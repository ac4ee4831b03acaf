"""Device files written anew with some of their sections changed."""

from __future__ import annotations

from pathlib import Path

from hwmodels.devices.load import DEVICES
from hwmodels.errors import DeviceError
from hwmodels.yaml_file import SUFFIXES, read_yaml, yaml_text


def rewritten(device_file: str | Path, **sections: object) -> str:
    """The text of a device's file (or of a shipped device's) with these sections; None drops one.

    A runtime's file keeps its place, wherever the text will be written.

    Raises:
        DeviceError: The device file cannot be read.
    """
    path = Path(device_file)
    if path.suffix not in SUFFIXES:
        path = DEVICES.path(str(device_file))
    content = read_yaml(path, DeviceError, what="device file")
    if not isinstance(content, dict):
        raise DeviceError(f"{path}: expected the mapping of a device file")
    runtime = content.get("runtime")
    if isinstance(runtime, str) and Path(runtime).suffix in SUFFIXES:
        content["runtime"] = str((path.parent / runtime).absolute())
    changed = content | sections
    return yaml_text({key: value for key, value in changed.items() if value is not None})
