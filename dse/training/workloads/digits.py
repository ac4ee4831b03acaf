"""Handwritten digits and a small multilayer perceptron: seconds a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from dse.training.workloads.workload import Batch, Units, seeded

BATCH = 64
HELD_OUT = 5
"""Every so manieth image is held out."""
SPREAD = 16.0
"""Largest value of a pixel."""


@dataclass(frozen=True, kw_only=True)
class Digits:
    """scikit-learn's 1,797 images of 8 x 8 pixels; 64-128-128-10 with ReLU."""

    name: str = "digits-mlp"
    steps: int = 400
    rate: float = 3e-3
    sgd_rate: float = 0.05
    origin: str = "sklearn.datasets.load_digits"

    @cached_property
    def _images(self) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits  # noqa: PLC0415 (half a second)

        found = load_digits()
        images = torch.tensor(found.data, dtype=torch.float32) / SPREAD
        return images, torch.tensor(found.target, dtype=torch.int64)

    @cached_property
    def _seen(self) -> Tensor:
        rows = torch.arange(len(self._images[0]))
        return rows[rows % HELD_OUT != 0]

    def model(self, seed: int) -> nn.Module:
        """The perceptron."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
            )

    def batch(self, seed: int, step: int) -> Batch:
        """Images drawn with replacement."""
        return self.batch_of(torch.arange(len(self._seen)), seed, step)

    def units(self) -> Units:
        """Images by their digit."""
        labels = self._images[1][self._seen]
        return Units(groups=labels, sizes=torch.ones_like(labels))

    def batch_of(self, units: Tensor, seed: int, step: int) -> Batch:
        """The same from some of the images."""
        images, labels = self._images
        chosen = units[torch.randint(len(units), (BATCH,), generator=seeded(seed, step))]
        rows = self._seen[chosen]
        return Batch(inputs=images[rows], labels=labels[rows])

    def held_out(self) -> list[Batch]:
        """Every fifth image."""
        images, labels = self._images
        return [Batch(inputs=images[::HELD_OUT], labels=labels[::HELD_OUT])]
