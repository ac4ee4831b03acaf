"""Soft actor-critic under a method of training: one run on pendulums.

Source: Haarnoja et al., Soft Actor-Critic Algorithms and Applications, arXiv 1812.05905, with a
fixed temperature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dse.training.control.networks import Actor, Critic
from dse.training.control.pendulum import LENGTH, Pendulums
from dse.training.method import Method, Update
from dse.training.quantized import Quantized
from dse.training.update.loss_scale import Factor
from dse.training.update.optimizer import Optimizer

OBSERVED, ACTIONS = 3, 1
JUDGED, JUDGES = 32, 999
"""Pendulums that a policy is judged on, and their seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the algorithm, equal for all methods."""

    updates: int = 3000
    """Steps of actor and critics, and of each pendulum."""
    pendulums: int = 2
    random: int = 200
    """Steps of random actions at the start."""
    begins: int = 100
    """Steps before the first update."""
    batch: int = 128
    discount: float = 0.98
    temperature: float = 0.01
    """Weight of the entropy, for rewards in [-1, 0]."""
    rate: float = 1e-3
    follow: float = 0.01
    """Share of the way that targets go to the critics in an update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A run that has ended."""

    reward: float
    """Mean of a step of the mean policy, in [-1, 0]."""
    failed_at: int | None
    """Update at which a weight was no number; None: none was."""


class ActorCritic:
    """A run in progress."""

    def __init__(self, method: Method, seed: int, settings: Settings | None = None) -> None:
        """A run at its first step.

        Args:
            method: Formats, optimizer, loss scale, functions; its weight decay and its norm of
                gradients are left out, as the source has none.
            seed: Of networks, pendulums and noise.
            settings: Of the algorithm.
        """
        self.settings = settings or Settings()
        self.step = 0
        self.failed_at: int | None = None
        self._generator = torch.Generator().manual_seed(seed)
        plain = replace(method.update, weight_decay=0.0, clip_norm=0.0, betas=(0.9, 0.999))
        method = replace(method, update=plain)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules: list[nn.Module] = [Actor(OBSERVED, ACTIONS)]
            modules += [Critic(OBSERVED, ACTIONS) for _ in range(2)]
        targets = [Critic(OBSERVED, ACTIONS) for _ in range(2)]
        for target, critic in zip(targets, modules[1:], strict=True):
            target.load_state_dict(critic.state_dict())
        self._actor, *self._critics = (Quantized(one, method, seed=seed) for one in modules)
        self._targets = [Quantized(one, method, seed=seed) for one in targets]
        self._optimizers = [
            Optimizer([*one.model.named_parameters()], method, seed=seed)
            for one in (self._actor, *self._critics)
        ]
        # Targets follow as plain gradient steps do, kept and rounded as the method's weights are.
        follow = Update(
            mode=plain.mode, optimizer="sgd", momentum=0.0, clip_norm=0.0, weight_decay=0.0
        )
        self._following = [
            Optimizer([*one.model.named_parameters()], replace(method, update=follow), seed=seed)
            for one in self._targets
        ]
        self._factor = Factor.of(method.loss_scale)
        self._pendulums = Pendulums.begun(self.settings.pendulums, self._generator)
        self._seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step >= self.settings.updates or self.failed_at is not None

    def advance(self) -> None:
        """A step of the pendulums, and one of all networks."""
        if self.step % LENGTH == 0:
            self._pendulums = Pendulums.begun(self.settings.pendulums, self._generator)
        self._act()
        if self.step >= self.settings.begins:
            self._learn()
            named = (self._actor, *self._critics, *self._targets)
            if not all(bool(torch.isfinite(p).all()) for m in named for p in m.parameters()):
                self.failed_at = self.step
        self.step += 1

    def outcome(self) -> Learned:
        """The end of it; only when `done`."""
        judged = Pendulums.begun(JUDGED, torch.Generator().manual_seed(JUDGES))
        rewards = []
        with torch.no_grad():
            for _ in range(LENGTH):
                action, _ = self._actor(judged.observed())
                rewards.append(judged.advance(action.float().nan_to_num()))
        return Learned(reward=float(torch.stack(rewards).mean()), failed_at=self.failed_at)

    def _noise(self, samples: int) -> Tensor:
        return torch.randn(samples, ACTIONS, generator=self._generator)

    @torch.no_grad()
    def _act(self) -> None:
        before = self._pendulums.observed()
        count = self.settings.pendulums
        if self.step < self.settings.random:
            action = 2 * torch.rand(count, ACTIONS, generator=self._generator) - 1
        else:
            chosen, _ = self._actor(before, self._noise(count))
            action = chosen.float()
        reward = self._pendulums.advance(action)
        self._seen.append((before, action, reward, self._pendulums.observed()))

    def _drawn(self) -> tuple[Tensor, ...]:
        """Observations, actions, rewards, next observations of a batch."""
        settings = self.settings
        count = len(self._seen) * settings.pendulums
        rows = torch.randint(count, (settings.batch,), generator=self._generator).tolist()
        places = [divmod(row, settings.pendulums) for row in rows]
        return tuple(
            torch.stack([self._seen[step][part][pendulum] for step, pendulum in places])
            for part in range(4)
        )

    def _learn(self) -> None:
        settings = self.settings
        before, action, reward, after = self._drawn()
        with torch.no_grad():
            chosen, density = self._actor(after, self._noise(settings.batch))
            values = torch.minimum(*(one(after, chosen) for one in self._targets))
            wanted = reward.to(values.dtype) + settings.discount * (
                values - settings.temperature * density
            )
        for critic, optimizer in zip(self._critics, self._optimizers[1:], strict=True):
            value = critic(before, action.to(wanted.dtype))
            self._descend(critic, (value - wanted).square().mean(), optimizer)
        chosen, density = self._actor(before, self._noise(settings.batch))
        value = torch.minimum(*(one(before, chosen) for one in self._critics))
        loss = (settings.temperature * density - value).mean()
        self._descend(self._actor, loss, self._optimizers[0])
        self._follow()

    def _follow(self) -> None:
        """A step of the targets towards their critics."""
        for target, critic, optimizer in zip(
            self._targets, self._critics, self._following, strict=True
        ):
            for one, other in zip(target.parameters(), critic.parameters(), strict=True):
                one.grad = (one - other).detach()
            optimizer.step(self.settings.follow)

    def _descend(self, module: Quantized, loss: Tensor, optimizer: Optimizer) -> None:
        """A step of one network's optimizer; the factor scales the gradient that enters."""
        module.zero_grad(set_to_none=True)
        factor = self._factor.value
        loss.backward(torch.full_like(loss, factor))  # type: ignore[no-untyped-call]
        kept = factor if self._factor.left_in_moments else 1.0
        grads = [one.grad for one in module.parameters() if one.grad is not None]
        finite = all(bool(torch.isfinite(one).all()) for one in grads)
        if not self._factor.after(finite=finite, saturated=0.0):
            return
        for one in grads:
            one.div_(factor / kept)
        optimizer.step(self.settings.rate, factor=kept)
