"""`--set KEY=VALUE`, `--sweep KEY=a,b,c`: figures of a device instead of its file's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dse.sweep import Variation

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A figure or word of the device instead of its file's: "
        "memories.sram.capacity=2MiB (docs/devices.md). Repeat for several.",
    ),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="KEY=A,B,C",
        help="The same with each of several values; several sweeps are combined.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="SWEEP.html", help="With --sweep: a page with its plots."),
]
OUTSIDE_BRACKETS = re.compile(r",(?![^\[{]*[\]}])")
"""A comma that parts values, and not the items of one."""


def pairs(texts: Sequence[str], *, option: str = "--set") -> dict[str, str]:
    """Keys and values of an option that is repeated.

    Raises:
        BadParameter: a text without `=`, or a key twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(
                f"{option} {text}: expected KEY=VALUE, such as 'memories.dram.bandwidth=864 GB/s'"
            )
        if key.strip() in found:
            raise typer.BadParameter(f"{option} {key.strip()}: given twice; keep one")
        found[key.strip()] = value.strip()
    return found


def variation(fixed: Sequence[str] | None, swept: Sequence[str] | None = None) -> Variation:
    """The variation that both options say.

    Raises:
        BadParameter: texts of another form.
        DeviceError: a sweep of nothing, or a key that is both set and swept.
    """
    from dse.sweep import Variation  # noqa: PLC0415

    return Variation(
        pairs(fixed or ()),
        {key: _values(text) for key, text in pairs(swept or (), option="--sweep").items()},
    )


def _values(text: str) -> tuple[str, ...]:
    """Values of a sweep, each once, without empty ones."""
    parted = (one.strip() for one in OUTSIDE_BRACKETS.split(text))
    return tuple(dict.fromkeys(one for one in parted if one))
