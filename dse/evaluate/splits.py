"""The data of a space as its model reads them: in tokens of its vocabulary, in its shapes."""

from __future__ import annotations

from pathlib import Path

from dse.data import Sizes, graph_shapes, load_splits, token_table
from dse.graph.ir.graph import Graph
from dse.space.schema import Data
from dse.text.documents import SUFFIXES
from dse.text.model import reader_of
from dse.zoo.split import Splits


def splits_of(
    graph: Graph, data: Data, folder: Path, *, sizes: Sizes, needed: Sizes | None = None
) -> Splits:
    """The splits of a source.

    Args:
        graph: the model.
        data: the source, and how long its sequences are.
        folder: what a relative source is relative to.
        sizes: samples of each split.
        needed: what will do where the source has less.

    Raises:
        DataError: as `load_splits`.
    """
    return load_splits(
        data.source,
        sizes,
        sequence=data.sequence,
        inputs=graph_shapes(graph),
        folder=folder,
        needed=needed,
        vocabulary=vocabulary_of(graph),
        text=reader_of(graph) if Path(data.source).suffix in SUFFIXES else None,
    )


def vocabulary_of(graph: Graph) -> int | None:
    """Entries of the vocabulary: rows of the table of tokens, else the width of the output."""
    table = token_table(graph)
    if table is not None or not graph.outputs:
        return table
    shape = graph.shape(graph.outputs[0])
    last = shape[-1] if shape is not None and len(shape) == 3 else None
    return last if isinstance(last, int) else None
