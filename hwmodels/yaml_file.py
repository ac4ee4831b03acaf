"""YAML at the edge: one place that reads it, and that turns pydantic's errors into ours."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hwmodels.errors import HardwareError, nearest

Model = TypeVar("Model", bound=BaseModel)


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
