"""Needs of a quantizer at a site before it can be applied."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dse.execute.weights.product import Product
from dse.execute.weights.smooth import smoothing_strength
from dse.numerics import has_learnable_scales
from hwmodels.formats.quantizer import Quantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A quantizer at a site that needs a state."""

    key: str
    quantizer: Quantizer
    product: Product
    corrects: bool
    """The shift of the mean output is wanted."""

    @property
    def settled(self) -> Quantizer:
        """The quantizer as it stands at a weight."""
        return self.quantizer.settled(weight=True)

    @property
    def restores(self) -> bool:
        """Whether outputs are brought back to their strength, which scales take for nothing."""
        kept = keeps_values(self.quantizer, corrects=self.corrects)
        return kept and self.settled.correction == "bias_corrected"

    @property
    def needs_second(self) -> bool:
        """Whether second moments of the inputs are needed."""
        if self.key == self.product.activation:
            return False
        searched = self.settled.statistic == "output_mse" and not self.quantizer.transforms
        return self.quantizer.is_learned or searched

    @property
    def needs_data(self) -> bool:
        """Whether anything about the inputs is needed."""
        smooth = smoothing_strength(self.quantizer) is not None
        return self.needs_second or self.corrects or smooth

    @property
    def identity(self) -> str:
        """The name of its state, the same in every process; one for all that read a value."""
        digest = hashlib.sha256(repr(self.quantizer).encode()).hexdigest()[:8]
        shared = self.key == self.product.activation
        place = repr(self.product.operand) if shared else self.key
        return f"{place}={self.quantizer.name}#{digest}"


def keeps_values(quantizer: Quantizer, *, corrects: bool) -> bool:
    """Whether the state of a weight holds its values: codes that its scales alone do not give.

    Weights rounded to nearest get them with the strength of their outputs, and that only beside a
    corrected mean: without one, whoever rounds the network's own weights has the same.

    Args:
        quantizer: at the weight.
        corrects: whether the mean of the outputs is put back.
    """
    if quantizer.is_learned:
        return True
    settled = quantizer.settled(weight=True)
    searched = settled.statistic == "output_mse" and not quantizer.transforms
    corrected = corrects and settled.correction == "bias_corrected"
    return corrected and searched and has_learnable_scales(settled)
