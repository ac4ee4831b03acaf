"""The rounding of one product of a model, call after call."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

from torch import Tensor

from dse.numerics.delayed import DelayedScale
from dse.numerics.grids.state import QuantizerState
from dse.training.derivative import derivative
from dse.training.method import Operand
from dse.training.products import Axes, Factor
from dse.training.roles import Site, SiteFormats
from dse.training.rounding import Draw, channel_sizes, quantizer_of, rounded

READ_AGAIN = ("weight", "activation")
"""Roles whose backward products round for themselves; those of attention take what was
multiplied."""


@dataclass(slots=True, kw_only=True, eq=False)
class AtSite:
    """The operands at a site, with the scales that they remember from earlier steps."""

    site: Site
    formats: SiteFormats
    first: str = "activation"
    """Role of the first factor."""
    second: str = "weight"
    delayed: dict[str, DelayedScale] = field(default_factory=dict)
    """By `role@pass`."""
    sums: dict[str, int] = field(default_factory=dict)
    """Products that each sum of a linear layer adds, by pass, as it last ran."""

    def operand(self, role: str, pass_: str) -> Operand:
        """The operand of a role in a pass."""
        return self.formats.operand(role, pass_)

    def scale(self, key: str) -> DelayedScale:
        """The scale that a role remembers from earlier steps; `key` is `role@pass`."""
        if key not in self.delayed:
            self.delayed[key] = DelayedScale(quantizer_of(self.operand(*key.split("@"))))
        return self.delayed[key]

    def called(self, call: str, *, learns: bool) -> Call:
        """The site in one call of the model."""
        return Call(at=self, name=call, learns=learns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One execution of a site: its seeds, and whether it counts for delayed scales."""

    at: AtSite
    name: str
    """Seed and number of the call: what all random draws depend on, with site, role and pass."""
    learns: bool

    def forward_factor(self, x: Tensor, *, second: bool, axes: Axes) -> Factor:
        """The first or second factor of the forward product."""
        role = self.at.second if second else self.at.first
        operand = self.at.operand(role, "fprop")
        sizes = channel_sizes(x) if operand.smooth else None
        inner = x if sizes is None else x / sizes
        state = self._state(inner, operand, f"{role}@fprop")
        found = self._rounded(inner, operand, f"{role}@fprop", axes=axes, state=state)
        values = found if sizes is None else found * sizes
        return Factor(
            values=values,
            kept=self._kept(x, values, role, second=second),
            derivative=derivative(inner, found, operand, axes=axes, state=state),
        )

    def _kept(self, x: Tensor, values: Tensor, role: str, *, second: bool) -> Tensor:
        """The factor for the backward pass; attention's are as they were multiplied."""
        pass_ = "dgrad" if second else "wgrad"
        if role not in READ_AGAIN or self.at.operand(role, pass_).of == "forward":
            return values
        saved = None if second else self.at.formats.named("saved_activation", pass_)
        if saved is None:
            return x
        return self._again(x, saved, f"saved_activation@{pass_}", axes=(-1,))

    def backward_factor(self, kept: Tensor, *, second: bool, axes: Axes) -> Tensor:
        """The same factor where the gradient's product reads it again."""
        role = self.at.second if second else self.at.first
        pass_ = "dgrad" if second else "wgrad"
        if role not in READ_AGAIN:
            return kept
        return self._again(kept, self.at.operand(role, pass_), f"{role}@{pass_}", axes=axes)

    def gradient(self, dy: Tensor, *, pass_: str, axes: Axes) -> Tensor:
        """The gradient of the output in a backward product."""
        operand = self.at.operand("activation_gradient", pass_)
        return self._again(dy, operand, f"activation_gradient@{pass_}", axes=axes)

    def weight_gradient(self, dw: Tensor) -> Tensor:
        """The gradient of the weight as it is kept; only weights have one."""
        if self.at.second != "weight":
            return dw
        operand = self.at.operand("weight_gradient", "wgrad")
        return self._again(dw, operand, "weight_gradient@wgrad", axes=(-1,))

    def output(self, y: Tensor) -> Tensor:
        """The result as it is written; as it is summed where nobody names a format."""
        operand = self.at.formats.named("output", "fprop")
        return y if operand is None else self._again(y, operand, "output@fprop", axes=(-1,))

    def _again(self, x: Tensor, operand: Operand, key: str, *, axes: Axes) -> Tensor:
        """Rounded by scales that nothing else needs."""
        if operand.smooth:
            sizes = channel_sizes(x)
            return sizes * self._again(x / sizes, replace(operand, smooth=False), key, axes=axes)
        state = self._state(x, operand, key)
        return self._rounded(x, operand, key, axes=axes, state=state)

    def _rounded(
        self, x: Tensor, operand: Operand, key: str, *, axes: Axes, state: QuantizerState | None
    ) -> Tensor:
        shared = key[key.index("@") :]  # both factors of a pass have the signs of their rotation
        draw = Draw(rounding=self._seed(key), signs=self._seed(shared))
        return rounded(x, operand, axes=axes, draw=draw, state=state)

    def _seed(self, key: str) -> int:
        return zlib.crc32(f"{self.name} {self.at.site.name} {self.at.second} {key}".encode())

    def _state(self, x: Tensor, operand: Operand, key: str) -> QuantizerState | None:
        """Delayed scales; None where they come from `x` itself."""
        if quantizer_of(operand).timing != "delayed":
            return None
        return self.at.scale(key).state(x, remembered=self.learns)
