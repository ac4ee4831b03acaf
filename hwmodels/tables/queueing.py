"""Requests that wait for one another: the iterations of a serving runtime, simulated.

A runtime computes in iterations (Yu et al., Orca, OSDI 2022, section 4). One takes a token of
every request that decodes, and what is left of its budget from prompts that wait, first come,
first served; a prompt may be cut where the budget ends (Agrawal et al., Sarathi-Serve, OSDI
2024, section 4). With r requests that decode and c tokens of prompts it takes

    t(r, 0) = t_d(r)
    t(r, c) = max(t_d(1), t_p(c)) + t_d(r) - t_d(1)

t_d a decoding step, t_p a prefill call of so many tokens of prompts: weights are read once, and a
few tokens of a prompt take as long as reading them. A runtime that does not mix the two lets
prompts go first. A request is admitted where its cache has room, keeps it until its last token,
and is never set back. Nothing here is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwmodels.errors import WorkError
from hwmodels.runtimes.runtime import Batching

Floats = NDArray[np.float64]
Tokens = NDArray[np.int64]

ROUNDS = 10
"""Requests of a client; what benchmarks send."""
LEAST = 4000
"""Requests that are simulated at least: below, a 99th percentile is that of a few."""
ARRIVALS = 16_000
"""Requests that arrive at random: the rate at which a 99th percentile keeps a bound is within 3 %
of other draws' then (one standard deviation; with 1,000 requests 20 %)."""
SPREAD, START = 0.2, 0.2
MOST_CLIENTS = 100_000
"""Clients whose requests are simulated within a second or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One assignment on a group of GPUs."""

    tokens: Floats
    """Of prompts that are read together, ascending from those of one, shape (calls,)."""
    read_s: Floats
    """Seconds that they take alone, shape (calls,)."""
    batches: Floats
    """Requests at which `step_s` was priced, ascending from 1, shape (batches,)."""
    step_s: Floats
    """Seconds of a decoding step, shape (batches,)."""
    most: int
    """Requests whose caches fit."""
    batching: Batching


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests as they come: of clients that wait for answers, or at random."""

    prompt: int
    """Tokens of a prompt, their mean."""
    generate: int
    """Tokens of an answer, their mean; the prefill writes the first."""
    clients: int | None = None
    """Clients that send the next request when the last one is answered; or None."""
    rate: float | None = None
    """Requests a second that arrive whatever happens (a Poisson process); or None."""
    spread: float = SPREAD
    """Share of their mean within which lengths lie, evenly."""
    count: int | None = None
    """Requests that are sent; by default `ROUNDS` a client, `LEAST` at least, or `ARRIVALS`."""
    start: float = START
    """Share of the requests, the first, that are served and not counted: clients who begin all at
    once find a queue that they never find again."""
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.clients is None) == (self.rate is None):
            raise ValueError("traffic has either clients or a rate")

    @property
    def sent(self) -> int:
        """Number of requests."""
        if self.count is not None:
            return self.count
        return ARRIVALS if self.clients is None else max(LEAST, ROUNDS * self.clients)

    def requests(self) -> tuple[Tokens, Tokens, Floats]:
        """Tokens of prompts and of answers, and when they are sent, arrays of shape (requests,).

        Those of clients are sent at 0 or later.
        """
        prompts, answers, arrivals = _drawn(
            self.prompt, self.generate, self.spread, self.sent, self.seed
        )
        return prompts, answers, arrivals / self.rate if self.rate else np.zeros(self.sent)


@lru_cache(maxsize=64)
def _drawn(
    prompt: int, generate: int, spread: float, count: int, seed: int
) -> tuple[Tokens, Tokens, Floats]:
    """Lengths, and arrivals of one request a second."""
    drawn = np.random.default_rng(seed)
    prompts = _around(prompt, spread, count, drawn)
    answers = _around(generate, spread, count, drawn)
    return prompts, answers, np.cumsum(drawn.exponential(size=count))


def _around(mean: int, spread: float, count: int, drawn: np.random.Generator) -> Tokens:
    low, high = round(mean * (1 - spread)), round(mean * (1 + spread))
    return np.maximum(drawn.integers(low, high, endpoint=True, size=count), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Answers of those requests that count, arrays of shape (requests,)."""

    ttft_s: Floats
    """From sending a request to its first token."""
    tpot_s: Floats
    """Between tokens, the mean of an answer; zero where it has one token."""
    rate: float
    """Answers a second."""
    came: float
    """Requests sent a second, in the same time."""
    in_flight: float
    """Requests that are sent and not answered, their mean over time."""


def simulate(engine: Engine, traffic: Traffic) -> Served:
    """Serves the traffic to its last request.

    Raises:
        WorkError: not one request fits in memory, or clients are too many to be simulated.
    """
    if traffic.clients is not None and traffic.clients > MOST_CLIENTS:
        raise WorkError(
            f"{traffic.clients} requests at a time: at most {MOST_CLIENTS} are simulated; ask for "
            "fewer (--batch)"
        )
    if engine.most < 1:
        raise WorkError("no request fits beside the weights, so that none is ever answered")
    from hwmodels.tables import iterations  # noqa: PLC0415 (most prices need no compiler)

    batching = engine.batching
    prompts, answers, sent = traffic.requests()
    first, last = iterations.serve(
        prompts,
        answers,
        sent,
        traffic.clients or 0,
        iterations.Limits(
            held=min(engine.most, batching.requests or engine.most),
            tokens=batching.tokens,
            cuts=batching.cuts,
            mixes=batching.mixes,
        ),
        iterations.Times(engine.tokens, engine.read_s, engine.batches, engine.step_s),
    )
    begins = int(traffic.start * traffic.sent)
    counted = slice(begins, None)
    began, closed = sent[begins], sent[-1]
    # Until the last one is sent: behind it the queue only drains.
    seconds = closed - began
    came = np.count_nonzero((began < sent) & (sent <= closed))
    answered = np.count_nonzero((began < last) & (last <= closed))
    stays = np.clip(np.minimum(last, closed) - np.maximum(sent, began), 0, None).sum()
    return Served(
        ttft_s=(first - sent)[counted],
        tpot_s=((last - first) / np.maximum(answers - 1, 1))[counted],
        rate=answered / seconds if seconds else 0.0,
        came=came / seconds if seconds else 0.0,
        in_flight=float(stays / seconds) if seconds else 0.0,
    )
