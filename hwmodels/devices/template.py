"""A commented device file of each kind, for whoever has a chip on paper.

Its figures are a known device's, as the file of a new device drafts them (`Draft`); its comments
are the words of `device.schema.json`, which are those below the records' fields.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hwmodels.devices.device import DeviceKind
from hwmodels.devices.draft import Draft
from hwmodels.devices.load import checked_device, device_names
from hwmodels.errors import DeviceError
from hwmodels.yaml_file import SUFFIXES, yaml_flow

Node = dict[str, Any]
Content = dict[str, Any]

SCHEMA = Path(__file__).parent / "device.schema.json"
WIDTH = 98
TEMPLATES: dict[DeviceKind, tuple[str, str]] = {
    "gpu": ("GPU", "h100-sxm"),
    "cpu": ("processor", "cpu-avx2"),
    "array": ("spatial array", "gemmini"),
    "npu": ("block-wise NPU", "edge-npu"),
}
"""By kind: its noun, and the known device whose figures a template starts from."""
LEFT_OUT: dict[DeviceKind, tuple[str, ...]] = {
    "gpu": ("ComputeUnit.sustained", "Device.area", "Device.price"),
    "cpu": ("ComputeUnit.sustained", "Device.area", "Device.price"),
    "array": (
        "Memory.technology",
        "Memory.write_energy",
        "Memory.write_bandwidth",
        "Memory.double_buffered",
        "Memory.streamed",
        "Memory.waits_for_room",
        "Device.process",
        "Device.area",
        "Device.price",
    ),
    "npu": ("Device.area", "Device.price"),
}
"""Fields that are shown with an example and commented out; the known device lacks them."""
OF_LEVELS = (
    "Memory.write_bandwidth", "Memory.double_buffered", "Memory.streamed", "Memory.waits_for_room",
)  # fmt: skip
"""Those of them that say nothing of main memory, the first one."""
FIGURE = ("value", "unit", "source", "kind", "low", "high")
"""Fields of a figure, which the opening explains."""
SOURCE = "template"
OPENING = """\
A {noun} on paper. It is usable as it stands: dse predict MODEL --device {path}

Its figures are those of {like}, every one `assumed`. Put your own in their place: a value, its
unit, its kind (measured, datasheet, scaled, assumed), and as source a citation or a key of
`sources`. Figures that contradict each other or physics are refused, with the field. Which of
them matter for your network: dse predict MODEL --device {path} --sensitivity
Units of a field stand in brackets behind its words. All fields: docs/files.md."""


def template(kind: DeviceKind, path: Path) -> str:
    """The text of a template that will stand at `path`, whose stem names the device.

    Raises:
        DeviceError: A path that no command would take for a device file, or the name of a known
            device.
    """
    noun, like = TEMPLATES[kind]
    if path.suffix not in SUFFIXES:
        raise DeviceError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}")
    name = re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).lstrip(".-") or f"my-{kind}"
    if name in device_names():
        raise DeviceError(
            f"{path}: {name} is a known device, whose measurements its predictions rest on; "
            "choose another name for the file"
        )
    content = _content(kind, name)
    checked_device(content, str(path))
    opening = OPENING.format(noun=noun, like=like, path=shlex.quote(str(path)))
    comment = [f"# {line}".rstrip() for line in opening.splitlines()]
    return "\n".join([*comment, "", *_Writer(kind).lines(_schema(), content, 0)]) + "\n"


def _content(kind: DeviceKind, name: str) -> Content:
    """The known device's file as that of a device which nothing is known of."""
    noun, like = TEMPLATES[kind]
    draft = Draft(like)
    drafted = draft.content()
    own = {
        "name": name,
        "title": f"{name}, a {noun} on paper",
        "vendor": "mine",
        "family": name,
        "kind": kind,
        "architecture": drafted["architecture"],
        "year": drafted["year"],
        "runtime": draft.like.default_runtime,
        "sources": {SOURCE: f"that of {like}, until somebody knows better"},
    }
    rest = {key: value for key, value in drafted.items() if key not in own}
    _cite(rest)
    return own | rest


def _cite(content: object) -> None:
    """Gives every figure the template's own source."""
    if isinstance(content, dict):
        if "source" in content:
            content["source"] = SOURCE
        content = [*content.values()]
    if isinstance(content, list):
        for inner in content:
            _cite(inner)


@cache
def _schema() -> Node:
    found: Node = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return found


class _Writer:
    """Writes records with the words of each field where it stands first."""

    def __init__(self, kind: DeviceKind) -> None:
        self._left_out = LEFT_OUT[kind]
        self._said: set[str] = set()
        self._first = True
        """Whether the record at hand is the first one of a list."""

    def lines(self, record: Node, content: Content, indent: int) -> Iterator[str]:
        """A mapping, field by field, and below it what is left out."""
        start = " " * indent
        for key, value in content.items():
            field = record["properties"][key]
            yield from self._words(f"{record['title']}.{key}", field, indent)
            inner = _record(field)
            if inner is None or _is_figure(value):
                yield start + _entry(key, value)
            elif isinstance(value, Mapping):
                yield f"{start}{key}:"
                yield from self.lines(inner, dict(value), indent + 2)
            else:
                yield f"{start}{key}:"
                yield from self._entries(inner, value, indent + 2)
            if indent == 0:
                yield ""
        for key, field in record["properties"].items():
            name = f"{record['title']}.{key}"
            if self._first and name in OF_LEVELS:
                continue
            if name in self._left_out and key not in content and name not in self._said:
                yield from self._words(name, field, indent)
                yield f"{start}# {_entry(key, _example(field))}"

    def _entries(self, record: Node, entries: Sequence[Content], indent: int) -> Iterator[str]:
        """A list of records: flat ones on a line each, below the words of all their fields."""
        start = " " * indent
        if all(_is_flat(entry) for entry in entries):
            for key, field in record["properties"].items():
                if not {"value", "unit"} <= record["properties"].keys() or key not in FIGURE:
                    yield from self._words(f"{record['title']}.{key}", field, indent, lead=key)
            for entry in entries:
                yield f"{start}- {yaml_flow(entry)}"
            return
        for place, entry in enumerate(entries):
            self._first = place == 0
            first, *rest = list(self.lines(record, entry, indent + 2))
            while first.lstrip().startswith("#"):
                yield first.removeprefix("  ")
                first, *rest = rest
            yield f"{start}- {first.lstrip()}"
            yield from rest

    def _words(self, name: str, field: Node, indent: int, *, lead: str = "") -> Iterator[str]:
        """A comment, once a template: meaning, units or allowed words."""
        if name in self._said:
            return
        self._said.add(name)
        start = f"{' ' * indent}# "
        text = f"{lead}: {field['description']}" if lead else field["description"]
        allowed = [word for word in _allowed(field) if f"`{word}`" not in text]
        if allowed:
            text = f"{text.removesuffix('.')} ({', '.join(allowed)})."
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False
        )


def _entry(key: str, value: object) -> str:
    """A field on one line."""
    return yaml_flow({key: value})[1:-1]


def _example(field: Node) -> object:
    """The schema's example; a figure without its kind and source, which are another chip's."""
    found = field["examples"][0]
    if not _is_figure(found):
        return found
    return {"value": found["value"], "unit": found["unit"], "kind": "assumed", "source": SOURCE}


def _record(field: Node) -> Node | None:
    """The record that a field holds, or a list of; none for plain values and mappings."""
    for branch in (field.get("items", field), *field.get("anyOf", ())):
        if "$ref" in branch:
            found: Node = _schema()["$defs"][branch["$ref"].rsplit("/", 1)[-1]]
            return found
    return None


def _allowed(field: Node) -> list[str]:
    """The words, or the units, that a field may have."""
    if "anyOf" in field:
        return [word for branch in field["anyOf"] for word in _allowed(branch)]
    if "items" in field and "enum" not in field:
        record = _record(field)
        unit = record["properties"].get("unit", {}) if record else field["items"]
        return _allowed(unit)
    units = field.get("properties", {}).get("unit", {})
    return [str(word) for word in field.get("enum", units.get("enum", ()))]


def _is_figure(value: object) -> bool:
    return isinstance(value, Mapping) and "value" in value


def _is_flat(entry: Mapping[str, object]) -> bool:
    return not any(isinstance(value, dict) for value in entry.values())
