"""A sampler that refines the front of a loss against costs that are known."""

from ._sampler import PrecisionFrontSampler

__all__ = ["PrecisionFrontSampler"]
