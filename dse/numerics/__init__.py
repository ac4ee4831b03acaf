"""Quantizers applied to values: rounding, scaling, calibration."""

from dse.numerics.calibrate import calibrated_state
from dse.numerics.errors import QuantizeError, StateError
from dse.numerics.quantize import quantize
from dse.numerics.state import QuantizerState

__all__ = ["QuantizeError", "QuantizerState", "StateError", "calibrated_state", "quantize"]
