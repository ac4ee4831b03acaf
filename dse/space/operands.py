"""Site roles as the hardware models name operands."""

from __future__ import annotations

from collections.abc import Mapping

from dse.graph.ir.site import Role
from dse.space.problem import Choice
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.work import OperandName

OPERAND_OF_ROLE: Mapping[Role, OperandName] = {
    "weight": "weight",
    "activation": "input",
    "q": "q",
    "k_cache": "k",
    "v_cache": "v",
    "probabilities": "probabilities",
}


def operand_quantizers(choice: Choice) -> Mapping[OperandName, Quantizer]:
    """A choice's quantizers by operand."""
    return {OPERAND_OF_ROLE[role]: quantizer for role, quantizer in choice.quantizers.items()}
