"""Content of files as typed records: pydantic validates, one renderer words its errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from hwmodels.errors import nearest

Record = TypeVar("Record")
Location = tuple[int | str, ...]
Schema = Mapping[str, Any]

INLINE = ""
"""Alias of a field whose own keys stand among its owner's: no part of a field's path."""
LONGEST_VALUE = 80
"""Characters of a wrong value that an error shows."""
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


class Entry:
    """A part of a file: a frozen dataclass that pydantic fills; unknown keys are errors."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")


def no_flag(value: object) -> object:
    """The value of a file where a number is asked for; Python takes `true` for one.

    Raises:
        ValueError: `true` or `false`.
    """
    if isinstance(value, bool):
        # pydantic words ValueError alone
        raise ValueError(f"expected a number, got {str(value).lower()}")  # noqa: TRY004
    return value


def _named(text: str) -> str:
    if not text.strip():
        raise ValueError(f"expected a name, got {text!r}")
    return text


Name = Annotated[str, AfterValidator(_named)]
"""A name that is not blank."""


def validated(
    adapter: TypeAdapter[Record],
    content: object,
    origin: str,
    error: type[Exception],
    *,
    context: Mapping[str, object] | None = None,
) -> Record:
    """Content of a file as a record.

    Args:
        adapter: The record's type.
        content: What the file holds.
        origin: The file's name in errors.
        error: Class of the error for content that does not fit.
        context: What validators of the record look up.

    Raises:
        Exception: `error`, with one line a problem: file, field path, what was expected, what
            came, the nearest known name.
    """
    try:
        return adapter.validate_python(content, context=context)
    except ValidationError as problems:
        raise error("\n".join(problem_lines(adapter, content, problems, origin))) from None


def problem_lines(
    adapter: TypeAdapter[Any], content: object, problems: ValidationError, origin: str
) -> list[str]:
    """One line a problem, without those that only repeat another."""
    found = [(_field(item, content), item) for item in problems.errors()]
    lines: dict[str, None] = {}
    for field, item in found:
        if not _repeats(field, item, [other for other, _ in found]):
            path = ".".join(map(str, field))
            where = f"{path}: " if path else ""
            lines[f"{origin}: {where}{_words(adapter, field, item)}"] = None
    return list(lines)


def _field(item: ErrorDetails, content: object) -> Location:
    """Path of a problem as the file has it, without the branches of unions."""
    found: list[int | str] = []
    here = content
    last = len(item["loc"]) - 1
    for index, part in enumerate(item["loc"]):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int):
            here = here[part] if part < len(here) else None
        elif not (index == last and item["type"] == "missing" and part != INLINE):
            continue
        found.append(part)
    return tuple(found)


def _repeats(field: Location, item: ErrorDetails, others: list[Location]) -> bool:
    """Whether a problem only follows from another one inside the same value.

    An item that is wrong makes its list too short, and one branch of a union fails where the
    other says what is wrong inside.
    """
    is_branch = bool(item["loc"]) and item["loc"][-1] not in (*field, INLINE)
    return (item["type"] == "too_short" or is_branch) and any(
        len(other) > len(field) and other[: len(field)] == field for other in others
    )


def _words(adapter: TypeAdapter[Any], field: Location, item: ErrorDetails) -> str:
    if item["type"] in UNKNOWN_KEY:
        known = list(known_entries(adapter, field[:-1]))
        listed = f" (known: {', '.join(known)})" if known else ""
        return f"unknown key{nearest(str(field[-1]), known)}{listed}"
    if item["type"] == "missing":
        return "missing; it is required"
    if item["type"] in ("model_type", "dataclass_type", "model_attributes_type", "dict_type"):
        keys = ", ".join(known_entries(adapter, field))
        return f"expected a mapping{f' with the keys {keys}' if keys else ''}{_came(item)}"
    if item["type"] == "too_short":
        context = item.get("ctx", {})
        least, came = context.get("min_length"), context.get("actual_length")
        return f"expected at least {least} {'entry' if least == 1 else 'entries'}, got {came}"
    if item["type"] in ("tuple_type", "list_type"):
        return f"expected a list{_came(item)}"
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{message}{_came(item)}{_nearest_literal(item)}"


def _came(item: ErrorDetails) -> str:
    """The wrong value, where the message does not hold it already."""
    value = item["input"]
    if item["type"] in ("value_error", "too_short"):
        return ""
    if isinstance(value, Mapping):
        return ", got a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f", got a list of {len(value)}"
    shown = repr(value)
    return f", got {shown[:LONGEST_VALUE]}{'...' if len(shown) > LONGEST_VALUE else ''}"


def _nearest_literal(item: ErrorDetails) -> str:
    if item["type"] != "literal_error":
        return ""
    known = [word for word in item["ctx"]["expected"].split("'") if word.strip(" ,or")]
    return nearest(str(item["input"])[:LONGEST_VALUE], known)


def known_entries(adapter: TypeAdapter[Any], field: Location) -> dict[str, Schema]:
    """Keys that are valid inside a field with the JSON schema of each."""
    schema = _schema(adapter)
    definitions = schema.get("$defs", {})
    here: Schema = _resolved(schema, definitions)
    for part in field:
        here = _resolved(_inside(here, part), definitions)
    return dict(_entries(here, definitions))


@cache
def _schema(adapter: TypeAdapter[Any]) -> Schema:
    return adapter.json_schema()


def _inside(schema: Schema, part: int | str) -> Schema:
    if isinstance(part, int):
        return schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
    found = schema.get("properties", {}).get(part) or schema.get("additionalProperties")
    return found if isinstance(found, Mapping) else {}


def _entries(schema: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    for key, inner in schema.get("properties", {}).items():
        found = _resolved(inner, definitions)
        if key == INLINE:
            yield from _entries(found, definitions)
        else:
            yield key, found


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """Target of a `$ref`; of an `anyOf` the branch that is an object or a list."""
    for branch in schema.get("anyOf", ()):
        if "$ref" in branch or "items" in branch:
            schema = branch
    reference = schema.get("$ref")
    return definitions[str(reference).rsplit("/", 1)[-1]] if reference else schema
