"""Gates that choose a schedule's stage for each sample and site, and learn to, under a budget."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dse.errors import MethodError
from dse.training.at_site import AtSite
from dse.training.ledger import bit_products
from dse.training.method import Method, Schedule
from dse.training.roles import FACTORS, OF_A_STEP, SiteFormats, formats_at, passes_of

WIDTH = 16
"""Numbers that a gate sees of an input, and that it remembers from site to site (FracTrain's
code)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spent:
    """The products of one site in one call of the model."""

    products: float
    """Multiplications of a sample."""
    chosen: Tensor
    """(samples, stages), 1 at the stage of each, with a derivative."""


class Gates(nn.Module):
    """A recurrent gate over the sites of a model, in the order in which they run.

    Of each sample it sees the mean of every channel of a site's input, through two layers of the
    site's own; one LSTM cell goes from site to site and says the stage. The stage is that of the
    largest share; the gradient passes to the shares. The cost of the stages joins the loss, pushed
    down above the budget and up below it.

    Source: DFQ of FracTrain, arXiv 2012.13113, section 3.2; `models.py` and `train_dfq.py` of its
    code.
    """

    costs: Tensor
    """Of the products of each stage, over those of 32 by 32 bits."""

    def __init__(self, method: Method, schedule: Schedule, *, blocks: int, seed: int) -> None:
        """Gates that have seen no site yet; those of a site are made where it first runs."""
        super().__init__()
        self._method, self._schedule, self._blocks, self._seed = method, schedule, blocks, seed
        count = len(schedule.stages)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{seed} gates".encode()))
            self.cell = nn.LSTMCell(WIDTH, WIDTH)
            self.choice = nn.Linear(WIDTH, count)
        self.seen = nn.ModuleDict()
        """Layers that gates see inputs through, by site."""
        costs = [
            bit_products(replace(method, roles={**method.roles, **stage}))
            for stage in schedule.stages
        ]
        self.register_buffer("costs", torch.tensor(costs), persistent=False)
        self._staged: dict[str, list[AtSite]] = {}
        self._memory: tuple[Tensor, Tensor] | None = None
        self._spent: list[_Spent] = []

    def begin(self) -> None:
        """Forgets the call of the model before."""
        self._memory, self._spent = None, []

    def product(
        self, at: AtSite, x: Tensor, weight: Tensor, made: Callable[[AtSite], Tensor]
    ) -> Tensor:
        """The product of a site, each sample in the stage that its gate chooses.

        Args:
            at: The site.
            x: Its input, samples first: (samples, ..., channels) of a linear layer, (samples,
                channels, ...) of a convolution.
            weight: Its weight, outputs first.
            made: The product under the formats of a site, samples first.
        """
        stages = self._stages(at)
        if len(stages) == 1:
            return made(at)
        chosen = self._chosen(at, x)
        # Without a gradient only stages that a sample is in count.
        wanted = chosen.requires_grad | (chosen > 0).any(0)
        parts = [(index, made(stage)) for index, stage in enumerate(stages) if bool(wanted[index])]
        first = parts[0][1]
        shape = (-1, *[1] * (first.dim() - 1))
        products = first[0].numel() / weight.shape[0] * weight.numel()
        self._spent.append(_Spent(products=products, chosen=chosen))
        return sum((chosen[:, k].reshape(shape) * y for k, y in parts), torch.zeros_like(first))

    def share(self) -> Tensor:
        """The cost of the call over that of products of 32 by 32 bits; with a gradient.

        Raises:
            MethodError: no product of the call had a choice.
        """
        if not self._spent:
            raise MethodError(
                "schedule: its stages differ at no site of this network; leave the schedule out, "
                "or let rules spare fewer sites"
            )
        total = sum(one.products for one in self._spent)
        parts = [one.products * (one.chosen @ self.costs).mean() for one in self._spent]
        return torch.stack(parts).sum() / total

    def pressure(self, share: Tensor) -> Tensor:
        """The addition to the loss of a call with such a cost."""
        sign = 1.0 if float(share.detach()) >= self._schedule.budget else -1.0
        return sign * self._schedule.pressure * share

    def _stages(self, at: AtSite) -> list[AtSite]:
        """The site under each stage; one where stages change nothing there."""
        name = at.site.name
        if name not in self._staged:
            formats = [
                formats_at(self._method, at.site, self._blocks, stage=stage)
                for stage in self._schedule.stages
            ]
            if len({_said(one) for one in formats}) == 1:
                formats = formats[:1]
            self._staged[name] = [replace(at, formats=one, delayed={}) for one in formats]
        return self._staged[name]

    def _chosen(self, at: AtSite, x: Tensor) -> Tensor:
        channels = 1 if at.site.kind == "convolution" else x.dim() - 1
        others = [axis for axis in range(1, x.dim()) if axis != channels]
        pooled = x.mean(others) if others else x
        key = at.site.name.replace(".", "/")
        if key not in self.seen:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(f"{self._seed} {key}".encode()))
                first, second = nn.Linear(pooled.shape[1], 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
            self.seen[key] = nn.Sequential(first, nn.ReLU(), second).to(x.device)
        before = self._memory
        if before is not None and len(before[0]) != len(pooled):
            before = None  # the model counts samples otherwise from here on
        self._memory = memory = self.cell(self.seen[key](pooled), before)
        shares = torch.softmax(self.choice(memory[0]), dim=1)
        hard = nn.functional.one_hot(shares.argmax(1), shares.shape[1]).to(shares.dtype)
        return hard + shares - shares.detach() if shares.requires_grad else hard


def _said(formats: SiteFormats) -> tuple[object, ...]:
    places: Sequence[tuple[str, str]] = [
        (role, pass_) for role in (*FACTORS, *OF_A_STEP) for pass_ in passes_of(role)
    ]
    return tuple(formats.operand(*place) for place in places)
