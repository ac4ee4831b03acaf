"""Accumulators of choices: where they hold, and why not elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from dse.graph.ir.site import SUM_ROLE
from dse.space.problem import Choice
from hwmodels.errors import FormatError
from hwmodels.formats.accumulator import SumQuantizer, split_sum
from hwmodels.formats.catalog import is_scheme
from hwmodels.formats.quantizer import Quantizer

PRODUCTS = (("activation", "weight"), ("q", "k_cache"), ("probabilities", "v_cache"))
"""The roles that are multiplied with each other."""
SLICES = ("tensor", "channel", "token", "head")


def with_sum(choice: Choice, total: SumQuantizer) -> Choice:
    """A choice whose products are summed so.

    Raises:
        FormatError: none of its products could be.
    """
    found = replace(choice, quantizers={**choice.quantizers, SUM_ROLE: total})
    reasons = [refusal(found, "", roles) for roles in PRODUCTS]
    if all(reasons):
        raise FormatError(f"{choice.name}: accumulator {total.name}: {reasons[0]}")
    return found


def summed(choice: Choice, kind: str, roles: Collection[str]) -> Choice:
    """The choice in a region of such operands: without its accumulator where none can be.

    A scheme speaks of products with a weight.
    """
    if SUM_ROLE not in choice.quantizers or refusal(choice, kind, roles) is None:
        return choice
    kept = {role: one for role, one in choice.quantizers.items() if role != SUM_ROLE}
    return replace(choice, quantizers=kept)


def refusal(choice: Choice, kind: str, roles: Collection[str]) -> str | None:
    """The reason why products of these operands keep their own sums; None where they don't.

    Args:
        choice: with an accumulator.
        kind: of the region (`conv2d`, ...), where its windows share one scale.
        roles: of its operands.
    """
    total = choice.quantizers[SUM_ROLE]
    assert isinstance(total, SumQuantizer), "the role holds nothing else"
    if is_scheme(split_sum(choice.name)[0]) and "weight" not in roles:
        return "a scheme speaks of products with a weight"
    if total.accumulator.kind != "integer":
        return None
    for role in (role for pair in PRODUCTS for role in pair if role in roles):
        found = choice.quantizers.get(role)
        if found is None or found.format.element.kind not in ("int", "fixed"):
            name = "in 16 bits" if found is None else found.name
            return f"integers are added where both operands are integers, and its {role} is {name}"
        if not _is_whole(found, kind if role == "activation" else ""):
            return (
                f"codes are added where scales are those of whole slices, and those of its {role} "
                f"({found.name}) are not"
            )
    return None


def _is_whole(quantizer: Quantizer, kind: str) -> bool:
    """Whether the scales of an operand are constant along the contraction."""
    slices = ("tensor",) if kind == "conv2d" else SLICES
    format = quantizer.format
    whole = format.granularity in slices and format.tensor_scale is None
    return whole and not quantizer.transforms
