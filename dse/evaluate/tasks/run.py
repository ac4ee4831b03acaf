"""All tasks of a file, quantized against full precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dse.data import Sizes
from dse.errors import DataError
from dse.evaluate.setup import build_evaluator
from dse.evaluate.tasks.measure import Network, measure
from dse.evaluate.tasks.schema import TaskEntry
from dse.evaluate.tasks.score import TaskResult, compared
from dse.graph.ir.assignment import Assignment
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data
from dse.text.model import reader_of
from dse.text.reader import TOKENS
from hwmodels.formats.accumulator import Accumulator


def evaluate_tasks(
    analysis: Analysis,
    assignment: Assignment,
    tasks: Sequence[TaskEntry],
    data: Data,
    *,
    folder: Path = Path(),
    compute: str = "cpu",
    memory_bytes: int | None = None,
    accumulator: Accumulator | None = None,
) -> Iterator[TaskResult]:
    """The measures of every task, one after the other.

    Args:
        analysis: of a causal language model from a Hugging Face folder.
        assignment: what stands at which site.
        tasks: what to measure.
        data: what static scales and learned roundings are calibrated on.
        folder: what relative data paths are relative to.
        compute: `cpu` or `cuda`.
        memory_bytes: that this process may take on the CPU; None: what the machine has.
        accumulator: of every product that it can stand in, instead of float32.

    Raises:
        DataError: The model has no tokenizer or predicts no next token; records that do not fit.
        GraphError: No weights, or operators that cannot be executed.
    """
    graph = analysis.graph
    reader = reader_of(graph)
    if reader is None or not reader.causal or tuple(graph.inputs) != (TOKENS,):
        raise DataError(
            f"{graph.path or graph.name}: tasks need a language model that predicts the next "
            "token, with its tokenizer: a Hugging Face folder, or what dse import wrote of one"
        )
    if reader.context is not None and reader.context < data.sequence:
        data = data.model_copy(update={"sequence": reader.context})
    evaluator = build_evaluator(
        analysis,
        data,
        analysis.sites_with(key for key, _ in assignment),
        tuple(assignment),
        folder=folder,
        compute=compute,
        memory_bytes=memory_bytes,
        needed=Sizes(calibration=data.calibration, search=0, report=1),
    )
    evaluator.accumulator = accumulator
    quantized, whole = (
        Network(run=evaluator.run(one), reader=reader, batch=data.batch)
        for one in (assignment, Assignment())
    )
    for entry in tasks:
        reference = measure(entry, whole)
        for metric, scores in measure(entry, quantized).items():
            yield compared(entry.name, metric, scores, reference[metric])
