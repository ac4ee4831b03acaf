"""Samples of a split: some of them, and the feeds of their batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.errors import DataError
from dse.zoo.split import Split


class Batch(NamedTuple):
    """Some samples of a split."""

    feeds: dict[str, Tensor]
    labels: Tensor | None
    samples: int


def head(split: Split, samples: int | None) -> Split:
    """The first samples of a split."""
    return split if samples is None else taken(split, slice(samples))


def taken(split: Split, rows: slice | Sequence[int] | NDArray[np.int64]) -> Split:
    """Some samples of a split."""
    return replace(
        split,
        inputs={name: values[rows] for name, values in split.inputs.items()},
        labels=None if split.labels is None else split.labels[rows],
    )


@dataclass(frozen=True)
class Feeds:
    """The feeds of a split, batch by batch, as often as they are asked for."""

    split: Split
    size: int
    device: str

    def __call__(self) -> Iterator[dict[str, Tensor]]:
        """One pass over the split."""
        return (batch.feeds for batch in batches(self.split, self.size, self.device))


def batches(split: Split, size: int, device: str) -> Iterator[Batch]:
    """Feeds and labels of a split, `size` samples at a time; the last batch may be smaller.

    Raises:
        DataError: samples of one batch differ in an input that has one value a batch.
    """
    count = split.samples
    for start in range(0, count, size):
        rows = slice(start, start + size)
        feeds = {
            name: _fed(name, values[rows], split.axes.get(name, 0)).to(device)
            for name, values in split.inputs.items()
        }
        labels = None
        if split.labels is not None:
            labels = torch.from_numpy(np.ascontiguousarray(split.labels[rows])).to(device)
            labels = labels if labels.is_floating_point() else labels.long()
        yield Batch(feeds, labels, min(size, count - start))


def per_sample(values: Tensor, kept: Tensor | None) -> Tensor:
    """(samples, ...) -> (samples,): the mean of the positions that count, on the CPU.

    Args:
        values: one a position.
        kept: which positions count; None: all. A sample without any is NaN.
    """
    if kept is not None:
        values = torch.where(kept, values, math.nan)
    if values.dim() == 1:
        return values.cpu()
    rows = values.flatten(1)
    return (rows.mean(dim=1) if kept is None else rows.nanmean(dim=1)).cpu()


def _fed(name: str, values: NDArray[Any], axis: int | None) -> Tensor:
    """Samples as the graph takes them."""
    if axis is None:
        if not (values == values[:1]).all():
            raise DataError(
                f"input {name}: has one value for all samples of a batch, and the samples have "
                "different ones; give them one at a time (data: batch: 1)"
            )
        return torch.from_numpy(np.array(values[0]))
    if axis:
        values = np.ascontiguousarray(np.moveaxis(values, 0, axis))
    return torch.from_numpy(values)
