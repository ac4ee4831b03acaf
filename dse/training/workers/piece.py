"""A piece of one run: it begins at a checkpoint and ends with another, or with the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

Key_contra = TypeVar("Key_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The state that a run is left in, for the folder of its results."""

    ended: bool
    """Whether the run has; then `content` is its result, else a checkpoint."""
    content: bytes
    """Of the file, as the folder has it."""
    steps: int
    """Steps that were taken in the piece."""


class TrainPiece(Protocol[Key_contra]):
    """Trains a piece wherever it is called; pickled for another machine."""

    def __call__(self, key: Key_contra, kept: bytes | None, seconds: float) -> Piece:
        """Goes on from a checkpoint, for so many seconds and one step at least."""
