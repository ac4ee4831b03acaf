"""A chip on paper whose unit sums int8 in several accumulators."""

from __future__ import annotations

from pathlib import Path

import yaml

from hwmodels.devices.device import Device
from hwmodels.devices.load import load_device

ACCUMULATORS = {"int32": 0.512, "int20:saturate": 0.512, "int14:saturate": 1.024}
"""Rates in TOP/s: two of its narrowest sums share a place."""


def sums_chip(folder: Path, accumulators: dict[str, float] | None = None) -> Path:
    """The file of it: Gemmini's array at 28 nm, its energies those of circuits."""
    shipped = Path("hwmodels/devices/gemmini.yaml")
    content = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    figure = {"kind": "assumed", "source": "recalled"}
    content |= {"name": "sums", "process": {"value": 28, "unit": "nm", **figure}}
    content["power"].pop("per_op")
    for memory in content["memories"][1:]:
        memory.pop("energy")
    content["memories"][-1]["capacity"]["value"] = 4  # two weights, and the next two
    content["units"][0]["rates"] = [
        {"elements": ["int8"], "accumulator": name, "value": value, "unit": "TOP/s", **figure}
        for name, value in (accumulators or ACCUMULATORS).items()
    ]
    path = folder / "sums.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def sums_device(folder: Path, accumulators: dict[str, float] | None = None) -> Device:
    """The chip, loaded."""
    return load_device(str(sums_chip(folder, accumulators)))
