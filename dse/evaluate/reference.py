"""Outputs of one batch in full precision, or of another network, and a run's distance from them.

What the reference leaves undefined is left out: classes that it suppresses with -inf, positions
that are NaN (padding), positions whose label is negative. Where only the other run is undefined
the loss is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dse.evaluate.batches import Batch, per_sample
from dse.evaluate.outputs.output import Output
from dse.evaluate.outputs.task import Task
from dse.evaluate.ratios import BatchRatios, batch_ratios, joined

ROUNDING = 1e-7
"""Relative differences that float32 makes of nothing."""
TINY = torch.finfo(torch.float32).tiny
PART = 1 << 22
"""Elements of scores that are read at once: some stay in a processor's cache, on a GPU a kernel
still has enough to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchScore:
    """One batch's share, one value a sample; NaN where there is nothing to compare."""

    losses: Tensor
    flips: Tensor
    metric: Tensor


class Reference(Protocol):
    """One output of one batch in full precision."""

    output: Output
    samples: int

    def score(self, x: Tensor) -> BatchScore:
        """The losses of another run's tensor on the same batch."""

    def own_score(self) -> BatchScore:
        """The reference against itself: no loss, and the metric of full precision."""

    @property
    def defined(self) -> Tensor:
        """(samples,) whether a sample has something to compare."""


class DistributionReference:
    """A distribution at every position of a batch.

    Positions are read a part at a time: scores of a large vocabulary are the largest tensors of a
    language model, and a divergence would take several of their size.

    Args:
        output: what it is.
        x: the output's tensor.
        samples: of the batch.
        labels: (samples, ...) classes; negative ones are left out. None where unknown.
        metric: what labels are scored by: `accuracy`, or nats for everything else; empty: nothing.
    """

    def __init__(
        self, output: Output, x: Tensor, samples: int, labels: Tensor | None = None,
        metric: str = "",
    ) -> None:  # fmt: skip
        self.output, self.samples = output, samples
        scores = output.scores(x, samples)
        self.metric = metric if labels is not None else ""
        self.labels, marked = _labels(labels, scores) if self.metric else (None, None)
        self.log_probabilities = torch.empty(scores.shape, device=scores.device)
        self.top = torch.empty(scores.shape[:-1], dtype=torch.int64, device=scores.device)
        kept = torch.empty(scores.shape[:-1], dtype=torch.bool, device=scores.device)
        rows, logs = scores.flatten(0, -2), self.log_probabilities.flatten(0, -2)
        for part in _parts(rows):
            logs[part] = torch.log_softmax(rows[part], dim=-1)
            self.top.view(-1)[part] = rows[part].argmax(dim=-1)
            kept.view(-1)[part] = logs[part].exp().sum(dim=-1).isfinite()
        if marked is not None and marked.shape == kept.shape:
            kept &= marked
        self.kept = None if bool(kept.all()) else kept
        """Positions that count; None: all."""

    @property
    def classes(self) -> int:
        """Classes of a position."""
        return self.log_probabilities.shape[-1]

    @property
    def defined(self) -> Tensor:
        """(samples,) whether a sample has something to compare."""
        if self.kept is None:
            return torch.ones(self.samples, dtype=torch.bool)
        return self.kept.reshape(self.samples, -1).any(dim=1).cpu()

    @property
    def mass(self) -> Tensor:
        """(classes,) float64, on the CPU: probabilities summed over the positions that count."""
        rows = self.log_probabilities.flatten(0, -2)
        kept = None if self.kept is None else self.kept.flatten()
        total = torch.zeros(self.classes, dtype=torch.float64)
        for part in _parts(rows):
            counted = rows[part] if kept is None else rows[part][kept[part]]
            total += counted.exp().sum(dim=0, dtype=torch.float64).cpu()
        return total

    def score(self, x: Tensor) -> BatchScore:
        """The losses of another run's tensor on the same batch."""
        scores = self.output.scores(x, self.samples).flatten(0, -2)
        return self._score(lambda part: torch.log_softmax(scores[part], dim=-1), scores)

    def own_score(self) -> BatchScore:
        """The reference against itself: no loss, and the metric of full precision."""
        logs = self.log_probabilities.flatten(0, -2)
        return self._score(lambda part: logs[part], logs, is_other=False)

    def ratios(self, x: Tensor) -> BatchRatios:
        """Likelihood ratios of what another run's tensor on the same batch would draw."""
        scores = self.output.scores(x, self.samples)
        found = []
        for part in _parts(scores):
            log_q = torch.log_softmax(scores[part], dim=-1)
            kept = None if self.kept is None else self.kept[part]
            found.append(batch_ratios(self.log_probabilities[part], log_q, kept))
        return joined(found)

    def divergence_of(self, log_q: Tensor) -> Tensor:
        """(samples,) mean divergence from one distribution (classes,) at every position."""
        rows = self.log_probabilities.flatten(0, -2)
        found = [_divergence(rows[part], log_q.expand_as(rows[part])) for part in _parts(rows)]
        return self._mean(torch.cat(found).reshape(self.top.shape))

    def _score(
        self, log_q_of: Callable[[slice], Tensor], scores: Tensor, *, is_other: bool = True
    ) -> BatchScore:
        """The losses of log-probabilities that are made a part of the positions at a time."""
        logs = self.log_probabilities.flatten(0, -2)
        losses = torch.zeros(len(logs), device=logs.device)
        top = self.top.flatten().clone()
        own = torch.empty_like(losses)
        labels = self.labels
        beside = labels is not None and labels.shape == self.top.shape
        wanted = labels.flatten().clamp_min(0) if labels is not None and beside else None
        for part in _parts(logs):
            log_q = log_q_of(part)
            if is_other:
                losses[part] = _divergence(logs[part], log_q)
                top[part] = scores[part].argmax(dim=-1)
            if wanted is not None and self.metric != "accuracy":
                own[part] = -log_q.gather(-1, wanted[part].unsqueeze(-1)).squeeze(-1)
            elif labels is not None and not beside:
                own[part] = log_q[..., 1]
        shape = self.top.shape
        return BatchScore(
            losses=self._mean(losses.reshape(shape)),
            flips=self._mean((top != self.top.flatten()).float().reshape(shape)),
            metric=self._metric(top.reshape(shape), own.reshape(shape)),
        )

    def _metric(self, top: Tensor, own: Tensor) -> Tensor:
        """(samples,) hits, or nats of the labels, which are what `own` has at every position."""
        labels = self.labels
        if labels is None:
            return torch.full((self.samples,), math.nan)
        if self.metric != "accuracy":
            return self._mean(own)
        if labels.shape != top.shape:  # one of several independent decisions
            return (own.reshape(self.samples, -1).argmax(dim=-1) == labels).float().cpu()
        return self._mean((top == labels).float())

    def _mean(self, values: Tensor) -> Tensor:
        return per_sample(values, self.kept)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(positions,) KL divergence in nats of (positions, classes)."""
    p = log_p.exp()
    divergence = (p * (log_p - log_q)).sum(dim=-1)
    if not bool(divergence.isfinite().all()):
        # 0 log 0 is 0: a suppressed class is -inf in both, or -inf in one and 1e-38 apart.
        terms = p * (log_p - log_q)
        divergence = terms.masked_fill(p == 0, 0.0).sum(dim=-1)
        # A distribution that is no more: NaN scores, or no class left.
        divergence = torch.where(divergence.isnan(), math.inf, divergence)
        lost = log_q.isnan().any(dim=-1)
        divergence = divergence.masked_fill(lost, math.inf)
    # Rounding can leave a divergence of equal distributions a few ulp below zero.
    return divergence.clamp_min(0.0)


def _parts(rows: Tensor) -> Iterator[slice]:
    """Parts of the first axis of at most `PART` elements, or of one row."""
    step = max(1, PART * len(rows) // max(1, rows.numel()))
    return (slice(start, start + step) for start in range(0, len(rows), step))


@dataclass(eq=False)
class RegressionReference:
    """Values without a distribution; errors count against their spread over the samples."""

    output: Output
    x: Tensor
    samples: int
    scale: float = field(init=False, default=1.0)
    """Root mean square distance of a sample from the mean sample, set by `set_spread`."""

    def __post_init__(self) -> None:
        """Keeps the values with samples in front."""
        self.x = self.output.scores(self.x, self.samples).reshape(self.samples, -1)
        self.kept = self.x.isfinite()
        """Elements that count."""

    @property
    def defined(self) -> Tensor:
        """(samples,) whether a sample has something to compare."""
        return self.kept.any(dim=1).cpu()

    def score(self, x: Tensor) -> BatchScore:
        """The losses of another run's tensor on the same batch."""
        values = self.output.scores(x, self.samples).reshape(self.samples, -1)
        if values.shape != self.x.shape:  # as many as the values decide: detections, found tokens
            losses = torch.full((self.samples,), math.inf)
        else:
            error = torch.where(self.kept, values - self.x, 0.0)
            losses = _norm(error) / self.scale
            losses = torch.where(losses.isnan(), math.inf, losses).float()
            losses = torch.where(self.defined, losses, math.nan)
        missing = torch.full((self.samples,), math.nan)
        return BatchScore(losses=losses, flips=missing, metric=missing.clone())

    def own_score(self) -> BatchScore:
        """The reference against itself: no loss."""
        missing = torch.full((self.samples,), math.nan)
        losses = torch.where(self.defined, 0.0, math.nan)
        return BatchScore(losses=losses, flips=missing, metric=missing.clone())


def set_spread(references: Sequence[RegressionReference]) -> tuple[float, float]:
    """Sets what errors of an output count against, from all batches of a split.

    It is the root mean square distance of a sample from the mean sample, so that the mean itself,
    a constant answer, has a loss of about 1. Where all samples are the same it is their norm.

    Returns:
        The spread, and the mean loss of the constant answer.
    """
    same = len({one.x.shape[1] for one in references}) == 1
    if same:
        rows = torch.cat([one.x for one in references]).double()
    else:  # samples of several lengths: elements are compared with the mean of all elements
        rows = torch.cat([one.x.flatten() for one in references]).double()[:, None]
    kept = rows.isfinite()
    # Taken from the first sample, so that a constant element has no spread at all.
    moved = torch.where(kept, rows - rows[:1].nan_to_num(0.0, 0.0, 0.0), 0.0)
    mean = moved.sum(dim=0) / kept.sum(dim=0).clamp_min(1)
    distance = _norm(torch.where(kept, moved - mean, 0.0))
    if not same:
        distance = distance * math.sqrt(rows.shape[0] / sum(one.samples for one in references))
    spread = float(distance.square().mean().sqrt())
    changes = (moved != 0).any(dim=0)
    size = _root_mean_square(rows, kept & changes)
    # What differs by rounding only is the same.
    scale = spread if spread > ROUNDING * size else _root_mean_square(rows, kept)
    for one in references:
        one.scale = max(scale, TINY)
    return scale, float(distance.mean()) / max(scale, TINY)


def _root_mean_square(rows: Tensor, kept: Tensor) -> float:
    return float(_norm(torch.where(kept, rows, 0.0)).square().mean().sqrt())


def reference_of(
    output: Output, x: Tensor, samples: int, labels: Tensor | None, metric: str
) -> DistributionReference | RegressionReference:
    """The reference that an output's kind asks for."""
    if output.is_distribution:
        return DistributionReference(output, x, samples, labels, metric)
    return RegressionReference(output, x, samples)


References = tuple[DistributionReference | RegressionReference, ...]
"""Of one batch, one an output of the task."""


def references_of(task: Task, outputs: Mapping[str, Tensor], batch: Batch) -> References:
    """The references that a run's outputs on a batch are."""
    return tuple(
        reference_of(
            output,
            outputs[output.value],
            batch.samples,
            batch.labels if output.name == task.labelled else None,
            task.metric,
        )
        for output in task.outputs
    )


def distance(references: References, outputs: Mapping[str, Tensor]) -> BatchScore:
    """The distance of another run's outputs on the same batch, all together."""
    scores = [one.score(outputs[one.output.value]) for one in references]
    return combined(scores, weights_of(references))


def weights_of(references: References) -> list[float]:
    """Of the outputs, beside each other."""
    return [one.output.weight for one in references]


def combined(scores: Sequence[BatchScore], weights: Sequence[float]) -> BatchScore:
    """Several outputs of one batch as one: weighted means over what each sample has.

    The metric is that of the output that has one.
    """
    if len(scores) == 1:
        return scores[0]
    metric = torch.stack([score.metric for score in scores]).nanmean(dim=0)
    return BatchScore(
        losses=_weighted([score.losses for score in scores], weights),
        flips=_weighted([score.flips for score in scores], weights),
        metric=metric,
    )


def _weighted(rows: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    values = torch.stack([row.double() for row in rows])
    shares = torch.tensor(weights, dtype=torch.float64)[:, None] * ~values.isnan()
    return (torch.where(shares > 0, values, 0.0) * shares).sum(dim=0) / shares.sum(dim=0)


def _norm(rows: Tensor) -> Tensor:
    """(samples,) Euclidean norms in float64, on the CPU."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms.cpu()


def _labels(labels: Tensor | None, scores: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Labels in the shape of the positions (or one a sample), and which of them count."""
    if labels is None:
        return None, None
    positions = scores.shape[:-1]
    if labels.shape != positions and labels.numel() == math.prod(positions):
        labels = labels.reshape(positions)
    return labels, labels >= 0
