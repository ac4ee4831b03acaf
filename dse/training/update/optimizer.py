"""The optimizer: moments in their formats, and how an update reaches the weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dse.training.method import Formats, Method, Operand
from dse.training.roles import UNSTAGED, formats_of_parameter
from dse.training.rounding import Draw, quantizer_of, rounded
from dse.training.update.direction import RULES, Moments

FULL = Operand(format="fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The size of a step."""

    gradient_norm: float
    """Of all parameters, before it was cut."""
    update_rms: float
    """Root mean square of all directions, before the learning rate."""
    spike: float
    """The largest one of any parameter (`Direction.spike`)."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot:
    """A parameter, its formats and its moments."""

    name: str
    parameter: nn.Parameter
    master: Operand
    first: Operand
    second: Operand
    moments: Moments
    compensation: Tensor | None


class Optimizer:
    """The step of a method over named parameters."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        method: Method,
        *,
        blocks: int = 0,
        seed: int = 0,
    ) -> None:
        """Weights are rounded to the format that they are kept in.

        Args:
            parameters: Names and parameters, whose values are changed in place.
            method: Its roles of the optimizer and its update.
            blocks: Blocks of the model, for rules that count them.
            seed: Of stochastic rounding.
        """
        self.method = method
        self._seed = seed
        self._blocks = blocks
        self._steps = 0
        self._slots = [self._slot(name, one) for name, one in parameters if one.requires_grad]
        self.restage(lambda _: UNSTAGED)

    def _slot(self, name: str, parameter: nn.Parameter) -> _Slot:
        values = parameter.detach()
        kahan = self.method.update.mode == "kahan"
        return _Slot(
            name=name, parameter=parameter, master=FULL, first=FULL, second=FULL,
            moments=Moments(m=torch.zeros_like(values), v=torch.zeros_like(values)),
            compensation=torch.zeros_like(values) if kahan else None,
        )  # fmt: skip

    @torch.no_grad()
    def restage(self, stage_of: Callable[[str], Formats]) -> None:
        """Takes the formats of a schedule's stage, and rounds weights to those they are kept in.

        Args:
            stage_of: Formats by name of the module that a parameter belongs to.
        """
        for slot in self._slots:
            stage = stage_of(slot.name.rpartition(".")[0])
            formats = formats_of_parameter(self.method, slot.name, self._blocks, stage=stage)
            small = slot.parameter.numel() < self.method.update.states_from
            slot.first, slot.second = (
                FULL if small else formats.operand(role, "update")
                for role in ("optimizer_m", "optimizer_v")
            )
            master = formats.operand("master_weight", "update")
            if master != slot.master:
                slot.master = master
                slot.parameter.copy_(self._round(slot.parameter, master, slot, "start"))

    @torch.no_grad()
    def step(self, rate: float, *, factor: float = 1.0) -> Step:
        """Changes the parameters by their `grad`.

        Args:
            rate: Learning rate.
            factor: Of the loss, where it is still in the gradients (`compound`).
        """
        self._steps += 1
        update = self.method.update
        squares = sum(float(_gradient(slot).square().sum()) for slot in self._slots)
        norm = squares**0.5
        limit = update.clip_norm * factor
        cut = limit / norm if 0 < limit < norm else 1.0
        total, count, spike = 0.0, 0, 0.0
        for slot in self._slots:
            found = RULES[update.optimizer](
                _gradient(slot) * cut, slot.moments, update, update.epsilon * factor
            )
            slot.moments = replace(
                found.moments,
                m=self._kept(found.moments.m, slot.first, slot, "m"),
                v=self._kept(found.moments.v, slot.second, slot, "v"),
            )
            decay = update.weight_decay if slot.parameter.dim() > 1 else 0.0
            self._apply(slot, -rate * (found.value + decay * slot.parameter))
            total += float(found.value.square().sum())
            count += found.value.numel()
            spike = max(spike, found.spike)
        return Step(
            gradient_norm=norm / factor, update_rms=(total / max(count, 1)) ** 0.5, spike=spike
        )

    def _apply(self, slot: _Slot, change: Tensor) -> None:
        """Adds a change to the weights that are kept."""
        weight = slot.parameter
        if slot.compensation is None:
            weight.copy_(self._round(weight + change, slot.master, slot, "w"))
            return
        # Kahan's sum, every operation rounded (arXiv 2010.06192, algorithm 1).
        wanted = self._round(change - slot.compensation, slot.master, slot, "y")
        new = self._round(weight + wanted, slot.master, slot, "w")
        moved = self._round(new - weight, slot.master, slot, "d")
        slot.compensation = self._round(moved - wanted, slot.master, slot, "c")
        weight.copy_(new)

    def _round(self, x: Tensor, operand: Operand, slot: _Slot, what: str) -> Tensor:
        """Weights as they are kept; stochastically where the method says so."""
        if operand.is_wide:
            return x
        if self.method.update.mode == "stochastic" and what == "w":
            quantizer = quantizer_of(operand)
            operand = replace(operand, format=quantizer.replaced(rounding="stochastic").name)
        return rounded(x, operand, axes=(-1,), draw=self._draw(slot, what))

    def _kept(self, x: Tensor, operand: Operand, slot: _Slot, what: str) -> Tensor:
        """Moments as they are kept: blocks of a codebook run over the whole tensor."""
        if operand.is_wide:
            return x
        flat = rounded(x.reshape(-1), operand, axes=(0,), draw=self._draw(slot, what))
        return flat.reshape(x.shape)

    def _draw(self, slot: _Slot, what: str) -> Draw:
        text = f"{self._seed} {self._steps} {slot.name} {what}"
        return Draw(rounding=zlib.crc32(text.encode()))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs, beside the parameters."""
        return {
            "steps": self._steps,
            "slots": {
                slot.name: asdict(slot.moments) | {"compensation": slot.compensation}
                for slot in self._slots
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where another one was."""
        self._steps = state["steps"]
        for slot in self._slots:
            device = slot.parameter.device
            kept: dict[str, Any] = {
                key: value.to(device) if isinstance(value, Tensor) else value
                for key, value in state["slots"][slot.name].items()
            }
            slot.compensation = kept.pop("compensation")
            slot.moments = Moments(**kept)


def _gradient(slot: _Slot) -> Tensor:
    gradient = slot.parameter.grad
    return torch.zeros_like(slot.parameter) if gradient is None else gradient
