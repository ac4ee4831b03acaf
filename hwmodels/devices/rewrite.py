"""Device files written anew with some of their sections changed."""

from __future__ import annotations

from pathlib import Path

from hwmodels.devices.load import device_content
from hwmodels.yaml_file import yaml_text


def rewritten(device_file: str | Path, **sections: object) -> str:
    """The text of a device's file (or of a shipped device's) with these sections; None drops one.

    A runtime's file keeps its place, wherever the text will be written.

    Raises:
        DeviceError: The device file cannot be read.
    """
    _, content = device_content(device_file)
    changed = content | sections
    return yaml_text({key: value for key, value in changed.items() if value is not None})
