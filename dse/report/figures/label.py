"""Places for the names of points, so that names and points do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CHARACTER = 7.2
LINE = 15.0
GAP = 9.0
"""Pixels of a 12.5 px system font, and of the distance from a marker's centre."""

PLACES = {
    "middle right": (1, 0), "middle left": (-1, 0), "top center": (0, 1), "bottom center": (0, -1),
    "top right": (1, 1), "top left": (-1, 1), "bottom right": (1, -1), "bottom left": (-1, -1),
}  # fmt: skip
"""Plotly's `textposition` and the direction from the point, y upwards."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


def positions(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    obstacles: Sequence[tuple[float, float]],
    *,
    frame: Box,
) -> list[str]:
    """A `textposition` for every point: greedily the one that meets the fewest boxes.

    Args:
        points: pixels.
        texts: one a point.
        obstacles: further markers, in pixels.
        frame: the plot; leaving it counts like meeting five boxes.
    """
    taken = [_marker(point) for point in (*points, *obstacles)]
    found = []
    for point, text in zip(points, texts, strict=True):
        boxes = {place: _box(point, text, direction) for place, direction in PLACES.items()}

        def badness(place: str, boxes: dict[str, Box] = boxes) -> int:
            box = boxes[place]
            inside = frame.left <= box.left and box.right <= frame.right
            inside = inside and frame.bottom <= box.bottom and box.top <= frame.top
            return sum(box.meets(other) for other in taken) + (0 if inside else 5)

        best = min(boxes, key=badness)
        taken.append(boxes[best])
        found.append(best)
    return found


def _marker(point: tuple[float, float]) -> Box:
    x, y = point
    return Box(x - 4, y - 4, x + 4, y + 4)


def _box(point: tuple[float, float], text: str, direction: tuple[int, int]) -> Box:
    (x, y), (right, up) = point, direction
    width = CHARACTER * len(text)
    left = {1: x + GAP, 0: x - width / 2, -1: x - GAP - width}[right]
    bottom = {1: y + GAP / 2, 0: y - LINE / 2, -1: y - GAP / 2 - LINE}[up]
    if right == 0:
        bottom = y + GAP if up > 0 else y - GAP - LINE
    return Box(left, bottom, left + width, bottom + LINE)
