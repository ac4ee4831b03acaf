"""The kind of a file: a space, of assignments or of training methods, or one method."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dse.errors import SpaceError
from hwmodels.yaml_file import SUFFIXES, parse_yaml, read_text

Kind = Literal["space", "training", "method"]
TRAINING = "training"
"""The word under `kind` by which a space of training methods is told from one of assignments."""


def kind_of(source: str | Path) -> Kind:
    """The kind of a file, which is read once; whatever cannot be read is a space.

    A method says where it is from, and has no model.
    """
    found = _mapping(source)
    if found.get("kind") == TRAINING:
        return "training"
    is_method = {"source", "roles"} & found.keys() and not {"kind", "model"} & found.keys()
    return "method" if is_method else "space"


def is_training(source: str | Path) -> bool:
    """Whether a file is a space of training methods; whatever cannot be read is none."""
    return kind_of(source) == "training"


def _mapping(source: str | Path) -> dict[str, object]:
    path = Path(source)
    if path.suffix not in SUFFIXES or not path.is_file():
        return {}
    try:
        content = parse_yaml(read_text(path, SpaceError), str(path), SpaceError)
    except SpaceError:
        return {}  # whoever reads it next says why
    return content if isinstance(content, dict) else {}
