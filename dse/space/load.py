"""Space file -> `Space`, every mistake at once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from dse.errors import SpaceError
from dse.space.relocate import located_target
from dse.space.schema import Space, Target, TargetList
from hwmodels import validation
from hwmodels.yaml_file import parse_yaml, read_text, read_yaml, yaml_text

QUESTION_WIDTH = 97
_SPACE = TypeAdapter(Space)
_TARGETS = TypeAdapter(TargetList)


def load_space(path: str | Path) -> Space:
    """The space of a YAML file.

    Raises:
        SpaceError: no such file, not YAML, or fields that do not fit; all of them at once, each
            as `<file>: <field>: <the problem>`.
    """
    text = read_text(Path(path), SpaceError, what="space file")
    return parse_space(text, origin=str(path))


def parse_space(text: str, *, origin: str) -> Space:
    """The space written in `text`; `origin` names it in errors.

    Raises:
        SpaceError: as `load_space`.
    """
    content = parse_yaml(text, origin, SpaceError)
    if isinstance(content, dict):
        content = {"question": question(text), **content}
    return validation.validated(_SPACE, content, origin, SpaceError)


def validated(content: Mapping[str, object], *, origin: str) -> Space:
    """The space that a mapping says, as a file would.

    Raises:
        SpaceError: as `load_space`.
    """
    return validation.validated(_SPACE, dict(content), origin, SpaceError)


def load_targets(path: str | Path) -> tuple[Target, ...] | None:
    """The targets that a YAML file lists under `targets`; None where it has no such key.

    Relative device and runtime files are relative to the file.

    Raises:
        SpaceError: not YAML, or targets that do not fit.
    """
    path = Path(path)
    content = read_yaml(path, SpaceError, what="device file, or file with `targets`")
    if not isinstance(content, dict) or "targets" not in content:
        return None
    listed = validation.validated(_TARGETS, content, str(path), SpaceError)
    return tuple(located_target(target, path.parent) for target in listed.targets)


def space_yaml(space: Space) -> str:
    """A space as a file that `load_space` reads, opening with its question."""
    opening = "".join(f"# {line}\n" for line in textwrap.wrap(space.question, QUESTION_WIDTH))
    return opening + yaml_text(space.model_dump(mode="json"))


def question(text: str) -> str:
    """The question that a space file opens with: the first paragraph of its first comment."""
    lines: list[str] = []
    for line in text.splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or not words:
            break
        lines.append(words)
    return " ".join(lines)
