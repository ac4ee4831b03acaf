"""Delayed scaling: the scale of a step comes from the steps before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from dse.numerics.grids.defaults import kernel_quantizer
from dse.numerics.grids.errors import QuantizeError
from dse.numerics.grids.state import QuantizerState
from dse.numerics.scales import derived_scales
from hwmodels.formats.quantizer import Quantizer


class DelayedScale:
    """A running absolute maximum over the last steps, for quantizers of timing `delayed`.

    Source: NVIDIA Transformer Engine, `DelayedScaling` with `amax_compute_algo="max"`.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        if quantizer.is_fitted:
            raise QuantizeError(
                f"{quantizer.name}: delayed scales come from earlier largest magnitudes, and "
                f"those of {quantizer.format.name} are fitted to values; leave the timing dynamic"
            )
        self._quantizer = kernel_quantizer(quantizer)
        self._seen: deque[float] = deque(maxlen=quantizer.history)

    @property
    def history(self) -> tuple[float, ...]:
        """Largest magnitudes of the steps that are remembered, oldest first."""
        return tuple(self._seen)

    def restore(self, history: Iterable[float]) -> None:
        """Goes on from what another one has remembered."""
        self._seen.clear()
        self._seen.extend(history)

    def state(self, x: Tensor, *, remembered: bool = True) -> QuantizerState:
        """The state for this step, from earlier steps; the first one looks at `x` itself.

        A step that is not `remembered` (an evaluation) leaves later scales alone.
        """
        own = float(x.abs().amax())
        largest = max(self._seen) if self._seen else own
        if remembered:
            self._seen.append(own)
        found = derived_scales(torch.full((1, 1), largest), self._quantizer)
        return QuantizerState(scales=found.scales, zero_points=found.zero_points)
