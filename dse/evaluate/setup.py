"""From a model and a data section to an evaluator: splits, program, calibrated scales."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from dse.data import Sizes, load_splits
from dse.errors import DataError, GraphError
from dse.evaluate.batches import Feeds
from dse.evaluate.evaluator import TRACE_BYTES, Evaluator
from dse.evaluate.metric import Metric
from dse.evaluate.quality import Task
from dse.execute.memory import GIGA, Caches, Need, checked, memory_need, with_kept
from dse.execute.program.program import WEIGHT_CACHE_BYTES, Program
from dse.execute.weights.calibrate import observe
from dse.graph.ir.graph import Graph
from dse.graph.ir.site import Site
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data
from dse.zoo.split import Split, Splits
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES

LOGGER = logging.getLogger(__name__)
BYTES = 256
"""Vocabulary of a byte-level model: its cross-entropy is quoted in bits per byte."""


def build_evaluator(
    analysis: Analysis,
    data: Data,
    sites: Mapping[str, Site],
    quantizers: Iterable[tuple[str, Quantizer]],
    *,
    folder: Path = Path(),
    compute: str = "cpu",
    splits: Splits | None = None,
    metric: Metric | None = None,
) -> Evaluator:
    """An evaluator with static scales calibrated and learned roundings learned.

    Args:
        analysis: of the model, which has its weights.
        data: where samples come from.
        sites: every site that an assignment may name, by key.
        quantizers: what may stand at which site; activation sites with a static one are observed
            on the calibration split.
        folder: what relative data paths are relative to.
        compute: `cpu` or `cuda`.
        splits: the samples themselves, instead of those that `data` names.
        metric: a user's own measure of quality.

    Raises:
        GraphError: no weights, operators that cannot be executed, or more memory needed than
            there is.
        DataError: data that do not fit the graph, or a metric that fails on full precision.
    """
    graph = analysis.graph
    if compute == "cuda" and not torch.cuda.is_available():
        raise DataError("--compute cuda: torch finds no CUDA device here; use --compute cpu")
    if not graph.has_weights:
        raise GraphError(
            f"{graph.path or graph.name}: has no weights, so quality cannot be measured: "
            f"{', '.join(graph.absent_files)} is absent; put it there, or use the model as "
            "cost_model, or with dse predict"
        )
    shapes = {name: graph.types[name].shape or () for name in graph.inputs}
    data = _in_batches_of(graph, data)
    sizes = Sizes(calibration=data.calibration, search=data.search, report=data.report)
    if splits is None:
        splits = load_splits(
            data.source, sizes, sequence=data.sequence, inputs=shapes, folder=folder
        )
    pairs = tuple(quantizers)
    budgets = Caches(weight_bytes=WEIGHT_CACHE_BYTES, trace_bytes=TRACE_BYTES)
    if compute == "cpu":
        inputs = splits.search.inputs
        batch = {name: (min(data.batch, len(x)), *x.shape[1:]) for name, x in inputs.items()}
        count = max(math.ceil(len(x) / data.batch) for x in inputs.values())
        need = with_kept(
            memory_need(graph, batch), graph, batch, sites, pairs, batches=count, budgets=budgets
        )
        budgets = _told(need, graph, budgets)
    program = Program(
        graph, analysis=analysis, device=compute, weight_cache_bytes=budgets.weight_bytes
    )
    feeds = Feeds(splits.calibration, data.batch, compute)
    calibration = observe(program, feeds(), _observed(sites, pairs))
    evaluator = Evaluator(
        program=program,
        splits=splits,
        task=infer_task(graph, splits.search),
        sites=sites,
        calibration=calibration,
        batch=data.batch,
        device=compute,
        trace_bytes=budgets.trace_bytes,
    )
    evaluator.prepare(pairs)
    return evaluator if metric is None else judged_by(evaluator, metric)


def _in_batches_of(graph: Graph, data: Data) -> Data:
    """The data in batches of the size that the graph was exported with, where that is fixed.

    Raises:
        DataError: a split is no multiple of it.
    """
    shapes = [graph.types[name].shape or ("",) for name in graph.inputs]
    first = {shape[0] for shape in shapes}
    size = next(iter(first), None)
    if len(first) != 1 or not isinstance(size, int) or size == data.batch:
        return data
    counts = {"calibration": data.calibration, "search": data.search, "report": data.report}
    odd = [f"data.{name} is {count}" for name, count in counts.items() if count % size]
    if odd:
        raise DataError(
            f"{graph.path or graph.name}: takes batches of {size} samples only, but "
            f"{', '.join(odd)}; give multiples of {size}, or export the model with a free batch"
        )
    return data.model_copy(update={"batch": size})


def _told(need: Need, graph: Graph, budgets: Caches) -> Caches:
    """What caches may take, once the need is checked and said."""
    granted = checked(need, graph).caches
    LOGGER.log(logging.INFO if need.is_large else logging.DEBUG, "%s", need)
    if granted == need.caches:
        return budgets
    LOGGER.warning(
        "caches get %.2g GB of these: measuring takes longer, its results are the same",
        granted.bytes / GIGA,
    )
    return granted


def judged_by(evaluator: Evaluator, metric: Metric) -> Evaluator:
    """The evaluator with a user's own measure of quality, tried on full precision.

    Raises:
        DataError: it fails there already.
    """
    task = Task(
        distribution=evaluator.task.distribution,
        metric=metric.name,
        higher_is_better=metric.goal == "maximise",
    )
    judged = replace(evaluator, task=task, metric=metric)
    try:
        judged.reference("search")
        judged.reference("report")
    except Exception as error:
        raise DataError(
            f"evaluate: fails on the network in full precision: {type(error).__name__}: {error}"
        ) from error
    return judged


def infer_task(graph: Graph, split: Split) -> Task:
    """What the first output means, from the data.

    One label a sample is a class, one a position the next token; tokens without labels still
    come with a distribution.
    """
    shape = graph.types[graph.outputs[0]].shape or ()
    if split.labels is None:
        return Task(distribution=split.kind == "tokens")
    if split.labels.ndim == 1:
        return Task(distribution=True, metric="accuracy")
    is_bytes = bool(shape) and shape[-1] == BYTES
    return Task(distribution=True, metric="bits_per_byte" if is_bytes else "perplexity")


def _observed(
    sites: Mapping[str, Site], quantizers: Iterable[tuple[str, Quantizer]]
) -> tuple[Site, ...]:
    """Sites whose scales are fixed before deployment; constants are their own calibration."""
    keys = {
        key
        for key, quantizer in quantizers
        if not quantizer.is_dynamic and not ROLES[sites[key].role].is_constant
    }
    return tuple(site for key, site in sites.items() if key in keys)
