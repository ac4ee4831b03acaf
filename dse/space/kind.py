"""The kind of a file: a space, of assignments or of training methods, or one method."""

from __future__ import annotations

from pathlib import Path

from dse.errors import SpaceError
from hwmodels.yaml_file import SUFFIXES, parse_yaml, read_text

TRAINING = "training"
"""The word under `kind` by which a space of training methods is told from one of assignments."""


def is_training(source: str | Path) -> bool:
    """Whether a file is a space of training methods; whatever cannot be read is none."""
    return _mapping(source).get("kind") == TRAINING


def is_method(source: str | Path) -> bool:
    """Whether a file is a method of training, which says where it is from, and no space."""
    found = _mapping(source)
    return (
        bool({"source", "roles"} & found.keys()) and "kind" not in found and "model" not in found
    )


def _mapping(source: str | Path) -> dict[str, object]:
    path = Path(source)
    if path.suffix not in SUFFIXES or not path.is_file():
        return {}
    try:
        content = parse_yaml(read_text(path, SpaceError), str(path), SpaceError)
    except SpaceError:
        return {}  # whoever reads it next says why
    return content if isinstance(content, dict) else {}
