"""Ranges of static activations that a space leaves open: one word for a whole network."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from dse.space.problem import Choice, Point, Problem
from hwmodels.errors import FormatError, HardwareError
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Statistic

TRIED = ("absmax", "mse", "percentile99.999")
"""Words that a drafted space offers: none is best everywhere (`studies/vision_recipes`)."""
ROLE = "activation"
UNROUNDED = 32.0
"""Bits of a weight that a choice leaves as it is."""
_WITHOUT = ("auto", "output_mse", "learned")
"""Statistics that are no range of an activation."""


def check_range(word: str) -> None:
    """Refuses what is no range of a static activation.

    Raises:
        FormatError: another statistic, or a word that means something else.
    """
    known = [name for name in get_args(Statistic) if name not in (*_WITHOUT, "percentile")]
    expected = f"expected {', '.join(known)} or a percentile (percentile99.999)"
    try:
        found = catalog.quantizer(f"uint8:static:{word}")
    except HardwareError as error:
        raise FormatError(f"{word!r} is no range: {expected}") from error
    plain = catalog.quantizer("uint8:static")
    same = found.replaced(statistic=plain.statistic, percentile=plain.percentile) == plain
    if not same or found.statistic in _WITHOUT:
        raise FormatError(f"{word!r} is no range: {expected}")


def takes_range(choice: Choice) -> bool:
    """Whether a choice rounds activations to integers on a static range that it does not name."""
    found = choice.quantizers.get(ROLE)
    if found is None:
        return False
    scaled = found.format.scale is not None and found.format.element.kind == "int"
    return scaled and found.timing == "static" and found.statistic == "auto"


def with_range(choice: Choice, word: str) -> Choice:
    """The choice with a range for the activations whose own it does not name."""
    if not takes_range(choice):
        return choice
    said = catalog.quantizer(f"uint8:static:{word}")
    changed = choice.quantizers[ROLE].replaced(
        statistic=said.statistic, percentile=said.percentile
    )
    return replace(choice, quantizers={**choice.quantizers, ROLE: changed})


def widest(problem: Problem, ranges: Problem) -> Point:
    """The uniform assignment that ranges are compared in: of the widest weights that have them.

    Args:
        problem: whose ranges are named.
        ranges: the same problem under another range; what differs between them has ranges.
    """
    points = [*problem.uniforms.values()]
    moved = [point for point in points if problem.assignment(point) != ranges.assignment(point)]
    return max(moved or points, key=lambda point: _bits(problem, point))


def _bits(problem: Problem, point: Point) -> float:
    """Bits an element of the weights of a point, summed over its variables."""
    weights = [
        variable.choices[index].quantizers.get("weight")
        for variable, index in zip(problem.variables, point, strict=True)
        if not variable.is_hardware
    ]
    return sum(UNROUNDED if one is None else one.format.bits_per_element for one in weights)
