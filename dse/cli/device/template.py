"""`dse init --device KIND`: a device's file to fill in, for a chip on paper."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dse.cli.screen import Screen

if TYPE_CHECKING:
    from hwmodels.devices.device import DeviceKind


def write_template(screen: Screen, targets: Sequence[str], out: Path, *, of_model: bool) -> None:
    """Writes the template of the kind that `--device` says, where there is no model.

    Args:
        screen: Takes the remark.
        targets: What `--device` says.
        out: Where to write.
        of_model: Whether options are given that only a model's space has.

    Raises:
        BadParameter: No kind, several, or one that there is not; options of a space.
        DeviceError: A file that exists, or as `hwmodels.devices.template.template`.
    """
    from dse.files import write_atomically  # noqa: PLC0415
    from hwmodels.devices.template import template  # noqa: PLC0415
    from hwmodels.errors import DeviceError  # noqa: PLC0415

    kind = _kind(targets)
    if of_model:
        raise typer.BadParameter("--data and --dim are of a MODEL's space, and there is no MODEL")
    if out.exists():
        raise DeviceError(f"{out}: exists already; choose another --out")
    write_atomically(out, template(kind, out))
    path = shlex.quote(str(out))
    screen.remark(
        f"wrote {out}; put your figures in, then: dse devices {path} && "
        f"dse predict MODEL --device {path}"
    )


def refuse_kinds(targets: Sequence[str]) -> None:
    """Checks that no target of a model's space is a kind of device.

    Raises:
        BadParameter: One is.
    """
    from hwmodels.devices.template import TEMPLATES  # noqa: PLC0415

    for target in targets:
        if target in TEMPLATES:
            raise typer.BadParameter(
                f"--device {target}: is a kind of device, whose template is written without "
                "MODEL; with MODEL expected a device or its file, such as h100-sxm:vllm (see: "
                "dse devices)"
            )


def _kind(targets: Sequence[str]) -> DeviceKind:
    from hwmodels.devices.template import TEMPLATES  # noqa: PLC0415
    from hwmodels.errors import nearest  # noqa: PLC0415

    kinds = ", ".join(sorted(TEMPLATES))
    if not targets:
        raise typer.BadParameter(
            f"expected MODEL, for its space, or --device KIND, for a device's file ({kinds})"
        )
    for kind in TEMPLATES:
        if [*targets] == [kind]:
            return kind
    given = " ".join(f"--device {target}" for target in targets)
    raise typer.BadParameter(
        f"{given} without MODEL: expected one kind of device, for a device's file ({kinds})"
        f"{nearest(targets[0], TEMPLATES)}; for a space give MODEL"
    )
