"""Cycles of a mapped nest: folds of the array, and levels that deliver too late.

    t_compute = prod(counts) + folds * t_fold
    t_busy = t_compute + t_exposed
    t = max(t_busy + t_fill + t_drain, max over levels (max(t_busy, t_level) + t_tail))
    t_level = bytes / bandwidth

A systolic array of R rows and C columns fills and drains each fold: with weights or inputs in
place `t_fold = 2 R + C - 2` (R of it loads them), with outputs in place `R + C - 2` (the closed
forms of Samajdar et al., "A Systematic Methodology for Characterizing Scalability of DNN
Accelerators using SCALE-Sim", ISPASS 2020, section III). Where the next fold's operand is loaded
behind the current one, only what the current fold is too short for is waited for, and the array
fills once. Levels that are not double-buffered are filled while the array waits (`t_exposed`).
The array waits for the first tiles of main memory, which waits for the products of the last one
(`t_tail`): n tiles of l cycles, each worked on for c, take n max(l, c) + min(l, c). Where several
tiles are streamed in a fold, c is longer for the one behind which the array fills and drains.
"""

from __future__ import annotations

import numpy as np

from hwmodels.estimators.array.hierarchy import Hierarchy
from hwmodels.estimators.array.nest import Floats


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
