"""Quantizers applied to values: rounding, scaling, calibration, learned rounding."""

from dse.numerics.accumulator import ACCUMULATORS, Accumulator, matmul
from dse.numerics.artefact import load_states, save_states, states_digest
from dse.numerics.balance import bias_correction, equalized, smoothing_factors
from dse.numerics.calibrate import calibrated_state
from dse.numerics.delayed import DelayedScale
from dse.numerics.gptq import damped, gptq, held_out_damping, held_out_macs
from dse.numerics.gradient import Gradient, quantize_with_gradient
from dse.numerics.grids.errors import QuantizeError, StateError
from dse.numerics.grids.state import QuantizerState
from dse.numerics.learned import DiscQuant, discquant, learned_macs, learned_state
from dse.numerics.learned_scale import has_learnable_scales, with_gains
from dse.numerics.neighbours import Neighbours, neighbours
from dse.numerics.output_range import output_range, output_range_macs
from dse.numerics.quantize import quantize
from dse.numerics.requantize import requantized, requantized_values
from dse.numerics.transforms import Transform, transform, transform_arguments

__all__ = [
    "ACCUMULATORS",
    "Accumulator",
    "DelayedScale",
    "DiscQuant",
    "Gradient",
    "Neighbours",
    "QuantizeError",
    "QuantizerState",
    "StateError",
    "Transform",
    "bias_correction",
    "calibrated_state",
    "damped",
    "discquant",
    "equalized",
    "gptq",
    "has_learnable_scales",
    "held_out_damping",
    "held_out_macs",
    "learned_macs",
    "learned_state",
    "load_states",
    "matmul",
    "neighbours",
    "output_range",
    "output_range_macs",
    "quantize",
    "quantize_with_gradient",
    "requantized",
    "requantized_values",
    "save_states",
    "smoothing_factors",
    "states_digest",
    "transform",
    "transform_arguments",
    "with_gains",
]
