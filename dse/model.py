"""A model as users name it: an ONNX file, a Hugging Face folder, or a zoo model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from dse import zoo
from dse.errors import GraphError, nearest
from dse.files import is_there
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis

ZOO_PREFIX = "zoo:"
PAST = "past"
"""The size that only a graph with a key-value cache has."""
SHOWN = 200
"""Characters of a path that a message repeats."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded graph with what must be said about it."""

    name: str
    graph: Graph
    description: str = ""
    weights_note: str = ""
    """A remark on the weights that a reader must know, e.g. that they were quantized before."""

    apart: bool = False
    """Whether products that read one input are regions of their own."""
    served: Callable[[], Graph] | None = None
    """Makes the graph with keys and values of earlier positions as inputs, where there is one."""

    def priced(self, dims: Iterable[str]) -> Model:
        """The model in the form that these sizes speak of.

        Args:
            dims: names of sizes; with `past` among them it keeps keys and values between calls.

        Raises:
            GraphError: it has such a form by its kind, but cannot be exported so.
        """
        if self.served is None or PAST not in dims:
            return self
        return replace(self, graph=self._served, served=None)

    @cached_property
    def _served(self) -> Graph:
        assert self.served is not None
        return self.served()

    @cached_property
    def analysis(self) -> Analysis:
        """The findings in the graph, shared by everything that is done with the model."""
        return Analysis(self.graph, self.apart)


def open_model(
    name: str,
    *,
    folder: Path = Path(),
    ranks: Mapping[str, int] | None = None,
    served: bool = False,
) -> Model:
    """The model of a name.

    Args:
        name: `zoo:<name>`, or the path of an ONNX file or a Hugging Face folder.
        folder: what a relative path is relative to.
        ranks: axes of inputs that the file gives no shape, where somebody knows them.
        served: of a folder the form with a key-value cache alone, which is enough for a price.

    Raises:
        GraphError: no such zoo model or file, or a file that cannot be used.
    """
    if name.startswith(ZOO_PREFIX):
        try:
            entry = zoo.resolve(name.removeprefix(ZOO_PREFIX))
        except zoo.ZooError as error:
            raise GraphError(f"{name}: {error}") from error
        return Model(
            name=entry.name,
            graph=load(entry.path),
            description=entry.description,
            weights_note=entry.weights_note,
        )
    path = folder / name
    there = is_there(path)
    if not there and name in zoo.CATALOGUE:
        raise GraphError(f"{name}: no such file; did you mean '{ZOO_PREFIX}{name}'?")
    if not there:
        near = path.parent.glob("*.onnx") if is_there(path.parent) else ()
        known = [str(found) for found in near]
        raise GraphError(f"{str(path)[:SHOWN]}: no such file{nearest(str(path), known)}")
    if path.is_dir():
        from dse.imports.folder import open_folder  # noqa: PLC0415 (it imports torch)

        if served:
            return Model(name=path.resolve().name, graph=open_folder(path, served=True))
        return Model(
            name=path.resolve().name,
            graph=open_folder(path),
            served=partial(open_folder, path, served=True),
        )
    return Model(name=path.stem, graph=load(path, ranks=ranks))
