"""One run of a method on a workload, with what a later piece goes on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dse.training.checkpoint import read_checkpoint, write_checkpoint
from dse.training.curvature import above_mean, mean_curvatures
from dse.training.method import Formats, Method
from dse.training.quantized import Quantized
from dse.training.roles import formats_of_parameter
from dse.training.rounds import Federation
from dse.training.stability import sharpness
from dse.training.stages import Stages
from dse.training.tuning.tuned import Tuned, check
from dse.training.update.loss_scale import Factor
from dse.training.update.optimizer import Optimizer, Step
from dse.training.update.oscillation import Oscillations
from dse.training.workloads.deal import dealt, shares
from dse.training.workloads.workload import (
    Batch,
    Divisible,
    Workload,
    outputs_divergence,
    outputs_loss,
)

WARM_UP, LAST = 0.05, 0.1
"""Share of steps in which the learning rate rises; share of its peak at the end of the cosine."""


@dataclass(slots=True, kw_only=True)
class Curve:
    """Numbers of every step."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    update_rms: list[float] = field(default_factory=list)
    spike: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    """Of the products that gates chose, over those of 32 by 32 bits; empty without gates."""
    density: list[float] = field(default_factory=list)
    """Share of weights that is left of layers that are pruned; empty without a tuning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A model on data that it has not seen."""

    loss: float
    """Nats a label."""
    accuracy: float
    sharpness: float
    """Mean over the last labels of all samples, percent (`stability.sharpness`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run that has ended."""

    seed: int
    steps: int
    diverged_at: int | None
    """Step at which something was no number; the last one where the model ended no better than it
    began; None: it trained."""
    first: HeldOut
    """Before the first step."""
    last: HeldOut | None
    """After the last step; None where the weights are no numbers."""
    skipped: int
    """Steps that the loss scale left out."""
    curve: Curve

    def as_dict(self) -> dict[str, Any]:
        """JSON, infinities and NaN as they are in Python's dialect."""
        return asdict(self)


def outcome_of(content: dict[str, Any]) -> Outcome:
    """The inverse of `Outcome.as_dict`."""
    last = content["last"]
    return Outcome(
        **{key: value for key, value in content.items() if key not in ("first", "last", "curve")},
        first=HeldOut(**content["first"]),
        last=None if last is None else HeldOut(**last),
        curve=Curve(**content["curve"]),
    )


class Run:
    """A run in progress."""

    def __init__(
        self,
        method: Method,
        workload: Workload,
        seed: int,
        *,
        steps: int,
        rate_factor: float = 1.0,
        device: str = "cpu",
    ) -> None:
        """A run at its first step.

        Args:
            method: Formats, optimizer, schedule.
            workload: Model and data.
            seed: Of both, and of random rounding.
            steps: Of the whole run.
            rate_factor: Multiple of the learning rate.
            device: The device of torch's that all of it is on.

        Raises:
            MethodError: a method that only the ledger of memory knows; data that cannot be dealt
                to its clients.
        """
        check(method.tuning)
        self.workload, self.seed, self.steps = workload, seed, steps
        self.step = 0
        self.curve = Curve()
        self._diverged_at: int | None = None
        self._skipped = 0
        self._method = method
        self._rate_factor = rate_factor
        self._device = torch.device(device)
        self._model = Quantized(workload.model(seed).to(self._device), method, seed=seed)
        if self._model.gates is not None:
            self._held_out()  # gates of a site are made where it first runs
        self._optimizer = self._optimizer_of(seed)
        self._factor = Factor.of(method.loss_scale)
        self._limits = self._gradient_limits()
        self._stages = Stages(method, steps=steps, seed=seed, curved=self._curved())
        self._restage(partial(self._stages.at, 0))
        self.first = self._held_out()
        self._oscillations = self._watched()
        rounds = method.rounds
        self._parts = () if rounds is None else dealt(workload, rounds, seed=seed)
        self._federation = self._federated()
        begins = 1.0 if method.tuning is None else method.tuning.begins
        self._tuning_from = round(begins * steps)
        if self._tuning_from == 0:
            self._freeze()

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step >= self.steps or self._diverged_at is not None

    def advance(self) -> None:
        """Takes one step; numbers that are none end the run."""
        update = self._method.update
        peak = self.workload.sgd_rate if update.optimizer == "sgd" else self.workload.rate
        peak = self._rate_factor * (update.learning_rate or peak)
        rate = peak * shape(self.step, self.steps)
        if self.step == self._tuning_from and self._model.tuned is None:
            self._freeze()
        self._restage(partial(self._stages.at, self.step))
        if self._federation is None:
            self._record([self._trained(self.step, self._optimizer, rate)])
        else:
            first = self.step * self._federation.count
            self._record(
                [
                    self._trained(first + number, optimizer, rate, client=number)
                    for number, optimizer in self._federation.clients()
                ]
            )
        self.step += 1

    def _trained(
        self, number: int, optimizer: Optimizer, rate: float, *, client: int = 0
    ) -> tuple[float, Step | None]:
        """The loss of a batch, and the optimizer's step on it; None where that is left out."""
        batch = self._batch(number, client).to(self._device)
        self._model.train()
        self._model.zero_grad(set_to_none=True)
        logits = self._model(batch.inputs)
        loss = outputs_loss(logits, batch.labels)
        wanted = self._taught(loss, logits, batch, number - self._tuning_from)
        if self._model.gates is not None:
            share = self._model.gates.share()
            self.curve.cost.append(float(share.detach()))
            wanted = wanted + self._model.gates.pressure(share)
        factor = self._factor.value
        (wanted * factor).backward()  # type: ignore[no-untyped-call]
        gradients = [one.grad for one in self._model.parameters() if one.grad is not None]
        finite = all(bool(torch.isfinite(one).all()) for one in gradients)
        taken = self._factor.after(finite=finite, saturated=self._saturated())
        value = float(loss.detach())
        if not math.isfinite(value):
            return value, None
        if not taken:
            self._skipped += 1
            return value, None
        kept = factor if self._factor.left_in_moments else 1.0
        for one in self._model.parameters():
            if one.grad is not None and kept != factor:
                one.grad.div_(factor)
        did = optimizer.step(rate, factor=kept)
        if self._model.tuned is not None:
            self._model.tuned.observe(number - self._tuning_from)
            self.curve.density.append(self._model.tuned.density)
        if self._oscillations is not None:
            self._oscillations.observe()
        return value, did

    def _taught(self, loss: Tensor, logits: Tensor, batch: Batch, step: int) -> Tensor:
        """The loss of a step of the tuning, with the part of a teacher where there is one."""
        tuned = self._model.tuned
        if tuned is None or not (share := tuned.share_taught(step)):
            return loss
        self._model.eval()  # what scales remember is of the passes that are trained
        with tuned.as_teacher():
            taught = self._model(batch.inputs)
        self._model.train()
        return (1 - share) * loss + share * outputs_divergence(logits, taught)

    def _batch(self, number: int, client: int) -> Batch:
        """Data of a step: from what the client was dealt, if any was."""
        if self._parts and isinstance(self.workload, Divisible):
            return self.workload.batch_of(self._parts[client], self.seed, number)
        return self.workload.batch(self.seed, number)

    def _record(self, found: Sequence[tuple[float, Step | None]]) -> None:
        """Writes down what happened in a step: means over clients."""
        loss = mean([one for one, _ in found])
        self.curve.loss.append(loss)
        self._stages.observe(loss)
        done = [did for _, did in found if did is not None]
        if not math.isfinite(loss):
            self._diverged_at = self.step
        elif done:
            self.curve.gradient_norm.append(mean([one.gradient_norm for one in done]))
            self.curve.update_rms.append(mean([one.update_rms for one in done]))
            self.curve.spike.append(mean([one.spike for one in done]))
            ends = self.curve.gradient_norm[-1], self.curve.update_rms[-1]
            if not all(math.isfinite(one) for one in ends):
                self._diverged_at = self.step

    def outcome(self) -> Outcome:
        """The end of it; only when `done`."""
        self._restage(self._stages.at_end)
        if self._federation is not None:
            self._federation.gather()
        last = self._held_out() if self._diverged_at is None else None
        diverged_at = self._diverged_at
        if last is not None and not last.loss < self.first.loss:
            diverged_at = self.steps
        return Outcome(
            seed=self.seed,
            steps=self.step,
            diverged_at=diverged_at,
            first=self.first,
            last=last if last is not None and math.isfinite(last.loss) else None,
            skipped=self._skipped,
            curve=self.curve,
        )

    def save(self, path: Path) -> None:
        """Writes a file for `resume`."""
        write_checkpoint(
            path,
            {
                "step": self.step,
                "skipped": self._skipped,
                "factor": self._factor.value,
                "quiet": self._factor.quiet,
                "curve": asdict(self.curve),
                "model": self._model.model.state_dict(),
                "calls": self._model.get_extra_state(),
                "gates": self._model.gates and self._model.gates.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "oscillations": self._oscillations and self._oscillations.state_dict(),
                "federation": self._federation and self._federation.state_dict(),
                "tuned": self._model.tuned and self._model.tuned.state_dict(),
            },
        )

    def resume(self, path: Path) -> None:
        """Goes on where a run of the same method, workload and seed was saved."""
        kept = read_checkpoint(path)
        self.step, self._skipped = kept["step"], kept["skipped"]
        self._factor.value, self._factor.quiet = kept["factor"], kept["quiet"]
        self.curve = Curve(**kept["curve"])
        for loss in self.curve.loss:
            self._stages.observe(loss)
        if kept["tuned"] is not None and self._model.tuned is None:
            self._freeze()
        if self._model.tuned is not None:
            self._model.tuned.load_state_dict(kept["tuned"])
        self._model.model.load_state_dict(kept["model"])
        self._model.set_extra_state(kept["calls"])
        if self._model.gates is not None:
            self._model.gates.load_state_dict(kept["gates"])
        self._optimizer.load_state_dict(kept["optimizer"])
        if self._oscillations is not None:
            self._oscillations.load_state_dict(kept["oscillations"])
        if self._federation is not None:
            self._federation.load_state_dict(kept["federation"])

    def _optimizer_of(self, seed: int) -> Optimizer:
        """A fresh optimizer on the model's parameters."""
        named = [*self._model.model.named_parameters()]
        if self._model.gates is not None:
            named += [(f"gates.{name}", one) for name, one in self._model.gates.named_parameters()]
        if self._model.tuned is not None:
            named += [
                (name.removeprefix("adapters.").replace("/", "."), one)
                for name, one in self._model.tuned.named_parameters()
            ]
        return Optimizer(named, self._method, blocks=self._model.blocks, seed=seed)

    def _freeze(self) -> None:
        """Begins the tuning: adapters are trained from here on, the weights are what they are."""
        assert self._method.tuning is not None
        for parameter in self._model.model.parameters():
            parameter.requires_grad_(False)
        self._model.tuned = Tuned(
            self._method.tuning, self._model.weights,
            steps=self.steps - self._tuning_from, seed=self.seed,
        )  # fmt: skip
        self._optimizer = self._optimizer_of(self.seed)

    def _federated(self) -> Federation | None:
        """The clients, where the method has some."""
        if self._method.rounds is None:
            return None
        return Federation(
            self._method.rounds,
            self._model.model,
            self._method,
            blocks=self._model.blocks,
            make=self._optimizer_of,
            seed=self.seed,
            shares=shares(self.workload, self._parts),
        )

    def _watched(self) -> Oscillations | None:
        """The watch on weights of sites, where the method asks for one."""
        if self._method.oscillation is None:
            return None
        named = dict(self._model.model.named_parameters())
        weights = {
            f"{name}.weight": (named[f"{name}.weight"], at)
            for name, at in self._model.sites.items()
            if f"{name}.weight" in named
        }
        return Oscillations(self._method.oscillation, weights)

    def _restage(self, stage_of: Callable[[str], Formats]) -> None:
        if self._method.schedule is not None:
            self._model.restage(stage_of)
            self._optimizer.restage(stage_of)

    def _curved(self) -> frozenset[str]:
        """Sites whose curvature at the start is above the mean, where the schedule asks for it."""
        schedule = self._method.schedule
        if schedule is None or schedule.kind != "hasb":
            return frozenset()
        batch = self.workload.batch(self.seed, 0).to(self._device)
        return above_mean(mean_curvatures(self._model.model, batch, seed=self.seed))

    @torch.no_grad()
    def _held_out(self) -> HeldOut:
        self._model.eval()
        found = [self._judged(batch.to(self._device)) for batch in self.workload.held_out()]
        losses, right, sharp = (torch.cat(parts) for parts in zip(*found, strict=True))
        return HeldOut(
            loss=float(losses.mean()),
            accuracy=float(right.double().mean()),
            sharpness=float(sharp.mean()),
        )

    def _judged(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Losses and hits of all labels, and sharpness at the last label of each sample."""
        logits = self._model(batch.inputs).double()
        flat, labels = logits.flatten(0, -2), batch.labels.flatten()
        losses = torch.nn.functional.cross_entropy(flat, labels, reduction="none")
        if batch.labels.dim() > 1:
            last = sharpness(logits[:, -1], batch.labels[:, -1])
        else:
            last = sharpness(logits, batch.labels)
        return losses, flat.argmax(-1) == labels, last

    def _gradient_limits(self) -> dict[str, float]:
        """The end of each weight gradient's format, where the loss scale watches it."""
        if self._method.loss_scale.kind != "auto_mu":
            return {}
        found = {}
        for name, parameter in self._model.model.named_parameters():
            formats = formats_of_parameter(self._method, name, self._model.blocks)
            quantizer = formats.operand("weight_gradient", "wgrad").quantizer
            if parameter.dim() > 1 and quantizer.format.scale is None:
                found[name] = quantizer.format.element.max
        return found

    def _saturated(self) -> float:
        """Share of weight gradients that are at the end of their format."""
        named = dict(self._model.model.named_parameters())
        grads = [(named[name].grad, limit) for name, limit in self._limits.items()]
        known = [(grad, limit) for grad, limit in grads if grad is not None]
        total = sum(grad.numel() for grad, _ in known)
        count = sum(int((grad.abs() >= limit).sum()) for grad, limit in known)
        return count / total if total else 0.0


def shape(step: int, steps: int) -> float:
    """The learning rate over its peak: a linear rise, then a cosine."""
    rise = max(round(WARM_UP * steps), 1)
    if step < rise:
        return (step + 1) / rise
    turn = (step - rise) / max(steps - rise, 1)
    return LAST + (1 - LAST) * (1 + math.cos(math.pi * turn)) / 2


def mean(values: Sequence[float]) -> float:
    """Mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan
