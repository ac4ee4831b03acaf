"""`dse devices --from-zigzag` and `--to-zigzag`: architectures of ZigZag as device files."""

from __future__ import annotations

from pathlib import Path

import typer

from dse.cli.screen import Screen
from dse.files import write_atomically


def from_zigzag(
    screen: Screen, accelerator: Path, mapping: Path | None, out: Path | None, *, as_json: bool
) -> None:
    """Writes the device file of a ZigZag accelerator.

    Raises:
        BadParameter: No place to write to.
        DeviceError: As `device_text`, or figures that no device has.
    """
    from hwmodels.devices.load import checked_device  # noqa: PLC0415
    from hwmodels.devices.zigzag import device_text  # noqa: PLC0415
    from hwmodels.errors import DeviceError  # noqa: PLC0415
    from hwmodels.yaml_file import parse_yaml  # noqa: PLC0415

    if out is None:
        raise typer.BadParameter("--from-zigzag writes a device file: add -o FILE.yaml")
    text = device_text(accelerator, mapping)
    device = checked_device(parse_yaml(text, str(accelerator), DeviceError), str(accelerator))
    write_atomically(out, text)
    screen.answer(
        {"device_file": str(out), "levels": len(device.memories), "note": device.note},
        as_json=as_json,
    )
    if not as_json:
        screen.remark(
            "ZigZag's files have no clock, formats or power: 200 MHz, int8 and a limit above all "
            "activity are assumed; look at them before you believe a latency"
        )


def to_zigzag(screen: Screen, name: str | None, out: Path | None) -> None:
    """Writes the ZigZag accelerator of a device, or prints it.

    Raises:
        BadParameter: No device is named.
        DeviceError: As `zigzag_text`.
    """
    from hwmodels.devices.load import load_device  # noqa: PLC0415
    from hwmodels.devices.zigzag import zigzag_text  # noqa: PLC0415

    if name is None:
        raise typer.BadParameter("--to-zigzag: of which device? dse devices NAME --to-zigzag")
    text = zigzag_text(load_device(name))
    if out is None:
        screen.result(text)
    else:
        write_atomically(out, text)
