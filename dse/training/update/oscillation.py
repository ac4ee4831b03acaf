"""Weights that jump between two values of their grid while they hardly move, set back to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dse.training.at_site import AtSite
from dse.training.method import Oscillation
from dse.training.rounding import Draw, rounded


@dataclass(slots=True, kw_only=True, eq=False)
class _Watched:
    """A weight that is watched, and how far it and its rounded value have come."""

    weight: nn.Parameter
    at: AtSite
    before: dict[str, Tensor] = field(default_factory=dict)
    """`weight`, `value`: as they were after the step before; `moved`, `jumped`: sums of the
    magnitudes of their changes."""

    def value(self) -> Tensor:
        """The weight as the forward product multiplies it."""
        axes = tuple(range(1, self.weight.dim()))
        return rounded(self.weight, self.at.operand("weight", "fprop"), axes=axes, draw=Draw())

    def begin(self) -> None:
        """Counts from here."""
        zeros = torch.zeros_like(self.weight)
        self.before = {
            "weight": self.weight.clone(), "value": self.value(), "moved": zeros,
            "jumped": zeros.clone(),
        }  # fmt: skip

    def follow(self) -> None:
        """Adds the way since the step before."""
        value = self.value()
        self.before["moved"] += (self.weight - self.before["weight"]).abs()
        self.before["jumped"] += (value - self.before["value"]).abs()
        self.before |= {"weight": self.weight.clone(), "value": value}

    def set_back(self, ratio: float) -> int:
        """Puts weights whose values jumped so much farther than they moved onto their values."""
        moved, jumped = self.before["moved"], self.before["jumped"]
        swings = (jumped >= ratio * moved) & (moved > 0)
        self.weight.copy_(torch.where(swings, self.before["value"], self.weight))
        self.before = {}
        return int(swings.sum())


class Oscillations:
    """Watches weights for a time, again and again, and sets back those that oscillate.

    Source: OsciReset of TetraJet-v2, arXiv 2510.27527, in its code's form `distance_ratio`.
    """

    def __init__(
        self, settings: Oscillation, weights: Mapping[str, tuple[nn.Parameter, AtSite]]
    ) -> None:
        """From the first step on.

        Args:
            settings: How often, how long, and from which ratio on.
            weights: Parameters by name, with the site that multiplies each.
        """
        self._settings = settings
        self._watched = {
            name: _Watched(weight=weight, at=at) for name, (weight, at) in weights.items()
        }
        self._steps = 0

    @torch.no_grad()
    def observe(self) -> int:
        """Takes the weights after a step of the optimizer; how many were set back."""
        self._steps += 1
        phase = self._steps % self._settings.every
        found = 0
        for one in self._watched.values():
            if phase == 0:
                one.begin()
            elif one.before:
                one.follow()
                if phase == self._settings.window:
                    found += one.set_back(self._settings.ratio)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step needs."""
        kept = {name: one.before for name, one in self._watched.items()}
        return {"steps": self._steps, "watched": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where another one was."""
        self._steps = state["steps"]
        for name, one in self._watched.items():
            device = one.weight.device
            one.before = {key: x.to(device) for key, x in state["watched"][name].items()}
