"""Quality of assignments, measured through the emulator; effort counted in executed MACs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.evaluate.batches import Feeds, batches, head, taken
from dse.evaluate.hurdle import Hurdle
from dse.evaluate.metric import Inputs, Metric, Run
from dse.evaluate.quality import BatchScore, Quality, Reference, Task, summarise
from dse.execute.emulate import Emulator, emulators
from dse.execute.operators.step import Quantize
from dse.execute.program.program import Program
from dse.execute.program.trace import Trace
from dse.execute.quantizers import bound
from dse.execute.weights.calibrate import Calibration
from dse.execute.weights.learn import WeightStates
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.zoo.split import Split, Splits
from hwmodels.formats.quantizer import Quantizer

SplitName = Literal["calibration", "search", "report"]
TRACE_BYTES = 2 << 30
"""Memory for kept values of the search split; what does not fit is computed again."""


@dataclass(slots=True, kw_only=True)
class _Batch:
    """One batch with what the full-precision run left."""

    feeds: dict[str, Tensor]
    reference: Reference
    trace: Trace | None


@dataclass(kw_only=True)
class Evaluator:
    """Runs assignments on the splits of one model.

    The full-precision outputs of a split are computed when it is first used. `macs` grows with
    every execution, references and re-computation included.
    """

    program: Program
    splits: Splits
    task: Task
    sites: Mapping[str, Site]
    calibration: Calibration
    batch: int = 8
    device: str = "cpu"
    metric: Metric | None = None
    """A user's own measure of quality, instead of the divergence from full precision."""
    weights: WeightStates = None  # type: ignore[assignment]  # made below where none is given
    """What the calibration split decides about weights: learned roundings, corrected means."""
    trace_bytes: int = TRACE_BYTES
    """Kept of full precision on the search split, all batches together."""
    macs: int = 0
    _batches: dict[SplitName, list[_Batch]] = field(default_factory=dict)
    _forward_macs: dict[SplitName, int] = field(default_factory=dict)
    _scores: dict[tuple[SplitName, int], NDArray[np.float64]] = field(default_factory=dict)
    """Of full precision, by split and samples."""

    def __post_init__(self) -> None:
        """Without states given, they are learned when an assignment first needs them."""
        if self.weights is None:
            feeds = Feeds(self.splits.calibration, self.batch, self.device)
            self.weights = WeightStates(self.program, self.sites, feeds)

    def __getstate__(self) -> dict[str, object]:
        """What it was made of; a copy in another process begins afresh."""
        fresh = {"macs": 0, "_batches": {}, "_forward_macs": {}, "_scores": {}}
        return {**self.__dict__, **fresh}

    def prepare(self, quantizers: Iterable[tuple[str, Quantizer]]) -> None:
        """Learns about all weights at once what these quantizers at sites will need.

        Raises:
            AssignmentError: a rounding is to be learned where there is no such weight.
        """
        before = self.weights.macs
        self.weights.prepare(quantizers)
        self.macs += self.weights.macs - before

    def emulators(self, assignment: Assignment) -> dict[str, Emulator]:
        """The quantizers of an assignment by site, without corrections of means."""
        settled = self.weights.settled(assignment)
        self.prepare(settled)
        return emulators(settled, self.sites, self.calibration, self.weights)

    def bound(self, assignment: Assignment) -> dict[str, Quantize]:
        """All that stands at sites under an assignment."""
        self.prepare(assignment)
        return bound(assignment, self.sites, self.calibration, self.weights)

    def measure(
        self,
        assignment: Assignment,
        split: SplitName = "search",
        *,
        samples: int | None = None,
        hurdle: Hurdle | None = None,
    ) -> Quality:
        """The quality of an assignment on the first samples of a split (default: all).

        Args:
            assignment: what stands at which site.
            split: of the data.
            samples: how many; rounded up to whole batches.
            hurdle: what the samples that it names must clear for the rest of the split to be
                measured; the quality is of those samples where they do not, and otherwise the
                same, bit by bit, as without a hurdle.

        Raises:
            DataError: a user's metric returned NaN or something that is no score; whatever else
                it raises is passed on.
        """
        if self.metric is not None:
            return self._judged(self.metric, assignment, split, samples, hurdle)
        bound = self.bound(assignment)
        if hurdle is None:
            return self._summary(self._scored(self._prefix(split, samples), bound))
        first, rest = self._parted(split, hurdle.rows)
        scores = self._scored(first, bound)
        quality = self._summary(scores)
        if not hurdle.clears(quality.losses):
            return quality
        return self._summary(scores | self._scored(rest, bound))

    def reference(self, split: SplitName) -> Quality:
        """The quality of full precision on a split: no loss, and the metric that it reaches."""
        if self.metric is not None:
            scores = self._reference_scores(self.metric, split, None)
            return self.metric.quality(scores, scores)
        prepared = self._prepared(split)
        return summarise([batch.reference.own_score() for batch in prepared], self.task)

    def samples(self, split: SplitName) -> int:
        """How many samples a split has."""
        return len(next(iter(getattr(self.splits, split).inputs.values())))

    def forward_macs(self, split: SplitName = "search") -> int:
        """MACs of one full-precision forward over a split: the unit of effort."""
        self._prepared(split)
        return self._forward_macs[split]

    def run(self, assignment: Assignment) -> Run:
        """The network under an assignment, for a user's metric."""
        bound = self.bound(assignment)

        def execute(inputs: Inputs) -> NDArray[Any]:
            outputs = []
            pool = Split(inputs=inputs, labels=None, kind=self.splits.search.kind)
            for feeds, _ in batches(pool, self.batch, self.device):
                with torch.inference_mode():
                    execution = self.program.run(feeds, bound)
                self.macs += execution.macs
                outputs.append(self._output(execution.outputs).float().cpu().numpy())
            return np.concatenate(outputs)

        return Run(self.program.graph.inputs, execute)

    def _judged(
        self,
        metric: Metric,
        assignment: Assignment,
        split: SplitName,
        samples: int | None,
        hurdle: Hurdle | None,
    ) -> Quality:
        """The quality by a user's metric."""
        reference = self._reference_scores(metric, split, samples)
        data, run = getattr(self.splits, split), self.run(assignment)
        if hurdle is None:
            return metric.quality(metric.score(run, head(data, samples)), reference)
        rows = list(hurdle.rows)
        scores = metric.score(run, taken(data, rows))
        quality = metric.quality(scores, reference[rows])
        if not hurdle.clears(quality.losses):
            return quality
        rest = np.setdiff1d(np.arange(len(reference)), rows)
        whole = np.empty(len(reference))
        whole[rows], whole[rest] = scores, metric.score(run, taken(data, rest))
        return metric.quality(whole, reference)

    def _scored(
        self, some: Mapping[int, _Batch], bound: Mapping[str, Quantize]
    ) -> dict[int, BatchScore]:
        """Batches by number -> how far the quantized network is off there."""
        scores = {}
        for number, batch in some.items():
            if batch.trace is not None:
                execution = self.program.rerun(batch.trace, bound)
            else:
                with torch.inference_mode():
                    execution = self.program.run(batch.feeds, bound)
            self.macs += execution.macs
            scores[number] = batch.reference.score(self._output(execution.outputs))
        return scores

    def _summary(self, scores: Mapping[int, BatchScore]) -> Quality:
        """The quality of batches, whatever order they were scored in."""
        return summarise([scores[number] for number in sorted(scores)], self.task)

    def _reference_scores(
        self, metric: Metric, split: SplitName, samples: int | None
    ) -> NDArray[np.float64]:
        data = head(getattr(self.splits, split), samples)
        key = (split, len(next(iter(data.inputs.values()))))
        if key not in self._scores:
            self._scores[key] = metric.score(self.run(Assignment.of({})), data)
        return self._scores[key]

    def _prefix(self, split: SplitName, samples: int | None) -> dict[int, _Batch]:
        """The batches that hold the first `samples` samples, whole batches only."""
        prepared = self._prepared(split)
        count = len(prepared) if samples is None else -(-samples // self.batch)
        return dict(enumerate(prepared[:count]))

    def _parted(
        self, split: SplitName, rows: Collection[int]
    ) -> tuple[dict[int, _Batch], dict[int, _Batch]]:
        """The batches that begin with one of these samples, and the others."""
        parts: tuple[dict[int, _Batch], dict[int, _Batch]] = {}, {}
        for number, batch in enumerate(self._prepared(split)):
            parts[number * self.batch not in rows][number] = batch
        return parts

    def _prepared(self, split: SplitName) -> list[_Batch]:
        if split not in self._batches:
            before = self.macs
            self._batches[split] = [
                self._prepare(feeds, labels, keep=split == "search" and self.metric is None)
                for feeds, labels in batches(getattr(self.splits, split), self.batch, self.device)
            ]
            self._forward_macs[split] = self.macs - before
        return self._batches[split]

    def _prepare(self, feeds: dict[str, Tensor], labels: Tensor | None, *, keep: bool) -> _Batch:
        count = -(-self.samples("search") // self.batch)
        if keep:
            trace = self.program.trace(feeds, keep_bytes=self.trace_bytes // count)
            execution = trace.execution
        else:
            trace = None
            with torch.inference_mode():
                execution = self.program.run(feeds)
        self.macs += execution.macs
        output = self._output(execution.outputs)
        return _Batch(feeds=feeds, reference=Reference(output, labels, self.task), trace=trace)

    def _output(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """What quality is read from: the graph's first output."""
        return outputs[self.program.graph.outputs[0]]
