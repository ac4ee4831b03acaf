"""Cycles of a mapped nest: folds of the array, and levels that deliver too late.

    t_compute = prod(counts) + folds * t_fold
    t_busy = t_compute + t_exposed
    t = max(t_busy + t_fill + t_drain, max over levels (max(t_busy, t_level) + t_tail))
    t_level = bytes / bandwidth, or the longer of reads and writes where each has a port

A systolic array of R rows and C columns fills and drains each fold: with weights or inputs in
place `t_fold = 2 R + C - 2` (R of it loads them), with outputs in place `R + C - 2` (the closed
forms of Samajdar et al., "A Systematic Methodology for Characterizing Scalability of DNN
Accelerators using SCALE-Sim", ISPASS 2020, section III). Where the next fold's operand is loaded
behind the current one, only what the current fold is too short for is waited for, and the array
fills once. Levels that are neither double-buffered nor streamed are filled while the array waits,
as fast as the slower of the two levels (`t_exposed`). Of double-buffered ones the array waits for
the first tiles of main memory, which waits for the products of the last one (`t_tail`): n tiles of
l cycles, each worked on for c, take n max(l, c) + min(l, c). Where several tiles are streamed in a
fold, c is longer for the one behind which the array fills and drains.
"""

from __future__ import annotations

import numpy as np

from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.mapping import Partial
from hwmodels.estimators.array.nest import Floats
from hwmodels.estimators.array.traffic import Placed


def cycles_of(placed: Placed, found: Partial) -> tuple[Floats, Floats]:
    """Cycles of tilings that are decided down to the array: (all, those without stalls)."""
    compute = multiplying(placed, found)
    return elapsed(placed, found, compute + found.exposed), compute


def elapsed(placed: Placed, found: Partial, busy: Floats, *, settled: bool = True) -> Floats:
    """Cycles of an array that is busy for so many (n,) and of the levels beside it, (n,).

    Before a level's tiles come those of slower levels, and after them the last of the output; the
    array waits for the first tile, or the level for what the array does with its last one. A bound
    where the tiles of main memory are not settled for all tensors.
    """
    moving = level_cycles(placed, found)
    fill, drain = found.fill.max(axis=1), found.drain.max(axis=1)
    if not settled:
        return np.maximum(busy + fill + drain, moving.max(axis=1))  # type: ignore[no-any-return]
    beside = np.where(found.fill > 0, 0.0, fill[:, None])
    beside = beside + np.where(found.drain > 0, 0.0, drain[:, None])
    tail = np.where(moving > busy[:, None], busy[:, None] / found.rounds, found.fill + found.drain)
    ends = (_paced(placed, found, busy, moving) + tail + beside).max(axis=1)
    return np.maximum(busy + fill + drain, ends)  # type: ignore[no-any-return]


def _paced(placed: Placed, found: Partial, busy: Floats, moving: Floats) -> Floats:
    """Cycles of the array and each level, whichever is slower at the time, (n, levels).

    Tiles that a fold streams are used up faster than the one behind which the fold fills and
    drains: a level between the two is waited for during the stream and waits during the fill.
    """
    slower = np.maximum(moving, busy[:, None])
    known = (found.folds > 1) & np.isfinite(found.rounds).any(axis=1)
    if placed.hierarchy.movement != "systolic" or placed.hierarchy.load_hidden or not known.any():
        return slower
    stream = placed.steps(found.tile, found.counts)
    tiles = np.where(np.isinf(found.rounds), 1.0, found.rounds)
    folds = np.maximum(found.folds, 1.0)[:, None]
    used = stream[:, None] / tiles
    behind = used + (busy - stream)[:, None] / folds
    load = moving / tiles
    paced = tiles * np.maximum(load, used) + folds * (
        np.maximum(load, behind) - np.maximum(load, used)
    )
    return np.where((tiles > folds) & known[:, None], np.maximum(paced, slower), slower)


def multiplying(placed: Placed, found: Partial) -> Floats:
    """Cycles of computing as far as tilings are decided, filling and draining with it."""
    cycles = placed.steps(found.tile, found.counts)
    known = found.folds > 0
    filling = fold_cycles(placed.hierarchy, np.where(known, found.folds, 1.0), cycles)
    return cycles + np.where(known, filling, 0.0)


def level_cycles(placed: Placed, found: Partial) -> Floats:
    """Cycles in which each level moves its bytes, (n, levels)."""
    written = found.level_bytes - found.level_read
    return np.stack(
        [
            placed.level_cycles(level, found.level_read[:, level], written[:, level])
            for level in range(len(placed.hierarchy.levels))
        ],
        axis=1,
    )


def fold_cycles(hierarchy: Hierarchy, folds: Floats, cycles: Floats) -> Floats:
    """Cycles of filling and draining, shape (n,).

    Args:
        hierarchy: of the array.
        folds: (n,) times that the stationary tensor is replaced.
        cycles: (n,) in which the array multiplies.
    """
    if hierarchy.movement != "systolic":
        return np.zeros_like(folds)
    rows, columns = (axis.size for axis in hierarchy.axes[:2])
    skew = rows + columns - 2
    load = 0 if hierarchy.stationary == "output" else rows
    if hierarchy.load_hidden:
        waits = np.maximum(load - cycles / folds, 0.0)
        return (folds - 1) * waits + load + skew
    return folds * (load + skew)
