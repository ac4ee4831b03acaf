"""Routing of the tokens of a mixture of experts, in expectation.

T tokens choose k of E experts each, all equally likely. An expert is left out by one token with
probability 1 - k/E, so that

    hit = E (1 - (1 - k/E)^T)

experts are read, and each of them has T k / hit rows. Real routers are less even: fewer experts
are hit by few tokens, and the fullest one has more rows than the mean (`studies/moe_latency`).
"""

from __future__ import annotations

import math


def hit_experts(experts: int, rows: int, topk: int) -> int:
    """Expected number of different experts, rounded, from 1 to `experts`.

    `rows` counts every expert's rows together: tokens x `topk`. The experts may be a part of the
    layer's (expert parallelism); then `topk` is the part of the choices that falls on them and
    may be below one in the mean, which counts as one.
    """
    tokens = max(rows / max(topk, 1), 0.0)
    left_out = max(1.0 - topk / experts, 0.0)
    hit = experts * (1.0 - math.pow(left_out, tokens))
    return max(1, min(experts, rows, round(hit)))


def rows_per_expert(experts: int, rows: int, topk: int) -> int:
    """Mean rows of the experts that are hit, rounded up: at least 1."""
    return max(1, -(-rows // hit_experts(experts, rows, topk)))
