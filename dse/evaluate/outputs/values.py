"""Outputs that graph, labels and names leave open, decided by the values of a first batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from dse.evaluate.outputs.output import Output
from dse.evaluate.outputs.task import Task
from dse.space.schema import OutputKind

NEAR_ONE = 1e-3
"""The largest distance of a sum of 16-bit probabilities from 1."""


def certain(task: Task, outputs: Mapping[str, Tensor]) -> Task:
    """The task with every output decided that its values can decide.

    Args:
        task: as graph, labels and names say.
        outputs: full-precision tensors of a batch.
    """
    settled = [
        one if one.certain else _settled(one, outputs[one.value].float()) for one in task.outputs
    ]
    return replace(task, outputs=tuple(settled))


def _settled(output: Output, x: Tensor) -> Output:
    single = x.dim() < 2 or x[0].numel() == 1
    found = _of_single(output, x) if single else _of_classes(output, x)
    if found is None:
        # What labels say stands; only what nothing says stays open.
        return replace(output, certain=output.kind != "regression")
    kind, reason = found
    return replace(output, kind=kind, reason=reason, certain=True)


def _of_single(output: Output, x: Tensor) -> tuple[OutputKind, str] | None:
    if output.kind == "binary" and bool(((x >= 0) & (x <= 1)).all()):
        return "probabilities", "one number in 0..1, labels of two classes"
    return None


def _of_classes(output: Output, x: Tensor) -> tuple[OutputKind, str] | None:
    rows = x.movedim(output.axis, -1).flatten(0, -2)
    rows = rows[~rows.isnan().any(dim=-1)]
    if not len(rows):
        return None
    if bool((rows >= 0).all()) and _near_one(rows.sum(dim=-1)):
        return "probabilities", "values are positive and sum to 1"
    if bool((rows <= NEAR_ONE).all()) and _near_one(rows.exp().sum(dim=-1)):
        return "log_probabilities", "exponentials of the values sum to 1"
    if bool(rows.isneginf().any()):
        return "logits", "some classes are -inf"
    return None


def _near_one(sums: Tensor) -> bool:
    return bool(torch.isclose(sums, torch.ones_like(sums), atol=NEAR_ONE, rtol=0).all())
