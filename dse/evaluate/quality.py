"""How far a quantized model's outputs are from the full-precision model's on the same inputs.

Losses are paired: one number a sample, so that the standard error is over samples (sequences or
images) and differences between assignments are far less noisy than the losses themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SEPARATED = 2.0
"""A paired difference of losses counts beyond so many of its standard errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of one assignment on one split."""

    loss: float
    """Mean KL divergence in nats per position; relative output error without a distribution."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the outputs mean."""

    distribution: bool
    """The output's last axis are logits of a distribution."""
    metric: str = ""
    """`bits_per_byte`, `perplexity`, `accuracy`, a user's own, or empty."""
    higher_is_better: bool = False
    """Of a user's own metric."""

    @property
    def goal(self) -> str:
        """Which way the metric improves."""
        return "maximise" if self.metric == "accuracy" or self.higher_is_better else "minimise"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchScore:
    """What one batch contributes, one value a sample."""

    losses: Tensor
    flips: Tensor
    metric: Tensor


class Reference:
    """The full-precision outputs of one batch, in the form that comparisons need.

    Args:
        output: (samples, ..., classes) for a distribution, else (samples, ...).
        labels: (samples, ...) class indices, or None.
        task: what the output means.
    """

    def __init__(self, output: Tensor, labels: Tensor | None, task: Task) -> None:
        self.task = task
        self.labels = labels
        if task.distribution:
            self.log_probabilities = torch.log_softmax(output.float(), dim=-1)
            self.probabilities = self.log_probabilities.exp()
            self.top = output.argmax(dim=-1)
        else:
            self.output = output.float()

    def score(self, output: Tensor) -> BatchScore:
        """The losses of another run's output on the same batch."""
        if not self.task.distribution:
            return self._relative_error(output.float())
        log_q = torch.log_softmax(output.float(), dim=-1)
        divergence = (self.probabilities * (self.log_probabilities - log_q)).sum(dim=-1)
        # Rounding can leave a divergence of equal distributions a few ulp below zero.
        divergence = divergence.clamp_min(0.0)
        flips = (output.argmax(dim=-1) != self.top).float()
        return BatchScore(
            losses=_per_sample(divergence),
            flips=_per_sample(flips),
            metric=self._metric(log_q, output),
        )

    def own_score(self) -> BatchScore:
        """The reference against itself: zero loss, and the metric of full precision."""
        if not self.task.distribution:
            return self._relative_error(self.output)
        zeros = torch.zeros(len(self.top))
        return BatchScore(
            losses=zeros,
            flips=zeros.clone(),
            metric=self._metric(self.log_probabilities, self.log_probabilities),
        )

    def _metric(self, log_q: Tensor, output: Tensor) -> Tensor:
        if self.labels is None or not self.task.metric:
            return torch.full((len(output),), math.nan)
        if self.task.metric == "accuracy":
            return _per_sample((output.argmax(dim=-1) == self.labels).float())
        nats = -log_q.gather(-1, self.labels.unsqueeze(-1)).squeeze(-1)
        return _per_sample(nats)

    def _relative_error(self, output: Tensor) -> BatchScore:
        error = (output - self.output).flatten(1).norm(dim=1)
        scale = self.output.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        missing = torch.full((len(output),), math.nan)
        return BatchScore(losses=(error / scale).cpu(), flips=missing, metric=missing)


def summarise(scores: Sequence[BatchScore], task: Task) -> Quality:
    """The quality of a split from its batches.

    A sample whose outputs are NaN or infinite has an infinite loss.
    """
    losses = torch.cat([score.losses for score in scores]).double()
    losses = torch.where(losses.isfinite(), losses, math.inf)
    flips = torch.cat([score.flips for score in scores]).double().mean().item()
    metric = torch.cat([score.metric for score in scores]).double().mean().item()
    count = len(losses)
    stderr = losses.std().item() / math.sqrt(count) if count > 1 else math.inf
    return Quality(
        loss=losses.mean().item(),
        stderr=stderr if math.isfinite(stderr) else math.inf,
        p99=torch.quantile(losses, 0.99).item(),
        flip_rate=flips,
        metric=task_metric(task, metric),
        samples=count,
        losses=tuple(losses.tolist()),
    )


def task_metric(task: Task, mean: float) -> float:
    """The metric from the mean over samples of what `Reference` records: nats or hits."""
    if task.metric == "bits_per_byte":
        return mean / math.log(2)
    if task.metric == "perplexity":
        return math.exp(mean) if mean < 700 else math.inf
    return mean


def _per_sample(values: Tensor) -> Tensor:
    """(samples, ...) -> (samples,), on the CPU."""
    return values.flatten(1).mean(dim=1).cpu() if values.dim() > 1 else values.cpu()
