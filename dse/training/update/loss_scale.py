"""The factor of the loss, step after step."""

from __future__ import annotations

from dataclasses import dataclass

from dse.training.method import LossScale

DOWN, UP = 0.5, 2.0
"""Multiples of the factor after trouble, and after a time without."""


@dataclass(slots=True, kw_only=True)
class Factor:
    """The factor as it stands; `settings` say how it moves."""

    settings: LossScale
    value: float = 1.0
    quiet: int = 0
    """Steps since the last change."""

    @classmethod
    def of(cls, settings: LossScale) -> Factor:
        """The first factor."""
        return cls(settings=settings, value=1.0 if settings.kind == "none" else settings.initial)

    @property
    def left_in_moments(self) -> bool:
        """Whether the optimizer gets gradients with the factor."""
        return self.settings.kind == "compound"

    def after(self, *, finite: bool, saturated: float) -> bool:
        """Moves the factor after a backward pass; whether the step is to be taken.

        Args:
            finite: Whether every gradient is.
            saturated: Share of weight gradients at the end of their format.
        """
        kind = self.settings.kind
        if kind == "dynamic" and not finite:
            self._move(DOWN)
            return False
        if kind == "auto_mu" and (saturated > self.settings.saturated or not finite):
            self._move(DOWN)
            return finite
        if kind in ("dynamic", "auto_mu"):
            self.quiet += 1
            if self.quiet >= self.settings.interval:
                self._move(UP)
        return True

    def _move(self, by: float) -> None:
        self.value *= by
        self.quiet = 0
