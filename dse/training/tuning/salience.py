"""The weight that units of a layer have for the loss: output channels, or neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

KURTOSIS_OF_NORMAL = 3.0


def sensitivity(y: Tensor, gradient: Tensor, channels: int) -> Tensor:
    """The sum of |activation x gradient| of every unit.

    Args:
        y: Outputs of a layer, (..., outputs).
        gradient: Of the loss with respect to them.
        channels: Neighbouring outputs that are one unit.

    Returns:
        (outputs / channels,).

    Source: APT, arXiv 2401.12200, section 4.2; its code sums magnitudes over samples and tokens.
    """
    return _units((y * gradient).abs(), channels).sum(0)


def excess_kurtosis(y: Tensor, channels: int) -> Tensor:
    """The kurtosis of every unit's outputs above that of a normal distribution, (units,).

    A unit whose outputs are all equal has none.
    """
    values = _units(y, channels)
    centred = values - values.mean(0)
    second = centred.square().mean(0)
    fourth = centred.square().square().mean(0)
    safe = torch.where(second > 0, second, 1.0)
    return torch.where(second > 0, fourth / safe.square() - KURTOSIS_OF_NORMAL, 0.0)


def outlier_aware(sensitivities: Tensor, kurtosis: Tensor) -> Tensor:
    """Sensitivities and the roots of positive excess kurtosis, added, (units,).

    Source: APT, arXiv 2401.12200, section 4.2; `salience + kurtosis.clamp(min=0).sqrt()` of its
    code.
    """
    return sensitivities + kurtosis.clamp(min=0).sqrt()


def _units(y: Tensor, channels: int) -> Tensor:
    """(..., outputs) as (values of a unit, units)."""
    units = y.shape[-1] // channels
    return y.reshape(-1, units, channels).transpose(1, 2).reshape(-1, units)
