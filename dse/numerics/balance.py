"""Range balancing between two operands, and the correction of what quantization shifts."""

from __future__ import annotations

import torch
from torch import Tensor

SMOOTHING = 0.5
"""SmoothQuant's default migration strength (arXiv 2211.10438, section 4)."""


def smoothing_factors(
    activation_absmax: Tensor, weight_absmax: Tensor, *, strength: float = SMOOTHING
) -> Tensor:
    """Factors for the activation's channels; the weight's are their reciprocals.

    Both arguments and the result are (depth,), along the contraction. Channels that are zero in
    either operand stay as they are.

    Source: SmoothQuant, arXiv 2211.10438, equation 4: s = max|X|^a / max|W|^(1-a); X / s.
    """
    s = activation_absmax**strength / weight_absmax ** (1 - strength)
    usable = torch.isfinite(s) & (s > 0)
    return torch.where(usable, 1 / s, 1.0)


def equalized(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two consecutive weights with equal ranges across the channels between them.

    The pair computes the same function where what lies between is positively homogeneous (ReLU).
    Divide the first layer's bias by the factors, too.

    Args:
        first: (channels, ...) weight that produces the channels.
        second: (outputs, channels, ...) weight that consumes them.

    Returns:
        first / s, second * s, and s (channels,).

    Source: Nagel et al., Data-Free Quantization, arXiv 1906.04721, equation 11.
    """
    produced = first.flatten(1).abs().amax(1)
    consumed = second.transpose(0, 1).flatten(1).abs().amax(1)
    s = torch.sqrt(produced / consumed)
    s = torch.where(torch.isfinite(s) & (s > 0), s, 1.0)
    down = s.reshape(-1, *[1] * (first.dim() - 1))
    up = s.reshape(1, -1, *[1] * (second.dim() - 2))
    return first / down, second * up, s


def bias_correction(weight: Tensor, quantized: Tensor, mean_input: Tensor) -> Tensor:
    """The addition to the bias under which the mean output is that of the full-precision weight.

    Args:
        weight: (outputs, depth, ...) full precision; trailing axes are kernel taps.
        quantized: The same shape.
        mean_input: (depth,) mean of each input channel on calibration data.

    Returns:
        (outputs,).

    Source: Nagel et al., Data-Free Quantization, arXiv 1906.04721, section 4.2.
    """
    error = (weight - quantized).to(torch.float64)
    per_channel = error.flatten(2).sum(2) if error.dim() > 2 else error
    return (per_channel @ mean_input.to(torch.float64)).to(weight.dtype)
