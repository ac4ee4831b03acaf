"""The content of a device's file as YAML gives it, and its figures by their path there.

A path joins keys with dots; an entry of a list goes by its mark (`figures.marks`), which is its
name where it has one: `memories.dram.bandwidth`, `units.tensor_core.rates.int8`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hwmodels.devices.figures import marks

Content = dict[str, Any]
Figure = dict[str, Any]

NOT_FIGURES = ("sources", "measurements", "corrections")
"""Sections that hold no figure of the device."""
ENDINGS = {
    ".ops_per_s": "", ".energy_per_op_j": "", "energy_per_byte_j": "energy",
    "_bytes_per_s": "", "_bytes": "", "_hz": "", "_usd_per_h": "", "_mm2": "", "_nm": "",
    "_w": "", "_s": "",
}  # fmt: skip
"""Ends of the attributes of `Device`, and what the file has instead; the longest first."""


def figures_in(content: object, path: str = "") -> dict[str, Figure]:
    """Figures of a file's content by path; they are the content's own, to be changed."""
    return dict(_walk(content, path))


def is_figure(content: object) -> bool:
    """Whether a part of the content is a figure, with words to it or without."""
    return isinstance(content, Mapping) and "value" in content and "unit" in content


def path_in_file(key: str) -> str:
    """A path as `dse devices NAME` prints it, which adds units, as the file has it."""
    for ending, instead in ENDINGS.items():
        if key.endswith(ending):
            return f"{key.removesuffix(ending)}{instead}"
    return key


def entry_names(entries: list[Mapping[str, object]]) -> list[str]:
    """The mark of every entry of a list of mappings."""
    return marks(entries, _field)


def _walk(content: object, path: str) -> Iterator[tuple[str, Figure]]:
    if isinstance(content, dict):
        if is_figure(content):
            yield path, content
            return
        for key, inner in content.items():
            if key not in NOT_FIGURES:
                yield from _walk(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(content, list) and all(isinstance(item, dict) for item in content):
        for name, item in zip(entry_names(content), content, strict=True):
            yield from _walk(item, f"{path}.{name}")


def _field(item: Mapping[str, object], field: str) -> object:
    """A field of an entry, where `elements` stands for both operands."""
    if field in ("weight", "input"):
        return item.get(field) or item.get("elements")
    return item.get(field)
