"""Quality of one assignment of one model: `dse evaluate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dse.data import Sizes
from dse.data.layout import Arrays
from dse.evaluate.findings import verdict
from dse.evaluate.outputs.task import Task
from dse.evaluate.quality import Quality
from dse.evaluate.ratios import Ratios
from dse.evaluate.ruin import ConstantAnswer
from dse.evaluate.setup import UNSAID, build_evaluator
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data, QualityOf
from dse.zoo.split import Splits
from hwmodels.formats.accumulator import Accumulator

UNNAMED = "no accumulator is named there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """An assignment against full precision, or another network, on the report split."""

    task: Task
    quantized: Quality
    reference: Quality
    constant: ConstantAnswer
    """Loss of a network that answers the same to every input."""
    ratios: Ratios | None = None
    """Likelihood ratios between a reference that was given and the assignment, where outputs have
    a distribution."""
    sums: int = 0
    """Products whose sum an accumulator forms."""
    other_sums: Mapping[str, int] = field(default_factory=dict)
    """Products that keep float32 beside them, by the reason."""

    @property
    def verdict(self) -> str:
        """Remarks on the loss; empty where it is a loss like any other."""
        return verdict(self.quantized, self.constant, self.task.unit)


def evaluate_model(
    analysis: Analysis,
    assignment: Assignment,
    data: Data,
    *,
    folder: Path = Path(),
    compute: str = "cpu",
    memory_bytes: int | None = None,
    quality: QualityOf = UNSAID,
    splits: Splits | Arrays | None = None,
    accumulator: Accumulator | None = None,
    reference: Assignment | None = None,
) -> Evaluation:
    """Emulate an assignment on the report split; scales come from the calibration split.

    Args:
        analysis: of the model, which has its weights.
        assignment: what stands at which site.
        data: where samples come from.
        folder: what relative data paths are relative to.
        compute: `cpu` or `cuda`.
        memory_bytes: that this process may take on the CPU; None: what the machine has.
        quality: what the user says about the outputs.
        splits: the samples themselves, or arrays of them as the graph takes them, instead of
            those that `data` names.
        accumulator: of every product of the assignment that it can stand in, instead of float32.
        reference: the network that it is compared with, instead of full precision: the trainer of
            a policy whose rollouts run quantized, the target of a quantized draft.

    Raises:
        GraphError: no weights, or operators that cannot be executed.
        AssignmentError: no product can take the accumulator.
        DataError: data that do not fit the graph.
    """
    pairs = (*assignment, *(reference or ()))
    evaluator = build_evaluator(
        analysis,
        data,
        analysis.sites_with(key for key, _ in pairs),
        pairs,
        folder=folder,
        compute=compute,
        memory_bytes=memory_bytes,
        quality=quality,
        needed=Sizes(calibration=data.calibration, search=0, report=data.report),
        splits=splits,
    )
    evaluator.accumulator = accumulator
    evaluator.compared = reference
    sums, kept = evaluator.sums(evaluator.bound(assignment))
    summed = len(sums)
    if assignment.sums and accumulator is None:
        products = {site.node for site in analysis.sums}
        kept = dict.fromkeys(products - assignment.sums.keys(), UNNAMED)
        summed = len(assignment.sums)
    if reference is None:
        quantized, ratios = evaluator.measure(assignment, "report"), None
    else:
        quantized, ratios = evaluator.compare(assignment, "report")
    return Evaluation(
        sums=summed,
        other_sums=Counter(kept.values()),
        task=evaluator.task,
        quantized=quantized,
        reference=evaluator.reference("report"),
        constant=evaluator.constant("report"),
        ratios=ratios,
    )
