"""Training data dealt to clients: at random, skewed by groups, or in pieces."""

from __future__ import annotations

import math

import numpy
import torch
from torch import Tensor

from dse.errors import MethodError
from dse.training.method import Rounds, Split
from dse.training.workloads.workload import Divisible, Units, Workload

LEAST = 10
"""Units that every client has (NIID-Bench, arXiv 2102.02079: `min_require_size`)."""
DRAWS = 1000
"""Deals that are tried until every client has so many."""


def dealt(workload: Workload, rounds: Rounds, *, seed: int) -> tuple[Tensor, ...]:
    """The units of each client, rising; none in two of them, all in one. Empty without a split.

    What is dealt follows from workload, clients, split and seed: it is the same for all methods
    that agree on those.

    Raises:
        MethodError: a workload whose data cannot be dealt, or that has too few units.
    """
    split = rounds.split
    if split is None:
        return ()
    if not isinstance(workload, Divisible):
        raise MethodError(
            f"rounds.split: the data of {workload.name} cannot be dealt to clients; take "
            "digits-mlp, fashion-resnet or byte-gpt, or leave split out"
        )
    units = workload.units()
    generator = numpy.random.default_rng((seed, rounds.clients, len(units.groups)))
    owners = _owners(units, split, rounds.clients, generator)
    if owners is None:
        raise MethodError(
            f"rounds.split: {len(units.groups)} units of {workload.name} leave a client with "
            f"fewer than {LEAST}; expected {_advice(split)}"
        )
    return tuple(torch.from_numpy(numpy.flatnonzero(owners == c)) for c in range(rounds.clients))


def shares(workload: Workload, parts: tuple[Tensor, ...]) -> list[float]:
    """Each client's share of the samples, by which its weights count in the average."""
    if not parts or not isinstance(workload, Divisible):
        return []
    sizes = workload.units().sizes
    mine = [float(sizes[part].sum()) for part in parts]
    return [one / math.fsum(mine) for one in mine]


def _advice(split: Split) -> str:
    if split.kind == "dirichlet":
        return f"fewer clients, or a concentration above {split.concentration:g}"
    return "fewer clients" + (" or shards" if split.kind == "shards" else "")


def _owners(
    units: Units, split: Split, clients: int, generator: numpy.random.Generator
) -> numpy.ndarray | None:
    """The client of each unit; None where some client has too few."""
    groups = units.groups.numpy()
    if split.kind == "even":
        owners = generator.permutation(len(groups)) % clients
        return _enough(owners, clients)
    if split.kind == "shards":
        return _enough(_sharded(groups, clients, split.shards, generator), clients)
    for _ in range(DRAWS):
        owners = _drawn(groups, clients, split.concentration, generator)
        if _enough(owners, clients) is not None:
            return owners
    return None


def _sharded(
    groups: numpy.ndarray, clients: int, count: int, generator: numpy.random.Generator
) -> numpy.ndarray:
    """Units in the order of their groups, cut into pieces, so many pieces a client.

    Source: McMahan et al., arXiv 1602.05629, section 3.
    """
    order = numpy.argsort(groups, kind="stable")
    pieces = numpy.arange(len(groups)) * clients * count // max(len(groups), 1)
    holders = generator.permutation(clients * count) % clients
    owners = numpy.empty(len(groups), dtype=int)
    owners[order] = holders[pieces]
    return owners


def _drawn(
    groups: numpy.ndarray, clients: int, concentration: float, generator: numpy.random.Generator
) -> numpy.ndarray:
    """Each group dealt by shares of its own, drawn from a Dirichlet distribution.

    Source: Yurochkin et al., arXiv 1905.12022, section 4; Li et al., arXiv 2102.02079.
    """
    owners = numpy.empty(len(groups), dtype=int)
    for group in numpy.unique(groups):
        members = generator.permutation(numpy.flatnonzero(groups == group))
        ends = numpy.cumsum(generator.dirichlet([concentration] * clients)) * len(members)
        places = numpy.searchsorted(ends, numpy.arange(len(members)) + 0.5, side="right")
        owners[members] = numpy.minimum(places, clients - 1)
    return owners


def _enough(owners: numpy.ndarray, clients: int) -> numpy.ndarray | None:
    return owners if numpy.bincount(owners, minlength=clients).min() >= LEAST else None
