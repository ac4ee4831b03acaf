"""Sizes in whole granules: what hardware pads to, and what it can do no part of."""

from __future__ import annotations


def up(size: int, granule: int) -> int:
    """The least multiple of a granule that holds a size."""
    return -(-size // granule) * granule


def down(size: int, granule: int) -> int:
    """The largest multiple of a granule within a size, one granule at least."""
    return max(size, granule) // granule * granule
