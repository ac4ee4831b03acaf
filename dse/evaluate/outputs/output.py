"""An output of a graph as something that a loss is read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from dse.errors import DataError
from dse.space.schema import OutputKind

if TYPE_CHECKING:
    from torch import Tensor

KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

UNITS = {"regression": "of the reference's spread"}
"""Units of losses by kind; of the others in `NATS`."""
NATS = "nats per position"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output: what it is, and the tensor that it is scored at."""

    name: str
    """Of the graph's output."""
    value: str
    """The tensor that is read: the output itself, or what its last operators were given."""
    kind: OutputKind
    reason: str
    """The reason why it is taken for that, in words."""
    axis: int = -1
    """The axis of the classes in `value`."""
    flat: bool = False
    """Everything from `axis` on is one axis of classes (Softmax before opset 13)."""
    batch_axis: int = 0
    """The axis of the samples in `value`."""
    weight: float = 1.0
    """Its share of the loss."""
    certain: bool = True
    """Whether graph, data or user say so; otherwise the values of a first batch may."""

    @property
    def is_distribution(self) -> bool:
        """Whether each position has a probability of every class."""
        return self.kind != "regression"

    @property
    def unit(self) -> str:
        """Unit of its loss."""
        return UNITS.get(self.kind, NATS)

    def __str__(self) -> str:
        """`probs: logits (the Softmax is left out), weight 2`."""
        weight = "" if self.weight == 1 else f", weight {self.weight:g}"
        return f"{self.name}: {self.kind.replace('_', ' ')} ({self.reason}){weight}"

    def scores(self, x: Tensor, samples: int) -> Tensor:
        """Unnormalised log-probabilities (samples, ..., classes), or the values themselves.

        Args:
            x: the tensor `value` of a batch.
            samples: how many the batch has.

        Raises:
            DataError: no axis counts the samples.
        """
        x, axis = x.float(), self.batch_axis
        if self.is_distribution and self.kind != "binary":
            place = self.axis % max(x.dim(), 1)
            if self.flat:
                x = x.flatten(place)
            elif place != x.dim() - 1:
                x, axis = x.movedim(place, -1), axis - (axis > place)
        return self._log_scores(self._samples_first(x, axis, samples))

    def _log_scores(self, x: Tensor) -> Tensor:
        import torch  # noqa: PLC0415 (what an output is must be known without it)

        if self.kind == "binary":
            return torch.stack((torch.zeros_like(x), x), dim=-1)
        if self.kind != "probabilities":
            return x
        if x.dim() == 1 or x.shape[-1] == 1:
            return torch.stack((torch.log1p(-x), x.log()), dim=-1)
        return x.log()

    def _samples_first(self, x: Tensor, axis: int, samples: int) -> Tensor:
        """X with the axis that counts samples in front; positions of a sample are taken apart."""
        if axis < x.dim() and x.shape[axis] == samples:
            return x if axis == 0 else x.movedim(axis, 0)
        if x.dim() > 0 and x.shape[0] % samples == 0 and x.shape[0] > 0:
            return x.reshape(samples, -1, *x.shape[1:])
        places = [place for place, size in enumerate(x.shape) if size == samples]
        if places:
            return x.movedim(places[0], 0)
        raise DataError(
            f"output {self.name}: of shape {list(x.shape)} for {samples} samples: no axis counts "
            "them; give samples one at a time (data: batch: 1) or leave the output out "
            f"(quality: weights: {{{self.name}: 0}})"
        )
