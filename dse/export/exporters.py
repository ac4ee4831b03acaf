"""The exporters by name: ours, and those of installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from dse.errors import ExportError, nearest
from dse.export.base import Exporter
from dse.export.neutral import NeutralRecipe
from dse.export.onnx_qdq.exporter import OnnxQdq

GROUP = "dse.exporters"
"""Entry points of other packages: `mine = "package.module:EXPORTER"`."""

EXPORTERS: Mapping[str, Exporter] = MappingProxyType({
    "onnx-qdq": OnnxQdq(),
    "recipe": NeutralRecipe(),
})  # fmt: skip


def exporter_names() -> tuple[str, ...]:
    """What `--to` takes: ours, then those of installed packages."""
    return tuple(dict.fromkeys([*EXPORTERS, *(one.name for one in _outside())]))


def exporter(name: str) -> Exporter:
    """The exporter of a name; ours where a package has the same one.

    Raises:
        ExportError: there is none, or what a package names is no exporter.
    """
    if name in EXPORTERS:
        return EXPORTERS[name]
    found = next((one for one in _outside() if one.name == name), None)
    if found is None:
        known = exporter_names()
        raise ExportError(
            f"--to {name}: no such target{nearest(name, known)} (known: {', '.join(known)})"
        )
    return _loaded(found)


def _outside() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _loaded(point: EntryPoint) -> Exporter:
    found = point.load()
    if not isinstance(found, Exporter) or isinstance(found, type):
        raise ExportError(
            f"--to {point.name}: {point.value} is no exporter: expected an object with summary, "
            "can_express, write and verify (dse.export.base.Exporter)"
        )
    return found
