"""A model whose weights are frozen: adapters beside them are trained, units of it are cut."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from dse.errors import MethodError, nearest
from dse.training.method import Pruning, Tuning
from dse.training.tuning.salience import excess_kurtosis, outlier_aware, sensitivity

LEARNED = ("outliers", "gradient")
"""Saliences that backward passes tell."""
KEPT = 0.85
"""Share of what was known about a unit that stays when a step adds to it; ours, since the paper
does not print its own."""


def check(tuning: Tuning | None) -> None:
    """Raises `MethodError` for a tuning that only the ledger of memory knows."""
    if tuning is not None and tuning.density < 1 and tuning.prune is None:
        raise MethodError(
            f"tuning.density: {tuning.density} of the weights are left, and nothing says which; "
            "add prune: {layers: [...]}, or ask for the price alone (dse predict --training)"
        )


class Adapter(nn.Module):
    """A low-rank addition to a frozen weight, zero at first (LoRA, arXiv 2106.09685)."""

    active: Tensor
    """(rank,): 1 where a row of `a` counts."""
    salience: Tensor
    """Of the whole, as its last steps had it."""

    def __init__(self, weight: Tensor, tuning: Tuning, *, seed: int) -> None:
        super().__init__()
        rank = tuning.grown or tuning.rank
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(rank, weight.shape[1], generator=generator) / weight.shape[1] ** 0.5
        self.a = nn.Parameter(a.to(weight.device))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        active = (torch.arange(rank) < tuning.rank).to(a.dtype)
        self.register_buffer("active", active.to(weight.device))
        self.register_buffer("salience", weight.new_zeros(()))
        self._factor = tuning.factor

    def forward(self, weight: Tensor) -> Tensor:
        """The weight (outputs, inputs) with the addition."""
        return weight + self._factor * (self.b * self.active) @ self.a

    def observe(self) -> None:
        """Takes what the last backward pass says of it."""
        if self.b.grad is not None:
            now = (self.b * self.b.grad).abs().sum()
            self.salience.mul_(KEPT).add_((1 - KEPT) * now)

    def follow(self, other: Adapter, momentum: float) -> None:
        """Takes so much of another one as `momentum` leaves."""
        self.active.copy_(other.active)
        for mine, theirs in ((self.a, other.a), (self.b, other.b)):
            mine.lerp_(theirs, 1 - momentum)


class Units(nn.Module):
    """The units of one layer: what each counts, and a mask of its outputs."""

    mask: Tensor
    """(units,): 1, on its way to 0 where a unit was cut, 0."""
    alive: Tensor
    sensitivity: Tensor
    kurtosis: Tensor

    def __init__(self, weight: Tensor, pruning: Pruning, *, seed: int) -> None:
        super().__init__()
        self._pruning = pruning
        count = weight.shape[0] // pruning.channels
        self.weights = weight.numel() // count
        """Of one unit."""
        self.register_buffer("mask", weight.new_ones(count))
        self.register_buffer("alive", torch.ones(count, dtype=torch.bool, device=weight.device))
        self.register_buffer("sensitivity", weight.new_zeros(count))
        self.register_buffer("kurtosis", weight.new_zeros(count))
        generator = torch.Generator().manual_seed(seed)
        self._drawn = torch.rand(count, generator=generator).to(weight.device)

    def masked(self, y: Tensor) -> Tensor:
        """The outputs (..., outputs), cut units at zero; a backward pass tells of the others."""
        if y.requires_grad:
            seen = y.detach()
            y.register_hook(lambda gradient: self._observe(seen, gradient))  # type: ignore[no-untyped-call]
        return y * self.mask.repeat_interleave(self._pruning.channels)

    def scores(self, weight: Tensor, *, mean: float) -> Tensor:
        """The count of every unit, over its weights, (units,).

        `mean` is that of the sensitivities of all units of the network. Sums over a mean loss are
        thousandths where roots of a kurtosis are ones: without it the kurtosis alone would count
        (studies/pruned_training).
        """
        match self._pruning.salience:
            case "random":
                return self._drawn
            case "magnitude":
                found = weight.detach().abs().reshape(len(self.mask), -1).sum(1)
            case "gradient":
                found = self.sensitivity
            case "outliers":
                found = outlier_aware(self.sensitivity / mean, self.kurtosis)
        return found / self.weights

    def fade(self) -> None:
        """Takes the masks of cut units a step nearer to zero."""
        lower = (self.mask - 1 / self._pruning.fade).clamp(min=0)
        self.mask.copy_(torch.where(self.alive, self.mask, lower))

    @torch.no_grad()
    def _observe(self, y: Tensor, gradient: Tensor) -> None:
        channels = self._pruning.channels
        now = sensitivity(y, gradient, channels), excess_kurtosis(y, channels)
        for kept, new in zip((self.sensitivity, self.kurtosis), now, strict=True):
            kept.mul_(KEPT).add_((1 - KEPT) * new)


class Tuned(nn.Module):
    """Adapters and units of a model's linear layers, by the layer's name."""

    ended: Tensor
    """Whether all that is to be cut was cut."""

    def __init__(
        self, tuning: Tuning, weights: Mapping[str, Tensor], *, steps: int, seed: int
    ) -> None:
        """At the first step of the tuning.

        Args:
            tuning: Ranks, layers, what is cut.
            weights: (outputs, inputs) of linear layers, by layer.
            steps: Of the tuning.
            seed: Of the adapters' first values, and of random cuts.

        Raises:
            MethodError: patterns that fit no layer, layers whose outputs are no whole units, or
                that nothing is learned about.
        """
        super().__init__()
        self.register_buffer("ended", torch.tensor(False))
        self._tuning, self._weights = tuning, weights
        chosen = _chosen(tuning.layers, weights, "tuning.layers")
        self.adapters = nn.ModuleDict(
            {_key(n): Adapter(weights[n], tuning, seed=_seed(seed, n, "adapter")) for n in chosen}
        )
        self.teachers = nn.ModuleDict()
        """Adapters of the network with nothing cut, where that one teaches."""
        if tuning.distill is not None:
            self.teachers = deepcopy(self.adapters).requires_grad_(False)
        self._is_teacher = False
        self.units = nn.ModuleDict()
        pruning = tuning.prune
        if pruning is not None:
            for name in _chosen(pruning.layers, weights, "tuning.prune.layers"):
                if weights[name].shape[0] % pruning.channels:
                    raise MethodError(
                        f"tuning.prune.channels: {name} has {weights[name].shape[0]} outputs, "
                        f"which are no whole units of {pruning.channels}"
                    )
                if pruning.salience in LEARNED and name not in chosen:
                    raise MethodError(
                        f"tuning.prune.layers: {name} has no adapter, so no gradient tells how "
                        f"much its units count; add it to tuning.layers, or take another salience "
                        f"than {pruning.salience}"
                    )
                unit_seed = _seed(seed, name, "units")
                self.units[_key(name)] = Units(weights[name], pruning, seed=unit_seed)
        share = 0.5 if pruning is None else pruning.ends
        self._ends = max(round(share * steps), 1)

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """The weight of a layer with its adapter, if it has one."""
        key = _key(name)
        adapters = self.teachers if self._is_teacher else self.adapters
        return adapters[key](weight) if key in adapters else weight

    def output(self, name: str, y: Tensor) -> Tensor:
        """The outputs of a layer without its cut units."""
        key = _key(name)
        if key not in self.units or self._is_teacher:
            return y
        return self.units[key].masked(y)  # type: ignore[no-any-return, operator]

    @contextmanager
    def as_teacher(self) -> Iterator[None]:
        """The network with nothing cut and the teacher's adapters; passes learn nothing."""
        self._is_teacher = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._is_teacher = False

    def share_taught(self, step: int) -> float:
        """Share of the teacher in the loss of a step of the tuning; 0 from when all is cut on."""
        if self._tuning.distill is None or step >= self._ends:
            return 0.0
        return step / self._ends

    @torch.no_grad()
    def observe(self, step: int) -> None:
        """Cuts what the schedule wants cut after a step of the tuning, counted from 0."""
        adapters: list[Adapter] = list(self.adapters.values())  # type: ignore[arg-type]
        for adapter in adapters:
            adapter.observe()
        if self._tuning.distill is not None:
            for key, teacher in self.teachers.items():
                teacher.follow(self.adapters[key], self._tuning.distill.momentum)  # type: ignore[operator]
        units = self._units()
        for one in units.values():
            one.fade()
        if bool(self.ended):
            return
        self.ended.fill_(step + 1 >= self._ends)
        pruning = self._tuning.prune
        if pruning is not None and (bool(self.ended) or (step + 1) % pruning.every == 0):
            self._cut(share_left(self._tuning.density, (step + 1) / self._ends))
        if self._tuning.grown is not None and bool(self.ended):
            self._grow(adapters)

    @property
    def density(self) -> float:
        """Share of the weights of layers with units that is left; 1 without any."""
        units = self._units().values()
        total = sum(one.weights * len(one.alive) for one in units)
        left = sum(one.weights * int(one.alive.sum()) for one in units)
        return left / total if total else 1.0

    @property
    def alive(self) -> dict[str, Tensor]:
        """(units,) of every layer that is pruned, false where one was cut, by layer."""
        return {_name(key): one.alive for key, one in self._units().items()}

    @property
    def ranks(self) -> dict[str, int]:
        """Of every adapter, by layer."""
        adapters: dict[str, Adapter] = dict(self.adapters.items())  # type: ignore[arg-type]
        return {_name(key): int(one.active.sum()) for key, one in adapters.items()}

    def _units(self) -> dict[str, Units]:
        return dict(self.units.items())  # type: ignore[arg-type]

    def _cut(self, density: float) -> None:
        """Cuts units that count least for their weights until so much is left.

        Cut units stay cut, and a layer keeps the one that counts most.
        """
        units = self._units()
        sums = torch.cat([one.sensitivity[one.alive] for one in units.values()])
        mean = float(sums.mean()) or 1.0
        ranked = []
        for key, one in units.items():
            name = _name(key)
            weight = self.weight(name, self._weights[name])
            scores = torch.where(one.alive, one.scores(weight, mean=mean), -torch.inf)
            best = int(scores.argmax())
            others = [i for i in range(len(scores)) if one.alive[i] and i != best]
            ranked += [(float(scores[i]), key, i) for i in others]
        total = sum(one.weights * len(one.alive) for one in units.values())
        left = sum(one.weights * int(one.alive.sum()) for one in units.values())
        for _, key, index in sorted(ranked):
            if left - units[key].weights / 2 < density * total:
                break
            units[key].alive[index] = False
            left -= units[key].weights

    def _grow(self, adapters: list[Adapter]) -> None:
        """Gives the half of the adapters that count most for their numbers the larger rank."""
        scores = [float(one.salience) / (one.a.numel() + one.b.numel()) for one in adapters]
        order = sorted(range(len(adapters)), key=lambda i: -scores[i])
        for index in order[: (len(adapters) + 1) // 2]:
            adapters[index].active.fill_(1.0)


def share_left(density: float, progress: float) -> float:
    """The share of weights that is left after a share of the schedule: a cubic curve.

    Source: Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878, equation 1; APT takes it.
    """
    return density + (1 - density) * (1 - min(progress, 1.0)) ** 3


def _chosen(patterns: tuple[str, ...], weights: Mapping[str, object], where: str) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in weights):
            shown = ", ".join(list(weights)[:5]) + (", ..." if len(weights) > 5 else "")
            raise MethodError(
                f"{where}: {pattern!r} fits no linear layer{nearest(pattern, weights)}; "
                f"layers: {shown}"
            )
    return [name for name in weights if any(fnmatchcase(name, one) for one in patterns)]


def _key(name: str) -> str:
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")


def _seed(seed: int, name: str, what: str) -> int:
    return zlib.crc32(f"{seed} {name} {what}".encode())
