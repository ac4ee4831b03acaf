"""Factors that move the ranges of an activation's channels into the weight that it meets."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.weights.product import Product
from dse.numerics import smoothing_factors, transform_arguments
from dse.numerics.balance import SMOOTHING
from hwmodels.formats.quantizer import Quantizer


def smoothing_strength(quantizer: Quantizer) -> float | None:
    """The strength of a quantizer's `smooth`; None where it has none."""
    for spec in quantizer.transforms:
        name, arguments = transform_arguments(spec)
        if name == "smooth":
            return arguments[0] if arguments else SMOOTHING
    return None


def smoothing_of(
    key: str,
    product: Product,
    largest: Tensor,
    weights: Iterable[tuple[Product, Tensor]],
    strength: float,
) -> Tensor:
    """(channels,): what the activation is multiplied by before it is quantized.

    Args:
        key: the site, for messages.
        product: the node.
        largest: (1, depth) largest magnitudes of the product's rows.
        weights: every weight that the same rows meet: one set of factors serves them all.
        strength: how much of the range moves.

    Raises:
        AssignmentError: a grouped convolution, whose channels meet no common weight.
    """
    if product.groups > 1:
        raise AssignmentError(
            f"site {key!r}: smooth needs channels that one weight sums over; "
            f"{product.node.name!r} is a convolution in {product.groups} groups"
        )
    taps = product.taps
    ranges = [by_channel(other.matrix(weight)[0].abs().amax(0), taps) for other, weight in weights]
    return smoothing_factors(
        by_channel(largest[0], taps), torch.stack(ranges).amax(0), strength=strength
    )


def by_channel(row: Tensor, taps: int) -> Tensor:
    """(depth,) -> (channels,): the largest over the taps."""
    return row.reshape(-1, taps).amax(1)
