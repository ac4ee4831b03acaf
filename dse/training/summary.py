"""Outcomes of seeds as one row a method: losses, the paired gap, divergence, stability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dse.training.run import Outcome, mean
from dse.training.stability import Interval, interval_of_mean, interval_of_share, spikes

SPIKED = 2.3
"""Root mean square of gradient over second moment from which on a loss spike may follow
(arXiv 2304.13013, section 3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A method over its seeds."""

    method: str
    seeds: int
    diverged: int
    divergence: Interval
    """Share of seeds that diverged, with Wilson's interval."""
    loss: float
    """Mean held-out loss of the seeds that trained, nats a label; NaN of none."""
    accuracy: float
    gap: Interval | None
    """Held-out loss minus that of the reference, paired by seed; None of fewer than two pairs."""
    pairs: tuple[float, ...]
    """The differences."""
    loss_spikes: float
    """Mean count of a run (`stability.spikes`)."""
    update_spikes: float
    """Mean share of steps whose gradients are far above their second moment (`SPIKED`)."""
    gradient_norm: float
    """Mean over steps, then over seeds."""
    update_rms: float
    sharpness: float
    """At the end, percent."""
    intervals: Mapping[str, Interval | None]
    """Of the five numbers before it over seeds, by their names; None of fewer than two seeds that
    have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A method over seeds and learning rates."""

    method: str
    by_rate: Mapping[float, tuple[int, int]]
    """Runs that diverged and runs, by multiple of the learning rate."""

    @property
    def share(self) -> Interval:
        """Of all runs, with Wilson's interval."""
        diverged, total = (sum(one) for one in zip(*self.by_rate.values(), strict=True))
        return interval_of_share(diverged, total)


def divergences(
    found: Mapping[float, Mapping[tuple[str, int], Outcome]],
) -> tuple[Divergence, ...]:
    """One row a method; `found` has the outcomes by multiple of the learning rate."""
    names = dict.fromkeys(name for one in found.values() for name, _ in one)
    return tuple(
        Divergence(
            method=name,
            by_rate={rate: _diverged(outcomes, name) for rate, outcomes in found.items()},
        )
        for name in names
    )


def _diverged(outcomes: Mapping[tuple[str, int], Outcome], name: str) -> tuple[int, int]:
    runs = [one for (method, _), one in outcomes.items() if method == name]
    return sum(one.diverged_at is not None for one in runs), len(runs)


def summaries(found: Mapping[tuple[str, int], Outcome], reference: str) -> tuple[Summary, ...]:
    """One row a method, in the order in which they are met."""
    names = dict.fromkeys(name for name, _ in found)
    by_name = {
        name: {seed: outcome for (one, seed), outcome in found.items() if one == name}
        for name in names
    }
    return tuple(
        _summary(name, runs, by_name.get(reference, {}), is_reference=name == reference)
        for name, runs in by_name.items()
    )


def _summary(
    name: str,
    runs: Mapping[int, Outcome],
    reference: Mapping[int, Outcome],
    *,
    is_reference: bool,
) -> Summary:
    trained = {seed: one for seed, one in runs.items() if one.diverged_at is None}
    pairs = () if is_reference else tuple(
        one.last.loss - other.last.loss
        for seed, one in trained.items()
        if one.last is not None
        and (other := reference.get(seed)) is not None
        and other.diverged_at is None
        and other.last is not None
    )  # fmt: skip
    ends = [one.last for one in trained.values() if one.last is not None]
    curves = [one.curve for one in runs.values()]
    diverged = len(runs) - len(trained)
    each: dict[str, list[float]] = {
        "loss_spikes": [float(len(spikes(curve.loss))) for curve in curves],
        "update_spikes": [mean([one > SPIKED for one in curve.spike]) for curve in curves],
        "gradient_norm": [_finite_mean(curve.gradient_norm) for curve in curves],
        "update_rms": [_finite_mean(curve.update_rms) for curve in curves],
        "sharpness": [one.sharpness for one in ends],
    }
    known = {key: [one for one in values if math.isfinite(one)] for key, values in each.items()}
    return Summary(
        method=name,
        seeds=len(runs),
        diverged=diverged,
        divergence=interval_of_share(diverged, len(runs)),
        loss=mean([one.loss for one in ends]),
        accuracy=mean([one.accuracy for one in ends]),
        gap=interval_of_mean(pairs),
        pairs=pairs,
        intervals={key: interval_of_mean(values) for key, values in known.items()},
        **{key: mean(values) for key, values in known.items()},
    )


def _finite_mean(values: list[float]) -> float:
    return mean([one for one in values if math.isfinite(one)])
