"""The seam of workloads: a model, batches in a fixed order, a loss, what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples of one step."""

    inputs: Tensor
    labels: Tensor
    """Classes (samples), or next tokens (samples, sequence)."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(inputs=self.inputs.to(device), labels=self.labels.to(device))


class Workload(Protocol):
    """A network and its training, the same for every method.

    Laws, which `tests/contracts/test_workloads.py` holds every entry to:

    1. Two models of one seed have equal parameters; two of different seeds have not, unless all
       begin from weights that somebody else has trained.
    2. A batch depends on seed and step alone, so that methods see the same data in the same order
       and a run that goes on sees what it would have seen.
    3. What is held out is the same for all seeds, and the model's loss on it is finite at first.
    """

    @property
    def name(self) -> str:
        """The name that people write."""

    @property
    def steps(self) -> int:
        """Steps of a run where nobody says otherwise."""

    @property
    def rate(self) -> float:
        """Peak of the learning rate for optimizers of Adam's kind."""

    @property
    def sgd_rate(self) -> float:
        """The same for `sgd`."""

    @property
    def origin(self) -> str:
        """Digest or version of the data: runs on other data are not compared."""

    def model(self, seed: int) -> nn.Module:
        """A model with initial weights of a seed, in float32."""

    def batch(self, seed: int, step: int) -> Batch:
        """Data of a step, counted from 0."""

    def held_out(self) -> list[Batch]:
        """Batches that no step sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Training data in the pieces that are dealt to clients."""

    groups: Tensor
    """(units), int64: units of a group are alike: of one label, of one package."""
    sizes: Tensor
    """(units), int64: samples, or tokens of text."""


@runtime_checkable
class Divisible(Protocol):
    """A workload whose training data can be dealt to clients (`deal.dealt`).

    Law: batches of units that share none have no sample in common; batches of all units are those
    of the workload.
    """

    def units(self) -> Units:
        """The pieces, always in the same order."""

    def batch_of(self, units: Tensor, seed: int, step: int) -> Batch:
        """Data of a step from some units alone: their numbers (some), rising."""


def outputs_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy in nats of logits (..., classes) and labels (...)."""
    return functional.cross_entropy(logits.flatten(0, -2).float(), labels.flatten())


def outputs_divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """Mean divergence in nats of logits (..., classes) from those of a teacher."""
    ours, theirs = (x.flatten(0, -2).float().log_softmax(-1) for x in (logits, taught))
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def seeded(seed: int, step: int) -> torch.Generator:
    """A generator of a seed and step, apart from those of neighbours."""
    return torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
