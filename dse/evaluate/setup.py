"""From a model and a data section to an evaluator: splits, program, calibrated scales."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

from dse.data import Sizes, batch_name, graph_shapes
from dse.data.layout import Arrays, Shapes
from dse.data.splits import given_splits
from dse.errors import DataError, GraphError, some
from dse.evaluate.batches import Feeds, batches
from dse.evaluate.evaluator import TRACE_BYTES, Evaluator
from dse.evaluate.findings import bad_weights, idle_rotations, remarks
from dse.evaluate.metric import Metric
from dse.evaluate.outputs.classify import classify
from dse.evaluate.outputs.task import Task
from dse.evaluate.outputs.values import certain
from dse.evaluate.reach import SHOWN, before, unmeasured, without_untouched
from dse.evaluate.splits import splits_of
from dse.execute.memory import GIGA, Caches, Need, memory_need, shaped, with_kept
from dse.execute.pace import least_seconds
from dse.execute.program.compiler import problems
from dse.execute.program.program import WEIGHT_CACHE_BYTES, Program
from dse.execute.room import Room, room_for, room_on_device
from dse.execute.weights.calibrate import observe
from dse.execute.weights.learn import WeightStates
from dse.execute.weights.product import products_of
from dse.graph.ir.graph import Graph
from dse.graph.ir.site import Site
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data, QualityOf
from dse.zoo.split import Splits
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES

LOGGER = logging.getLogger(__name__)
LONG_SECONDS = 20.0
"""A pass that is worth a word before it starts."""
SEQUENCE_AXES = 3
"""Axes of a batch of sequences: samples and time, in either order, and features."""
UNSAID = QualityOf()
"""Nothing is said about the outputs."""


def build_evaluator(
    analysis: Analysis,
    data: Data,
    sites: Mapping[str, Site],
    quantizers: Iterable[tuple[str, Quantizer]],
    *,
    folder: Path = Path(),
    compute: str = "cpu",
    memory_bytes: int | None = None,
    splits: Splits | Arrays | None = None,
    metric: Metric | None = None,
    quality: QualityOf = UNSAID,
    needed: Sizes | None = None,
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
        memory_bytes: that this process may take, with `cuda` of the GPU; None: what there is.
        splits: the samples themselves, or arrays of them as the graph takes them, instead of
            those that `data` names.
        metric: a user's own measure of quality.
        quality: what the user says about the outputs.
        needed: samples a split that will do where the source has fewer than `data` asks for;
            none of the calibration split where nothing is calibrated.

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
    shapes = graph_shapes(graph)
    pairs = tuple(quantizers)
    _remark_given(analysis, shapes, sites, pairs)
    sizes = Sizes(calibration=data.calibration, search=data.search, report=data.report)
    if needed and not _is_calibrated(analysis, sites, pairs):
        needed = replace(needed, calibration=0)
    data = _in_batches_of(graph, data, needed or sizes)
    if splits is None:
        splits = splits_of(graph, data, folder, sizes=sizes, needed=needed)
    else:
        splits = given_splits(splits, sizes, shapes, needed)
    measured = splits.search if splits.search.samples else splits.report
    every = (*sites.values(), *analysis.sites)
    task = without_untouched(classify(graph, measured, quality), graph, every)
    if metric is not None:
        task = replace(task, outputs=())
    values = [output.value for output in task.outputs]
    wanted = values if metric is None else graph.outputs[:1]
    scored = _up_to(graph, tuple(dict.fromkeys(wanted)), sites.values())
    free = _free_on_gpu() if compute == "cuda" else 0
    budgets = Caches(weight_bytes=max(WEIGHT_CACHE_BYTES, free), trace_bytes=TRACE_BYTES)
    first = next(batches(measured, data.batch, "cpu")).feeds
    batch = {name: tuple(x.shape) for name, x in first.items()}
    used = [split.samples for split in (splits.search, splits.report) if split.samples]
    types = shaped(scored, batch)
    need = with_kept(
        memory_need(scored, types), scored, types, sites, pairs,
        batches=math.ceil(max(used) / data.batch), budgets=budgets, splits=len(used),
        distributions=[output.value for output in task.outputs if output.is_distribution],
        biased=_biased(analysis, (sites[key] for key, _ in pairs if key in sites)),
    )  # fmt: skip
    if compute == "cuda":
        room = room_on_device(need, graph, free_bytes=free, limit_bytes=memory_bytes)
        _tell_streamed(need, room)
    else:
        room = _told(need, room_for(need, graph, limit_bytes=memory_bytes), budgets)
        seconds = least_seconds(scored, types, measured.samples / data.batch)
        _tell_time(seconds, measured.samples)
    read = analysis if scored is graph else Analysis(scored)
    program = Program(
        scored, analysis=read, device=compute, weight_cache_bytes=room.caches.weight_bytes,
        streams=room.streams,
    )  # fmt: skip
    feeds = Feeds(splits.calibration, data.batch, compute)
    calibration = observe(program, feeds(), _observed(sites, pairs))
    evaluator = Evaluator(
        program=program,
        splits=splits,
        task=task,
        sites=sites,
        calibration=calibration,
        weights=WeightStates(program, sites, feeds),
        batch=data.batch,
        device=compute,
        trace_bytes=room.caches.trace_bytes,
        in_step=room.in_step,
        keeps_references=room.keeps_references,
        first_output=graph.outputs[0],
    )
    if not all(output.certain for output in task.outputs):
        evaluator.task = certain(task, evaluator.first_outputs())
    evaluator.prepare(pairs)
    if metric is not None:
        return judged_by(evaluator, metric)
    _remark(read.flat.graph, sites, evaluator.task)
    return evaluator


def _remark_given(
    analysis: Analysis,
    shapes: Shapes,
    sites: Mapping[str, Site],
    pairs: Sequence[tuple[str, Quantizer]],
) -> None:
    """Says what a reader must know of the model and the formats before anything is measured."""
    _remark_quantized(analysis)
    _remark_samples(analysis.graph, shapes)
    for remark in idle_rotations(sites, pairs):
        LOGGER.warning("%s", remark)


def _remark_quantized(analysis: Analysis) -> None:
    """Says which products the model's author quantized."""
    if left := some(analysis.quantized, SHOWN):
        LOGGER.warning("quantized already, left as it is: %s", left)
    if before := some(analysis.dequantized, SHOWN):
        LOGGER.warning(
            "quantized before (Q/DQ) and left so: losses are against the model as it is; formats "
            "that an assignment names there round once more: %s", before,
        )  # fmt: skip


def _remark(graph: Graph, sites: Mapping[str, Site], task: Task) -> None:
    """Says what a reader of losses must know of the model."""
    for remark in remarks(task):
        LOGGER.warning("%s", remark)
    for note in task.notes:
        LOGGER.info("%s", note)
    if bad := some(bad_weights(graph), SHOWN):
        LOGGER.warning("weights that hold NaN or Inf: %s", bad)
    values = [output.value for output in task.outputs]
    if unseen := some(unmeasured(graph, sites.values(), values), SHOWN):
        LOGGER.warning(
            "no measured output is reached from %s: whatever stands there costs nothing in this "
            "loss (measured: %s)", unseen, ", ".join(output.name for output in task.outputs),
        )  # fmt: skip


def _up_to(graph: Graph, values: tuple[str, ...], sites: Iterable[Site]) -> Graph:
    """The graph with other outputs, without what comes after them: a choice of boxes, say.

    Nodes that an assignment may name stay, and what leads to them.
    """
    ends = [graph.producer[value].name for value in values if value in graph.producer]
    kept = before(graph, [*ends, *(site.node for site in sites)])
    # What can run stays: a node that loses a reader may take its bias for its own.
    spare = len(kept) < len(graph.nodes) and any(problems(graph))
    if values == graph.outputs and not spare:
        return graph
    nodes = tuple(node for node in graph.nodes if node.name in kept)
    return replace(graph, outputs=values, nodes=nodes if spare else graph.nodes)


def uses_calibration(role: str, quantizer: Quantizer, *, has_bias: bool) -> bool:
    """Whether a quantizer may look at calibration data.

    Args:
        role: of the operand that it stands at.
        quantizer: as asked for; what is left open is settled as it will be.
        has_bias: whether a bias would take the shift of a corrected mean.
    """
    if not ROLES[role].is_constant:
        return not quantizer.is_dynamic or bool(quantizer.transforms)
    settled = quantizer.settled(weight=role == "weight")
    corrected = settled.correction == "bias_corrected"
    corrected &= has_bias or quantizer.correction != "auto"
    searched = settled.statistic == "output_mse" or corrected
    return quantizer.is_learned or searched or bool(quantizer.transforms)


def _is_calibrated(
    analysis: Analysis, sites: Mapping[str, Site], pairs: Sequence[tuple[str, Quantizer]]
) -> bool:
    """Whether any quantizer may look at calibration data where it stands."""
    biased = _biased(analysis, (sites[key] for key, _ in pairs))
    return any(
        uses_calibration(sites[key].role, each, has_bias=key in biased) for key, each in pairs
    )


def _biased(analysis: Analysis, sites: Iterable[Site]) -> frozenset[str]:
    """Sites of weights whose product has a bias."""
    shapes = {
        site.key: tuple(size for size in site.shape if isinstance(size, int))
        for site in sites
        if site.role == "weight"
    }
    found = products_of(analysis.flat.graph, shapes)
    return frozenset(key for key, product in found.items() if product.has_bias)


def _remark_samples(graph: Graph, shapes: Shapes) -> None:
    """Says of sequences whose sizes have no names which axis is taken to count samples."""
    if graph.samples or batch_name(shapes.values()):
        return
    for name, shape in shapes.items():
        if shape is not None and len(shape) == SEQUENCE_AXES and shape[:2] == (None, None):
            LOGGER.warning(
                "%s: its first axis is taken to count samples, since no size of it has a name; "
                "where another one does, name it in the model (batch)", name,
            )  # fmt: skip


def _in_batches_of(graph: Graph, data: Data, sizes: Sizes) -> Data:
    """The data in batches of the size that the graph was exported with, where that is fixed.

    Raises:
        DataError: a split is no multiple of it.
    """
    shapes = {name: shape for name in graph.inputs if (shape := graph.shape(name))}
    places = graph.samples or dict.fromkeys([*shapes][:1], 0)
    size = next((shapes[name][axis] for name, axis in places.items()), None)
    named = not graph.samples and batch_name(shapes.values())
    if named or not isinstance(size, int):
        return data
    if any(places.values()) and size > 1:
        raise DataError(
            f"{graph.path or graph.name}: takes {size} samples at once, which do not lie along "
            "its first axis; export the model with a free batch, or with one of 1"
        )
    if size == data.batch:
        return data
    counts = {name: getattr(sizes, name) for name in ("calibration", "search", "report")}
    odd = [f"data.{name} is {count}" for name, count in counts.items() if count % size]
    if odd:
        raise DataError(
            f"{graph.path or graph.name}: takes batches of {size} samples only, but "
            f"{', '.join(odd)}; give multiples of {size}, or export the model with a free batch"
        )
    return data.model_copy(update={"batch": size})


def _told(need: Need, room: Room, budgets: Caches) -> Room:
    """The room, said where it is worth a word; caches that all fit may grow to their budgets."""
    LOGGER.log(logging.INFO if need.is_large else logging.DEBUG, "%s", need)
    if room.in_step > 1:
        LOGGER.info(
            "quantized weights (%.2g GB) do not stay: %d batches go through the layers together",
            need.copies_bytes / GIGA, room.in_step,
        )  # fmt: skip
    if not room.keeps_references:
        LOGGER.info(
            "distributions of full precision (%.2g GB) do not stay: they are made again of the "
            "last layer's input", need.reference_bytes / GIGA,
        )  # fmt: skip
    if room.caches == need.caches:
        return replace(room, caches=budgets)
    if room.in_step == 1 or room.caches.trace_bytes < need.caches.trace_bytes:
        LOGGER.warning(
            "caches get %.2g GB of these: measuring takes longer, its results are the same",
            room.caches.bytes / GIGA,
        )
    return room


def _free_on_gpu() -> int:
    """Bytes that nobody holds, and those that torch holds for its next tensors."""
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def _tell_streamed(need: Need, room: Room) -> None:
    """Says where weights are, if they are not on the GPU."""
    if room.streams:
        LOGGER.info(
            "weights (%.2g GB) stay on the host and are copied to the GPU layer by layer; it has "
            "room for %.2g GB of quantized ones", need.stored_bytes / GIGA,
            room.caches.weight_bytes / GIGA,
        )  # fmt: skip


def _tell_time(seconds: float, samples: int) -> None:
    """Says how long a pass will take, where that is long."""
    if seconds > LONG_SECONDS:
        LOGGER.info(
            "products of one pass over %d samples take %s here at least", samples,
            timedelta(seconds=round(seconds)),
        )  # fmt: skip


def judged_by(evaluator: Evaluator, metric: Metric) -> Evaluator:
    """The evaluator with a user's own measure of quality, tried on full precision.

    Raises:
        DataError: it fails there already.
    """
    task = Task(metric=metric.name, higher_is_better=metric.goal == "maximise")
    judged = replace(evaluator, task=task, metric=metric)
    try:
        judged.reference("search")
        judged.reference("report")
    except Exception as error:
        raise DataError(
            f"evaluate: fails on the network in full precision: {type(error).__name__}: {error}"
        ) from error
    return judged


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
