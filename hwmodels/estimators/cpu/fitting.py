"""The model of processors brought to operators that were timed: factors on its terms.

The logarithms of the factors are those of least squared error of log(measured / predicted), drawn
to 0 as a normal prior has it (`PRIOR_SD`): a term that the operators do not show stays as it was.
Large errors count by their size alone, so that a disturbed measurement moves little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from hwmodels.devices.cpu import FittedFactor, Term
from hwmodels.devices.device import Device, Measurement
from hwmodels.estimators.cpu.constants import Constants
from hwmodels.estimators.cpu.demand import Demand
from hwmodels.estimators.cpu.estimator import DEMANDS
from hwmodels.estimators.cpu.family import element_of, family_of
from hwmodels.estimators.cpu.memory import level_seconds
from hwmodels.estimators.cpu.processor import Processor
from hwmodels.estimators.cpu.rows import rows_demand
from hwmodels.estimators.gpu.samples import measured_kernels
from hwmodels.work.kernel import Kernel

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Key = tuple[Term, str, str, str]
"""Term, runtime, family, element."""

PRIOR_SD: Mapping[str, float] = {
    "compute": 0.8, "pack": 0.8, "memory": 0.3, "call": 1.2, "fork": 0.5,
}  # fmt: skip
"""Standard deviations of log factors: how far figures and libraries may be off. The call of a
convolution, which chooses among kernels and layouts, takes ten times that of a sum."""
ADAPTED_SD: Mapping[str, float] = {
    "compute": 0.1, "pack": 0.1, "memory": 0.15, "call": 0.15, "fork": 0.3,
}  # fmt: skip
"""The same where the constants hold another processor's factors already: libraries are the same
code there, an element's rate may be off for all of them alike (`ELEMENT_SD`), and what is left of
a family the process corrects by its size. Wider ones follow few operators too far."""
ELEMENT_SD = 0.5
NOISE_SD = 0.12
"""Of log(measured / predicted) of a right model."""
FLAT, MOST_STEPS = 1e-4, 60
"""Relative gain below which the search ends, and its most steps."""
DIGITS = 4
NOTHING = 0.005
"""Distance from 1 up to which a factor is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One kernel of a timed operator, without corrections."""

    operator: int
    demand: Demand
    processor: Processor
    family: str
    element: str

    def key(self, term: Term) -> Key:
        """The factor on a term of its family."""
        return term, self.processor.runtime, self.family, self.element


def fitted_factors(
    measurements: Sequence[Measurement], device: Device, constants: Constants
) -> tuple[FittedFactor, ...]:
    """Factors on the terms of a device, beside those of the constants.

    Raises:
        WorkError: An operator that the device cannot multiply.
    """
    assert device.cpu is not None, "a device of kind `cpu` has the section"
    plain = replace(device, cpu=replace(device.cpu, fitted=()), measurements=())
    parts = list(
        chain.from_iterable(
            _parts(index, one, plain, constants) for index, one in enumerate(measurements)
        )
    )
    model = _Model.of(parts, len(measurements), constants)
    measured = np.log([one.median_us * 1e-6 for one in measurements])
    spread = np.array([_prior_sd(key, adapts=bool(constants.factors)) for key in model.keys])

    def deviations(logs: Floats) -> Floats:
        missed = (measured - np.log(model.seconds(np.exp(logs)))) / NOISE_SD
        return np.concatenate([missed, logs / spread])

    found = least_squares(
        deviations,
        np.zeros(len(model.keys)),
        loss="soft_l1",
        jac_sparsity=model.shown(),
        ftol=FLAT,
        max_nfev=MOST_STEPS,
    )
    factors = [
        FittedFactor(
            term=key[0],
            runtime=key[1],
            family=key[2],
            element=key[3],
            factor=round(float(np.exp(log)), DIGITS),
        )
        for key, log in zip(model.keys, found.x, strict=True)
    ]
    return tuple(one for one in factors if abs(one.factor - 1) > NOTHING)


def _prior_sd(key: Key, *, adapts: bool) -> float:
    if key[0] == "compute" and not key[2]:
        return ELEMENT_SD
    return (ADAPTED_SD if adapts else PRIOR_SD)[key[0]]


def _compute_keys(part: _Part, constants: Constants) -> list[Key]:
    own = part.key("compute")
    return [("compute", "", "", part.element), own] if constants.factors else [own]


def _parts(index: int, one: Measurement, device: Device, constants: Constants) -> list[_Part]:
    processor = Processor.of(device, one.runtime, constants)
    return [
        _Part(
            operator=index,
            demand=_demand(kernel, processor),
            processor=processor,
            family=family_of(kernel),
            element=element_of(kernel),
        )
        for kernel in measured_kernels(one, device)
    ]


def _demand(kernel: Kernel, processor: Processor) -> Demand:
    return DEMANDS.get(kernel.kind, rows_demand)(kernel, processor)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """Timed operators as arrays over (kernels, 2): on one core, on all cores."""

    keys: tuple[Key, ...]
    operators: Places
    count: int
    overlap: float
    core_s: Floats
    prepared_s: Floats
    packed_s: Floats
    moved_s: Floats
    """By level, shape (kernels, 2, levels)."""
    staged_s: Floats
    call_s: Floats
    """Shape (kernels,), as the next."""
    fork_s: Floats
    places: Mapping[Term, Places]
    """Of the factors of each kernel, shape (kernels, factors that are multiplied)."""
    level_places: Places
    """Shape (kernels, levels, factors that are multiplied)."""

    @classmethod
    def of(cls, parts: Sequence[_Part], count: int, constants: Constants) -> _Model:
        """The arrays of all kernels."""
        by_term: dict[Term, list[list[Key]]] = {
            "compute": [_compute_keys(part, constants) for part in parts],
            "pack": [[part.key("pack")] for part in parts],
            "call": [[part.key("call")] for part in parts],
            "fork": [[("fork", part.processor.runtime, "", "")] for part in parts],
        }
        levels: list[list[list[Key]]] = [
            [
                [("memory", "", one.name, ""), ("memory", part.processor.runtime, one.name, "")]
                for one in part.processor.levels
            ]
            for part in parts
        ]
        every = [key for lists in by_term.values() for keys in lists for key in keys]
        every += [key for part in levels for keys in part for key in keys]
        keys = tuple(sorted(set(every)))
        place = {key: index for index, key in enumerate(keys)}
        threads = [(1, part.processor.cores) for part in parts]
        shares = np.array(
            [
                [part.demand.share(one) for one in each]
                for part, each in zip(parts, threads, strict=True)
            ]
        )

        def scaled(name: str, by: Floats) -> Floats:
            whole = np.array([getattr(part.demand, name) for part in parts])
            return np.asarray(whole[:, None] * by)

        return cls(
            keys=keys,
            operators=np.array([part.operator for part in parts]),
            count=count,
            overlap=constants.overlap,
            core_s=scaled("core_s", shares),
            prepared_s=scaled("prepared_s", 1 / np.array(threads)),
            packed_s=scaled("packed_s", 1 / np.array(threads)),
            moved_s=np.array(
                [
                    [_moved(part, one) for one in each]
                    for part, each in zip(parts, threads, strict=True)
                ]
            ),
            staged_s=np.array(
                [
                    [level_seconds(0.0, part.demand.staged, part.processor, one) for one in each]
                    for part, each in zip(parts, threads, strict=True)
                ]
            ),
            call_s=np.array([_call_s(part) for part in parts]),
            fork_s=np.array([part.processor.fork_s for part in parts]),
            places={
                term: np.array([[place[key] for key in keys] for keys in lists])
                for term, lists in by_term.items()
            },
            level_places=np.array(
                [[[place[key] for key in keys] for keys in part] for part in levels]
            ),
        )

    def shown(self) -> Floats:
        """Whether an operator's deviation, or a factor's own, depends on each factor."""
        found = np.zeros((self.count, len(self.keys)))
        for places in (*self.places.values(), self.level_places.reshape(len(self.call_s), -1)):
            for column in places.T:
                found[self.operators, column] = 1.0
        return np.vstack([found, np.eye(len(self.keys))])

    def seconds(self, factors: Floats) -> Floats:
        """Seconds of every operator, shape (operators,)."""
        of = {term: factors[places].prod(-1) for term, places in self.places.items()}
        level = factors[self.level_places].prod(-1)[:, None, :]
        computing = self.core_s * of["compute"][:, None]
        moving = (self.moved_s * level).sum(-1)
        joined = (computing**self.overlap + moving**self.overlap) ** (1 / self.overlap)
        staged = self.prepared_s + self.packed_s * of["pack"][:, None]
        staged = staged + (self.staged_s * level).sum(-1)
        fixed = (self.call_s * of["call"])[:, None]
        forked = (self.fork_s * of["fork"])[:, None] * np.array([0.0, 1.0])
        kernels = (fixed + forked + joined + staged).min(1)
        return np.asarray(np.bincount(self.operators, kernels, self.count), dtype=np.float64)


def _moved(part: _Part, threads: int) -> list[float]:
    """Seconds of the operands by level."""
    once = level_seconds(part.demand.cold, part.demand.warm, part.processor, threads)
    again = level_seconds(0.0, part.demand.again, part.processor, threads)
    return [first + second for first, second in zip(once, again, strict=True)]


def _call_s(part: _Part) -> float:
    return part.processor.call_s * part.processor.factor("call", part.family, part.element)
