"""What the outputs of a graph are, decided once: by the user, the graph's end, labels, names.

A network says the same with logits, probabilities, log-probabilities, or the index of the largest;
so the loss is read where all of these are the same, at the tensor before the last operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dse.data import batch_name, token_table
from dse.errors import DataError, nearest
from dse.evaluate.output import Output
from dse.evaluate.task import Task
from dse.graph.ir.graph import Dim, Graph, Node
from dse.space.schema import OutputKind, QualityOf
from dse.zoo.split import Split

BYTES = 256
"""Vocabulary of a byte-level model: its cross-entropy is quoted in bits per byte."""
SAME_VALUES = frozenset(
    {"Identity", "Cast", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
)
"""Operators that move or rename values and change none."""
LINEAR = frozenset({"MatMul", "Gemm", "Conv", "Add", "Sub", "MatMulNBits", "MatMulInteger"})
"""Operators whose results are not normalised, whatever they are given."""
CHOSEN = frozenset({"ArgMax", "TopK", "Hardmax"})
"""Operators that keep the place of the largest."""
FLOATS = ("float", "bfloat")
Labels = NDArray[Any] | None
STATE = ("present", "new_state", "state_out")
"""How outputs begin that are kept for the next call."""
SPREAD = ("embed", "box", "bbox", "hidden_state", "pooler", "regress", "feature")
"""Parts of the names of outputs without a distribution."""
CLASSIFIERS = {
    "classifier": 2,
    "logits": 2,
    "lm_head": 2,
    "cls": 2,
    "class": 2,
    "fc": 10,
    "head": 10,
}
"""What the last layer of a classifier is called in the modules that people export, and how many
classes at least make the name speak for itself: two numbers of an `fc` can be anything."""
CUSTOMARY = frozenset({10, 100, 200, 1000, 1001, 11221, 21841, 21843})
"""Sizes of well-known label sets (CIFAR, Tiny ImageNet, ImageNet-1k with and without background,
ImageNet-21k and its cleaned subset): for an image network, hardly those of anything else."""
SHIFTED_OPSET = 13
"""From here on Softmax and LogSoftmax normalise one axis, and the last one by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """Where a loss is read, and what stood after it."""

    value: str
    kind: OutputKind | None
    reason: str
    axis: int = -1
    flat: bool = False


def classify(graph: Graph, split: Split, asked: QualityOf) -> Task:
    """What each output is and how much it counts.

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
    ends = [(name, end) for name in names for end in _ends(graph, name)]
    return any(
        end.kind is not None
        and (shape := _shape(graph, end.value)) is not None
        and _fits_output(_output(graph, name, end, None, None), shape, labels)
        for name, end in ends
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
    if name.startswith(STATE) and len(graph.outputs) > 1:
        return True
    node = graph.producer.get(name)
    return (
        node is not None
        and node.op_type == "Concat"
        and any(value in graph.inputs for value in node.inputs)
    )


def _why_out(name: str, asked: QualityOf) -> str:
    if name in asked.weights:
        return "its weight is 0"
    return "a state for the next call; give it a weight under quality: weights to count it"


def _repeated(graph: Graph, name: str, found: Mapping[str, Output]) -> str:
    for end in _ends(graph, name):
        if end.value in found:
            return f"it follows from {found[end.value].name}"
        if _shape(graph, end.value) == ():
            return "it is one number for all samples of a batch"
    return "no float tensor leads to it"


def _outputs(graph: Graph, name: str, labels: Labels, kind: OutputKind | None) -> Iterator[Output]:
    """What one output is scored at; several tensors where it is made of indices."""
    for end in _ends(graph, name):
        shape = _shape(graph, end.value)
        if shape is not None and not shape:
            continue  # one number for the whole batch: a training loss, a flag
        yield _output(graph, name, end, labels, kind)


def _output(graph: Graph, name: str, end: _End, labels: Labels, kind: OutputKind | None) -> Output:
    batch_axis = _batch_axis(graph, end.value)
    if kind is not None and not (kind == end.kind or _agrees(kind, end)):
        shape = _shape(graph, name)
        axis = _class_axis(shape, labels)
        if kind == "logits" and _is_single(shape):
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
    guessed, reason, certain = _guess(graph, name, end.value, labels)
    return Output(
        name=name, value=end.value, kind=guessed, certain=certain, batch_axis=batch_axis,
        reason=f"{end.reason}, {reason}" if end.reason else reason,
        axis=_class_axis(_shape(graph, end.value), labels),
    )  # fmt: skip


def _agrees(kind: OutputKind, end: _End) -> bool:
    """Whether what the user says is what the last operator makes of the tensor before it."""
    said = ("probabilities", "log_probabilities")
    if end.kind == "binary":
        return kind in ("binary", *said)
    return end.kind == "logits" and kind in said and "Softmax" in end.reason


def _ends(graph: Graph, name: str) -> Iterator[_End]:
    """Where an output is read: before its last operator, if that only says it in another way."""
    value = _before_moves(graph, name)
    node = graph.producer.get(value)
    match node.op_type if node is not None else "":
        case "Softmax" | "LogSoftmax":
            assert node is not None
            yield _softmax_end(graph, node)
        case "Sigmoid":
            assert node is not None
            yield _End(value=node.inputs[0], kind="binary", reason="before its Sigmoid")
        case "Log" if node is not None and _is(graph, node.inputs[0], "Softmax"):
            yield from _ends(graph, node.inputs[0])
        case "Log" if node is not None and _is(graph, node.inputs[0], "Sigmoid"):
            yield from _ends(graph, node.inputs[0])
        case "Exp" if node is not None and _is(graph, node.inputs[0], "LogSoftmax"):
            yield from _ends(graph, node.inputs[0])
        case kept if kept in CHOSEN and node is not None:
            yield from _chosen_ends(graph, node)
        case _ if not _is_float(graph, name):
            yield from _float_ends(graph, name)
        case "Cast" if node is not None and not _is_float(graph, node.inputs[0]):
            yield from _float_ends(graph, node.inputs[0])
        case _:
            yield _End(value=name, kind=None, reason="")


def _softmax_end(graph: Graph, node: Node) -> _End:
    modern = graph.opsets.get("", SHIFTED_OPSET) >= SHIFTED_OPSET
    axis = node.attributes.get("axis", -1 if modern else 1)
    assert isinstance(axis, int)
    return _End(
        value=node.inputs[0],
        kind="logits",
        reason=f"before its {node.op_type}",
        axis=axis,
        flat=not modern,
    )


def _chosen_ends(graph: Graph, node: Node) -> Iterator[_End]:
    """Before an operator that keeps the place of the largest; not of the smallest."""
    last = 0 if node.op_type == "ArgMax" else -1
    axis = node.attributes.get("axis", last)
    assert isinstance(axis, int)
    for end in _ends(graph, node.inputs[0]):
        if end.kind is None and node.attributes.get("largest", 1):
            shape = _shape(graph, end.value)
            single = shape is not None and shape[axis:][:1] == (1,)
            kind: OutputKind = "regression" if single else "logits"
            yield replace(end, kind=kind, reason=f"before its {node.op_type}", axis=axis)
        else:
            yield end


def _float_ends(graph: Graph, name: str) -> Iterator[_End]:
    """The float tensors that an output of another type is computed from."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        node = graph.producer.get(waiting.pop(0))
        if node is None or node.op_type == "Shape":
            continue
        if node.op_type in CHOSEN:  # a look-up of names by the place of the largest
            yield from _chosen_ends(graph, node)
            continue
        for value in node.inputs:
            if not value or value in seen or value in graph.initializers:
                continue
            seen.add(value)
            if value in graph.inputs:
                continue
            if _is_float(graph, value):
                yield from (
                    replace(end, reason=end.reason or f"before its {node.op_type}")
                    for end in _ends(graph, value)
                )
            else:
                waiting.append(value)


def _guess(graph: Graph, name: str, value: str, labels: Labels) -> tuple[OutputKind, str, bool]:
    """OutputKind, reason and certainty of an output that ends in no operator which says it."""
    shape = _shape(graph, value)
    if _is_single(shape):
        return _guess_single(name, labels)
    if any(part in name.lower() for part in SPREAD):
        return "regression", "by its name", True
    if labels is not None and labels.dtype.kind in "iub":
        if _fits(shape, labels):
            return "logits", "labels are classes", _ends_linear(graph, value)
    elif labels is not None:
        return "regression", "labels are no integers", True
    if _names_vocabulary(graph, shape):
        return "logits", "as wide as the vocabulary", _ends_linear(graph, value)
    if "logit" in name.lower():
        return "logits", "by its name", True
    if (classes := _classes(graph, value, shape)) is not None:
        return "logits", classes, False
    return "regression", "nothing says that it is a distribution", False


def _classes(graph: Graph, value: str, shape: Sequence[object] | None) -> str | None:
    """What makes a last linear layer look like a classifier's, if anything does."""
    size = shape[-1] if shape and len(shape) == 2 else None
    if not isinstance(size, int) or not _ends_linear(graph, value):
        return None
    for part in _last_names(graph, value):
        if size >= CLASSIFIERS.get(part, size + 1):
            return f"its last layer is called {part}"
    images = any(len(_shape(graph, name) or ()) == 4 for name in graph.inputs)
    return (
        f"{size} numbers from images, as many as classes" if images and size in CUSTOMARY else None
    )


def _last_names(graph: Graph, value: str) -> Iterator[str]:
    """Parts of the names of the last layer and its weights; of the product before a bias too."""
    node = graph.producer.get(_before_moves(graph, value))
    while node is not None:
        weights = [name for name in node.inputs if name in graph.initializers]
        for name in (node.name, *weights):
            lowered = name.lower()
            yield from (part for part in CLASSIFIERS if "_" in part and part in lowered)
            yield from re.findall(r"[a-z]+", lowered)
        data = [name for name in node.inputs if name and name not in graph.initializers]
        biased = node.op_type == "Add" and len(data) == 1
        node = graph.producer.get(data[0]) if biased else None


def _guess_single(name: str, labels: Labels) -> tuple[OutputKind, str, bool]:
    """One number a sample: a logit, if there are two classes."""
    if labels is not None and labels.dtype.kind in "iub" and set(np.unique(labels)) <= {0, 1}:
        return "binary", "one logit, labels of two classes", False
    if labels is not None:
        return "regression", "one number, labels are no two classes", True
    if "logit" in name.lower():
        return "binary", "one logit, by its name", True
    return "regression", "one number, no labels", False


def _labelled(graph: Graph, task: Task, split: Split) -> Task:
    """The task with the metric that labels allow, and the output that they speak of.

    Raises:
        DataError: labels beyond the classes of the only distribution.
    """
    labels = split.labels
    if labels is None or labels.dtype.kind not in "iub":
        return task
    for output in task.outputs:
        shape = _shape(graph, output.value)
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
    size = 2 if output.kind == "binary" or shape is None else shape[output.axis]
    if (
        output.kind == "binary"
        and shape is not None
        and labels.ndim == 1
        and not _is_single(shape)
    ):
        size = shape[output.axis]
    largest = int(labels.max(initial=0))
    if isinstance(size, int) and not output.flat and largest >= max(size, 2):
        raise DataError(
            f"labels: the largest is {largest}, but output {output.name} has {size} classes "
            f"(0..{size - 1}); negative labels are left out"
        )


def _fits_output(output: Output, shape: Sequence[object], labels: NDArray[Any]) -> bool:
    if output.kind == "binary":
        return labels.ndim in (1, len(shape))
    return _fits(tuple(shape), labels)


def _fits(shape: Sequence[object] | None, labels: NDArray[Any]) -> bool:
    """Whether labels are one a position of an output, whatever axis holds the classes."""
    if shape is None:
        return True
    if labels.ndim in (len(shape) - 1, 1):
        return labels.ndim == len(shape) - 1 or sum(size != 1 for size in shape[1:]) == 1
    return labels.ndim == 2 and len(shape) == 2  # positions of all samples in one axis


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


def _names_vocabulary(graph: Graph, shape: Sequence[object] | None) -> bool:
    table = token_table(graph)
    return table is not None and bool(shape) and shape is not None and shape[-1] == table


def _ends_linear(graph: Graph, value: str) -> bool:
    node = graph.producer.get(_before_moves(graph, value))
    return node is not None and node.op_type in LINEAR


def _before_moves(graph: Graph, value: str) -> str:
    """The value that operators which change no number were given."""
    node = graph.producer.get(value)
    while node is not None and node.op_type in SAME_VALUES:
        if not _is_float(graph, node.inputs[0]) and _is_float(graph, value):
            break  # numbers of another type, written as floats
        value = node.inputs[0]
        node = graph.producer.get(value)
    return value


def _is(graph: Graph, value: str, op_type: str) -> bool:
    node = graph.producer.get(_before_moves(graph, value))
    return node is not None and node.op_type == op_type


def _is_float(graph: Graph, value: str) -> bool:
    kind = graph.types.get(value)
    return kind is None or kind.dtype.startswith(FLOATS)


def _is_single(shape: Sequence[object] | None) -> bool:
    return shape is not None and len(shape) >= 1 and all(size == 1 for size in shape[1:])


def _shape(graph: Graph, value: str) -> tuple[Dim, ...] | None:
    kind = graph.types.get(value)
    return None if kind is None else kind.shape


def _batch_axis(graph: Graph, value: str) -> int:
    """The axis that is named as the samples of the inputs are."""
    name = batch_name([_shape(graph, one) for one in graph.inputs])
    shape = _shape(graph, value) or ()
    return shape.index(name) if name is not None and name in shape else 0
