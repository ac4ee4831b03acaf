"""Steps executed one after the other on numbered values."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dse.errors import GraphError
from dse.execute.operators.operator import Value
from dse.execute.operators.step import ABSENT, Step
from dse.execute.program.copy import copied
from dse.execute.program.hooks import Hooks

Record = Callable[[Step, tuple[Value, ...], tuple[Value, ...], int], None]
"""Told of each executed step: its arguments, its outputs and the MACs that it spent."""


def run_steps(
    steps: Iterable[Step],
    frees: Iterable[tuple[int, ...]],
    values: list[Value],
    *,
    hooks: Hooks | None = None,
    record: Record | None = None,
) -> int:
    """Executes the steps on the values in place; the MACs spent.

    Raises:
        GraphError: torch refuses the values; the message names the node and what it was given.
    """
    macs = 0
    for step, free in zip(steps, frees, strict=True):
        arguments = tuple([values[slot] for slot in step.inputs])
        hook = None if hooks is None else hooks.at(step)
        if hooks is not None and hook is not None:
            entered = hooks.entered(step, hook, arguments)
            arguments = hooks.arguments(step, hook, arguments)
            outputs, spent = call_step(entered, arguments)
        else:
            outputs, spent = call_step(step, arguments)
        if hook is not None and hook.outputs:
            outputs = hook.written(outputs)
        if hooks is not None:
            hooks.made(step, arguments, outputs)
        macs += spent
        for slot, value in zip(step.outputs, outputs, strict=False):
            if slot != ABSENT:
                values[slot] = value
        if record is not None:
            record(step, arguments, outputs, spent)
        for slot in free:
            values[slot] = None
    return macs


def call_step(step: Step, arguments: tuple[Value, ...]) -> tuple[tuple[Value, ...], int]:
    """The outputs of one step and the MACs spent; constants that it streams are copied first."""
    if step.streamed:
        arguments = tuple(
            copied(value, step.device)
            if place in step.streamed and isinstance(value, Tensor) else value
            for place, value in enumerate(arguments)
        )  # fmt: skip
    try:
        result = step.call(*arguments)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise _explained(step, arguments, error) from error
    inner = 0
    if step.nested:
        result, inner = result  # type: ignore[misc]
    outputs: tuple[Value, ...] = result if isinstance(result, tuple) else (result,)
    if step.macs is not None:
        inner += step.macs(arguments, outputs)
    return outputs, inner


def _explained(step: Step, arguments: tuple[Value, ...], error: Exception) -> GraphError:
    if isinstance(error, GraphError):
        return error if step.name in str(error) else GraphError(f"{step.name}: {error}")
    given = ", ".join(
        f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" if isinstance(x, Tensor)
        else type(x).__name__
        for x in arguments
    )  # fmt: skip
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return GraphError(f"{step.name} ({step.what}) cannot be executed on ({given}): {reason}")
