"""A piece of one run: it begins at a checkpoint and ends with another, or with the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The state that a run is left in, for the folder of the experiment."""

    ended: bool
    """Whether the run has; then `content` is its result, else a checkpoint."""
    content: bytes
    """Of the file, as the experiment reads it."""
    steps: int
    """Steps that were taken in the piece."""


class TrainPiece(Protocol):
    """Trains a piece wherever it is called; pickled for another machine."""

    def __call__(self, name: str, seed: int, kept: bytes | None, seconds: float) -> Piece:
        """Goes on from a checkpoint, for so many seconds and one step at least."""
