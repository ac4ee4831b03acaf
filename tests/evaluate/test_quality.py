"""Losses against scipy's definitions, and what happens at the edges."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from dse.evaluate.quality import Reference, Task, summarise

LANGUAGE = Task(distribution=True, metric="bits_per_byte")


def _logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_loss_is_the_mean_divergence_per_position() -> None:
    reference, other = _logits(0, 5, 7, 11), _logits(1, 5, 7, 11)
    labels = torch.zeros(5, 7, dtype=torch.long)
    quality = summarise([Reference(reference, labels, LANGUAGE).score(other)], LANGUAGE)
    p, q = softmax(reference.numpy(), axis=-1), softmax(other.numpy(), axis=-1)
    divergence = entropy(p, q, axis=-1)
    assert quality.loss == pytest.approx(divergence.mean(), rel=1e-4)
    per_sample = divergence.mean(axis=1)
    assert quality.stderr == pytest.approx(per_sample.std(ddof=1) / math.sqrt(5), rel=1e-4)
    assert quality.flip_rate == pytest.approx((p.argmax(-1) != q.argmax(-1)).mean())
    assert quality.metric == pytest.approx(-np.log2(q[..., 0]).mean(), rel=1e-4)
    assert quality.samples == 5


def test_the_same_output_has_no_loss_and_no_flips() -> None:
    reference = Reference(
        _logits(0, 4, 10), torch.arange(4), Task(distribution=True, metric="accuracy")
    )
    quality = summarise([reference.score(_logits(0, 4, 10))], reference.task)
    assert (quality.loss, quality.flip_rate, quality.stderr) == (0.0, 0.0, 0.0)


def test_batches_weigh_by_their_samples() -> None:
    logits, other = _logits(0, 6, 10), _logits(1, 6, 10)
    task = Task(distribution=True)
    whole = summarise([Reference(logits, None, task).score(other)], task)
    parts = [
        Reference(logits[rows], None, task).score(other[rows])
        for rows in (slice(0, 4), slice(4, 6))
    ]
    assert summarise(parts, task).loss == pytest.approx(whole.loss, rel=1e-6)
    assert math.isnan(whole.metric)


def test_an_output_that_is_not_finite_is_an_infinite_loss() -> None:
    broken = _logits(1, 3, 10)
    broken[1, 2] = math.inf
    task = Task(distribution=True)
    quality = summarise([Reference(_logits(0, 3, 10), None, task).score(broken)], task)
    assert quality.loss == math.inf
    assert quality.stderr == math.inf


def test_without_a_distribution_the_loss_is_the_relative_error() -> None:
    task = Task(distribution=False)
    output = _logits(0, 3, 4, 4)
    quality = summarise([Reference(output, None, task).score(output * 1.1)], task)
    assert quality.loss == pytest.approx(0.1, rel=1e-4)
    assert math.isnan(quality.flip_rate)
