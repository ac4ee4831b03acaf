"""Quality of assignments, measured through the emulator; effort counted in executed MACs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.evaluate.batches import Batch, batches, head, taken
from dse.evaluate.constant import constant_answer
from dse.evaluate.findings import check_defined
from dse.evaluate.hurdle import Hurdle
from dse.evaluate.metric import Inputs, Metric, Run
from dse.evaluate.outputs.task import Task
from dse.evaluate.quality import Quality, summarise
from dse.evaluate.ratios import BatchRatios, Ratios, summarise_ratios
from dse.evaluate.reference import (
    BatchScore,
    DistributionReference,
    References,
    RegressionReference,
    combined,
    distance,
    references_of,
    set_spread,
    weights_of,
)
from dse.evaluate.ruin import ConstantAnswer
from dse.execute.accumulate import summations
from dse.execute.emulate import Emulator, emulators
from dse.execute.operators.step import Quantize
from dse.execute.program.passage import Kept
from dse.execute.program.program import Program
from dse.execute.program.recent import RecentTensors
from dse.execute.program.trace import Trace
from dse.execute.quantizers import bound
from dse.execute.side_by_side import side_by_side
from dse.execute.tensor_cores import has_tensor_cores, tensor_core_products
from dse.execute.weights.calibrate import Calibration
from dse.execute.weights.learn import WeightStates
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.zoo.split import Split, Splits
from hwmodels.formats.accumulator import Accumulator
from hwmodels.formats.quantizer import Quantizer

SplitName = Literal["calibration", "search", "report"]
Read = TypeVar("Read")
Item = TypeVar("Item")
SMALL_BYTES = 256 << 20
"""Values of a batch up to which batches run side by side, which takes memory for each."""
TRACE_BYTES = 2 << 30
"""Memory for kept values of the search split; what does not fit is computed again."""


@dataclass(slots=True, kw_only=True)
class _Batch:
    """One batch with what the run left that others are compared with."""

    made: References | None
    """One an output of the task; None where they are too large to be kept."""
    again: Callable[[], References]
    """Makes them of what the trace has kept."""
    trace: Trace
    kept: Kept
    """Values that earlier assignments have left."""

    @property
    def references(self) -> References:
        """One an output of the task."""
        return self.again() if self.made is None else self.made

    def score(self, outputs: Mapping[str, Tensor]) -> BatchScore:
        """Distance of the outputs, all together."""
        return distance(self.references, outputs)

    def compared(self, outputs: Mapping[str, Tensor]) -> tuple[BatchScore, BatchRatios | None]:
        """Distance and likelihood ratios of the outputs.

        The ratios are of the first output that is a distribution; None without one.
        """
        references = self.references
        drawn = [one for one in references if isinstance(one, DistributionReference)][:1]
        ratios = [one.ratios(outputs[one.output.value]) for one in drawn]
        return distance(references, outputs), ratios[0] if ratios else None

    def own_score(self) -> BatchScore:
        """The reference against itself."""
        references = self.references
        return combined([one.own_score() for one in references], weights_of(references))


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
    weights: WeightStates
    """Decisions of the calibration split about weights: learned roundings, corrected means."""
    batch: int = 8
    device: str = "cpu"
    first_output: str = ""
    """The part of a run that a user's metric gets: the graph's first output."""
    metric: Metric | None = None
    """A user's own measure of quality, instead of the divergence from full precision."""
    trace_bytes: int = TRACE_BYTES
    """Kept of runs on the search split, all batches together."""
    in_step: int = 1
    """Batches that wait for each other at every weight, because their quantized copies would not
    all fit: each is made once for all of them."""
    keeps_references: bool = True
    """Whether distributions of full precision stay; else they are made again of the last values
    before the outputs wherever they are read."""
    accumulator: Accumulator | None = None
    """Of every product that it can stand in and that names none itself; None: float32, as torch
    adds."""
    compared: Assignment | None = None
    """The network that others are compared with, its sums in float32 or as it names them; None:
    full precision."""
    macs: int = 0
    _batches: dict[SplitName, list[_Batch]] = field(default_factory=dict)
    _forward_macs: dict[SplitName, int] = field(default_factory=dict)
    _scores: dict[tuple[SplitName, int], NDArray[np.float64]] = field(default_factory=dict)
    """Of full precision, by split and samples."""
    _held_bytes: int = 0
    """Of full precision on the search split, once it has run there."""

    def __getstate__(self) -> dict[str, object]:
        """The arguments it was made of; a copy in another process begins afresh."""
        fresh: dict[str, object] = {"macs": 0, "_batches": {}, "_forward_macs": {}, "_scores": {}}
        fresh["_held_bytes"] = 0
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
        """The quantizers of operands by site, without corrections of means."""
        settled = self.weights.settled(assignment.without_sums)
        self.prepare(settled)
        return emulators(settled, self.sites, self.calibration, self.weights)

    def bound(self, assignment: Assignment) -> dict[str, Quantize]:
        """All that stands at sites under an assignment, and the sums of its products."""
        found = self._at_sites(assignment)
        # Full precision, without a site, is what everything is compared with; what an assignment
        # names itself stands.
        summed = {**self.sums(found)[0], **found} if assignment.sites else found
        if not has_tensor_cores(torch.device(self.device)):
            return summed
        nodes = self.program.analysis.flat.graph.nodes
        return {**summed, **tensor_core_products(nodes, summed, self.sites)}

    def _at_sites(self, assignment: Assignment) -> dict[str, Quantize]:
        self.prepare(assignment)
        return bound(assignment, self.sites, self.calibration, self.weights)

    def sums(self, at_sites: Mapping[str, Quantize]) -> tuple[dict[str, Quantize], dict[str, str]]:
        """The sums in the accumulator, and why other products keep theirs, by node.

        Raises:
            AssignmentError: no product can take the accumulator.
        """
        if self.accumulator is None:
            return {}, {}
        nodes = self.program.analysis.flat.graph.nodes
        return summations(nodes, at_sites, self.accumulator)

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

    def measure_bound(self, bound: Mapping[str, Quantize], split: SplitName) -> Quality:
        """The quality of what stands at sites, wherever it comes from, on a whole split."""
        return self._summary(self._scored(self._prefix(split, None), bound))

    def compare(self, assignment: Assignment, split: SplitName) -> tuple[Quality, Ratios | None]:
        """The quality of an assignment, and likelihood ratios if classes are drawn from it.

        The ratios are to the reference, of the first output that is a distribution; None where
        there is none.
        """
        found = self._read(self._prefix(split, None), self.bound(assignment), _Batch.compared)
        quality = self._summary({number: score for number, (score, _) in found.items()})
        there = [found[number][1] for number in sorted(found)]
        ratios = [one for one in there if one is not None]
        return quality, summarise_ratios(ratios) if ratios else None

    def reference(self, split: SplitName) -> Quality:
        """The quality of the reference on a split: no loss, and the metric that it reaches."""
        if self.metric is not None:
            scores = self._reference_scores(self.metric, split, None)
            return self.metric.quality(scores, scores)
        prepared = self._prepared(split)
        return summarise([batch.own_score() for batch in prepared], self.task)

    def constant(self, split: SplitName) -> ConstantAnswer:
        """Loss on a split of a network that gives the same answer to every input."""
        return constant_answer(self._prepared(split))

    def spread(self, place: int) -> float:
        """Spread that errors of an output without a distribution count against, search split."""
        if self.task.outputs[place].is_distribution:
            return 1.0
        found = self._prepared("search")[0].references[place]
        return found.scale if isinstance(found, RegressionReference) else 1.0

    def samples(self, split: SplitName) -> int:
        """Number of samples of a split."""
        found: Split = getattr(self.splits, split)
        return found.samples

    def forward_macs(self, split: SplitName = "search") -> int:
        """MACs of one full-precision forward over a split: the unit of effort."""
        self._prepared(split)
        return self._forward_macs[split]

    def first_outputs(self) -> Mapping[str, Tensor]:
        """The full-precision outputs of the first batch that is measured."""
        measured = self.splits.search if self.splits.search.samples else self.splits.report
        with torch.inference_mode():
            batch = next(batches(measured, self.batch, self.device))
            execution = self.program.run(batch.feeds)
        self.macs += execution.macs
        return execution.outputs

    def run(self, assignment: Assignment) -> Run:
        """The network under an assignment, for a user's metric."""
        bound = self.bound(assignment)

        def execute(inputs: Inputs) -> NDArray[Any]:
            outputs = []
            pool = replace(self.splits.search, inputs=inputs, labels=None)
            for batch in batches(pool, self.batch, self.device):
                with torch.inference_mode():
                    execution = self.program.run(batch.feeds, bound)
                self.macs += execution.macs
                outputs.append(execution.outputs[self.first_output].float().cpu().numpy())
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
        return self._read(some, bound, _Batch.score)

    def _read(
        self,
        some: Mapping[int, _Batch],
        bound: Mapping[str, Quantize],
        read: Callable[[_Batch, Mapping[str, Tensor]], Read],
    ) -> dict[int, Read]:
        """Batches by number -> what is read off the quantized network's outputs there."""
        if self.in_step > 1:
            return self._read_in_step(some, bound, read)

        def executed(item: tuple[int, _Batch]) -> tuple[int, Read, int]:
            number, batch = item
            execution = self.program.rerun(batch.trace, bound, kept=batch.kept)
            return number, read(batch, execution.outputs), execution.macs

        found = side_by_side(executed, some.items(), threads=self._threads)
        self.macs += sum(macs for _, _, macs in found)
        return {number: result for number, result, _ in found}

    def _read_in_step(
        self,
        some: Mapping[int, _Batch],
        bound: Mapping[str, Quantize],
        read: Callable[[_Batch, Mapping[str, Tensor]], Read],
    ) -> dict[int, Read]:
        found: dict[int, Read] = {}
        for numbers in _groups(list(some), self.in_step):
            together = [some[number] for number in numbers]
            traces, kept = [one.trace for one in together], [one.kept for one in together]
            for place, execution in self.program.rerun_each(traces, bound, kept):
                found[numbers[place]] = read(together[place], execution.outputs)
                self.macs += execution.macs
        return found

    @property
    def _threads(self) -> int:
        """Batches that are measured at once; large ones share their steps instead."""
        search = self._batches.get("search", ())
        largest = max((batch.trace.made_bytes for batch in search), default=0)
        small = 0 < largest <= SMALL_BYTES
        on_host = torch.device(self.device).type == "cpu"
        return torch.get_num_threads() if small and on_host else 1

    def _summary(self, scores: Mapping[int, BatchScore]) -> Quality:
        """The quality of batches, whatever order they were scored in."""
        return summarise([scores[number] for number in sorted(scores)], self.task)

    def _reference_scores(
        self, metric: Metric, split: SplitName, samples: int | None
    ) -> NDArray[np.float64]:
        data = head(getattr(self.splits, split), samples)
        key = (split, data.samples)
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
            found = self._traced(split)
            self._settle(found, split)
            self._batches[split] = found
            self._forward_macs[split] = self.macs - before
        return self._batches[split]

    def _traced(self, split: SplitName) -> list[_Batch]:
        """The batches of a split after their full-precision run; the search split's keep values.

        What earlier assignments leave gets as much memory again, as far as there is some left;
        a quarter of it on other splits, where neighbours are measured one after the other.
        """
        data: Split = getattr(self.splits, split)
        keep = split == "search" and self.metric is None
        count = -(-data.samples // self.batch)
        keep_bytes = self.trace_bytes // count if keep else 0
        found: dict[int, _Batch] = {}
        given = enumerate(batches(data, self.batch, self.device))
        for group in _groups(given, self.in_step):
            traces = self.program.trace_each(
                [batch.feeds for _, batch in group],
                keep_bytes=keep_bytes,
                ends=not self.keeps_references,
            )
            for place, trace in traces:
                number, batch = group[place]
                found[number] = self._prepare(batch, trace)
        ordered = [found[number] for number in sorted(found)]
        if keep:
            self._held_bytes = sum(batch.trace.bytes for batch in ordered)
        held = self._held_bytes
        room = max(0, min(held, self.trace_bytes - held))
        for one in ordered:
            one.kept.tensors.limit_bytes = room * (3 if keep else 1) // (4 * count)
        return ordered

    def _prepare(self, batch: Batch, trace: Trace) -> _Batch:
        """A batch as others are compared with it; its trace forgets the outputs."""
        execution = trace.execution
        self.macs += execution.macs
        without = replace(trace, execution=replace(execution, outputs={}))
        kept = Kept(tensors=RecentTensors(0))
        errors: tuple[RegressionReference | None, ...] = ()

        def again() -> References:
            bound = {} if self.compared is None else self._at_sites(self.compared)
            execution = self.program.rerun(without, bound, kept=kept)
            self.macs += execution.macs
            made = references_of(self.task, execution.outputs, batch)
            return tuple(old or new for old, new in zip(errors, made, strict=True))

        if self.compared is not None:
            execution = self.program.rerun(trace, self._at_sites(self.compared), kept=kept)
            self.macs += execution.macs
        made = references_of(self.task, execution.outputs, batch)
        # Their spread is over all batches, and they are small.
        errors = tuple(one if isinstance(one, RegressionReference) else None for one in made)
        return _Batch(
            made=made if self.keeps_references else None, again=again, trace=without, kept=kept
        )

    def _settle(self, found: Sequence[_Batch], split: SplitName) -> None:
        """Figures of all batches of a split: spreads, and whether there is anything to compare.

        Raises:
            DataError: an output that full precision leaves undefined everywhere.
        """
        if self.metric is not None:
            return
        defined: list[list[Tensor]] = [[] for _ in self.task.outputs]
        errors: list[list[RegressionReference]] = [[] for _ in self.task.outputs]
        for batch in found:
            for place, one in enumerate(batch.references):
                defined[place].append(one.defined)
                if isinstance(one, RegressionReference):
                    errors[place].append(one)
        for output, column, some in zip(self.task.outputs, defined, errors, strict=True):
            check_defined(output, column, self.program.graph, split)
            if some:
                set_spread(some)


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in their order, `size` at a time."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
