"""YAML at the edge: one place that reads it, and that turns pydantic's errors into ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hwmodels.errors import HardwareError, nearest

Model = TypeVar("Model", bound=BaseModel)
Loaded = TypeVar("Loaded")


class Entry(BaseModel):
    """A part of a file: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """A folder of shipped files of one sort."""

    what: str
    """What errors call one: device, runtime."""
    folder: Path
    error: type[HardwareError]


def loaded(shelf: Shelf, name_or_path: str | Path, read: Callable[[Path], Loaded]) -> Loaded:
    """The shipped file of that name, read once, or the file at that path, read anew.

    Raises:
        HardwareError: The shelf's error for a name that it does not have, or that of `read`.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return read(path)
    name, known = str(name_or_path), names_in(shelf.folder)
    if name not in known:
        raise shelf.error(
            f"unknown {shelf.what} {name!r}{nearest(name, known)} Known: {', '.join(known)}; "
            f"or give the path of a {shelf.what} file (.yaml)"
        )
    found: Loaded = _shipped(shelf, name, read)
    return found


@cache
def _shipped(shelf: Shelf, name: str, read: Callable[[Path], Loaded]) -> Loaded:
    return read(shelf.folder / f"{name}.yaml")


@cache
def names_in(folder: Path) -> tuple[str, ...]:
    """Stems of the YAML files of a folder, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def read_yaml(path: Path, error: type[HardwareError]) -> object:
    """The content of a YAML file.

    Raises:
        error: The file is missing or not YAML; the message has file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: cannot be read as text: {problem}") from None
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise error(f"{path}:{line} not YAML: {problem.problem}") from None


def validated(
    model: type[Model], content: object, path: Path, error: type[HardwareError]
) -> Model:
    """The content as `model`.

    Raises:
        error: One line a problem: file, field path, what is wrong, the nearest known name.
    """
    try:
        return model.model_validate(content)
    except ValidationError as problems:
        found = [problem for problem in problems.errors() if not _follows(problem, problems)]
        raise error("\n".join(f"{path}: {_line(model, problem)}" for problem in found)) from None


def _follows(problem: ErrorDetails, problems: ValidationError) -> bool:
    """Whether a list only counts as too short because its items are wrong."""
    depth = len(problem["loc"])
    return problem["type"] == "too_short" and any(
        len(other["loc"]) > depth and other["loc"][:depth] == problem["loc"]
        for other in problems.errors()
    )


def _line(model: type[BaseModel], problem: ErrorDetails) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "the file"
    match problem["type"]:
        case "extra_forbidden":
            key = str(problem["loc"][-1])
            return f"{where}: unknown key{nearest(key, sorted(_field_names(model)))}"
        case "missing":
            return f"{where}: missing"
        case _:
            got = problem["input"]
            shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
            return f"{where}: {problem['msg'].removeprefix('Value error, ')}{shown}"


def _field_names(model: type[BaseModel]) -> set[str]:
    """Field names of a model and of every model inside it."""
    names: set[str] = set()
    definitions = model.model_json_schema()
    for schema in (definitions, *definitions.get("$defs", {}).values()):
        names |= set(schema.get("properties", {}))
    return names
