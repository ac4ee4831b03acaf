"""Candidates of a space, or of a draft for targets, written into a copy of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dse.errors import GraphError
from dse.graph.annotate import annotate
from dse.graph.annotations import Annotations
from dse.model import Model
from dse.space.annotated import annotations_of_problem
from dse.space.build import build_problem
from dse.space.init import Draft, space_text
from dse.space.load import load_space, parse_space
from dse.space.schema import Space, Target


def offered(model: Model, space: Path) -> Annotations:
    """The candidates that a space file offers a model, whichever model it names.

    Raises:
        DseError, HardwareError: the space cannot be used, or does not fit the model.
    """
    return annotations_of_space(model, load_space(space), origin=str(space))


def drafted(model: Model, targets: Sequence[Target]) -> Annotations:
    """The candidates of a first draft: formats that every target runs natively.

    Raises:
        DseError, HardwareError: an unknown target, or a model without products.
    """
    text = space_text(model, model.name, Draft(targets=tuple(targets), served=False))
    return annotations_of_space(model, parse_space(text, origin=model.name), origin=model.name)


def annotations_of_space(model: Model, space: Space, *, origin: str) -> Annotations:
    """The candidates and ties of a space; `origin` names it in errors."""
    regions = model.analysis.regions
    return annotations_of_problem(build_problem(space, regions, origin=origin), regions)


def annotated_copy(model: Model, location: str, annotations: Annotations, out: Path) -> None:
    """Writes an annotated copy of a model; of a Hugging Face folder its graph.

    Args:
        model: opened.
        location: what it was opened by.
        annotations: to write.
        out: the file to write; of a folder's graph in that folder or in one around it.

    Raises:
        GraphError: the model is no file, or cannot be written there.
        WriteError: the place cannot be written.
    """
    source = model.graph.path
    if Path(location).is_dir():
        from dse.imports.folder import write_graph  # noqa: PLC0415 (it imports torch)

        write_graph(Path(location), out)
        source = out
    if source is None:
        raise GraphError(f"{location}: is in no file, so nothing can be written into it")
    annotate(source, annotations, out)
