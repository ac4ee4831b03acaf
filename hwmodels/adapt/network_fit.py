"""Factors on groups of kernels that make predictions fit the times of whole networks.

A network's time is a sum over groups of kernels (kind, formats, regime), and tells each of them
only together with the others. So factors are hierarchical: of the runtime, of a kind of kernel, of
its formats, of its regime, each of which is 1 unless the times say otherwise,

    log y_i = log sum_g t_ig exp(s_g) + noise,  s_g = sum of the effects that hold for g,
    effect ~ N(0, PRIOR_SD), noise ~ Student's t of NOISE_SD,

found by Gauss-Newton with iterated weights, so that a network which something else is wrong with
does not drag the others along. The standard deviations are those of the operators' corrections
(`hwmodels.estimators.gpu.gemm_correction`, `kernel_correction`); nothing was fitted for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwmodels.adapt.deviation import Comparison
from hwmodels.devices.device import Correction, Device
from hwmodels.devices.load import load_device
from hwmodels.devices.rewrite import rewritten
from hwmodels.work.kernel import KernelGroup

Floats = NDArray[np.float64]

PRIOR_SD = (0.15, 0.25, 0.12, 0.15)
"""Of the logarithm of an effect, by its level: runtime, kind, formats, bound."""
NOISE_SD = 0.06
"""Of a network's time beside what groups of kernels explain."""
FREEDOM = 4.0
"""Degrees of freedom of the noise: at 4 sd a network counts a fifth."""
STEPS = 30
LEAST_FACTOR = 0.01
"""Corrections whose logarithm is below this are not written."""
FOLDS = 5

Effect = tuple[str, str, str, str]
"""Runtime, kind, formats, bound; empty where it holds for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedNetwork:
    """A network that was timed, and what was predicted for it."""

    runtime: str
    measured_s: float
    times: Mapping[KernelGroup, float]
    """Predicted seconds by group, which add up to the network's."""

    @property
    def predicted_s(self) -> float:
        """The prediction."""
        return sum(self.times.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupShift:
    """A group of kernels as the times of networks correct it."""

    runtime: str
    group: KernelGroup
    share_of_time: float
    """Of the predicted time of all networks."""
    factor: float
    doubt: float
    """Standard deviation of the factor's logarithm that is left."""
    moved: float
    """Share of all seconds that corrections add or take."""


@dataclass(frozen=True, kw_only=True)
class NetworkFit:
    """Effects that networks' times tell."""

    effects: Mapping[Effect, float]
    """Logarithms of factors."""
    covariance: Floats
    """Of the effects, in their order."""

    def seconds(self, one: TimedNetwork) -> float:
        """The corrected time of a network."""
        return sum(
            seconds * math.exp(self._shift(one.runtime, group))
            for group, seconds in one.times.items()
        )

    def corrections(self) -> tuple[Correction, ...]:
        """Factors for a device file."""
        return tuple(
            Correction(runtime=runtime, kind=kind, formats=formats, bound=bound,
                       factor=float(f"{np.exp(value):.4g}"))
            for (runtime, kind, formats, bound), value in self.effects.items()
            if abs(value) > LEAST_FACTOR
        )  # fmt: skip

    def shifts(self, networks: Sequence[TimedNetwork]) -> tuple[GroupShift, ...]:
        """Every group of kernels, the one whose correction moves most seconds first."""
        totals: dict[tuple[str, KernelGroup], float] = {}
        for one in networks:
            for group, seconds in one.times.items():
                key = (one.runtime, group)
                totals[key] = totals.get(key, 0.0) + seconds
        shifts = {key: self._shift(*key) for key in totals}
        every = sum(totals.values())
        moved = {key: totals[key] * abs(np.expm1(shifts[key])) for key in totals}
        all_moved = sum(moved.values()) or 1.0
        found = [
            GroupShift(
                runtime=runtime,
                group=group,
                share_of_time=seconds / every,
                factor=float(np.exp(shifts[runtime, group])),
                doubt=self._doubt(runtime, group),
                moved=float(moved[runtime, group] / all_moved),
            )
            for (runtime, group), seconds in totals.items()
        ]
        return tuple(sorted(found, key=lambda one: -one.moved))

    def _shift(self, runtime: str, group: KernelGroup) -> float:
        return sum(self.effects.get(effect, 0.0) for effect in effects_of(runtime, group))

    def _doubt(self, runtime: str, group: KernelGroup) -> float:
        known = {effect: place for place, effect in enumerate(self.effects)}
        row = np.zeros(len(known))
        row[[known[effect] for effect in effects_of(runtime, group)]] = 1
        return float(np.sqrt(row @ self.covariance @ row))


def effects_of(runtime: str, group: KernelGroup) -> dict[Effect, float]:
    """The effects that hold for a group, with their standard deviations.

    A group without formats has those of its kind once.
    """
    keys = (
        (runtime, "", "", ""),
        (runtime, group.kind, "", ""),
        (runtime, group.kind, group.formats, ""),
        (runtime, group.kind, group.formats, group.bound),
    )
    return dict(zip(keys, PRIOR_SD, strict=True))


def fit_networks(networks: Sequence[TimedNetwork]) -> NetworkFit:
    """The most likely effects for the times of networks."""
    keys = list(dict.fromkeys((one.runtime, g) for one in networks for g in one.times))
    effects = list(dict.fromkeys(effect for key in keys for effect in effects_of(*key)))
    place = {effect: index for index, effect in enumerate(effects)}
    holds = np.zeros((len(keys), len(effects)))
    precision = np.zeros(len(effects))
    for row, key in enumerate(keys):
        for effect, deviation in effects_of(*key).items():
            holds[row, place[effect]] = 1.0
            precision[place[effect]] = deviation**-2
    column = {key: index for index, key in enumerate(keys)}
    times = np.zeros((len(networks), len(keys)))
    for row, one in enumerate(networks):
        for group, seconds in one.times.items():
            times[row, column[one.runtime, group]] = seconds
    log_measured = np.log([one.measured_s for one in networks])
    value = np.zeros(len(effects))
    covariance = np.diag(1 / precision)
    for _ in range(STEPS):
        scaled = times * np.exp(holds @ value)
        predicted = scaled.sum(axis=1)
        slope = (scaled / predicted[:, None]) @ holds
        residual = log_measured - np.log(predicted)
        weight = (FREEDOM + 1) / (FREEDOM + (residual / NOISE_SD) ** 2) / NOISE_SD**2
        curvature = (slope.T * weight) @ slope + np.diag(precision)
        covariance = np.linalg.inv(curvature)
        step = covariance @ ((slope.T * weight) @ residual - precision * value)
        value = value + step
        if np.abs(step).max() < 1e-6:
            break
    return NetworkFit(
        effects=dict(zip(effects, map(float, value), strict=True)), covariance=covariance
    )


def left_out(
    networks: Sequence[TimedNetwork], comparison: Comparison, groups: Sequence[str] | None = None
) -> Comparison | None:
    """The comparison with each network as the others correct it; None where there are no others.

    With `groups`, one a network, those of a group are left out together.
    """
    count = len(networks)
    names = list(dict.fromkeys(groups or map(str, range(count))))
    if len(names) < 2:
        return None
    fold_of = {name: place % min(FOLDS, len(names)) for place, name in enumerate(names)}
    folds = [fold_of[name] for name in groups or names]
    ratio = np.ones(count)
    for fold in sorted(set(folds)):
        fit = fit_networks([networks[row] for row in range(count) if folds[row] != fold])
        for row in (row for row in range(count) if folds[row] == fold):
            ratio[row] = fit.seconds(networks[row]) / networks[row].predicted_s
    return replace(
        comparison,
        predicted=comparison.predicted * ratio,
        low=comparison.low * ratio,
        high=comparison.high * ratio,
    )


def merged(device: Device, further: Sequence[Correction]) -> tuple[Correction, ...]:
    """The corrections of a device times those that were found with them."""
    known = {(one.runtime, one.kind, one.formats, one.bound): one for one in device.corrections}
    for one in further:
        key = (one.runtime, one.kind, one.formats, one.bound)
        before = known[key].factor if key in known else 1.0
        known[key] = replace(one, factor=float(f"{before * one.factor:.4g}"))
    return tuple(known.values())


def corrected_device_file(device_file: str | Path, further: Sequence[Correction]) -> str:
    """The text of a device file with these corrections, which multiply those that it has.

    Raises:
        DeviceError: The device file cannot be read.
    """
    every = merged(load_device(device_file), further)
    entries = [{name: value for name, value in asdict(one).items() if value} for one in every]
    return rewritten(device_file, corrections=entries)
