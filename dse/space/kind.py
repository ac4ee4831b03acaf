"""The kind of a space file: of assignments, or of training methods."""

from __future__ import annotations

from pathlib import Path

from dse.errors import SpaceError
from hwmodels.yaml_file import SUFFIXES, parse_yaml, read_text

TRAINING = "training"
"""The word under `kind` by which a space of training methods is told from one of assignments."""


def is_training(source: str | Path) -> bool:
    """Whether a file is a space of training methods; whatever cannot be read is none."""
    path = Path(source)
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    try:
        content = parse_yaml(read_text(path, SpaceError), str(path), SpaceError)
    except SpaceError:
        return False  # whoever reads it next says why
    return isinstance(content, dict) and content.get("kind") == TRAINING
