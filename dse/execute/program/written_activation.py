"""Activations that are written out, as one kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from dse.execute.operators.operator import Value
from dse.execute.operators.step import Step
from dse.execute.program.run import call_step
from dse.execute.program.wiring import Fusion, Wiring, chain
from dse.graph.patterns.pointwise import Pointwise

KERNELS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}
RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""The loss of float32 in a chain of ten operations; GELU and its tanh form differ by 5e-4."""


def activation_chain(wiring: Wiring, found: Pointwise) -> Fusion | None:
    """The kernel that computes what the nodes of an activation do.

    They make one value of one other with numbers alone, so they are a function of numbers, and
    samples of it say which: products in any order, halves before or after, one rule for all.
    """
    steps = [wiring.by_name.get(node.name) for node in found.nodes]
    members = [step for step in steps if step is not None]
    if len(members) < len(steps):
        return None
    x = wiring.slots[found.inputs[0]]
    made = _applied(wiring, members, x)
    what = next((name for name in KERNELS if _is(made, name)), None)
    return chain(wiring, members, (x,), KERNELS[what], what=what) if what else None


@cache
def _samples() -> Tensor:
    return torch.linspace(-12, 12, 1537)


def _applied(wiring: Wiring, members: list[Step], x: int) -> Value:
    """The samples after the steps; None where these need more than numbers."""
    values: dict[int, Value] = {x: _samples()}
    for step in members:
        for slot in step.inputs:
            number = wiring.constants.get(slot)
            # A number with axes of its own may add axes to what it meets.
            if slot not in values and isinstance(number, Tensor) and number.dim() <= 1:
                values[slot] = number
        if any(slot not in values for slot in step.inputs):
            return None
        with torch.no_grad():
            outputs, _ = call_step(step, tuple(values[slot] for slot in step.inputs))
        values.update(zip(step.outputs, outputs, strict=False))
    return values[members[-1].outputs[0]]


def _is(made: Value, name: str) -> bool:
    expected = KERNELS[name](_samples())
    return (
        isinstance(made, Tensor)
        and made.dtype == expected.dtype
        and torch.allclose(made, expected, rtol=RELATIVE, atol=ABSOLUTE)
    )
