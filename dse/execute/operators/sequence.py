"""Sequences of tensors and optional values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dse.execute.operators.operator import Operator, Value, operator


def sequence_construct(*tensors: Tensor) -> list[Tensor]:
    """The tensors as a sequence."""
    return list(tensors)


def sequence_empty(*, dtype: int = 1) -> list[Tensor]:
    """A sequence without elements."""
    return []


def sequence_at(sequence: list[Tensor], position: Tensor) -> Tensor:
    """The element at a position, counted from the end where negative."""
    return sequence[int(position.item())]


def sequence_insert(
    sequence: list[Tensor], element: Tensor, position: Tensor | None = None
) -> list[Tensor]:
    """A copy with an element before a position, at the end by default."""
    index = len(sequence) if position is None else int(position.item())
    copy = list(sequence)
    copy.insert(index, element)
    return copy


def sequence_erase(sequence: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    """A copy without the element at a position, the last by default."""
    index = -1 if position is None else int(position.item())
    copy = list(sequence)
    del copy[index]
    return copy


def sequence_length(sequence: list[Tensor]) -> Tensor:
    """The number of elements."""
    return torch.tensor(len(sequence), dtype=torch.int64)


def split_to_sequence(
    x: Tensor, split: Tensor | None = None, *, axis: int = 0, keepdims: int = 1
) -> list[Tensor]:
    """Pieces along an axis: of one size, of given sizes, or single slices."""
    if split is None:
        pieces = torch.split(x, 1, axis)
        return list(pieces) if keepdims else [piece.squeeze(axis) for piece in pieces]
    return list(torch.split(x, split.tolist(), axis))


def concat_from_sequence(sequence: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    """The elements one after the other along an axis, which may be new."""
    return torch.stack(sequence, axis) if new_axis else torch.cat(sequence, axis)


def optional(value: Value = None, *, type: object = None) -> Value:
    """The value as an optional, or an empty one."""
    return value


def optional_has_element(value: Value = None) -> Tensor:
    """Whether the optional holds a value."""
    return torch.tensor(value is not None)


def optional_get_element(value: Value) -> Value:
    """The value of the optional.

    Raises:
        ValueError: it holds none.
    """
    if value is None:
        raise ValueError("OptionalGetElement: the optional is empty")
    return value


OPERATORS: Mapping[str, Operator] = {
    "ConcatFromSequence": operator(concat_from_sequence),
    "Optional": operator(optional),
    "OptionalGetElement": operator(optional_get_element),
    "OptionalHasElement": operator(optional_has_element),
    "SequenceAt": operator(sequence_at, host=(1,)),
    "SequenceConstruct": operator(sequence_construct),
    "SequenceEmpty": operator(sequence_empty),
    "SequenceErase": operator(sequence_erase, host=(1,)),
    "SequenceInsert": operator(sequence_insert, host=(2,)),
    "SequenceLength": operator(sequence_length),
    "SplitToSequence": operator(split_to_sequence, host=(1,)),
}
