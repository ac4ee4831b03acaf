"""Figures of a device's file by their path in it, and devices with one of them changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from hwmodels.devices.device import Device
from hwmodels.devices.quantity import SourcedValue

MARKS = ("name", "weight", "elements", "memory", "walk", "bits")
"""Fields that tell the entries of a list apart, the first that an entry has."""


def figures_of(device: Device) -> dict[str, SourcedValue]:
    """Every figure of a device, by path: `units.tensor_core.clock_hz`, `power.idle_w`."""
    return dict(_figures(device, ""))


def scaled(device: Device, path: str, factor: float) -> Device:
    """The device with one figure times a factor; what depends on it stays as the file has it.

    Raises:
        KeyError: No such figure.
    """
    if path not in figures_of(device):
        raise KeyError(path)
    found: Device = _scaled(device, "", path, factor)
    return found.as_varied_from(device)


def _figures(record: object, path: str) -> Iterator[tuple[str, SourcedValue]]:
    if isinstance(record, SourcedValue):
        yield path, record
    for name, inner in _parts(record, path):
        yield from _figures(inner, name)


def _scaled(record: Any, path: str, wanted: str, factor: float) -> Any:
    if isinstance(record, SourcedValue):
        return replace(record, value=record.value * factor) if path == wanted else record
    if not wanted.startswith(path):
        return record
    changed = [_scaled(inner, name, wanted, factor) for name, inner in _parts(record, path)]
    if isinstance(record, tuple):
        return tuple(changed)
    if is_dataclass(record) and not isinstance(record, type):
        names = [field.name for field in fields(record) if field.init]
        return replace(record, **dict(zip(names, changed, strict=True)))
    return record


def _parts(record: object, path: str) -> list[tuple[str, object]]:
    """Fields of a record or entries of a list, each with its path."""
    if isinstance(record, tuple):
        names = marks(record, lambda item, field: getattr(item, field, None))
        return [(f"{path}.{name}", item) for name, item in zip(names, record, strict=True)]
    if is_dataclass(record) and not isinstance(record, type | SourcedValue):
        return [
            (f"{path}.{field.name}" if path else field.name, getattr(record, field.name))
            for field in fields(record)
            if field.init
        ]
    return []


def marks(records: Sequence[object], get: Callable[[Any, str], object]) -> list[str]:
    """A name of every entry of a list.

    Rates of equal weights differ by input or accumulator, steps of one walk by bits.

    Args:
        records: The entries.
        get: Reads a field of one; None where it has none.
    """
    found = [_mark(record, index, get) for index, record in enumerate(records)]
    for field in ("input", "accumulator", "bits"):
        texts = [_text(get(record, field)) for record in records]
        pairs = set(zip(found, texts, strict=True))
        several = {mark for mark in found if sum(one == mark for one, _ in pairs) > 1}
        found = [
            f"{mark}:{text}" if mark in several else mark
            for mark, text in zip(found, texts, strict=True)
        ]
    return found


def _mark(record: object, index: int, get: Callable[[Any, str], object]) -> str:
    named = (get(record, name) for name in MARKS)
    return next((_text(value) for value in named if value), str(index))


def _text(value: object) -> str:
    return "|".join(value) if isinstance(value, tuple | list) else str(value)
