"""The meaning of a graph's outputs, decided once: by the user, the graph's end, labels, names.

A network says the same with logits, probabilities, log-probabilities, or the index of the largest;
so the loss is read where all of these are the same, at the tensor before the last operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from dse.data import samples_name
from dse.errors import DataError, nearest
from dse.evaluate.outputs.ends import End, ends, is_single
from dse.evaluate.outputs.guess import Labels, fits, guess
from dse.evaluate.outputs.output import Output
from dse.evaluate.outputs.task import Task
from dse.graph.ir.graph import Graph
from dse.space.schema import OutputKind, QualityOf
from dse.zoo.split import Split

BYTES = 256
"""Vocabulary of a byte-level model: its cross-entropy is quoted in bits per byte."""
STATE = ("present", "new_state", "state_out")
"""Beginnings of outputs that are kept for the next call."""
NEXT = ("n", "new", "next")
"""Ends of the name of an input's next value."""


def classify(graph: Graph, split: Split, asked: QualityOf) -> Task:
    """The meaning and the weight of each output.

    Args:
        graph: the model.
        split: samples with labels, if there are any.
        asked: what the user says.

    Raises:
        DataError: an output that the graph does not have, or none that can be scored; labels that
            are no classes of any output.
    """
    _check_names(graph, asked)
    names = (asked.output,) if asked.output else graph.outputs
    weights = {name: _weight(graph, name, asked) for name in names}
    notes = [
        f"output {name} is left out ({_why_out(name, asked)})"
        for name, weight in weights.items()
        if not weight
    ]
    found: dict[str, Output] = {}
    hints = split.labels
    if _has_labelled_end(graph, names, hints):
        hints = None  # they belong to the output that says that it is a distribution
    for name in (name for name, weight in weights.items() if weight):
        kind = asked.kinds.get(name, asked.kind)
        for one in _outputs(graph, name, hints, kind):
            output = replace(one, weight=weights[name])
            found[output.value] = _merged(found.get(output.value, output), output)
            if output.is_distribution:
                hints = None
    counted = {output.name for output in found.values()}
    notes += [
        f"output {name} is not counted: {_repeated(graph, name, found)}"
        for name, weight in weights.items()
        if weight and name not in counted
    ]
    if not found:
        raise DataError(
            f"{graph.path or graph.name}: no output that a loss can be read from: "
            f"{'; '.join(notes) or 'the graph has none'}"
        )
    task = Task(outputs=tuple(found.values()), notes=tuple(notes))
    return _labelled(graph, task, split)


def _merged(known: Output, other: Output) -> Output:
    """Two outputs that are read at one tensor: an index beside its scores says nothing new.

    The evidence of either counts, under the name of the tensor where it is an output itself.
    """
    name = other.name if other.name == other.value else known.name
    kept = other if other.certain and not known.certain else known
    return replace(kept, name=name)


def _weight(graph: Graph, name: str, asked: QualityOf) -> float:
    return asked.weights.get(name, 0.0 if _is_state(graph, name) else 1.0)


def _has_labelled_end(graph: Graph, names: Sequence[str], labels: Labels) -> bool:
    """Whether an output that ends in Softmax or its like is what labels speak of."""
    if labels is None or labels.dtype.kind not in "iub":
        return False
    return any(
        end.kind is not None
        and (shape := graph.shape(end.value)) is not None
        and _fits_output(_output(graph, name, end, None, None), shape, labels)
        for name in names
        for end in ends(graph, name)
    )


def _check_names(graph: Graph, asked: QualityOf) -> None:
    named = [*([asked.output] if asked.output else ()), *asked.kinds, *asked.weights]
    for name in named:
        if (name not in graph.outputs and name != asked.output) or name not in graph.producer:
            raise DataError(
                f"quality: {graph.path or graph.name} has no output {name!r}"
                f"{nearest(name, graph.outputs)}; its outputs: {', '.join(graph.outputs)}"
            )


def _is_state(graph: Graph, name: str) -> bool:
    """Whether an output is an input grown by what is new: kept for the next call."""
    if len(graph.outputs) > 1 and (name.startswith(STATE) or _renames_input(graph, name)):
        return True
    node = graph.producer.get(name)
    return (
        node is not None
        and node.op_type == "Concat"
        and any(value in graph.inputs for value in node.inputs)
    )


def _renames_input(graph: Graph, name: str) -> bool:
    """Whether an output is called as an input with something behind it: `state`, `stateN`."""
    rank = graph.shape(name)
    return any(
        name.startswith(given)
        and name.removeprefix(given).lower().strip("_") in NEXT
        and (rank is None or len(rank) == len(graph.shape(given) or ()))
        for given in graph.inputs
    )


def _why_out(name: str, asked: QualityOf) -> str:
    if name in asked.weights:
        return "its weight is 0"
    return "a state for the next call; give it a weight under quality: weights to count it"


def _repeated(graph: Graph, name: str, found: Mapping[str, Output]) -> str:
    for end in ends(graph, name):
        if end.value in found:
            return f"it follows from {found[end.value].name}"
        if graph.shape(end.value) == ():
            return "it is one number for all samples of a batch"
    return "no float tensor leads to it"


def _outputs(graph: Graph, name: str, labels: Labels, kind: OutputKind | None) -> Iterator[Output]:
    """The tensors that one output is scored at; several where it is made of indices."""
    for end in ends(graph, name):
        shape = graph.shape(end.value)
        if shape is not None and not shape:
            continue  # one number for the whole batch: a training loss, a flag
        yield _output(graph, name, end, labels, kind)


def _output(graph: Graph, name: str, end: End, labels: Labels, kind: OutputKind | None) -> Output:
    batch_axis = _batch_axis(graph, end.value)
    if kind is not None and not (kind == end.kind or _agrees(kind, end)):
        shape = graph.shape(name)
        axis = _class_axis(shape, labels)
        if kind == "logits" and is_single(shape):
            kind = "binary"
        return Output(
            name=name, value=name, kind=kind, reason="as the space says", axis=axis,
            batch_axis=_batch_axis(graph, name),
        )  # fmt: skip
    if end.kind is not None:
        return Output(
            name=name, value=end.value, kind=end.kind, reason=end.reason, axis=end.axis,
            flat=end.flat, batch_axis=batch_axis,
        )  # fmt: skip
    guessed, reason, certain = guess(graph, name, end.value, labels)
    return Output(
        name=name, value=end.value, kind=guessed, certain=certain, batch_axis=batch_axis,
        reason=f"{end.reason}, {reason}" if end.reason else reason,
        axis=_class_axis(graph.shape(end.value), labels),
    )  # fmt: skip


def _agrees(kind: OutputKind, end: End) -> bool:
    """Whether what the user says is what the last operator makes of the tensor before it."""
    said = ("probabilities", "log_probabilities")
    if end.kind == "binary":
        return kind in ("binary", *said)
    return end.kind == "logits" and kind in said and "Softmax" in end.reason


def _labelled(graph: Graph, task: Task, split: Split) -> Task:
    """The task with the metric that labels allow, and the output that they speak of.

    Raises:
        DataError: labels beyond the classes of the only distribution.
    """
    labels = split.labels
    if labels is None or labels.dtype.kind not in "iub":
        return task
    for output in task.outputs:
        shape = graph.shape(output.value)
        if output.is_distribution and (shape is None or _fits_output(output, shape, labels)):
            _check_classes(output, shape, labels)
            metric = _metric_of(output, shape, split)
            return replace(task, metric=metric, labelled=output.name)
    note = f"labels of shape {labels.shape} belong to no distribution among the outputs: no metric"
    return replace(task, notes=(*task.notes, note))


def _metric_of(output: Output, shape: Sequence[object] | None, split: Split) -> str:
    assert split.labels is not None
    if output.kind == "binary" or split.labels.ndim == 1 or split.kind != "tokens":
        return "accuracy"
    wide = shape is not None and bool(shape) and shape[output.axis] == BYTES
    return "bits_per_byte" if wide else "perplexity"


def _check_classes(output: Output, shape: Sequence[object] | None, labels: NDArray[Any]) -> None:
    if labels.size and (labels < 0).all():
        raise DataError(
            f"labels: all {labels.size} are negative, which leaves every position of output "
            f"{output.name} out; without labels all positions count"
        )
    known = shape is not None and -len(shape) <= output.axis < len(shape)
    size = shape[output.axis] if shape is not None and known else None
    if output.kind == "binary" and (shape is None or labels.ndim != 1 or is_single(shape)):
        size = 2
    largest = int(labels.max(initial=0))
    if isinstance(size, int) and not output.flat and largest >= max(size, 2):
        raise DataError(
            f"labels: the largest is {largest}, but output {output.name} has {size} classes "
            f"(0..{size - 1}); negative labels are left out"
        )


def _fits_output(output: Output, shape: Sequence[object], labels: NDArray[Any]) -> bool:
    if output.kind == "binary":
        return labels.ndim in (1, len(shape))
    return fits(tuple(shape), labels)


def _class_axis(shape: Sequence[object] | None, labels: Labels) -> int:
    """The axis that labels have not; the last one where they do not tell."""
    if shape is None or labels is None or len(shape) < 3:
        return -1
    if labels.ndim == 1:
        wide = [axis for axis, size in enumerate(shape[1:], 1) if size != 1]
        return wide[0] if len(wide) == 1 else -1
    if labels.ndim != len(shape) - 1:
        return -1
    axes = [
        axis
        for axis in range(len(shape) - 1, 0, -1)
        if _equal_sizes([*shape[:axis], *shape[axis + 1 :]][1:], labels.shape[1:])
    ]
    return axes[0] if axes else -1


def _equal_sizes(sizes: Sequence[object], found: Sequence[int]) -> bool:
    return all(
        not isinstance(size, int) or size == there
        for size, there in zip(sizes, found, strict=True)
    )


def _batch_axis(graph: Graph, value: str) -> int:
    """The axis that is named as the samples of the inputs are."""
    name = samples_name(graph)
    shape = graph.shape(value) or ()
    return shape.index(name) if name is not None and name in shape else 0
