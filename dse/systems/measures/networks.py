"""Networks under methods of training: certified classes, trained ones, and their stability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import nn

from dse.numerics import quantize
from dse.systems.measures.measure import Rows
from dse.systems.measures.methods import MethodGiven, given_method
from dse.systems.measures.tensors import Positive, Size
from dse.training.method import LossScale
from dse.training.quantized import apply
from dse.training.run import Outcome, Run, mean
from dse.training.stability import Interval, certified, interval_of_mean, sharpness, spikes
from dse.training.stages import Plateau
from dse.training.tuning.salience import excess_kurtosis, outlier_aware, sensitivity
from dse.training.update.loss_scale import Factor
from dse.training.workloads.catalogue import workload
from hwmodels.formats.catalog import quantizer
from hwmodels.validation import Entry

Methods = Annotated[Mapping[str, MethodGiven], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedClasses(Entry):
    """Classes of random networks of two layers under a method, beside those in float32."""

    draws: ClassVar[bool] = True
    method: MethodGiven
    """Of the products."""
    networks: Size = 40
    """Networks, of 1,000 inputs each."""
    widths: tuple[Size, Size, Size] = (32, 64, 10)
    """Inputs, hidden units, classes."""

    def rows(self, seed: int) -> Rows:
        """Shares `certified` of the inputs, and `flipped`; `flips` among certified inputs."""
        method = given_method(self.method)
        certain, flipped = [], []
        inputs, hidden, classes = self.widths
        for one in range(self.networks):
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed * self.networks + one)
                network = nn.Sequential(
                    nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)
                )
                x = torch.randn(1000, inputs)
                exact = network(x).softmax(-1)
                other = apply(network, method, seed=one)(x).softmax(-1)
            certain.append(certified(exact, other))
            flipped.append(exact.argmax(-1) != other.argmax(-1))
        sure, wrong = torch.cat(certain), torch.cat(flipped)
        return {
            "certified": float(sure.double().mean()),
            "flipped": float(wrong.double().mean()),
            "flips": float((sure & wrong).sum()),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SharpnessSearch(Entry):
    """The closed form of the sharpness of logits beside a search by L-BFGS-B."""

    draws: ClassVar[bool] = True
    epsilons: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Half widths of the box."""
    vectors: Size = 100
    """Vectors of logits."""
    classes: Size = 50
    """Of each."""

    def rows(self, seed: int) -> Rows:
        """`difference`: largest relative one; `below`: the most that the closed form is below."""
        rng = np.random.default_rng(seed)
        logits = 3 * rng.standard_normal((self.vectors, self.classes))
        labels = rng.integers(self.classes, size=self.vectors)
        found = []
        for epsilon in self.epsilons:
            ours = sharpness(torch.from_numpy(logits), torch.from_numpy(labels), epsilon=epsilon)
            found += [
                mine / _searched(x, int(label), epsilon) - 1
                for mine, x, label in zip(ours.tolist(), logits, labels, strict=True)
            ]
        return {"difference": max(map(abs, found)), "below": max(0.0, -min(found))}


def _searched(x: np.ndarray, label: int, epsilon: float) -> float:
    def falling(z: np.ndarray) -> tuple[float, np.ndarray]:
        y = x + z
        total = logsumexp(y)
        gradient = np.exp(y - total)
        gradient[label] -= 1
        return -(total - y[label]), -gradient

    room = epsilon * (np.abs(x) + 1)
    end = minimize(
        falling, np.zeros_like(x), jac=True, method="L-BFGS-B",
        bounds=list(zip(-room, room, strict=True)), options={"ftol": 1e-15, "gtol": 1e-12},
    )  # fmt: skip
    before = -falling(np.zeros_like(x))[0]
    return float(100 * (-end.fun - before) / (1 + before))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedMethods(Entry):
    """A workload trained under several methods, seed by seed beside a reference."""

    draws: ClassVar[bool] = True
    workload: str
    """Network and data (`dse train --list`)."""
    methods: Methods
    """By name."""
    reference: MethodGiven = "bf16"
    """The method that gaps are counted from."""
    steps: Size | None = None
    """Of a run; the workload's by default."""
    runs: Annotated[int, Field(ge=2)] = 3
    """Pairs of runs."""
    rate_factor: Positive = 1.0
    """On the learning rate."""

    def rows(self, seed: int) -> Rows:
        """Of each method, and the `reference`: numbers over its runs.

        `loss` and `accuracy` in percent are means of what trained, NaN of none; `diverged` and
        `spikes` are of all. `gap` in nats and `points` of accuracy are from the reference, with
        `gap low`, `gap high`, `points low` and `points high` (95 %).
        """
        seeds = range(seed * self.runs, (seed + 1) * self.runs)
        reference = [self._outcome(self.reference, one) for one in seeds]
        found = _numbers("reference", reference, reference)
        for name, given in self.methods.items():
            found |= _numbers(name, [self._outcome(given, one) for one in seeds], reference)
        return found

    def _outcome(self, given: MethodGiven, seed: int) -> Outcome:
        data = workload(self.workload)
        run = Run(
            given_method(given), data, seed,
            steps=self.steps or data.steps, rate_factor=self.rate_factor,
        )  # fmt: skip
        while not run.done:
            run.advance()
        return run.outcome()


def _numbers(name: str, runs: list[Outcome], reference: list[Outcome]) -> dict[str, float]:
    trained = [one.last for one in runs if one.last is not None and one.diverged_at is None]
    pairs = [
        (one.last, other.last)
        for one, other in zip(runs, reference, strict=True)
        if one.last and other.last and one.diverged_at is None and other.diverged_at is None
    ]
    found = {
        f"{name} diverged": float(sum(one.diverged_at is not None for one in runs)),
        f"{name} spikes": fmean(len(spikes(one.curve.loss)) for one in runs),
        f"{name} loss": mean([one.loss for one in trained]),
        f"{name} accuracy": 100 * mean([one.accuracy for one in trained]),
    }
    differences = {
        "gap": [one.loss - other.loss for one, other in pairs],
        "points": [100 * (one.accuracy - other.accuracy) for one, other in pairs],
    }
    for what, values in differences.items():
        interval = interval_of_mean(values) or Interval(mean=nan, low=nan, high=nan)
        found |= {f"{name} {what}": interval.mean, f"{name} {what} low": interval.low,
                  f"{name} {what} high": interval.high}  # fmt: skip
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedChannel(Entry):
    """The place of a channel of rare large activations among those that count most."""

    draws: ClassVar[bool] = True
    channels: Size = 16
    """Of equal sensitivity."""
    factor: Positive = 30.0
    """On every 256th activation of the planted channel."""

    def rows(self, seed: int) -> Rows:
        """Channels that count more, by `outliers` and by the `gradient` alone; and `kurtosis`."""
        y = torch.randn(4096, self.channels, generator=torch.Generator().manual_seed(seed))
        y[::256, -1] *= self.factor
        noise = 1 + 0.01 * torch.randn(
            self.channels, generator=torch.Generator().manual_seed(seed + 1)
        )
        noise[-1] = 0.97
        plain = sensitivity(y, noise * torch.ones_like(y) / y.abs().sum(0), 1)
        kurtosis = excess_kurtosis(y, 1)
        both = outlier_aware(plain, kurtosis)
        return {
            "outliers": float((both > both[-1]).sum()),
            "gradient": float((plain > plain[-1]).sum()),
            "kurtosis": float(kurtosis[-1]),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedGradients(Entry):
    """Weight gradients of many workers cast to a format before they are summed.

    `fixed`: each is divided by the number of workers before the cast. `auto`: all are multiplied
    by one factor that is halved where too many values reach the end of the format, and doubled
    after a time without.
    """

    draws: ClassVar[bool] = True
    workers: Size = 64
    """Workers."""
    format: str = "e4m3"
    """Of what is sent, without a scale."""
    scale: Positive = 1e-3
    """Standard deviation of gradients."""
    spread: Annotated[float, Field(ge=0, le=10)] = 2.0
    """Of the logarithm of each value's scale."""
    size: Size = 4096
    """Values of a gradient."""
    settings: LossScale
    """Of the factor."""
    steps: Size = 200
    """Steps, of which the second half is counted."""

    def rows(self, seed: int) -> Rows:
        """Shares `saturated` and `flushed` to zero, of `auto` and of `fixed`."""
        generator = torch.Generator().manual_seed(seed)
        chosen = quantizer(self.format)
        end = chosen.format.element.max
        factor = Factor.of(self.settings)
        own = torch.exp(self.spread * torch.randn(self.size, generator=generator))
        totals = dict.fromkeys(("auto saturated", "auto flushed", "fixed saturated",
                                "fixed flushed"), 0.0)  # fmt: skip
        counted = self.steps - self.steps // 2
        for step in range(self.steps):
            gradient = self.scale * own * torch.randn(self.size, generator=generator)
            for name, by in (("auto", factor.value), ("fixed", 1 / self.workers)):
                values = quantize(by * gradient, chosen, axes=(0,))
                saturated = float((values.abs() >= end).double().mean())
                if name == "auto":
                    factor.after(finite=True, saturated=saturated)
                if step >= self.steps - counted:
                    lost = float(((values == 0) & (gradient != 0)).double().mean())
                    totals[f"{name} saturated"] += saturated / counted
                    totals[f"{name} flushed"] += lost / counted
        return totals


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedPlateau(Entry):
    """Stages of a schedule on a curve of losses, beside the published rule written out."""

    draws: ClassVar[bool] = True
    method: MethodGiven
    """With a schedule of kind `plateau`."""
    epochs: Size = 120
    """Means of the loss."""
    levels: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2.0, 1.2, 0.7, 0.4)
    """The loss falls from one to the next, and stands still there."""

    def rows(self, seed: int) -> Rows:
        """`changes`, and `different`: epochs at which one changes and the other does not."""
        schedule = given_method(self.method).schedule
        assert schedule is not None, "a claim replays a schedule"
        rng = np.random.default_rng(seed)
        each = self.epochs // len(self.levels)
        curve = [
            level * (1 + np.exp(-epoch / 3)) + 1e-3 * float(rng.standard_normal())
            for level in self.levels
            for epoch in range(each)
        ]
        ours, plateau = [], Plateau(schedule=schedule)
        for epoch, loss in enumerate(curve):
            before = plateau.count
            for _ in range(schedule.every):
                plateau.observe(float(loss))
            if plateau.count > before:
                ours.append(epoch)
        theirs = _turning_points(
            curve, window=schedule.window, threshold=schedule.threshold, decay=schedule.decay,
            most=len(schedule.stages) - 1,
        )  # fmt: skip
        return {"changes": float(len(ours)), "different": float(len(set(ours) ^ set(theirs)))}


def _turning_points(
    curve: list[float], *, window: int, threshold: float, decay: float, most: int
) -> list[int]:
    """Epochs at which the precision rises, written from FracTrain's description.

    A turning point: all differences of the last losses of the window from the newest, over the
    mean of the first ten losses, are at most the threshold; which falls after the first two.
    """
    found: list[int] = []
    kept: list[float] = []
    for epoch, loss in enumerate(curve):
        if len(found) == most:
            break
        kept = [*kept, loss][-window:]
        size = fmean(curve[: min(epoch + 1, 10)])
        still = len(kept) == window and max(abs(one - loss) for one in kept) / size <= threshold
        if still:
            found.append(epoch)
            kept = []
            if len(found) <= 2:
                threshold *= decay
    return found
