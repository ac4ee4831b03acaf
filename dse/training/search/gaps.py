"""Runs of a method over seeds beside those of another one: paired differences of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dse.training.search.seed_run import SeedRun
from dse.training.stability import Interval, interval_of_mean

Runs = Mapping[int, SeedRun]
"""By seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A method beside another one, seed by seed."""

    pairs: tuple[float, ...]
    """Differences of held-out losses, of the seeds that trained under both."""
    diverged: int
    seeds: int
    loss: float
    """Mean held-out loss, a diverged seed counted as the loss at its start."""
    mean: float
    """Mean difference, likewise."""

    @property
    def interval(self) -> Interval | None:
        """Of the mean difference, 95 %, by Student's t; None of fewer than two pairs."""
        return interval_of_mean(self.pairs)


def gap(runs: Runs, others: Runs) -> Gap:
    """A method's runs beside the runs of another one with the same seeds.

    A seed that diverges counts as a network that learned nothing: its first loss. That of a seed
    that is missing on either side does not count at all.
    """
    shared = [seed for seed in runs if seed in others]
    pairs = tuple(
        one - other
        for seed in shared
        if (one := runs[seed].loss) is not None and (other := others[seed].loss) is not None
    )
    losses = [_counted(runs[seed]) for seed in shared]
    differences = [_counted(runs[seed]) - _counted(others[seed]) for seed in shared]
    return Gap(
        pairs=pairs,
        diverged=sum(runs[seed].diverged_at is not None for seed in shared),
        seeds=len(shared),
        loss=_mean(losses),
        mean=_mean(differences),
    )


def _counted(run: SeedRun) -> float:
    return run.first_loss if run.loss is None else run.loss


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
