"""A quantizer as the kernels take it: axis values that are other values in disguise."""

from __future__ import annotations

from hwmodels.formats.quantizer import Quantizer


def kernel_quantizer(quantizer: Quantizer) -> Quantizer:
    """The quantizer of the same values in the vocabulary of kernels.

    `auto` is what suits the element here, since the place is not known; without data the least
    error of outputs is that of values; a two-stage maximum is a maximum; a random direction is a
    coin between the neighbours.
    """
    if quantizer.statistic == "auto":
        quantizer = quantizer.replaced(statistic=quantizer.plain_statistic)
    elif quantizer.statistic == "output_mse":
        quantizer = quantizer.replaced(statistic="mse")
    if quantizer.timing == "two_stage":
        quantizer = quantizer.replaced(timing="dynamic")
    if quantizer.rounding == "random_directed":
        quantizer = quantizer.replaced(rounding="stochastic_equal")
    return quantizer
