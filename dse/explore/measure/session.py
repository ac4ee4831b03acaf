"""Everything that a search needs, loaded and checked before the first trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna.samplers import BaseSampler

from dse.data import Sizes, check_source, given_ranks
from dse.data.layout import Arrays
from dse.evaluate.evaluator import Evaluator
from dse.evaluate.metric import Metric
from dse.evaluate.setup import build_evaluator
from dse.explore.measure.ranges import Ranges, chosen
from dse.explore.problem.design import Design, open_design
from dse.explore.problem.hardware import Grid
from dse.explore.solve.surrogate import Surrogate
from dse.explore.study.methods import proposer_of, search_method
from dse.explore.study.optuna_samplers import GivenSampler
from dse.explore.study.proposer import Proposer, SearchMethod, SearchTask
from dse.space.schema import Space
from dse.zoo.split import Splits
from hwmodels.devices.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A prepared search: the design, what measures quality, and who proposes."""

    design: Design
    """Under the range of activations that lost least, where the space names several."""
    evaluator: Evaluator
    method: SearchMethod
    ranges: Ranges = field(default_factory=Ranges)

    def proposer(self, surrogates: Sequence[Surrogate], grid: Grid | None = None) -> Proposer:
        """The search method at work.

        Args:
            surrogates: losses of every choice alone, of each loss that is an objective.
            grid: the hardware points, where hardware varies.

        Raises:
            SpaceError: arguments that the method does not take.
        """
        arguments = self.design.space.search.arguments
        task = SearchTask.of(self.design, surrogates, grid)
        return proposer_of(self.method, task, arguments, origin=self.design.origin)


@dataclass(slots=True, kw_only=True)
class Effort:
    """The time and the executed MACs that a search has taken so far, written down as it goes."""

    started: float = field(default_factory=time.monotonic)
    stage_macs: dict[str, int] = field(default_factory=dict)
    """Executed MACs by stage of the search."""
    trial_macs: dict[int, int] = field(default_factory=dict)
    """Executed MACs by trial, on the search split; trials without a result included."""
    stage_seconds: dict[str, float] = field(default_factory=dict)


def prepare(
    space: Space,
    *,
    origin: str,
    folder: Path,
    compute: str = "cpu",
    memory_bytes: int | None = None,
    splits: Splits | Arrays | None = None,
    metric: Metric | None = None,
    devices: Mapping[str, Device] | None = None,
    sampler: BaseSampler | None = None,
    needed: Sizes | None = None,
) -> Session:
    """Load, check and connect everything that a space names.

    Args:
        space: the space.
        origin: what errors call it.
        folder: what its relative paths are relative to.
        compute: `cpu` or `cuda`.
        memory_bytes: that this process may take on the CPU; None: what the machine has.
        splits: the samples themselves, or arrays of them as the graph takes them, instead of
            those that the space names.
        metric: a user's own measure of quality.
        devices: by the name that a target uses, where it is not one of the catalogue or a file.
        sampler: who proposes, instead of the method that the space names.
        needed: samples a split that will do where the source has fewer than the space asks for.

    Raises:
        DseError, HardwareError: whatever in the space, the model or the data cannot be used.
        InfeasibleError: no assignment satisfies the constraints on cost.
    """
    method = _method(space, sampler, origin=origin, folder=folder)
    if splits is None:
        check_source(space.data.source, folder)
    ranks = None if splits is None else given_ranks(splits)
    designs = [
        open_design(one, origin=origin, folder=folder, devices=devices, ranks=ranks)
        for one in _by_range(space)
    ]
    design = designs[0]
    sites = {
        site.key: site for variable in design.problem.variables for site in variable.every_site
    }
    quantizers = [
        (site.key, quantizer)
        for one in designs
        for variable in one.networks.scored(one.networks.apart).variables
        for choice in variable.choices
        for site in variable.every_site
        if (quantizer := variable.quantizer(site, choice)) is not None
    ]
    evaluator = build_evaluator(
        design.model.analysis,
        space.data,
        sites,
        quantizers,
        folder=folder,
        compute=compute,
        memory_bytes=memory_bytes,
        splits=splits,
        metric=metric,
        quality=space.quality,
        needed=needed,
    )
    design, ranges = chosen(designs, evaluator)
    return Session(design=design, evaluator=evaluator, method=method, ranges=ranges)


def _by_range(space: Space) -> list[Space]:
    """The space under each of its ranges; as it is where it names one or none."""
    if len(space.ranges) < 2:
        return [space]
    words = dict.fromkeys(space.ranges)
    return [space.model_copy(update={"ranges": (word,)}) for word in words]


def _method(
    space: Space, sampler: BaseSampler | None, *, origin: str, folder: Path
) -> SearchMethod:
    if sampler is not None:
        return GivenSampler(sampler)
    return search_method(space.search.method, origin=origin, folder=folder)
