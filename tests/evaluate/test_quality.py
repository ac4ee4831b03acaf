"""Losses against scipy's definitions, and what happens at the edges."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import entropy

from dse.evaluate.constant import constant_answer
from dse.evaluate.outputs.output import Output
from dse.evaluate.outputs.task import Task
from dse.evaluate.quality import Quality, summarise
from dse.evaluate.reference import (
    DistributionReference,
    RegressionReference,
    combined,
    set_spread,
)
from dse.evaluate.ruin import ConstantAnswer


def _output(kind: str = "logits", **more: object) -> Output:
    return Output(name="y", value="y", kind=kind, reason="", **more)  # type: ignore[arg-type]


def _task(kind: str = "logits", metric: str = "", **more: object) -> Task:
    return Task(outputs=(_output(kind, **more),), metric=metric)


def _logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def _quality(
    reference: torch.Tensor,
    other: torch.Tensor,
    task: Task,
    labels: torch.Tensor | None = None,
) -> Quality:
    (output,) = task.outputs
    known = DistributionReference(output, reference, len(reference), labels, task.metric)
    return summarise([known.score(other)], task)


def _errors(reference: torch.Tensor, other: torch.Tensor) -> Quality:
    known = RegressionReference(_output("regression"), reference, len(reference))
    set_spread([known])
    return summarise([known.score(other)], _task("regression"))


def test_loss_is_the_mean_divergence_per_position() -> None:
    reference, other = _logits(0, 5, 7, 11), _logits(1, 5, 7, 11)
    labels = torch.zeros(5, 7, dtype=torch.long)
    quality = _quality(reference, other, _task(metric="bits_per_byte"), labels)
    p, q = softmax(reference.numpy(), axis=-1), softmax(other.numpy(), axis=-1)
    divergence = entropy(p, q, axis=-1)
    assert quality.loss == pytest.approx(divergence.mean(), rel=1e-4)
    per_sample = divergence.mean(axis=1)
    assert quality.stderr == pytest.approx(per_sample.std(ddof=1) / math.sqrt(5), rel=1e-4)
    assert quality.flip_rate == pytest.approx((p.argmax(-1) != q.argmax(-1)).mean())
    assert quality.metric == pytest.approx(-np.log2(q[..., 0]).mean(), rel=1e-4)
    assert quality.samples == 5


def test_the_same_output_has_no_loss_and_no_flips() -> None:
    quality = _quality(
        _logits(0, 4, 10), _logits(0, 4, 10), _task(metric="accuracy"), torch.arange(4)
    )
    assert (quality.loss, quality.flip_rate, quality.stderr) == (0.0, 0.0, 0.0)


def test_batches_weigh_by_their_samples() -> None:
    logits, other, task = _logits(0, 6, 10), _logits(1, 6, 10), _task()
    whole = _quality(logits, other, task)
    parts = [
        DistributionReference(task.outputs[0], logits[rows], rows.stop - rows.start).score(
            other[rows]
        )
        for rows in (slice(0, 4), slice(4, 6))
    ]
    assert summarise(parts, task).loss == pytest.approx(whole.loss, rel=1e-6)
    assert math.isnan(whole.metric)


def test_an_output_that_is_not_finite_is_an_infinite_loss() -> None:
    broken = _logits(1, 3, 10)
    broken[1, 2] = math.inf
    quality = _quality(_logits(0, 3, 10), broken, _task())
    assert quality.loss == math.inf
    assert quality.stderr == math.inf


@pytest.mark.parametrize("masked", [-math.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("other_masked", [-math.inf, torch.finfo(torch.float32).min, -1e9])
def test_suppressed_classes_leave_the_divergence_of_the_others(
    masked: float, other_masked: float
) -> None:
    """Rounding may turn the least float into -inf, or a mask into a smaller one."""
    reference, other = _logits(0, 4, 9), _logits(1, 4, 9)
    reference[:, 3], other[:, 3] = masked, other_masked
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    expected = entropy(
        softmax(reference[:, kept].numpy(), -1), softmax(other[:, kept].numpy(), -1), axis=-1
    )
    quality = _quality(reference, other, _task())
    assert quality.loss == pytest.approx(expected.mean(), rel=1e-5)


def test_a_class_that_only_the_other_suppresses_is_an_infinite_loss() -> None:
    other = _logits(1, 4, 9)
    other[0, 3] = -math.inf
    assert _quality(_logits(0, 4, 9), other, _task()).loss == math.inf


def test_positions_without_a_value_are_left_out() -> None:
    reference, other = _logits(0, 4, 6, 9), _logits(1, 4, 6, 9)
    expected = entropy(softmax(reference.numpy(), -1), softmax(other.numpy(), -1), axis=-1)
    reference[1, 4:] = math.nan
    reference[2, 5] = -math.inf
    kept = np.ones((4, 6), bool)
    kept[1, 4:], kept[2, 5] = False, False
    other[1, 5] = math.nan
    quality = _quality(reference, other, _task())
    means = [row[mask].mean() for row, mask in zip(expected, kept, strict=True)]
    assert quality.loss == pytest.approx(np.mean(means), rel=1e-5)
    other[3, 0] = math.nan
    assert _quality(reference, other, _task()).loss == math.inf


def test_negative_labels_leave_their_positions_out() -> None:
    reference, other = _logits(0, 2, 3, 5), _logits(1, 2, 3, 5)
    labels = torch.tensor([[1, 2, -100], [0, -100, -100]])
    quality = _quality(reference, other, _task(metric="perplexity"), labels)
    p, q = softmax(reference.numpy(), -1), softmax(other.numpy(), -1)
    divergence = entropy(p, q, axis=-1)
    assert quality.loss == pytest.approx(
        (divergence[0, :2].mean() + divergence[1, 0]) / 2, rel=1e-5
    )
    nats = [-np.log(q[0, [0, 1], [1, 2]]).mean(), -np.log(q[1, 0, 0])]
    assert quality.metric == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)


def test_a_sample_without_any_position_counts_as_the_mean_of_the_others() -> None:
    reference, other = _logits(0, 3, 5), _logits(1, 3, 5)
    rest = _quality(reference[1:], other[1:], _task())
    reference[0] = math.nan
    quality = _quality(reference, other, _task())
    assert quality.loss == pytest.approx(rest.loss)
    assert quality.stderr == pytest.approx(rest.stderr)
    assert quality.samples == len(quality.losses) == 3


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 4)])
def test_one_logit_is_a_bernoulli(shape: tuple[int, ...]) -> None:
    reference, other = _logits(0, *shape), _logits(1, *shape)
    p, q = expit(reference.double().numpy()), expit(other.double().numpy())
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    labels = labels if shape != (6, 4) else labels[:, None].expand(6, 4)
    quality = _quality(reference, other, _task("binary", "accuracy"), labels)
    assert quality.loss == pytest.approx(expected.mean(), rel=1e-5)
    found = (other.numpy() > 0) == labels.reshape(shape).numpy()
    assert quality.metric == pytest.approx(found.mean())
    assert quality.flip_rate == pytest.approx(((p > 0.5) != (q > 0.5)).mean())


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("probabilities", lambda x: x.softmax(-1)),
        ("log_probabilities", lambda x: x.log_softmax(-1)),
        ("logits", lambda x: x + 7),
    ],
)
def test_every_way_to_write_a_distribution_has_one_loss(kind, written) -> None:
    reference, other = _logits(0, 5, 7), _logits(1, 5, 7)
    expected = _quality(reference, other, _task()).loss
    found = _quality(written(reference), written(other), _task(kind)).loss
    assert found == pytest.approx(expected, rel=1e-5)


def test_classes_may_be_on_any_axis() -> None:
    reference, other = _logits(0, 2, 5, 3, 4), _logits(1, 2, 5, 3, 4)
    p, q = softmax(reference.numpy(), 1), softmax(other.numpy(), 1)
    assert _quality(reference, other, _task(axis=1)).loss == pytest.approx(
        entropy(p, q, axis=1).mean(), rel=1e-5
    )


def test_samples_may_be_on_any_axis() -> None:
    reference, other = _logits(0, 4, 3, 7), _logits(1, 4, 3, 7)
    expected = _quality(reference, other, _task())
    task = _task(batch_axis=1)
    known = DistributionReference(task.outputs[0], reference.movedim(0, 1), 4)
    found = summarise([known.score(other.movedim(0, 1))], task)
    assert found.losses == pytest.approx(expected.losses)
    flat = DistributionReference(_output(), reference.reshape(12, 7), 4)
    found = summarise([flat.score(other.reshape(12, 7))], task)
    assert found.losses == pytest.approx(expected.losses)


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 3), (8, 2, 5)])
def test_without_a_distribution_errors_count_against_the_spread(shape: tuple[int, ...]) -> None:
    """Neither an offset of all samples nor a sample near zero changes what an error is worth."""
    reference = _logits(0, *shape)
    other = reference + _logits(1, *shape) / 10
    rows = reference.double().reshape(8, -1).numpy()
    spread = np.sqrt(np.square(rows - rows.mean(0)).sum(1).mean())
    error = np.linalg.norm((other - reference).double().reshape(8, -1).numpy(), axis=1)
    quality = _errors(reference, other)
    assert quality.loss == pytest.approx((error / spread).mean(), rel=1e-4)
    assert _errors(reference + 100, other + 100).loss == pytest.approx(quality.loss, rel=1e-3)
    assert _errors(reference * 1e-6, other * 1e-6).loss == pytest.approx(quality.loss, rel=1e-4)
    assert math.isnan(quality.flip_rate)


def test_elements_without_a_value_are_left_out_of_errors() -> None:
    reference, other = _logits(0, 6, 4), _logits(1, 6, 4)
    expected = _errors(reference[:, :3], other[:, :3]).loss
    for mask in (math.nan, -math.inf, torch.finfo(torch.float32).min):
        reference[:, 3] = other[:, 3] = mask
        assert _errors(reference, other).loss == pytest.approx(expected, rel=1e-5)
    other[2, 0] = math.nan
    assert _errors(reference, other).loss == math.inf


def test_an_output_that_never_changes_counts_against_its_size() -> None:
    reference = torch.ones(4, 3)
    assert _errors(reference, 1.1 * reference).loss == pytest.approx(0.1, rel=1e-4)


def test_several_outputs_count_by_their_weights() -> None:
    classes = DistributionReference(_output(weight=3.0), _logits(0, 5, 7), 5)
    values = RegressionReference(_output("regression"), _logits(2, 5, 2), 5)
    set_spread([values])
    first, second = classes.score(_logits(1, 5, 7)), values.score(_logits(3, 5, 2))
    both = combined([first, second], [3.0, 1.0])
    assert both.losses.tolist() == pytest.approx(
        ((3 * first.losses.double() + second.losses) / 4).tolist()
    )
    assert both.flips.tolist() == first.flips.tolist()


def test_a_constant_answer_loses_the_information_of_the_reference() -> None:
    """The mean divergence from the mean distribution is the mutual information."""
    logits = _logits(0, 6, 4, 5)
    p = softmax(logits.double().numpy(), -1).reshape(-1, 5)
    mean = p.mean(0)
    known = DistributionReference(_output(), logits, 6)
    found = constant_answer([SimpleNamespace(references=(known,))])
    assert found.loss == pytest.approx(entropy(mean) - entropy(p, axis=1).mean(), rel=1e-4)
    votes = np.bincount(p.argmax(1), minlength=5)
    assert found.flip_rate == pytest.approx(1 - votes.max() / votes.sum())


@pytest.mark.parametrize(
    ("loss", "flips", "lost"),
    [(0.1, 0.1, False), (1.9, 0.8, True), (3.0, 0.0, False), (0.5, 0.75, True),
     (1.9, math.nan, True), (0.3, math.nan, False)],
)  # fmt: skip
def test_ruin_is_told_from_loss(loss: float, flips: float, lost: bool) -> None:
    """A network whose answers stay the same is bolder or shier, not lost."""
    assert ConstantAnswer(loss=2.0, flip_rate=0.8).as_bad(loss, flips) is lost
