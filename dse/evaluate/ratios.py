"""Likelihood ratios between two networks: whether one may draw the tokens that the other judges.

A trainer in 16 bits with rollouts in 8, or a target with a quantized draft: tokens are drawn from
the *sampler* q and weighed by the *reference* p. All sums run over every class, so that nothing is
sampled and nothing of it is noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.evaluate.batches import per_sample

STEP = 1e-3
"""Resolution of the quantiles of log-ratios, in nats."""
REACH = 32.0
"""Log-ratios count as at most so large, in nats: e^32 is beyond float32's precision of 1."""
BINS = round(2 * REACH / STEP) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Ratios p/q of classes that are drawn from q, over the positions of a split.

    Source: acceptance of speculative sampling is the sum of min(p, q), Leviathan et al., Fast
    Inference from Transformers via Speculative Decoding (2023), theorem 3.5; the effective share
    is Kish's, 1 / E[(p/q)^2], as E[p/q] is 1.
    """

    mean_log: float
    """E[log p/q] in nats, which is minus the divergence of q from p."""
    mean_log_stderr: float
    """Its standard error over samples."""
    low_log: float
    """Of log p/q the first percentile: one token in a hundred is as overrated by q."""
    high_log: float
    """The 99th percentile: clipping importance weights here touches one token in a hundred."""
    effective: float
    """Share of drawn tokens that weighted averages are worth; 0 where q never draws what p may."""
    acceptance: float
    """Share of q's tokens that speculative sampling keeps, a token at a time."""
    acceptance_stderr: float
    """Its standard error over samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRatios:
    """One batch's share: means over each sample's positions, and the weight of every log-ratio."""

    mean_log: Tensor
    """(samples,) NaN where no position counts; so are the other two."""
    square: Tensor
    """(samples,) E[(p/q)^2]."""
    acceptance: Tensor
    weights: Tensor
    """(BINS,) probability under q, summed over positions, by log-ratio in steps of `STEP`."""


def batch_ratios(log_p: Tensor, log_q: Tensor, kept: Tensor | None) -> BatchRatios:
    """The ratios of one batch.

    Args:
        log_p: (samples, ..., classes) of the reference.
        log_q: the same of the network that draws.
        kept: (samples, ...) positions that count; None: all.
    """
    q = log_q.exp()
    drawn = q > 0
    log = torch.where(drawn, log_p - log_q, 0.0)
    log = torch.where(log.isnan(), -math.inf, log)  # the reference has no distribution there
    shared = torch.minimum(log_p.exp(), q).sum(dim=-1)
    mean = torch.where(drawn, q * log, 0.0).sum(dim=-1)
    square = torch.where(drawn, q * (2 * log).exp(), 0.0).sum(dim=-1)
    # A class that q never draws and p may: no weight makes up for it.
    square = torch.where((~drawn & (log_p > -math.inf)).any(dim=-1), math.inf, square)
    place = ((log.clamp(-REACH, REACH) + REACH) / STEP).round().long()
    weight = q if kept is None else torch.where(kept.unsqueeze(-1), q, 0.0)
    weights = torch.bincount(place.flatten(), weight.flatten().double(), minlength=BINS)
    return BatchRatios(
        mean_log=per_sample(mean, kept).double(),
        square=per_sample(square, kept).double(),
        acceptance=per_sample(shared, kept).double(),
        weights=weights.cpu(),
    )


def joined(parts: Sequence[BatchRatios]) -> BatchRatios:
    """The ratios of a batch from those of some of its samples each."""
    return BatchRatios(
        mean_log=torch.cat([one.mean_log for one in parts]),
        square=torch.cat([one.square for one in parts]),
        acceptance=torch.cat([one.acceptance for one in parts]),
        weights=torch.stack([one.weights for one in parts]).sum(dim=0),
    )


def summarise_ratios(batches: Sequence[BatchRatios]) -> Ratios:
    """The ratios of a split from its batches."""
    mean_log = _there([one.mean_log for one in batches])
    acceptance = _there([one.acceptance for one in batches])
    square = _there([one.square for one in batches]).mean().item()
    total = torch.stack([one.weights for one in batches]).sum(dim=0).cumsum(dim=0)
    return Ratios(
        mean_log=mean_log.mean().item(),
        mean_log_stderr=_stderr(mean_log),
        low_log=_quantile(total, 0.01),
        high_log=_quantile(total, 0.99),
        effective=1 / square,
        acceptance=acceptance.mean().item(),
        acceptance_stderr=_stderr(acceptance),
    )


def _there(parts: Sequence[Tensor]) -> Tensor:
    values = torch.cat(list(parts))
    return values[~values.isnan()]


def _stderr(values: Tensor) -> float:
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _quantile(cumulated: Tensor, share: float) -> float:
    place = int(torch.searchsorted(cumulated, share * cumulated[-1]))
    return place * STEP - REACH
