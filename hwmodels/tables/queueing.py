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

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from hwmodels.errors import WorkError
from hwmodels.runtimes.runtime import Batching

Floats = NDArray[np.float64]
Tokens = NDArray[np.int64]

ROUNDS = 10
"""Requests of a client; what benchmarks send."""
LEAST = 1000
"""Requests that are simulated at least: below, a 99th percentile is that of a few."""
SPREAD, START = 0.2, 0.2


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

    def decoding_s(self, requests: int) -> float:
        """A step of so many requests."""
        return _between(requests, self.batches, self.step_s)

    def reading_s(self, tokens: int) -> float:
        """So many tokens of prompts alone: a part of one takes its share."""
        one = self.tokens[0]
        if tokens < one:
            return float(self.read_s[0] * tokens / one)
        return _between(tokens, self.tokens, self.read_s)

    def iteration_s(self, requests: int, tokens: int) -> float:
        """An iteration of so many requests that decode and so many tokens of prompts."""
        if not tokens:
            return self.decoding_s(requests)
        least = self.decoding_s(1)
        more = self.decoding_s(requests) - least if requests else 0.0
        return max(least, self.reading_s(tokens)) + more


def _between(size: int, at: Floats, seconds: Floats) -> float:
    """Seconds of a size, linear between those that were priced, and on beyond the last."""
    if size <= at[-1]:
        return float(np.interp(size, at, seconds))
    if len(at) < 2:
        return float(seconds[0] * size / at[0])
    slope = (seconds[-1] - seconds[-2]) / (at[-1] - at[-2])
    return float(seconds[-1] + slope * (size - at[-1]))


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
    """Requests that are sent; by default `ROUNDS` a client, `LEAST` at least."""
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
        return self.count or max(LEAST, ROUNDS * (self.clients or 1))

    def requests(self) -> Iterator[Request]:
        """Requests in the order in which they come; those of clients are sent at 0 or later."""
        drawn = np.random.default_rng(self.seed)
        prompts = _around(self.prompt, self.spread, self.sent, drawn)
        answers = _around(self.generate, self.spread, self.sent, drawn)
        times = np.zeros(self.sent)
        if self.rate is not None:
            times = np.cumsum(drawn.exponential(1 / self.rate, size=self.sent))
        for number, sent in enumerate(times):
            yield Request(
                number=number,
                sent=float(sent),
                prompt=int(prompts[number]),
                answer=int(answers[number]),
            )


def _around(mean: int, spread: float, count: int, drawn: np.random.Generator) -> Tokens:
    low, high = round(mean * (1 - spread)), round(mean * (1 + spread))
    return np.maximum(drawn.integers(low, high, endpoint=True, size=count), 1)


@dataclass(slots=True, kw_only=True)
class Request:
    """A request on its way; times in seconds."""

    number: int
    """Its place among all."""
    sent: float
    prompt: int
    """Tokens."""
    answer: int
    """Tokens."""
    read: int = 0
    """Tokens of the prompt that are in the cache."""
    first: float = inf
    """Time of the first token."""
    last: float = inf


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
        WorkError: not one request fits in memory.
    """
    if engine.most < 1:
        raise WorkError("no request fits beside the weights, so that none is ever answered")
    server = _Server(engine=engine)
    coming = deque(traffic.requests())
    ended: list[Request] = []
    for _ in range(min(traffic.clients or 0, len(coming))):
        server.waiting.append(coming.popleft())
    while coming or server.busy:
        if traffic.clients is None:
            if not server.busy:
                server.now = max(server.now, coming[0].sent)
            while coming and coming[0].sent <= server.now:
                server.waiting.append(coming.popleft())
        until = coming[0].sent if coming and traffic.clients is None else inf
        for request in server.iterate(until):
            ended.append(request)
            if traffic.clients is not None and coming:
                coming[0].sent = server.now
                server.waiting.append(coming.popleft())
    return _summary(ended, traffic)


def _summary(ended: list[Request], traffic: Traffic) -> Served:
    """Of the requests behind the first ones, by when they were sent."""
    counted = sorted(ended, key=lambda request: request.sent)[int(traffic.start * traffic.sent) :]
    ttft = np.array([one.first - one.sent for one in counted])
    tpot = np.array([(one.last - one.first) / max(one.answer - 1, 1) for one in counted])
    # Until the last one is sent: behind it the queue only drains.
    began, closed = counted[0].sent, counted[-1].sent
    seconds = closed - began
    answers = sum(began < one.last <= closed for one in ended)
    came = sum(began < one.sent <= closed for one in ended)
    stays = sum(max(min(one.last, closed) - max(one.sent, began), 0.0) for one in ended)
    return Served(
        ttft_s=ttft,
        tpot_s=tpot,
        rate=answers / seconds if seconds else 0.0,
        came=came / seconds if seconds else 0.0,
        in_flight=stays / seconds if seconds else 0.0,
    )


@dataclass(slots=True, kw_only=True)
class _Server:
    """The state between two iterations."""

    engine: Engine
    now: float = 0.0
    steps: int = 0
    """Iterations in which requests wrote a token."""
    waiting: deque[Request] = field(default_factory=deque)
    reading: deque[Request] = field(default_factory=deque)
    """Admitted, with a prompt that is not read to its end; in their order."""
    writing: list[tuple[int, int, Request]] = field(default_factory=list)
    """A heap: the step of the last token, a number of its own, the request."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.reading or self.writing)

    def iterate(self, until: float) -> list[Request]:
        """One iteration, or equal ones while nothing changes and nobody comes before `until`.

        Returns:
            Requests whose answers end.
        """
        prompts = self._prompts()
        tokens = sum(taken for _, taken in prompts)
        writes = len(self.writing) if not tokens or self.engine.batching.mixes else 0
        seconds = self.engine.iteration_s(writes, tokens)
        steps = 1
        if not tokens:
            steps = self.writing[0][0] - self.steps
            if until < inf:
                steps = max(min(steps, ceil((until - self.now) / seconds)), 1)
        self.now += steps * seconds
        self.steps += steps if writes else 0
        ended = []
        while writes and self.writing and self.writing[0][0] <= self.steps:
            ended.append(heappop(self.writing)[-1])
        return [self._answered(one) for one in (*ended, *self._read(prompts))]

    def _answered(self, request: Request) -> Request:
        request.last = self.now
        return request

    def _read(self, prompts: list[tuple[Request, int]]) -> Iterator[Request]:
        """Reads prompts; those that are read write a first token, and end if it is the last."""
        for one, taken in prompts:
            one.read += taken
            if one.read < one.prompt:
                continue
            self.reading.popleft()
            one.first = self.now
            if one.answer == 1:
                yield one
            else:
                heappush(self.writing, (self.steps + one.answer - 1, one.number, one))

    def _prompts(self) -> list[tuple[Request, int]]:
        """Prompts of the next iteration, with the tokens of each."""
        batching = self.engine.batching
        left = batching.tokens - (len(self.writing) if batching.mixes else 0)
        room = min(self.engine.most, batching.requests or self.engine.most)
        room = max(room - len(self.writing) - len(self.reading), 0)
        found: list[tuple[Request, int]] = []
        for one in (*self.reading, *islice(self.waiting, room)):
            tokens = one.prompt - one.read
            if tokens > left and not batching.cuts and found:
                break  # goes with the next ones; alone where no budget holds it
            tokens = min(tokens, left) if batching.cuts else tokens
            if tokens < 1:
                break
            found.append((one, tokens))
            left -= tokens
        for _ in range(len(found) - len(self.reading)):
            self.reading.append(self.waiting.popleft())
        return found
