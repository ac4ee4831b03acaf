"""Log-likelihoods of tokens under a causal network, in batches of equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Tokens (rows, length) -> logits (rows, length, vocabulary)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Tokens to score after others."""

    context: Sequence[int]
    """At least one token."""
    target: Sequence[int]

    @property
    def read(self) -> tuple[int, ...]:
        """Tokens that the network reads: the last one is only predicted."""
        return (*self.context, *self.target)[:-1]

    @property
    def length(self) -> int:
        """Tokens that the network reads."""
        return len(self.context) + len(self.target) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A network's answer to a request."""

    logprob: float
    """Sum over the target, in nats."""
    greedy: bool
    """Whether every token of the target is the most likely one."""


def score(logits: Logits, requests: Sequence[Request], *, batch: int) -> list[Scored]:
    """Scores of requests, in their order.

    Rows are padded at the end: a causal network's results before the padding do not see it. What
    several requests read alike, as choices of one token after one prompt do, is read once.
    """
    asking: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(requests):
        asking.setdefault(request.read, []).append(number)
    found: dict[int, Scored] = {}
    for rows in _batches(asking, batch):
        tokens = np.zeros((len(rows), len(rows[-1])), dtype=np.int64)
        for place, ids in enumerate(rows):
            tokens[place, : len(ids)] = ids
        output = logits(tokens)
        for place, ids in enumerate(rows):
            for number in asking[ids]:
                found[number] = _scored(output[place], requests[number])
    return [found[number] for number in range(len(requests))]


def _batches(read: Iterable[tuple[int, ...]], batch: int) -> Iterator[Sequence[tuple[int, ...]]]:
    """Rows of like length together, the longest last, so that little is padded."""
    order = sorted(read, key=len)
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def _scored(output: NDArray[np.float32], request: Request) -> Scored:
    start = len(request.context) - 1
    rows = output[start : start + len(request.target)].astype(np.float64)
    target = np.asarray(request.target)
    top = rows.max(axis=-1)
    totals = np.log(np.exp(rows - top[:, None]).sum(axis=-1)) + top
    picked = rows[np.arange(len(target)), target]
    return Scored(
        logprob=float((picked - totals).sum()), greedy=bool((rows.argmax(axis=-1) == target).all())
    )


def windows(tokens: Sequence[int], *, first: int, length: int) -> list[Request]:
    """Requests that score every token once, in windows that do not overlap.

    As lm-eval's rolling windows with one token of context: the first window begins with `first`
    (an end-of-text token), every later one with the last token before it.
    """
    found = []
    for start in range(0, len(tokens), length):
        before = tokens[start - 1] if start else first
        found.append(Request(context=[before], target=tokens[start : start + length]))
    return found
