"""Points as bytes: many points of many variables, told apart and put in order quickly."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

CODE = np.dtype(">u4")
"""Big-endian, so that codes sort as tuples of choice indices do."""


def encoded(points: np.ndarray) -> list[bytes]:
    """One code a point.

    Args:
        points: (points, variables) choice indices.
    """
    return [row.tobytes() for row in np.asarray(points).astype(CODE)]


def decoded(found: Iterable[bytes], variables: int) -> np.ndarray:
    """(points, variables) choice indices of codes, in their order."""
    content = np.frombuffer(b"".join(found), dtype=CODE)
    return content.astype(np.int64).reshape(-1, variables)
