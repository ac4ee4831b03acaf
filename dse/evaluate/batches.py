"""Samples of a split: some of them, and the feeds of their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.zoo.split import Split


def head(split: Split, samples: int | None) -> Split:
    """The first samples of a split."""
    return split if samples is None else taken(split, slice(samples))


def taken(split: Split, rows: slice | Sequence[int] | NDArray[np.int64]) -> Split:
    """Some samples of a split."""
    return Split(
        inputs={name: values[rows] for name, values in split.inputs.items()},
        labels=None if split.labels is None else split.labels[rows],
        kind=split.kind,
    )


@dataclass(frozen=True)
class Feeds:
    """The feeds of a split, batch by batch, as often as they are asked for."""

    split: Split
    size: int
    device: str

    def __call__(self) -> Iterator[dict[str, Tensor]]:
        """One pass over the split."""
        return (feeds for feeds, _ in batches(self.split, self.size, self.device))


def batches(
    split: Split, size: int, device: str
) -> Iterator[tuple[dict[str, Tensor], Tensor | None]]:
    """Feeds and labels of a split, `size` samples at a time; the last batch may be smaller."""
    count = len(next(iter(split.inputs.values())))
    for start in range(0, count, size):
        rows = slice(start, start + size)
        feeds = {
            name: torch.from_numpy(values[rows]).to(device)
            for name, values in split.inputs.items()
        }
        labels = None
        if split.labels is not None:
            labels = torch.from_numpy(split.labels[rows]).long().to(device)
        yield feeds, labels
