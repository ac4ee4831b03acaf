"""Cycles of one mapped nest, compiled; the formulas are those of `timing`."""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, no-any-return"

from __future__ import annotations

import numpy as np

from hwmodels.estimators.array.compiled import inlined


@inlined
def steps_of(shape, state):
    """Cycles in which the array multiplies."""
    steps = 1.0
    for loop in range(8):
        steps *= state.counts[loop] * state.steps[loop]
    return steps / shape.throughput


@inlined
def filling(shape, folds, steps):
    """Cycles of filling and draining a systolic array so many times."""
    skew = shape.rows + shape.columns - 2
    load = 0.0 if shape.stationary == 2 else shape.rows
    if shape.load_hidden:
        waits = max(load - steps / folds, 0.0)
        return (folds - 1) * waits + load + skew
    return folds * (load + skew)


@inlined
def computing(shape, folds, steps):
    """Cycles without stalls; `folds` is 0 where there are none."""
    return steps + (filling(shape, folds, steps) if folds > 0 else 0.0)


@inlined
def elapsed(shape, state, steps, folds, busy, moving, settled):
    """Cycles of an array that is busy for so many, and of the levels beside it.

    moving: (levels,) cycles of all bytes. A bound where the tiles of main memory are not settled.
    """
    first, last, slowest, known = 0.0, 0.0, 0.0, False
    for level in range(shape.levels):
        first, last = max(first, state.fill[level]), max(last, state.drain[level])
        slowest = max(slowest, moving[level])
        known = known or np.isfinite(state.rounds[level])
    if not settled:
        return max(busy + first + last, slowest)
    pipelined = shape.stationary >= 0 and not shape.load_hidden and folds > 1 and known
    found = busy + first + last
    for level in range(shape.levels):
        paced = max(moving[level], busy)
        tiles = state.rounds[level] if np.isfinite(state.rounds[level]) else 1.0
        if pipelined and tiles > folds:
            used = steps / tiles
            behind = used + (busy - steps) / folds
            load = moving[level] / tiles
            waited = max(load, behind) - max(load, used)
            paced = max(paced, tiles * max(load, used) + folds * waited)
        if moving[level] > busy:
            tail = busy / state.rounds[level]
        else:
            tail = state.fill[level] + state.drain[level]
        if state.fill[level] <= 0:
            tail += first
        if state.drain[level] <= 0:
            tail += last
        found = max(found, paced + tail)
    return found
