"""Metadata of an imported graph: its family, its context, and the folder that it came from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dse.graph.ir.graph import Graph

KEY = "dse.import"
"""Key of the metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts that a graph does not show."""

    family: str
    """`model_type` of the configuration."""
    architecture: str
    """The class of `transformers`."""
    context: int | None
    """Positions that it was built for."""
    causal: bool
    """Whether its output predicts the next token."""
    output: str
    """`transformers`' name of the graph's output: `logits`, `last_hidden_state`, ..."""
    unread: str = ""
    """Stored tensors that its output does not depend on, in words; empty where they are few."""
    folder: str = ""
    """Folder of tokenizer and configuration, relative to the graph's file; or absolute."""

    @property
    def text(self) -> str:
        """For the metadata of a file."""
        return json.dumps(asdict(self))


def facts_of(graph: Graph) -> Facts | None:
    """The facts of a graph; None where it was not imported."""
    try:
        found = Facts(**json.loads(graph.metadata[KEY]))
    except (KeyError, TypeError, ValueError):
        return None
    base = graph.path.parent if graph.path is not None else Path()
    return replace(found, folder=str(base / found.folder))


def with_folder(graph: Graph, folder: Path) -> Graph:
    """A graph that says where its folder is; the digest leaves metadata out."""
    content = {**json.loads(graph.metadata[KEY]), "folder": str(folder.absolute())}
    return replace(graph, metadata={**graph.metadata, KEY: json.dumps(content)})
