"""Distance of a quantized model's outputs from the full-precision model's on the same inputs.

Losses are paired: one number a sample, so that the standard error is over samples (sequences or
images) and differences between assignments are far less noisy than the losses themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.evaluate.outputs.task import Task
from dse.evaluate.reference import BatchScore

SEPARATED = 2.0
"""A paired difference of losses counts beyond so many of its standard errors."""
DESTROYED = 0.8
"""A loss is that of a constant answer from this share of it on; likewise a share of flips."""

RARE = 0.2
"""Share of flips of a constant answer below which flips alone say nothing: one class prevails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of one assignment on one split."""

    loss: float
    """Mean over outputs of the KL divergence in nats per position, or of the error over the
    spread of the reference for an output without a distribution."""
    stderr: float
    """Standard error of `loss` over samples."""
    p99: float
    """99th percentile of the loss over samples."""
    flip_rate: float
    """Share of positions whose most likely class changed; NaN without a distribution."""
    metric: float
    """The task's metric (see `Task.metric`); NaN without labels."""
    samples: int
    losses: tuple[float, ...] = ()
    """The loss of every sample, for paired comparisons."""


def summarise(scores: Sequence[BatchScore], task: Task) -> Quality:
    """The quality of a split from its batches.

    A sample whose outputs are NaN or infinite where those of the reference are not has an
    infinite loss. A sample in which the reference says nothing counts as the mean of the others.
    """
    losses = torch.cat([score.losses for score in scores]).double()
    empty = losses.isnan()
    count = len(losses) - int(empty.sum())
    there = losses[~empty]
    stderr = there.std().item() / math.sqrt(count) if count > 1 else math.inf
    loss = there.mean().item() if count else math.nan
    losses = losses.masked_fill(empty, loss)
    return Quality(
        loss=loss,
        stderr=stderr if math.isfinite(stderr) else math.inf,
        p99=torch.quantile(losses, 0.99).item(),
        flip_rate=_mean([score.flips for score in scores]),
        metric=task_metric(task, _mean([score.metric for score in scores])),
        samples=len(losses),
        losses=tuple(losses.tolist()),
    )


def _mean(parts: Sequence[Tensor]) -> float:
    """The mean of what is there; NaN where nothing is."""
    values = torch.cat(list(parts)).double()
    return values[~values.isnan()].mean().item()


def task_metric(task: Task, mean: float) -> float:
    """The metric from the mean over samples of what a reference records: nats or hits."""
    if task.metric == "bits_per_byte":
        return mean / math.log(2)
    if task.metric == "perplexity":
        return math.exp(mean) if mean < 700 else math.inf
    return mean
