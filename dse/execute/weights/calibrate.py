"""Statistics of activations over calibration batches: what static scales are made of."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dse.errors import RunError
from dse.execute.operators.operator import Value
from dse.execute.program.program import Program
from dse.execute.weights.tails import Tails, weighted
from dse.files import writing, written_atomically
from dse.graph.ir.site import Site

SAMPLE = 1 << 14
"""Values of a site that stand for those between its tails, all batches together."""

FILE = "calibration.safetensors"
_PARTS = ("channel_absmax", "sample", "lowest", "highest")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """Everything that calibration saw at one site. NaN and Inf are taken for zero."""

    minimum: float
    maximum: float
    channel_absmax: Tensor
    """The largest magnitude of each position along the contraction axes, float32; (1,) where the
    node contracts none."""
    sample: Tensor
    """At most `SAMPLE` values, evenly spaced over what was seen, float32."""
    count: int
    """Of all values seen."""
    lowest: Tensor
    """The smallest values of all, the smallest first, float32; none where the sample is all."""
    highest: Tensor
    """The largest values of all, the largest first, float32; none where the sample is all."""

    @property
    def absmax(self) -> float:
        """The largest magnitude."""
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def values(self) -> Tensor:
        """The sample with both extrema."""
        return torch.cat((torch.tensor([self.minimum, self.maximum]), self.sample))

    @property
    def weighted(self) -> tuple[Tensor, Tensor]:
        """Values for all that was seen, and how many each stands for: exact near both ends."""
        if not self.count:
            return torch.zeros(1), torch.ones(1, dtype=torch.float64)
        return weighted(self.sample, self.lowest, self.highest, self.count)

    @property
    def digest(self) -> str:
        """16 hex digits, equal for equal statistics."""
        found = hashlib.sha256(repr((self.minimum, self.maximum, self.count)).encode())
        for tensor in (self.channel_absmax, self.sample, self.lowest, self.highest):
            found.update(tensor.numpy().tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Statistics by site key."""

    statistics: Mapping[str, Statistics]

    @property
    def digest(self) -> str:
        """16 hex digits, equal for equal calibrations."""
        pairs = sorted((key, found.digest) for key, found in self.statistics.items())
        return hashlib.sha256(repr(pairs).encode()).hexdigest()[:16]


class Observer:
    """Stands at a site like a quantizer, changes nothing and keeps the statistics."""

    def __init__(self, axes: Sequence[int]) -> None:
        self._axes = tuple(axes)
        self._minimum = math.inf
        self._maximum = -math.inf
        self._channels = torch.zeros(1)
        self._sample = torch.zeros(0)
        self._stride = 1
        self._tails = Tails()

    def __call__(self, x: Tensor) -> Tensor:
        """X, which has been seen."""
        if x.numel():
            with torch.no_grad():
                self._see(x.detach().float())
        return x

    def statistics(self) -> Statistics:
        """Statistics of everything seen so far."""
        empty = self._minimum > self._maximum
        tails, none = self._tails, torch.zeros(0)
        sampled = self._sample.numel() < tails.count
        return Statistics(
            minimum=0.0 if empty else self._minimum,
            maximum=0.0 if empty else self._maximum,
            channel_absmax=self._channels,
            sample=self._sample,
            count=tails.count,
            lowest=tails.lowest if sampled else none,
            highest=tails.highest if sampled else none,
        )

    def _see(self, x: Tensor) -> None:
        low, high = (bound.item() for bound in torch.aminmax(x))
        if not (math.isfinite(low) and math.isfinite(high)):
            x = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
            low, high = (bound.item() for bound in torch.aminmax(x))
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)
        kept = [axis for axis in range(x.dim()) if axis not in self._axes]
        if not self._axes:
            channels = x.abs().amax().reshape(1)
        else:
            channels = (x.abs().amax(kept) if kept else x.abs()).reshape(-1)
        self._channels = torch.maximum(self._channels, channels.cpu())
        flat = x.reshape(-1)
        self._tails.see(flat)
        self._draw(flat)

    def _draw(self, flat: Tensor) -> None:
        # Powers of three: a stride that shares a factor with the width would see few channels.
        while flat.numel() // self._stride > SAMPLE:
            self._stride, self._sample = 3 * self._stride, self._sample[::3]
        self._sample = torch.cat((self._sample, flat[:: self._stride].cpu()))
        while self._sample.numel() > SAMPLE:
            self._stride, self._sample = 3 * self._stride, self._sample[::3].clone()


def observe(
    program: Program, batches: Iterable[Mapping[str, Value]], sites: Sequence[Site]
) -> Calibration:
    """Statistics of the sites over batches of feeds, one batch in memory at a time.

    Sites that read the same value along the same axes share their statistics. Constants are seen
    once.
    """
    observers = {
        (site.value, site.contraction_axes): Observer(site.contraction_axes) for site in sites
    }
    bound: dict[str, Observer] = {}
    for site in sites:
        if program.constant(site.value) is None:
            bound[site.key] = observers[site.value, site.contraction_axes]
    for (value, _), observer in observers.items():
        constant = program.constant(value)
        if constant is not None:
            observer(constant)
    if bound:
        with torch.inference_mode():
            for feeds in batches:
                program.run(feeds, bound)
    found = {key: observer.statistics() for key, observer in observers.items()}
    return Calibration(
        statistics={site.key: found[site.value, site.contraction_axes] for site in sites}
    )


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Writes `calibration.safetensors` into a folder, which is made if need be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for key, found in calibration.statistics.items():
        bounds = [found.minimum, found.maximum]
        tensors[f"{key}:bounds"] = torch.tensor(bounds, dtype=torch.float64)
        tensors[f"{key}:count"] = torch.tensor(found.count)
        for part in _PARTS:
            tensors[f"{key}:{part}"] = getattr(found, part).clone()
    with written_atomically(folder / FILE) as place:
        save_file(tensors, place, metadata={"digest": calibration.digest})


def load_calibration(folder: Path) -> Calibration:
    """The calibration that `save_calibration` wrote.

    Raises:
        RunError: the file is missing, or its content is not what its digest says, or it is of a
            version whose statistics had no tails.
    """
    path = folder / FILE
    if not path.is_file():
        raise RunError(f"{path}: does not exist; calibrate again")
    try:
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get("digest")
            stored = set(file.keys())
            names = {name.rpartition(":")[0] for name in stored}
            if any(f"{name}:count" not in stored for name in names):
                raise RunError(
                    f"{path}: of a version whose calibration did not keep the largest values of a "
                    "site; search again"
                )
            calibration = Calibration(
                statistics={key: _read(file.get_tensor, key) for key in sorted(names)}
            )
    except (SafetensorError, ValueError) as error:
        raise RunError(f"{path}: no readable calibration ({error}); calibrate again") from error
    if digest != calibration.digest:
        raise RunError(f"{path}: digest {calibration.digest}, expected {digest}; calibrate again")
    return calibration


def _read(tensor: Callable[[str], Tensor], key: str) -> Statistics:
    minimum, maximum = tensor(f"{key}:bounds").tolist()
    parts = {part: tensor(f"{key}:{part}") for part in _PARTS}
    count = int(tensor(f"{key}:count"))
    return Statistics(minimum=minimum, maximum=maximum, count=count, **parts)
