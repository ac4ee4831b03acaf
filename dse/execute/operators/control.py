"""Control flow: operators whose attributes are graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from dse.execute.operators.operator import Operator, Value, operator


class Body(Protocol):
    """A compiled graph attribute; outer values that it reads are bound to it already."""

    def __call__(self, *inputs: Value) -> tuple[Value, ...]:
        """The body's outputs."""


def if_(condition: Tensor, *, then_branch: Body, else_branch: Body) -> tuple[Value, ...]:
    """The outputs of the branch that the condition chooses."""
    return then_branch() if bool(condition.item()) else else_branch()


def loop(
    trip_count: Tensor | None, condition: Tensor | None, *carried: Value, body: Body
) -> tuple[Value, ...]:
    """The carried values after the last iteration, then one stack of each scan output."""
    limit = None if trip_count is None else int(trip_count.item())
    alive = condition is None or bool(condition.item())
    state: tuple[Value, ...] = carried
    rows: list[tuple[Value, ...]] = []
    step = 0
    while alive and (limit is None or step < limit):
        going, *rest = body(torch.tensor(step), torch.tensor(True), *state)
        alive = not isinstance(going, Tensor) or bool(going.item())
        state = tuple(rest[: len(carried)])
        rows.append(tuple(rest[len(carried) :]))
        step += 1
    return (*state, *_stacked(rows))


def _stacked(rows: Sequence[tuple[Value, ...]]) -> list[Value]:
    columns = zip(*rows, strict=True)
    return [torch.stack([x for x in column if isinstance(x, Tensor)]) for column in columns]


def scan(
    *inputs: Tensor,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: tuple[int, ...] | None = None,
    scan_input_directions: tuple[int, ...] | None = None,
    scan_output_axes: tuple[int, ...] | None = None,
    scan_output_directions: tuple[int, ...] | None = None,
) -> tuple[Value, ...]:
    """The states after a pass over slices of the scan inputs, then the stacked scan outputs."""
    states: tuple[Value, ...] = inputs[: len(inputs) - num_scan_inputs]
    scanned = inputs[len(states) :]
    in_axes = scan_input_axes or (0,) * num_scan_inputs
    backward = scan_input_directions or (0,) * num_scan_inputs
    slices = [
        x.flip(axis).unbind(axis) if reverse else x.unbind(axis)
        for x, axis, reverse in zip(scanned, in_axes, backward, strict=True)
    ]
    count = len(states)
    rows: list[tuple[Value, ...]] = []
    for current in zip(*slices, strict=True):
        results = body(*states, *current)
        states = results[:count]
        rows.append(results[count:])
    outputs: list[Value] = []
    for index, column in enumerate(zip(*rows, strict=True)):
        axis = scan_output_axes[index] if scan_output_axes else 0
        stacked = torch.stack([x for x in column if isinstance(x, Tensor)], axis)
        reverse = scan_output_directions[index] if scan_output_directions else 0
        outputs.append(stacked.flip(axis) if reverse else stacked)
    return (*states, *outputs)


def scan_8(
    sequence_lens: Tensor | None, *inputs: Tensor, body: Body, num_scan_inputs: int,
    directions: tuple[int, ...] | None = None,
) -> tuple[Value, ...]:  # fmt: skip
    """Scan of opset 8: a leading batch axis, sequences along axis 1."""
    batches = [
        scan(
            *entries, body=body, num_scan_inputs=num_scan_inputs, scan_input_directions=directions
        )
        for entries in zip(*(x.unbind(0) for x in inputs), strict=True)
    ]
    return tuple(_stacked(batches))


def sequence_map(sequence: list[Tensor], *others: Value, body: Body) -> tuple[Value, ...]:
    """The body applied to each element (and to those of further sequences beside it)."""
    rows = [
        body(element, *(x[i] if isinstance(x, list) else x for x in others))
        for i, element in enumerate(sequence)
    ]
    return tuple(
        [x for x in column if isinstance(x, Tensor)] for column in zip(*rows, strict=True)
    )


OPERATORS: Mapping[str, Operator] = {
    "If": operator(if_, host=(0,)),
    "Loop": operator(loop, host=(0, 1)),
    "Scan": Operator(versions={8: scan_8, 9: scan}),
    "SequenceMap": operator(sequence_map),
}
