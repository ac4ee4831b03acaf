"""Guesses at outputs whose last operator does not say what they are: by labels, names, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dse.data import token_table
from dse.evaluate.outputs.ends import before_moves, is_single
from dse.graph.ir.graph import Graph
from dse.space.schema import OutputKind

LINEAR = frozenset({"MatMul", "Gemm", "Conv", "Add", "Sub", "MatMulNBits", "MatMulInteger"})
"""Operators whose results are not normalised, whatever they are given."""
Labels = NDArray[Any] | None
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
"""Names of a classifier's last layer in the modules that people export, and how many
classes at least make the name speak for itself: two numbers of an `fc` can be anything."""
CUSTOMARY = frozenset({10, 100, 200, 1000, 1001, 11221, 21841, 21843})
"""Sizes of well-known label sets (CIFAR, Tiny ImageNet, ImageNet-1k with and without background,
ImageNet-21k and its cleaned subset): for an image network, hardly those of anything else."""


def guess(graph: Graph, name: str, value: str, labels: Labels) -> tuple[OutputKind, str, bool]:
    """OutputKind, reason and certainty of an output that ends in no operator which says it."""
    shape = graph.shape(value)
    if is_single(shape):
        return _guess_single(name, labels, linear=_ends_linear(graph, value))
    if any(part in name.lower() for part in SPREAD):
        return "regression", "by its name", True
    if labels is not None and labels.dtype.kind in "iub":
        if fits(shape, labels):
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
    """The sign by which a last linear layer looks like a classifier's, if there is one."""
    size = shape[-1] if shape and len(shape) == 2 else None
    if not isinstance(size, int) or not _ends_linear(graph, value):
        return None
    for part in _last_names(graph, value):
        if size >= CLASSIFIERS.get(part, size + 1):
            return f"its last layer is called {part}"
    images = any(len(graph.shape(name) or ()) == 4 for name in graph.inputs)
    return (
        f"{size} numbers from images, as many as classes" if images and size in CUSTOMARY else None
    )


def _last_names(graph: Graph, value: str) -> Iterator[str]:
    """Parts of the names of the last layer and its weights; of the product before a bias too."""
    node = graph.producer.get(before_moves(graph, value))
    while node is not None:
        weights = [name for name in node.inputs if name in graph.initializers]
        for name in (node.name, *weights):
            lowered = name.lower()
            yield from (part for part in CLASSIFIERS if "_" in part and part in lowered)
            yield from re.findall(r"[a-z]+", lowered)
        data = [name for name in node.inputs if name and name not in graph.initializers]
        biased = node.op_type == "Add" and len(data) == 1
        node = graph.producer.get(data[0]) if biased else None


def _guess_single(name: str, labels: Labels, *, linear: bool) -> tuple[OutputKind, str, bool]:
    """One number a sample: a logit, if there are two classes."""
    if labels is not None and labels.dtype.kind in "iub" and set(np.unique(labels)) <= {0, 1}:
        # Logits lie in 0..1 by chance; values decide only where the graph may have made it so.
        return "binary", "one logit, labels of two classes", linear or "logit" in name.lower()
    if labels is not None:
        return "regression", "one number, labels are no two classes", True
    if "logit" in name.lower():
        return "binary", "one logit, by its name", True
    return "regression", "one number, no labels", False


def fits(shape: Sequence[object] | None, labels: NDArray[Any]) -> bool:
    """Whether labels are one a position of an output, whatever axis holds the classes."""
    if shape is None:
        return True
    if labels.ndim in (len(shape) - 1, 1):
        return labels.ndim == len(shape) - 1 or sum(size != 1 for size in shape[1:]) == 1
    return labels.ndim == 2 and len(shape) == 2  # positions of all samples in one axis


def _names_vocabulary(graph: Graph, shape: Sequence[object] | None) -> bool:
    table = token_table(graph)
    return table is not None and bool(shape) and shape is not None and shape[-1] == table


def _ends_linear(graph: Graph, value: str) -> bool:
    node = graph.producer.get(before_moves(graph, value))
    return node is not None and node.op_type in LINEAR
