"""An assignment as callables for `Program.run`: each quantizer bound to its site."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import torch
from torch import Tensor

from dse.errors import AssignmentError, nearest
from dse.execute.operators.step import HOST, Quantize, Sharing
from dse.execute.weights.calibrate import Calibration, Statistics
from dse.execute.weights.learn import WeightStates
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.numerics import (
    QuantizerState,
    StateError,
    calibrated_state,
    quantize,
    quantize_with_gradient,
)
from dse.numerics.grids.grid import is_tabled
from dse.numerics.percentile import VAGUEST_RANK
from dse.numerics.scales import tensor_scale_of
from hwmodels.formats.encoding import Encoding
from hwmodels.formats.numbers import sorted_values
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """A quantizer at a site; equal emulators compute the same and share their results."""

    quantizer: Quantizer
    axes: tuple[int, ...]
    """Contraction axes of the operand."""
    statistics: Statistics | None = None
    """Of a static quantizer's calibration; None where scales come from the tensor itself."""
    seed: int = 0
    """Of stochastic rounding."""
    state: QuantizerState | None = None
    """The state learned about a weight; equal only to itself."""

    def __call__(self, x: Tensor) -> Tensor:
        """The values of x on the quantizer's grid; gradients pass straight through."""
        tracked = x.requires_grad and torch.is_grad_enabled()
        apply = quantize_with_gradient if tracked else quantize
        return apply(x, self.quantizer, axes=self.axes, state=self.state_of(x), seed=self.seed)

    def overwrite(self, x: Tensor, *, largest: Tensor | None = None) -> Tensor:
        """As a call, in the memory of x, which needs no gradient.

        `largest` is the largest magnitude of the tensor that x is a part of.
        """
        state = self.state_of(x)
        if largest is not None:
            level = tensor_scale_of(largest, self.quantizer.format)
            state = QuantizerState(tensor_scale=level)
        return quantize(x, self.quantizer, axes=self.axes, state=state, seed=self.seed, out=x)

    @property
    def fixed(self) -> QuantizerState | None:
        """The numbers that are known before a tensor comes; None where they come from it."""
        if self.state is not None or self.statistics is None:
            return self.state
        return static_state(self.quantizer, self.statistics)

    @property
    def sharing(self) -> Sharing:
        """The knowledge that parts of a tensor need which hold whole slices of the contraction."""
        quantizer, format = self.quantizer, self.quantizer.format
        if quantizer.is_random or quantizer.transforms or self.state is not None:
            return Sharing.EVERYTHING
        if format.scale is None or self.statistics is not None:
            return Sharing.NOTHING
        within_slices = format.granularity in ("channel", "token", "group")
        across = format.scale.rule in ("ratio", "global_min")
        if not within_slices or across or quantizer.statistic == "mean_channel_range":
            return Sharing.EVERYTHING
        return Sharing.NOTHING if format.tensor_scale is None else Sharing.LARGEST

    @property
    def keeps_zeros(self) -> bool:
        """Whether zeros stay zeros, and more of them at the end of a slice change nothing else."""
        format, given = self.quantizer.format, self.statistics is not None
        derived = format.scale is None or self.quantizer.statistic == "absmax"
        shifted = format.zero_point is not None or format.offset is not None
        return (given or derived) and not shifted and _has_zero(format.element)

    def state_of(self, x: Tensor) -> QuantizerState | None:
        """The numbers that x is quantized with; None where they come from x itself."""
        if self.state is not None:
            return self.state
        if self.statistics is not None:
            return static_state(self.quantizer, self.statistics, x.device)
        if self.quantizer.is_dynamic:
            return None
        return calibrated_state(x, self.quantizer, axes=self.axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tied:
    """A look-up's table as the product that shares it has it: one copy, whatever was learned."""

    product: Quantize
    turned: bool
    """Whether the product's weight is the table's transpose."""

    def __call__(self, x: Tensor) -> Tensor:
        """The stored values of the table x, (words, depth), in the type of x."""
        weight = x.float()
        found = self.product(weight.T.contiguous()).T if self.turned else self.product(weight)
        return found.to(x.dtype).contiguous()


@cache
def _has_zero(element: Encoding) -> bool:
    return not is_tabled(element) or 0.0 in sorted_values(element)


@lru_cache(maxsize=4096)
def static_state(
    quantizer: Quantizer, statistics: Statistics, device: torch.device = HOST
) -> QuantizerState:
    """The state of a static quantizer of an activation, from what calibration saw.

    It is derived on the host, so that every device has the same bits, and kept on `device`.

    Raises:
        StateError: A percentile that is finer than what the statistics tell.
    """
    if quantizer.statistic == "mean_channel_range":
        mean = statistics.channel_absmax.mean().item()
        ends = (max(statistics.minimum, -mean), min(statistics.maximum, mean))
        return calibrated_state(torch.tensor(ends), quantizer, axes=(0,)).on(device)
    if quantizer.transforms or quantizer.format.granularity != "tensor":
        # Transforms mix neighbours: of what comes out only the sample tells, and no tail.
        if quantizer.transforms:
            _check_sample(quantizer, statistics)
        return calibrated_state(statistics.values, quantizer, axes=(0,)).on(device)
    values, counts = statistics.weighted
    return calibrated_state(values, quantizer, axes=(0,), counts=counts).on(device)


def _check_sample(quantizer: Quantizer, statistics: Statistics) -> None:
    size = statistics.sample.numel()
    if quantizer.statistic != "percentile" or size >= statistics.count:
        return
    beyond = (1 - quantizer.percentile / 100) * size
    if beyond * VAGUEST_RANK**2 < 1:
        raise StateError(
            f"{quantizer.name}: behind transforms only a sample of {size} values is known, of "
            f"which {beyond:.2g} lie beyond that percentile; a lower one can be told"
        )


def emulators(
    assignment: Assignment,
    sites: Mapping[str, Site],
    calibration: Calibration,
    weights: WeightStates | None = None,
) -> dict[str, Emulator]:
    """An emulator for each site of the assignment (one that `weights` has settled).

    Static quantizers take the range that calibration saw; weights are their own calibration,
    unless `weights` has learned about them.

    Raises:
        AssignmentError: sites that the model does not have, static quantizers of activations that
            were not calibrated or whose scales are not per tensor, learned roundings without
            `weights` or of what is no weight (all of them at once).
    """
    found: dict[str, Emulator] = {}
    wrong: list[str] = []
    for key, quantizer in assignment:
        try:
            emulator = _emulator(key, quantizer, sites, calibration)
            found[key] = _informed(emulator, key, quantizer, weights)
        except AssignmentError as error:
            wrong.append(str(error))
    if wrong:
        raise AssignmentError("; ".join(wrong))
    return found


def _informed(
    emulator: Emulator, key: str, quantizer: Quantizer, weights: WeightStates | None
) -> Emulator:
    """The emulator with learned values; a corrected mean alone changes nothing at the weight."""
    if weights is None:
        if quantizer.is_learned:
            raise AssignmentError(f"site {key!r}: {quantizer.name} needs calibration data")
        return emulator
    state = weights.state(key, quantizer)
    if state is None and weights.product(key) is None:
        # Without inputs to judge outputs by, the range of least error of the values themselves
        # can be far worse than the whole range.
        return replace(emulator, quantizer=quantizer.settled(weight=False))
    if state is None or not state.changes_values:
        return emulator
    if emulator.statistics is not None:
        state = _smoothed(emulator.quantizer, emulator.statistics, state)
    return replace(emulator, state=state, statistics=None)


@lru_cache(maxsize=4096)
def _smoothed(
    quantizer: Quantizer, statistics: Statistics, state: QuantizerState
) -> QuantizerState:
    """The static scale of an activation whose channels are multiplied by factors first."""
    assert state.channel_factors is not None
    if quantizer.statistic == "percentile":
        raise AssignmentError(
            f"{quantizer.name}: of values that are smoothed first only each channel's largest "
            "magnitude is known; expected statistic absmax or minmax"
        )
    seen = statistics.channel_absmax.to(state.channel_factors.device)
    return calibrated_state(seen, quantizer, axes=(0,), state=state)


def _emulator(
    key: str, quantizer: Quantizer, sites: Mapping[str, Site], calibration: Calibration
) -> Emulator:
    if key not in sites:
        raise AssignmentError(f"the model has no site {key!r}{nearest(key, sites)}")
    site = sites[key]
    quantizer = quantizer.settled(weight=site.role == "weight")
    emulator = Emulator(
        quantizer=quantizer,
        axes=site.contraction_axes,
        # Equal values draw equal bits wherever they are read.
        seed=zlib.crc32(site.value.encode()) if quantizer.is_random else 0,
    )
    if quantizer.is_dynamic or ROLES[site.role].is_constant:
        return emulator
    format = quantizer.format
    if format.scale is None:
        return emulator
    if format.granularity != "tensor" and format.tensor_scale is None:
        raise AssignmentError(
            f"site {key!r}: {quantizer.name} has scales per {format.granularity}, which for an "
            "activation must be dynamic; static ones are per tensor"
        )
    if key not in calibration.statistics:
        raise AssignmentError(f"site {key!r}: {quantizer.name} is static but not calibrated")
    emulator = replace(emulator, statistics=calibration.statistics[key])
    if quantizer.statistic == "percentile":
        try:
            _ = emulator.fixed
        except StateError as error:
            raise AssignmentError(f"site {key!r}: {error}") from error
    return emulator
