"""Deviations of GEMMs from the skeleton as learned device by device, and how sure they are.

    correction(x) = sum of w_i trees_i(x, runtime)      w_i by kinship, a kernel's type with it
    (end of the interval)^2 = (seen end s(x))^2 + doubt (unseen end exp(slope q))^2

x are dimensionless features, s(x) how far the trees were off on shapes like x that were left out,
q the share of the time that is no GEMM. A device that was measured has next to no doubt, so that
its interval is little more than that of new shapes; the second term is what a device's relatives
leave unknown of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.kinship import Kin, Shares, shares
from hwmodels.estimators.gpu.trees import Trees, with_name

Floats = NDArray[np.float64]

TYPE = tuple(FEATURES.index(name) for name in ("input_bytes", "weight_bytes", "integer"))
SAME_TYPE = 0.13
"""Bytes by which elements of one kind of kernel differ at most: a bit, scales of groups."""
LEAST_WEIGHT = 0.01
"""Weight below which a device's trees are not asked."""
LEAST_DOUBT = 0.05
"""Least share of doubt: boards of one type and versions of one runtime differ, too. Another
collection of one device is 6 to 12 % off where its own other shapes are 4 to 8 %
(`studies/gpu_latency/recollected.py`)."""
COVERAGE = 0.9
DEVIATIONS = NormalDist().inv_cdf((1 + COVERAGE) / 2)
"""Half an interval in standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """90 % interval of log(measured / predicted): (low, high) exp(slope * overhead share)."""

    low: float
    high: float
    slope: float = 0.0
    """Doubt about quantising and widening beyond that about GEMMs."""

    def interval(self, overhead: Floats) -> tuple[Floats, Floats]:
        """Its ends for kernels of which a share `overhead` of the time is no GEMM."""
        scale = np.exp(self.slope * overhead)
        return self.low * scale, self.high * scale


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A measured device."""

    kin: Kin
    trees: Trees
    """log(measured / skeleton) of its GEMMs."""
    scale: Trees
    """log of how far those were off on shapes that were left out."""
    kernels: tuple[tuple[str, float, float, float], ...]
    """Runtime and `TYPE` of the kernels that were measured."""

    def knows(self, kind: Floats, runtime: str = "") -> bool:
        """Whether a type of kernel was measured, under any runtime or one."""
        return any(
            runtime in ("", name) and np.abs(np.subtract(known, kind)).max() <= SAME_TYPE
            for name, *known in self.kernels
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Uncertainty of log(measured / predicted), each of shape (rows,)."""

    low: Floats
    """End of the interval, at most 0."""
    high: Floats
    device_sd: Floats
    """Standard deviation of what is unknown of the device, and can be measured on it."""
    noise_sd: Floats
    """Standard deviation of the rest, of one shape beside the next."""

    def of_part(self, share: Floats) -> Doubt:
        """The same of kernels that are a share of the time, taken for all that is uncertain."""
        return Doubt(
            low=self.low / share,
            high=self.high / share,
            device_sd=self.device_sd / share,
            noise_sd=self.noise_sd / share,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """Measured devices, and the intervals of predictions from them."""

    runtimes: tuple[str, ...]
    sources: Mapping[str, Source]
    """By device."""
    seen: Spread
    """Over s(x), of shapes left out on measured devices."""
    unseen: Spread
    """Everything that a device's relatives leave unknown, with all of the doubt."""

    def correction(self, features: Floats, runtime: str, device: Kin) -> Floats:
        """log(measured / skeleton) to be expected, shape (rows,)."""
        columns = with_name(features, runtime, self.runtimes)
        found = np.zeros(len(features))
        for rows, share in self._shares(features, runtime, device):
            for source, weight in zip(self.sources.values(), share.weights, strict=True):
                if abs(weight) >= LEAST_WEIGHT:
                    found[rows] += weight * source.trees.predict(columns[rows])
        return found

    def doubt(self, features: Floats, runtime: str, device: Kin, overhead: Floats) -> Doubt:
        """Certainty of it, for kernels of which a share `overhead` of the time is no GEMM."""
        columns = with_name(features, runtime, self.runtimes)
        scale, unknown = np.zeros(len(features)), np.zeros(len(features))
        for rows, share in self._shares(features, runtime, device):
            unknown[rows] = max(share.doubt, LEAST_DOUBT)
            weights = np.where(share.weights >= LEAST_WEIGHT, share.weights, 0.0)
            for source, weight in zip(self.sources.values(), weights, strict=True):
                if weight:
                    logs = source.scale.predict(columns[rows])
                    scale[rows] += weight / weights.sum() * np.exp(logs)
        low, high = self.unseen.interval(overhead)
        return Doubt(
            low=-np.sqrt((self.seen.low * scale) ** 2 + unknown * low**2),
            high=np.sqrt((self.seen.high * scale) ** 2 + unknown * high**2),
            device_sd=np.sqrt(unknown) * (high - low) / 2 / DEVIATIONS,
            noise_sd=scale * (self.seen.high - self.seen.low) / 2 / DEVIATIONS,
        )

    def doubts(self, features: Floats, runtime: str, device: Kin) -> Floats:
        """Share of the variance that measured devices don't tell, shape (rows,)."""
        found = np.zeros(len(features))
        for rows, share in self._shares(features, runtime, device):
            found[rows] = share.doubt
        return found

    def _shares(
        self, features: Floats, runtime: str, device: Kin
    ) -> Iterator[tuple[NDArray[np.bool_], Shares]]:
        """Rows of each type of kernel, and every device's weight in them."""
        kinds, of_row = np.unique(features[:, TYPE], axis=0, return_inverse=True)
        for index, kind in enumerate(kinds):
            knowing = np.array([one.knows(kind) for one in self.sources.values()], dtype=bool)
            known = [one for one in self.sources.values() if one.knows(kind)]
            found = shares(
                device, [one.kin for one in known], [one.knows(kind, runtime) for one in known]
            )
            weights = np.zeros(len(knowing))
            weights[knowing] = found.weights
            yield of_row.reshape(-1) == index, Shares(weights=weights, doubt=found.doubt)
