"""A choice's quantizers as the hardware models name operands."""

from __future__ import annotations

from collections.abc import Mapping

from dse.graph.ir.site import SUM_ROLE
from dse.space.problem import Choice
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES
from hwmodels.work.work import OperandName


def operand_quantizers(choice: Choice) -> Mapping[OperandName, Quantizer]:
    """A choice's quantizers by operand of the forward product, and its accumulator.

    Tensors between products follow: prices know that from the runtime.
    """
    return {
        ROLES[role].operands["fprop"]: quantizer
        for role, quantizer in choice.quantizers.items()
        if ROLES[role].is_searched or role == SUM_ROLE
    }
