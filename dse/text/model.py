"""The text reader that belongs to a model."""

from __future__ import annotations

from pathlib import Path

from dse.graph.ir.graph import Graph
from dse.imports.facts import facts_of
from dse.text.reader import TextReader
from dse.text.tokenizer import read_tokenizer


def reader_of(graph: Graph) -> TextReader | None:
    """The reader of an imported model; None for a graph that came with no folder.

    Raises:
        DataError: The folder has no tokenizer, or one that cannot be read.
    """
    facts = facts_of(graph)
    if facts is None:
        return None
    return TextReader(
        tokenizer=read_tokenizer(Path(facts.folder)), context=facts.context, causal=facts.causal
    )
