"""Numbers of steps that tiles may have: which, and how many of each loop."""

from __future__ import annotations

import numpy as np

from hwmodels.estimators.array.records import SHAPE
from hwmodels.estimators.array.steps import MOST_STEPS, grid_of, useful_steps

FREE = (2, 3, 5)
"""Loops of a product: K, C and OX."""


def _sizes(whole: dict[int, int], most_tiles: int) -> list[int]:
    """Numbers of steps of the loops of a product on a grid of so many tiles."""
    shape = np.zeros(1, SHAPE)
    shape["unrolled"] = 1
    shape["whole"] = 1
    for loop, size in whole.items():
        shape["whole"][0, loop] = size
        shape["free"][0, 0, loop] = 1
    steps, sizes = np.ones((8, MOST_STEPS)), np.ones(8, np.int64)
    grid_of(shape[0], 0, most_tiles, np.zeros(8), np.zeros(MOST_STEPS), steps, sizes)
    return [int(sizes[loop]) for loop in FREE]


def test_a_loop_with_few_useful_steps_leaves_its_tiles_to_the_others() -> None:
    even = _sizes({2: 4096, 3: 4096, 5: 4096}, 1000)
    assert even == [10, 10, 10]
    few = _sizes({2: 4096, 3: 4, 5: 4096}, 1000)
    assert few[1] == 3  # one, two, all four
    assert few[0] == few[2] == 18  # the root of a third of them


def test_useful_steps_part_a_loop_without_waste() -> None:
    pool = np.zeros(MOST_STEPS)
    count = useful_steps(12, 1.0, 12.0, pool)
    assert pool[:count].tolist() == [1, 2, 3, 4, 6, 12]
