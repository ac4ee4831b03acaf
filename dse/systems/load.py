"""Files of published systems: YAML to `System`, all errors at once with field path and file."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import TypeAdapter

from dse.errors import StudyError, nearest
from dse.systems.schema import System
from hwmodels.validation import validated
from hwmodels.yaml_file import read_yaml

FOLDER = Path(__file__).parent / "catalogue"
_ADAPTER = TypeAdapter(System)
_ID = re.compile(r"[sS]?(\d{1,3})", re.ASCII)


def system_names() -> tuple[str, ...]:
    """S01 to S28."""
    return tuple(sorted(path.stem for path in FOLDER.glob("S*.yaml")))


def systems() -> tuple[System, ...]:
    """All of them, in their order."""
    return tuple(load_system(name) for name in system_names())


def load_system(name: str) -> System:
    """The system of an id: `S09`, `s9` or `9`.

    Raises:
        StudyError: there is none, or its file has missing, unknown or contradictory entries.
    """
    known = system_names()
    match = _ID.fullmatch(name)
    found = f"S{int(match[1]):02}" if match else name
    if found not in known:
        raise StudyError(
            f"unknown system {name!r}{nearest(name.upper(), known) or '.'} There are {known[0]} "
            f"to {known[-1]}; see: dse studies"
        )
    return read_system(FOLDER / f"{found}.yaml")


def read_system(path: Path) -> System:
    """The system of a file.

    Raises:
        StudyError: missing, unknown or contradictory entries, or another id than the file's name.
    """
    found = validated(
        _ADAPTER, read_yaml(path, StudyError, what="system file"), str(path), StudyError
    )
    if found.id != path.stem:
        raise StudyError(f"{path}: id: expected {path.stem!r}, the file's name, got {found.id!r}")
    return found
