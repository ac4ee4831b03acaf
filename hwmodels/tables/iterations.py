"""The compiled loop of `hwmodels.tables.queueing`: one iteration after the other.

Requests are numbered in the order in which they come and are served in it, so that those that
wait and those whose prompts are read are ranges of numbers.
"""

# Kernels take everything by position, since numba reads them, not mypy.
# ruff: noqa: PLR0917
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return, misc"

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwmodels.kernel_cache import compiler

Floats = NDArray[np.float64]
Tokens = NDArray[np.int64]


class Times(NamedTuple):
    """The prices of calls; sizes ascend."""

    tokens: Floats
    """Of prompts that are read together, shape (calls,)."""
    read_s: Floats
    batches: Floats
    """Requests that decode together, from 1, shape (batches,)."""
    step_s: Floats


class Limits(NamedTuple):
    """The requests that are held, and what an iteration takes of them."""

    held: int
    """Requests at a time."""
    tokens: int
    cuts: bool
    mixes: bool


compiled = compiler(Path(__file__))


@compiled
def between(size, at, seconds):
    """Seconds of a size, linear between those that were priced, and on beyond the last."""
    if size <= at[0]:
        return seconds[0]
    last = len(at) - 1
    if size > at[last] and last == 0:
        return seconds[0] * size / at[0]
    upper = 1
    while upper < last and size > at[upper]:
        upper += 1
    slope = (seconds[upper] - seconds[upper - 1]) / (at[upper] - at[upper - 1])
    return seconds[upper - 1] + slope * (size - at[upper - 1])


@compiled
def reading_s(tokens, times):
    """So many tokens of prompts alone: a part of one takes its share."""
    if tokens < times.tokens[0]:
        return times.read_s[0] * tokens / times.tokens[0]
    return between(tokens, times.tokens, times.read_s)


@compiled
def iteration_s(requests, tokens, times):
    """An iteration of so many requests that decode and so many tokens of prompts."""
    least = between(1.0, times.batches, times.step_s)
    step = between(float(requests), times.batches, times.step_s) if requests else least
    if tokens == 0:
        return step
    return max(least, reading_s(float(tokens), times)) + step - least


@compiled
def serve(prompts, answers, sent, clients, limits, times):
    """The times of first and last tokens, each of shape (requests,).

    Args:
        prompts: tokens, whole numbers of shape (requests,).
        answers: tokens, likewise.
        sent: seconds, ascending, shape (requests,); of clients those of the first requests, and
            those of the others are written.
        clients: number of them, or 0 where requests come when they come.
        limits: `Limits`, at least one request held.
        times: `Times`.
    """
    count = len(prompts)
    first, last = np.full(count, np.inf), np.full(count, np.inf)
    read, taken = np.zeros(count, np.int64), np.zeros(count, np.int64)
    # A heap of the step of the last token and the number of the request.
    writing = [(0, 0)]
    writing.pop()
    now, steps = 0.0, 0
    # Before `head` prompts are read, before `admitted` begun, before `arrived` sent.
    head, admitted, arrived = 0, 0, min(clients, count)
    while arrived < count or head < arrived or writing:
        if clients == 0:
            if head == arrived and not writing:
                now = max(now, sent[arrived])
            arrived = _arrived(sent, arrived, now)
        left = limits.tokens - (len(writing) if limits.mixes else 0)
        room = max(limits.held - len(writing) - (admitted - head), 0)
        stop, tokens = _take(
            prompts, read, taken, head, min(admitted + room, arrived), left, limits.cuts
        )
        admitted = max(admitted, stop)
        writes = len(writing) if tokens == 0 or limits.mixes else 0
        seconds = iteration_s(writes, tokens, times)
        repeated = 1
        if tokens == 0:
            until = sent[arrived] - now if clients == 0 and arrived < count else np.inf
            repeated = _repeated(writing[0][0] - steps, until / seconds)
        now += repeated * seconds
        if writes:
            steps += repeated
            while writing and writing[0][0] <= steps:
                _, request = heappop(writing)
                arrived = _answer(request, now, last, sent, arrived, clients)
        for request in range(head, stop):
            read[request] += taken[request]
            if read[request] < prompts[request]:
                continue
            head += 1
            first[request] = now
            if answers[request] > 1:
                heappush(writing, (steps + answers[request] - 1, request))
            else:
                arrived = _answer(request, now, last, sent, arrived, clients)
    return first, last


@compiled
def _arrived(sent, arrived, now):
    """Number of requests that are sent by then."""
    while arrived < len(sent) and sent[arrived] <= now:
        arrived += 1
    return arrived


@compiled
def _take(prompts, read, taken, begin, end, left, cuts):
    """Takes tokens of prompts in their order: the end of those that are read, and the sum."""
    tokens, stop = 0, begin
    while stop < end:
        wanted = prompts[stop] - read[stop]
        if wanted > left and not cuts and stop > begin:
            break  # goes with the next ones; alone where no budget holds it
        if cuts:
            wanted = min(wanted, left)
        if wanted < 1:
            break
        taken[stop] = wanted
        tokens += wanted
        left -= wanted
        stop += 1
    return stop, tokens


@compiled
def _repeated(steps, until):
    """Equal steps that are taken at once: no answer ends before, and nobody comes."""
    if until < steps:
        return max(ceil(until), 1)
    return max(steps, 1)


@compiled
def _answer(request, now, last, sent, arrived, clients):
    """Ends an answer; a client sends the next request at once. Returns how many are sent."""
    last[request] = now
    if clients == 0 or arrived == len(sent):
        return arrived
    sent[arrived] = now
    return arrived + 1
