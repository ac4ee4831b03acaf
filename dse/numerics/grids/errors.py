"""Errors of `dse.numerics`; both belong to the tree of `dse.errors`."""

from __future__ import annotations

from dse.errors import DseError


class QuantizeError(DseError, ValueError):
    """A tensor and a quantizer do not fit together."""


class StateError(DseError, ValueError):
    """A static quantizer has no calibrated state, or one of another shape."""
