"""The amount of work of an operator, to guess how long it will take."""

from __future__ import annotations

from dse.profile.plan import Operator
from hwmodels.operators.lower import op_kernels
from hwmodels.operators.number_type import NUMBER_TYPES

OPERATIONS_PER_BYTE = 100
"""A balance between processors and GPUs; only orders of magnitude matter."""


def work_size(operator: Operator) -> float:
    """Operations, and bytes in operations."""
    number = NUMBER_TYPES[operator.dtype]
    elements = (number.weight_element, number.input_element)
    kernels = op_kernels(operator.op, operator.shape, operator.dtype, elements, cold=True)
    return float(sum(2 * one.macs + OPERATIONS_PER_BYTE * one.bytes for one in kernels))


def weight_bytes(operator: Operator) -> int:
    """Bytes of the second operand."""
    number = NUMBER_TYPES[operator.dtype]
    elements = (number.weight_element, number.input_element)
    kernels = op_kernels(operator.op, operator.shape, operator.dtype, elements, cold=True)
    return sum(one.weight_bytes for one in kernels)
