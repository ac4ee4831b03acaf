"""The load that a traffic of requests makes: what they find, and how many of them can come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, sqrt

import numpy as np

from hwmodels.tables.queueing import LEAST, ROUNDS, Engine, Served, Traffic, simulate

SETTLED = 0.5
"""Share of the requests after which memory that was filled all at once is in its usual state."""
MOST_HELD = 2048
"""Requests that are held at a time at most where memory is full: a small model on a large GPU has
room for hundreds of thousands, and no more of them are answered then."""
KEPT_UP = 0.95
"""Answers over requests that came meanwhile, of a queue that has settled."""
RATE_STEP = 1.01
"""Ratio of rates that are not told apart."""
FIRST_STEP, LEAST_SHARE = 0.9, 1e-4
"""The first step down from the most that is answered, and the share of it that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The times that requests find under a traffic, in seconds."""

    rate: float
    """Answers a second: as many as come, where requests come by themselves and fewer do than can
    be answered."""
    most_rate: float
    """Answers a second where there is always a request that waits."""
    in_flight: float
    """Requests that are sent and not answered, on average."""
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    """Time to first token, from sending: infinite where more arrive than are answered."""
    tpot_mean_s: float
    tpot_p99_s: float
    """Time per token of an answer."""
    settled: bool = True
    """Whether about as many were answered as came: else the queue still grew with the last of the
    requests that are simulated, and its times are longer the longer it lasts."""

    @classmethod
    def of(cls, served: Served, most_rate: float) -> Load:
        """The summary of answers."""
        ttft_p50_s, ttft_p99_s = np.percentile(served.ttft_s, (50, 99)).tolist()
        return cls(
            rate=served.rate,
            most_rate=max(most_rate, served.rate),
            settled=bool(served.rate >= KEPT_UP * served.came),
            in_flight=served.in_flight,
            ttft_mean_s=float(served.ttft_s.mean()),
            ttft_p50_s=ttft_p50_s,
            ttft_p99_s=ttft_p99_s,
            tpot_mean_s=float(served.tpot_s.mean()),
            tpot_p99_s=float(np.percentile(served.tpot_s, 99)),
        )


def load_of(engine: Engine, traffic: Traffic) -> Load:
    """The load of a traffic that lasts.

    Raises:
        WorkError: as `simulate`.
    """
    return _load(engine, traffic, capacity(engine, traffic))


def _load(engine: Engine, traffic: Traffic, answered: float) -> Load:
    """The load where so many requests a second are answered at most."""
    if traffic.clients is not None:
        served = simulate(engine, traffic)
        # Where some of the clients always wait, theirs is the most: one question, one sample.
        return Load.of(served, served.rate if traffic.clients > _held(engine) else answered)
    if traffic.rate is not None and traffic.rate < answered:
        return replace(Load.of(simulate(engine, traffic), answered), rate=traffic.rate)
    full = Load.of(simulate(engine, _full(engine, traffic)), answered)
    return replace(full, in_flight=inf, ttft_mean_s=inf, ttft_p50_s=inf, ttft_p99_s=inf)


def capacity(engine: Engine, traffic: Traffic) -> float:
    """Requests a second that are answered where there is always one that waits.

    Raises:
        WorkError: as `simulate`.
    """
    return simulate(engine, _full(engine, traffic)).rate


def sustained(
    engine: Engine, traffic: Traffic, keeps: Callable[[Load], bool]
) -> tuple[float, Load]:
    """The most requests a second that arrive at random and still find what is asked for.

    Args:
        engine: the assignment on its group of GPUs.
        traffic: lengths of prompts and answers.
        keeps: whether a load is within the bounds.

    Returns:
        The rate, to a hundredth of it, and its load; 0 and the load of one client where hardly
        any requests are beyond the bounds.

    Raises:
        WorkError: as `simulate`.
    """
    most = capacity(engine, traffic)

    def at(rate: float) -> Load:
        return _load(engine, replace(traffic, clients=None, rate=rate), most)

    # Bounds mostly hold not far below what is answered at most: steps down from there grow.
    high, low, down = most, most * FIRST_STEP, 1
    best = low, at(low)
    while not (best[1].settled and keeps(best[1])):
        high, down = low, 2 * down
        low *= FIRST_STEP**down
        if low < most * LEAST_SHARE:
            return 0.0, _load(engine, replace(traffic, clients=1, rate=None), most)
        best = low, at(low)
    while high / low > RATE_STEP:
        middle = sqrt(low * high)
        found = at(middle)
        if found.settled and keeps(found):
            low, best = middle, (middle, found)
        else:
            high = middle
    return best


def _full(engine: Engine, traffic: Traffic) -> Traffic:
    """So many clients that one more always waits."""
    held = min(_held(engine), MOST_HELD)
    count = max(LEAST, ROUNDS * held)
    return replace(traffic, clients=held + 1, rate=None, count=count, start=SETTLED)


def _held(engine: Engine) -> int:
    """Requests that are served at a time at most."""
    return min(engine.most, engine.batching.requests or engine.most)
