"""Needs of a quantizer at a site before it can be applied."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dse.execute.weights.product import Product
from dse.execute.weights.smooth import smoothing_strength
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
        return self.settled.correction == "bias_corrected" and self.quantizer.is_learned

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
