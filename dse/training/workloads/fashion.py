"""Fashion-MNIST images that the zoo carries and a residual network: convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from dse.training.workloads.workload import Batch, Units, seeded
from dse.zoo.data import fashion
from dse.zoo.resnet import ResNet, ResNetConfig

BATCH = 64
PIECE = 250
"""Images that are evaluated together."""


@dataclass(frozen=True, kw_only=True)
class Fashion:
    """The zoo's 1,256 images for calibration and search; 1,000 for the report are held out."""

    name: str = "fashion-resnet"
    steps: int = 200
    rate: float = 3e-3
    sgd_rate: float = 0.05
    origin: str = "zoo:fashion-resnet"
    widths: tuple[int, ...] = (16, 32)

    @cached_property
    def _images(self) -> tuple[Tensor, Tensor]:
        parts = [fashion("calibration"), fashion("search")]
        inputs = torch.cat([torch.from_numpy(part.inputs["image"]) for part in parts])
        labels = torch.cat([torch.from_numpy(part.labels) for part in parts])
        return inputs, labels

    def model(self, seed: int) -> nn.Module:
        """The residual network of the zoo, narrower."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ResNet(ResNetConfig(widths=self.widths, blocks=1))

    def batch(self, seed: int, step: int) -> Batch:
        """Images drawn with replacement."""
        return self.batch_of(torch.arange(len(self._images[1])), seed, step)

    def units(self) -> Units:
        """Images by their class."""
        labels = self._images[1].long()
        return Units(groups=labels, sizes=torch.ones_like(labels))

    def batch_of(self, units: Tensor, seed: int, step: int) -> Batch:
        """The same from some of the images."""
        images, labels = self._images
        rows = units[torch.randint(len(units), (BATCH,), generator=seeded(seed, step))]
        return Batch(inputs=images[rows], labels=labels[rows])

    def held_out(self) -> list[Batch]:
        """The report split."""
        part = fashion("report")
        inputs, labels = torch.from_numpy(part.inputs["image"]), torch.from_numpy(part.labels)
        return [
            Batch(inputs=inputs[first : first + PIECE], labels=labels[first : first + PIECE])
            for first in range(0, len(inputs), PIECE)
        ]
