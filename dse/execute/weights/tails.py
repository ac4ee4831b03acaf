"""The ends of a distribution that comes in parts: its smallest and its largest values, exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

TAIL = 1 << 13
"""Values that are kept at each end: the 99.99th percentile of up to 80 million values is among
them, and both ends together take as much room as the sample beside them."""
CHUNK = 1 << 20
"""Values that are looked through at once: the largest of tens of millions are found with little
memory, since after the first chunk few lie beyond those that are known."""


class Tails:
    """The `TAIL` smallest and largest of all values seen, whatever the order of their parts."""

    def __init__(self) -> None:
        self.count = 0
        """Of all values seen."""
        self._lowest = torch.zeros(0)
        self._highest = torch.zeros(0)

    def see(self, flat: Tensor) -> None:
        """Takes in a part: (n,) float32 without NaN, n > 0."""
        self.count += flat.numel()
        self._lowest, self._highest = self._lowest.to(flat), self._highest.to(flat)
        for part in torch.split(flat, CHUNK):
            self._lowest = _extended(self._lowest, part, torch.lt, largest=False)
            self._highest = _extended(self._highest, part, torch.gt, largest=True)

    @property
    def lowest(self) -> Tensor:
        """(at most `TAIL`,) float32 on the host, the smallest first."""
        return self._lowest.sort().values.cpu()

    @property
    def highest(self) -> Tensor:
        """(at most `TAIL`,) float32 on the host, the largest first."""
        return self._highest.sort(descending=True).values.cpu()


def _extended(
    known: Tensor, part: Tensor, beyond: Callable[[Tensor, float], Tensor], *, largest: bool
) -> Tensor:
    if known.numel() == TAIL:
        edge = known.amin() if largest else known.amax()
        part = part[beyond(part, edge.item())]
        if not part.numel():
            return known
    together = torch.cat((known, part))
    if together.numel() <= TAIL:
        return together
    return torch.topk(together, TAIL, largest=largest, sorted=False).values


def weighted(sample: Tensor, lowest: Tensor, highest: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values that stand for `count` ones, and how many each stands for: (n,) float32 and float64.

    Those of the tails stand for themselves, those of the sample between them for the others.

    Args:
        sample: (m,) of all values; with m = count it is all of them.
        lowest: The smallest values, the smallest first.
        highest: As many largest ones, the largest first.
        count: Of all values.
    """
    ones = partial(torch.ones, dtype=torch.float64)
    if sample.numel() >= count:
        return sample, ones(sample.numel())
    if count <= len(lowest) + len(highest):
        everything = torch.cat((lowest, highest[: max(count - len(lowest), 0)]))
        return everything, ones(len(everything))
    edges = torch.stack((lowest[-1], highest[-1]))
    middle = sample[(sample >= edges[0]) & (sample <= edges[1])]
    # A sample that knows nothing between the tails leaves the bounds of what is there.
    middle = middle if middle.numel() else edges
    tails = torch.cat((lowest, highest))
    each = (count - len(tails)) / len(middle)
    return torch.cat((tails, middle)), torch.cat((ones(len(tails)), each * ones(len(middle))))
