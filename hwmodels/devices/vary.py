"""Devices with figures varied by their path in the file: hardware that nobody has built yet.

The file is read once; a variation patches its content and validates it anew, by the reader of
device files: units, ranges and contradictions are found there, and cost 0.2 ms a device.

Keys are paths as the file has them, or as `dse devices NAME` prints them: figures
(`memories.sram.capacity`), words and lists (`units.mac_array.array.movement`), plain numbers of
sections (`npu.blocks.cores`); entries of lists by name or by place. A value is a text as people
write it ("2MiB", "864 GB/s @ data sheet", "[int8, int4]"), a number or a list; "none" takes an
entry out that the file may do without.

What follows:

- Rates are those of all cores at the clock, so that they grow with the cores, the clock, the axes
  of the array and the steps of an NPU, unless they are varied themselves.
- The file's area of the die says nothing of other cores, arrays or memories on the chip.
- What was timed on the chip itself (`validation`, `measurements`, `corrections`) says nothing of
  another one.

Everything else stays as the file has it: a memory keeps its energy a byte when its capacity is
varied, unless the energy is taken out ("none") and the process gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hwmodels.devices.content import (
    NOT_FIGURES,
    Content,
    Figure,
    entry_names,
    is_figure,
    path_in_file,
)
from hwmodels.devices.device import Device
from hwmodels.devices.draft import NONE, answer_of
from hwmodels.devices.follow import followed
from hwmodels.devices.load import (
    DEVICE_FILE,
    checked_device,
    device_content,
    plausible,
    read_device,
)
from hwmodels.devices.quantity import UNITS
from hwmodels.errors import DeviceError, nearest, some
from hwmodels.validation import known_entries
from hwmodels.yaml_file import parse_yaml

Value = str | float | bool | Sequence[object]
"""A value as a key takes it: a text as people write it, a number, a word, a list."""
Steps = tuple[str | int, ...]

OF_THE_CHIP = ("validation", "measurements", "corrections")
"""Sections of a file that hold for the chip itself alone."""
IDENTITY = ("name", *NOT_FIGURES, "validation")
"""Sections that no variation touches."""
PARTS = ("value", "unit", "kind", "source", "low", "high")
"""Keys of a figure, which is varied as a whole."""
LISTED = 12
"""Entries that an error lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A place in the content of a file."""

    key: str
    """Path in the file, with the names of entries."""
    steps: Steps
    """Keys and indices that lead there."""
    content: object
    """Part of the file there, or the default of a word that the file leaves out."""

    @property
    def is_figure(self) -> bool:
        return is_figure(self.content)


class DeviceFile:
    """A device's file, read once, whose figures can be varied many times."""

    def __init__(self, name_or_path: str | Path) -> None:
        """The file of that device.

        Raises:
            DeviceError: As `hwmodels.devices.load.load_device`.
        """
        path, self._content = device_content(name_or_path)
        self.device = checked_device(self._content, str(path))
        """The device as the file has it."""
        self._places: dict[str, _Place] = {}

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Everything in the file that may be varied: figures, words, numbers, lists."""
        kept = {key: part for key, part in self._content.items() if key not in IDENTITY}
        return tuple(_leaves(kept, ""))

    def said(self, key: str) -> str:
        """Value of a key in the file, as people write it: `2 MiB`.

        Raises:
            DeviceError: A key that the file lacks.
        """
        return _text(self._place(key).content)

    def has(self, key: str) -> bool:
        """Whether the file has that key."""
        try:
            self._place(key)
        except DeviceError:
            return False
        return True

    def unit(self, key: str) -> str:
        """The unit of a figure in the file; empty for counts, words and plain numbers.

        Raises:
            DeviceError: A key that the file lacks.
        """
        content = self._place(key).content
        unit = str(content["unit"]) if isinstance(content, Mapping) and is_figure(content) else ""
        return "" if unit == "count" else unit

    def number(self, key: str, value: Value) -> float | None:
        """A value of a key as a number, of a figure in the file's unit; None for words and lists.

        Raises:
            DeviceError: A key that the file lacks, or a value that is none.
        """
        place = self._place(key)
        if place.is_figure:
            assert isinstance(place.content, Mapping), "it is a figure"
            figure = _figure(dict(place.content), key, value, "")
            factor = UNITS[figure["unit"]][1] / UNITS[place.content["unit"]][1]
            return float(figure["value"] * factor)
        word = _word(place.content, key, value)
        return float(word) if isinstance(word, int | float) and word is not True else None

    def varied(self, changes: Mapping[str, Value], *, by: str = "--set") -> Device:
        """The device with these figures and words instead of the file's.

        Args:
            changes: Values by key. A figure without "@ source" is `assumed`.
            by: Who varies it, for the sources of what is varied.

        Raises:
            DeviceError: A key that the file lacks, a value that is none, or a device that the
                reader of device files refuses: another dimension, a figure out of its range, or
                figures that contradict each other.
        """
        if not changes:
            return self.device
        content: Content = {key: one for key, one in self._content.items()
                            if key not in OF_THE_CHIP}  # fmt: skip
        given = [(self._place(key), value) for key, value in changes.items()]
        for place, value in given:
            content = _with(content, place, value, f"varied from {_text(place.content)} by {by}")
        shown = ", ".join(f"{place.key}={_text(value)}" for place, value in given)
        content["title"] = f"{content['title']}, with {shown}"
        origin = f"{self.device.name} with {shown}"
        found = plausible(followed(self.device, read_device(content, origin), by=by), origin)
        return found.as_varied_from(replace(self.device, measurements=(), corrections=()))

    def _place(self, key: str) -> _Place:
        """The place of a key, found once.

        Raises:
            DeviceError: A key that the file lacks, or that names the device itself or a part of
                a figure.
        """
        if key not in self._places:
            found = self._found(key) or self._found(path_in_file(key))
            if found is None:
                raise DeviceError(self._lacking(key))
            self._places[key] = found
        return self._places[key]

    def _found(self, key: str) -> _Place | None:
        here: object = self._content
        rest, steps = key, list[str | int]()
        while rest:
            inside = _entries(here)
            fitting = [name for name in inside if rest == name or rest.startswith(f"{name}.")]
            if not fitting:
                if isinstance(here, list) or not self._is_word(tuple(steps), rest):
                    return None
                default = known_entries(DEVICE_FILE, tuple(steps))[rest].get("default")
                return _Place(key=key, steps=(*steps, rest), content=default)
            name = max(fitting, key=len)
            if is_figure(here) and name in PARTS:
                figure = key.removesuffix(f".{rest}")
                raise DeviceError(
                    f"{self.device.name}: {key} is a part of the figure {figure}; vary that, "
                    f"with its unit: {figure}={_text(here)!r}"
                )
            steps.append(inside[name])
            here, rest = _inside(here, inside[name]), rest[len(name) + 1 :]
        if steps and steps[0] in IDENTITY:
            raise DeviceError(
                f"{self.device.name}: {key} says which device this is and what is known of it; "
                "a variation keeps it"
            )
        return _Place(key=key, steps=tuple(steps), content=here) if steps else None

    def _is_word(self, steps: Steps, name: str) -> bool:
        """Whether the device has a word or number there by default, which the file leaves out.

        Raises:
            DeviceError: A figure, for which there is no default.
        """
        schema = known_entries(DEVICE_FILE, steps).get(name)
        if schema is not None and {"value", "unit"} <= {*schema.get("properties", ())}:
            raise DeviceError(
                f"{self.device.name}: the file gives no {name} there; a figure that it lacks has "
                "nothing to be varied from: add it to a copy of the file"
            )
        return schema is not None

    def _lacking(self, key: str) -> str:
        """Words about a key that the file lacks: the nearest ones, and what is there."""
        here: object = self._content
        path, rest = "", key
        while fitting := [name for name in _entries(here) if rest.startswith(f"{name}.")]:
            name = max(fitting, key=len)
            here, rest = _inside(here, _entries(here)[name]), rest[len(name) + 1 :]
            path = f"{path}.{name}" if path else name
        names = [name for name in _entries(here) if path or name not in IDENTITY]
        if isinstance(here, list) and not all(name.isdigit() for name in names):
            names = [name for name in names if not name.isdigit()]
        listed = some(names, LISTED) or "nothing further"
        return (
            f"{self.device.name}: {key}: its file has no such entry"
            f"{nearest(key, self.keys) or '.'} {path or 'It'} has {listed}; all figures: "
            f"dse devices {self.device.name}"
        )


def _inside(content: object, step: str | int) -> Any:
    """The part of a mapping or list at a key or index."""
    assert isinstance(content, Mapping | list), "it has entries"
    return content[step]  # type: ignore[index]


def _entries(content: object) -> dict[str, str | int]:
    """Names of the parts of a content, and the key or index of each."""
    if isinstance(content, Mapping):
        return {str(key): key for key in content}
    if not isinstance(content, list):
        return {}
    places: dict[str, str | int] = {str(index): index for index in range(len(content))}
    if content and all(isinstance(item, Mapping) for item in content):
        places |= {name: index for index, name in enumerate(entry_names(content))}
    return places


def _leaves(content: object, path: str) -> Iterator[str]:
    """Paths of what is a figure, a word, a number or a list of those."""
    start = f"{path}." if path else ""
    if is_figure(content):
        yield path
        assert isinstance(content, Mapping), "it is a figure"
        yield from (f"{start}{key}" for key in content if key not in PARTS)
    elif isinstance(content, Mapping):
        for key, inner in content.items():
            if key not in ("source", "kind") or not path:
                yield from _leaves(inner, f"{start}{key}")
    elif isinstance(content, list) and all(isinstance(item, Mapping) for item in content):
        for name, item in zip(entry_names(content), content, strict=True):
            yield from _leaves(item, f"{start}{name}")
    else:
        yield path


def _with(content: Content, place: _Place, value: Value, source: str) -> Any:
    """The content with one place changed; what is not on the way there is shared."""
    if isinstance(value, str) and value.strip().lower() == NONE:
        *outer, last = place.steps
        changed = _patched(content, tuple(outer), lambda old: _without(old, last))
    elif place.is_figure:
        changed = _patched(
            content, place.steps, lambda old: _figure(old, place.key, value, source)
        )
    else:
        changed = _patched(content, place.steps, lambda old: _word(old, place.key, value))
    group = _group(content, place.steps)
    if group is None:
        return changed
    cited = content.get("sources", {})
    return _patched(
        changed,
        group,
        lambda old: (
            old
            | {
                "kind": "assumed",
                "source": f"{cited.get(old['source'], old['source'])}; {place.key} {source}",
            }
        ),
    )


def _patched(content: Any, steps: Steps, change: Callable[[Any], Any]) -> Any:
    """The content with the part at `steps` changed, and copies of what holds it."""
    if not steps:
        return change(content)
    first, rest = steps[0], steps[1:]
    if isinstance(content, list):
        assert isinstance(first, int), "lists have indices"
        inner = _patched(content[first], rest, change)
        return [*content[:first], inner, *content[first + 1 :]]
    return content | {first: _patched(content.get(first), rest, change)}


def _without(content: Any, last: str | int) -> Any:
    """A mapping or list without one entry."""
    if isinstance(content, list):
        return [item for index, item in enumerate(content) if index != last]
    return {key: one for key, one in content.items() if key != last}


def _figure(old: Figure, key: str, value: Value, source: str) -> Figure:
    """A figure with another value, and the words beside it."""
    unit = "count" if old["unit"] == "count" else None
    given = answer_of(key, _text(value), unit=unit, usual=old["unit"], now=float(old["value"]))
    words = {name: one for name, one in old.items() if name not in PARTS}
    return words | {
        "value": given.value,
        "unit": given.unit,
        "kind": given.kind,
        "source": given.source or source,
    }


def _word(old: object, key: str, value: Value) -> object:
    """A word, a number or a list in its type."""
    if isinstance(value, str):
        text = isinstance(old, str)
        return value if text else parse_yaml(value, f"{key}={value}", DeviceError)
    return list(value) if isinstance(value, Sequence) else value


def _group(content: Content, steps: Steps) -> Steps | None:
    """The section around a number whose figures have one source together: a part of an NPU."""
    found: Steps | None = None
    here: Any = content
    for end, step in enumerate(steps):
        if is_figure(here):
            return None
        if isinstance(here, Mapping):
            found = steps[:end] if {"kind", "source"} <= here.keys() else found
            here = here.get(step)
        else:
            here = here[step]
    return None if is_figure(here) else found


def _text(content: object) -> str:
    """A part of a file as people write it."""
    if is_figure(content):
        assert isinstance(content, Mapping), "it is a figure"
        unit = "" if content["unit"] == "count" else f" {content['unit']}"
        return f"{content['value']}{unit}"
    if isinstance(content, Mapping):
        return "{" + ", ".join(f"{key}: {_text(one)}" for key, one in content.items()) + "}"
    if isinstance(content, list | tuple):
        return f"[{', '.join(map(_text, content))}]"
    if content is None:
        return "none"
    return str(content).lower() if isinstance(content, bool) else str(content)
