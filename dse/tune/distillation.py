"""The training of a recipe: gradient steps on what its quantized network loses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dse.errors import RunError
from dse.evaluate.batches import Batch, batches
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.reference import References, RegressionReference, distance, references_of
from dse.execute.emulate import Emulator
from dse.execute.operators.step import Quantize
from dse.execute.program.program import TRACE_BYTES
from dse.execute.quantizers import with_emulators
from dse.numerics.precision import exact_float32
from dse.sensitivity.gradient import BACKWARD_FORWARDS
from dse.training.checkpoint import read_checkpoint, write_checkpoint
from dse.training.run import shape
from dse.tune.learner import Learner
from dse.zoo.split import Split

UNREACHED = (
    "no gradient reaches what is to be learned: the measured outputs depend on it only through "
    "operators that have none (rounding, comparisons, integers)"
)
Loss = Callable[[References, Mapping[str, Tensor]], Tensor]
"""The full-precision outputs of a batch and the quantized ones -> what is made smaller."""


def divergence(references: References, outputs: Mapping[str, Tensor]) -> Tensor:
    """The loss that a search measures, of one batch: a scalar, in nats per position."""
    return distance(references, outputs).losses.nanmean()


@dataclass(kw_only=True)
class Distillation:
    """A training in progress.

    Batches keep their samples and come in a new order every pass. The learning rate rises, then
    falls as a cosine; Adam's steps are shares of a weight's root mean square, and of scales.
    """

    evaluator: Evaluator
    """The model, and what of its outputs counts."""
    bound: Mapping[str, Quantize]
    """All that stands at sites of the recipe."""
    learners: Sequence[Learner]
    data: Split
    steps: int
    rate: float
    """Of the largest step, as a share of what is moved."""
    seed: int
    loss: Loss = divergence
    step: int = 0
    seconds: float = 0.0
    """Spent on steps so far."""
    macs: int = 0
    """Multiply-accumulates so far, a backward pass as two forwards."""
    _known: dict[int, References] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Makes the optimizer, and cuts the data into batches."""
        standing = {key: one for one in self.learners for key in one.operand.sites}
        self._standing = with_emulators(self.bound, standing)
        self._batches = list(batches(self.data, self.evaluator.batch, self.evaluator.device))
        unique = {id(one.tensor): one for learner in self.learners for one in learner.parameters()}
        self._parameters = tuple(unique.values())
        self._optimizer = torch.optim.Adam(
            [{"params": [one.tensor], "unit": one.unit} for one in self._parameters]
        )

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step >= self.steps

    def advance(self) -> float:
        """Takes one step; the loss of its batch before it.

        Raises:
            RunError: no gradient reaches what is to be learned, or the loss is no number.
        """
        begun = time.monotonic()
        number = self._number()
        batch = self._batches[number]
        references = self._references(number, batch)
        self._optimizer.zero_grad()
        with torch.enable_grad(), exact_float32(self.evaluator.program.device):
            execution = self.evaluator.program.run(batch.feeds, self._standing)
            loss = self.loss(references, execution.outputs)
            _check(loss, self.step)
            loss.backward()  # type: ignore[no-untyped-call]
        self._check_gradients(float(loss.detach()))
        self.macs += (1 + BACKWARD_FORWARDS) * execution.macs
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate * group["unit"] * shape(self.step, self.steps)
        self._optimizer.step()
        self.step += 1
        self.seconds += time.monotonic() - begun
        return float(loss.detach())

    def learned(self) -> dict[str, Emulator]:
        """The emulators with what was learned so far, by site."""
        found = {id(one): one.learned() for one in self.learners}
        return {key: found[id(one)] for one in self.learners for key in one.operand.sites}

    def save(self, path: Path, settings: Mapping[str, object]) -> None:
        """Writes a file for `resume`."""
        states = self._optimizer.state_dict()["state"]
        write_checkpoint(
            path,
            {
                "settings": settings,
                "step": self.step,
                "seconds": self.seconds,
                "macs": self.macs,
                "tensors": {str(n): one.tensor for n, one in enumerate(self._parameters)},
                "optimizer": {str(n): state for n, state in states.items()},
            },
        )

    def resume(self, path: Path, settings: Mapping[str, object]) -> None:
        """Goes on where one with the same settings was saved.

        Raises:
            RunError: no checkpoint of ours, or one of other settings.
        """
        kept = read_checkpoint(path)
        for key, value in settings.items():
            if kept["settings"].get(key) != value:
                raise RunError(
                    f"{path}: {key}: was begun with {kept['settings'].get(key)!r}, expected "
                    f"{value!r}; give the same options, or --replace to begin again"
                )
        self.step, self.seconds, self.macs = kept["step"], kept["seconds"], kept["macs"]
        with torch.no_grad():
            for number, one in enumerate(self._parameters):
                one.tensor.copy_(kept["tensors"][str(number)])
        content = self._optimizer.state_dict()
        content["state"] = {int(number): state for number, state in kept["optimizer"].items()}
        self._optimizer.load_state_dict(content)

    def _number(self) -> int:
        """The batch of the current step."""
        count = len(self._batches)
        turn, place = divmod(self.step, count)
        return int(np.random.default_rng([self.seed, turn]).permutation(count)[place])

    def _references(self, number: int, batch: Batch) -> References:
        """Full-precision outputs of a batch; kept where all of them are small."""
        if number in self._known:
            return self._known[number]
        with torch.inference_mode(False), torch.no_grad():
            execution = self.evaluator.program.run(batch.feeds)
            found = references_of(self.evaluator.task, execution.outputs, batch)
        self.macs += execution.macs
        for place, one in enumerate(found):
            if isinstance(one, RegressionReference):
                one.scale = self.evaluator.spread(place)
        size = sum(
            execution.outputs[one.output.value].nbytes for one in found
        )  # and as much again for probabilities
        if 2 * size * len(self._batches) <= TRACE_BYTES:
            self._known[number] = found
        return found

    def _check_gradients(self, loss: float) -> None:
        gradients = [one.tensor.grad for one in self._parameters]
        if loss and not any(one is not None and bool(one.any()) for one in gradients):
            raise RunError(UNREACHED)


def _check(loss: Tensor, step: int) -> None:
    """Raises where a loss leads nowhere."""
    if not loss.requires_grad:
        raise RunError(UNREACHED)
    if not math.isfinite(float(loss.detach())):
        raise RunError(
            f"the loss of step {step} is no number; lower --rate, or leave the recipe as it is"
        )
