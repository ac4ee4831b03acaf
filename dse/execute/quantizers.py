"""An assignment as everything that stands at sites: emulators, and corrections of means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from dse.execute.accumulate import named_sums
from dse.execute.emulate import Tied, emulators
from dse.execute.operators.step import Quantize
from dse.execute.weights.calibrate import Calibration
from dse.execute.weights.learn import WeightStates
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Adds a correction to a bias or to an output; equal only where the correction is the same."""

    shift: Tensor
    then: Quantize | None = None
    """The quantizer of the sum."""

    def __call__(self, x: Tensor) -> Tensor:
        """X with the correction."""
        corrected = x + self.shift.to(x.dtype)
        return corrected if self.then is None else self.then(corrected)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shift) and self.shift is other.shift and self.then == other.then

    def __hash__(self) -> int:
        return hash((id(self.shift), self.then))


def corrections(assignment: Assignment, weights: WeightStates) -> dict[str, Shift]:
    """Shifts that put the means of outputs back, by the site where they are added.

    That is the node's own bias where it has a constant one, else its output.
    """
    found: dict[str, Shift] = {}
    for key, quantizer in assignment:
        state, product = weights.state(key, quantizer), weights.product(key)
        if state is None or product is None or state.output_shift is None:
            continue
        if product.bias is not None:
            found[product.bias] = Shift(shift=state.output_shift)
        else:
            shift = product.along_outputs(state.output_shift)
            found[f"{product.node.name}/out0"] = Shift(shift=shift)
    return found


def with_emulators(
    bound: Mapping[str, Quantize], others: Mapping[str, Quantize]
) -> dict[str, Quantize]:
    """Everything that stands at sites, with others in place of some emulators.

    A look-up whose table is the weight of one of them reads its new values.
    """
    renewed = {id(bound[key]): other for key, other in others.items()}
    found = {**bound, **others}
    for key, quantize in bound.items():
        if isinstance(quantize, Tied) and id(quantize.product) in renewed:
            found[key] = replace(quantize, product=renewed[id(quantize.product)])
    return found


def bound(
    assignment: Assignment,
    sites: Mapping[str, Site],
    calibration: Calibration,
    weights: WeightStates,
) -> dict[str, Quantize]:
    """Everything that stands at sites under an assignment: emulators, corrections and sums.

    Raises:
        AssignmentError: as `emulators`, or a product that cannot take its accumulator.
    """
    sums = assignment.sums
    assignment = weights.settled(assignment.without_sums)
    weights.prepare(assignment)
    tied = weights.tied(assignment)
    given = assignment.replaced(dict.fromkeys(tied))
    own = emulators(given, sites, calibration, weights)
    found: dict[str, Quantize] = {**own}
    for key, reader in tied.items():
        found[key] = Tied(product=own[reader.site.key], turned=reader.turned)
    for key, shift in corrections(given, weights).items():
        found[key] = replace(shift, then=found.get(key))
    return {**found, **named_sums(weights.nodes, found, sums)} if sums else found
