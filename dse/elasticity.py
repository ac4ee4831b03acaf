"""Elasticities: what each figure of a device's file does to a prediction.

Each figure alone is taken a tenth higher and lower, everything else as the file has it, and the
network is priced anew:

    e = log(t(1.1 x) / t(0.9 x)) / log(1.1 / 0.9)

so that a figure which is off by 10 % moves the latency by about 10 e %. A figure that stands in
the file twice (the cores of both units) is two figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.predict import Usage, predict
from hwmodels.devices.figures import figures_of, scaled
from hwmodels.devices.quantity import SourcedValue
from hwmodels.runtimes.platform import Platform, load_platform

STEP = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticity:
    """A figure, and how latency and energy follow it."""

    figure: str
    """Path in the device's file."""
    value: SourcedValue
    latency_lower_s: float
    """With the figure a tenth lower."""
    latency_higher_s: float
    latency: float
    """d log latency / d log figure."""
    energy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivities:
    """The figures of a device, those that move the latency most first."""

    device: str
    runtime: str
    format: str
    latency_s: float
    figures: tuple[Elasticity, ...]


def elasticities(
    graph: Graph,
    device: str | Platform,
    formats: Sequence[str],
    *,
    usage: Usage,
    runtime: str | None = None,
    assignment: Assignment | None = None,
) -> Sensitivities:
    """The effect of every figure of a device on the prediction for one format, or an assignment.

    Raises:
        DseError, HardwareError: as `dse.predict.predict`.
    """
    platform = load_platform(device, runtime=runtime) if isinstance(device, str) else device
    known = figures_of(platform.device)
    changed = [
        replace(platform, device=scaled(platform.device, path, factor))
        for path in known
        for factor in (1 - STEP, 1 + STEP)
    ]
    found = predict(graph, [platform, *changed], formats, usage=usage, assignment=assignment)
    base, others = found[0], found[1:]
    rows = [
        Elasticity(
            figure=path,
            value=value,
            latency_lower_s=lower.cost.latency_s,
            latency_higher_s=higher.cost.latency_s,
            latency=_slope(lower.cost.latency_s, higher.cost.latency_s),
            energy=_slope(lower.cost.energy_j, higher.cost.energy_j),
        )
        for (path, value), lower, higher in zip(
            known.items(), others[::2], others[1::2], strict=True
        )
    ]
    return Sensitivities(
        device=base.device,
        runtime=base.runtime,
        format=base.format,
        latency_s=base.cost.latency_s,
        figures=tuple(sorted(rows, key=lambda one: -abs(one.latency))),
    )


def _slope(lower: float, higher: float) -> float:
    if lower <= 0 or higher <= 0:
        return 0.0
    return math.log(higher / lower) / math.log((1 + STEP) / (1 - STEP))
