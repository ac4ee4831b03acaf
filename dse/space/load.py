"""Space file -> `Space`: the only reader of YAML in `dse`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from dse.errors import SpaceError, nearest
from dse.space.relocate import located_target
from dse.space.schema import Space, Target

Location = tuple[int | str, ...]
QUESTION_WIDTH = 97


def load_space(path: str | Path) -> Space:
    """The space of a YAML file.

    Raises:
        SpaceError: no such file, not YAML, or fields that do not fit; all of them at once, each
            as `<file>: <field>: <what is wrong>`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpaceError(_missing(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: cannot be read as a text file: {error}") from error
    return parse_space(text, origin=str(path))


def parse_space(text: str, *, origin: str) -> Space:
    """The space written in `text`; `origin` names it in errors.

    Raises:
        SpaceError: as `load_space`.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}, column {where.column + 1}" if where else ""
        reason = getattr(error, "problem", None) or error
        raise SpaceError(f"{origin}:{line} is not valid YAML: {reason}") from error
    if not isinstance(content, dict):
        raise SpaceError(
            f"{origin}: expected a mapping with the keys {', '.join(Space.model_fields)}, "
            f"got {type(content).__name__}"
        )
    return validated({"question": question(text), **content}, origin=origin)


def validated(content: Mapping[str, object], *, origin: str) -> Space:
    """The space that a mapping says, as a file would.

    Raises:
        SpaceError: as `load_space`.
    """
    try:
        return Space.model_validate(dict(content))
    except ValidationError as error:
        raise SpaceError("\n".join(_messages(error, origin))) from error


def load_targets(path: str | Path) -> tuple[Target, ...] | None:
    """The targets that a YAML file lists under `targets`; None where it has no such key.

    Relative device and runtime files are relative to the file.

    Raises:
        SpaceError: not YAML, or targets that do not fit.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpaceError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or "targets" not in content:
        return None
    try:
        found = TypeAdapter(tuple[Target, ...]).validate_python(content["targets"])
    except ValidationError as error:
        raise SpaceError("\n".join(_messages(error, f"{path}: targets"))) from error
    return tuple(located_target(target, path.parent) for target in found)


def space_yaml(space: Space) -> str:
    """A space as a file that `load_space` reads, opening with its question."""
    opening = "".join(f"# {line}\n" for line in textwrap.wrap(space.question, QUESTION_WIDTH))
    return opening + yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False)


def question(text: str) -> str:
    """The question that a space file opens with: the first paragraph of its first comment."""
    lines: list[str] = []
    for line in text.splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or not words:
            break
        lines.append(words)
    return " ".join(lines)


def _missing(path: Path) -> str:
    siblings = [str(found) for found in sorted(path.parent.glob("*.y*ml"))]
    hint = nearest(str(path), siblings)
    if not hint and siblings:
        hint = f"; here are {', '.join(siblings[:5])}"
    return f"{path}: no such space file{hint}"


def _messages(error: ValidationError, origin: str) -> list[str]:
    """One line per wrong field, with the nearest valid key for a misspelt one."""
    lines: dict[str, None] = {}
    items = error.errors()
    locations = [item["loc"] for item in items]
    for item in items:
        if _is_consequence(item["type"], item["loc"], locations):
            continue
        location = [part for part in item["loc"] if part not in ("str", "Mode")]
        field = ".".join(str(part) for part in location)
        if item["type"] == "extra_forbidden":
            known = _siblings(location[:-1])
            text = f"unknown key{nearest(str(location[-1]), known)}"
            if known:
                text += f" (known: {', '.join(known)})"
        else:
            given = item.get("input")
            shown = "" if isinstance(given, dict) else f", got {given!r}"
            text = f"{item['msg']}{shown}"
        lines[f"{origin}: {field}: {text}"] = None
    return list(lines)


def _is_consequence(kind: str, location: Location, others: list[Location]) -> bool:
    """Whether an error only repeats another.

    An item that is wrong makes its list too short, and one branch of a union fails where the
    other says what is wrong.
    """
    if kind == "too_short":
        return any(
            len(other) > len(location) and other[: len(location)] == location for other in others
        )
    if location and location[-1] == "str":
        return any(
            len(other) > len(location) and other[: len(location) - 1] == location[:-1]
            for other in others
        )
    return False


def _siblings(location: list[str | int]) -> list[str]:
    """The keys that are valid beside an unknown one, read off the JSON schema."""
    schema = Space.model_json_schema()
    definitions = schema.get("$defs", {})
    here = schema
    for part in location:
        here = _resolve(here, definitions)
        if isinstance(part, int):
            here = here.get("items", here.get("prefixItems", [{}])[0])
        elif part in here.get("properties", {}):
            here = here["properties"][part]
        else:
            here = here.get("additionalProperties", {})
        if not isinstance(here, dict):
            return []
    return list(_resolve(here, definitions).get("properties", {}))


def _resolve(schema: dict[str, object], definitions: dict[str, dict[str, object]]) -> dict:  # type: ignore[type-arg]
    """Follow a `$ref`, and the object branch of an `anyOf`."""
    for branch in schema.get("anyOf", ()):  # type: ignore[attr-defined]
        if "$ref" in branch:
            schema = branch
    reference = schema.get("$ref")
    return definitions[str(reference).rsplit("/", 1)[-1]] if reference else schema
