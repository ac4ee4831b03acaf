"""Candidate formats as metadata of an ONNX file."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from dse.errors import GraphError, WriteError, nearest
from dse.files import write_atomically
from dse.graph.ir.initializer import external_path
from dse.graph.onnx.load import load
from dse.graph.onnx.order import name_nodes
from dse.graph.patterns.analysis import Analysis

KEY = "dse.candidates"
"""Of the model's metadata: all candidates as JSON. Of a node's: `dse.candidates.in1` and so on."""


def annotate(path: Path, candidates: Mapping[str, tuple[str, ...]], out: Path) -> None:
    """Writes a copy of a model whose metadata names the candidate formats of every site.

    The graph is not touched: the copy computes the same and has the same digest. External data
    is copied along if `out` is in another folder. Nothing is half-written: the model appears
    last and at once.

    Raises:
        GraphError: The model cannot be read, a site does not exist, or external data of another
            model is in the way.
        WriteError: The folder cannot be written.
    """
    graph = load(path)
    _check_sites(Analysis(graph), candidates)
    model = onnx.load_model_from_string(path.read_bytes())
    _write_metadata(model, candidates)
    try:
        _copy_external(model, path.parent, out.parent)
    except OSError as error:
        raise WriteError(f"{out}: cannot be written: {error.strerror}") from error
    write_atomically(out, model.SerializeToString())


def read_annotations(path: Path) -> dict[str, tuple[str, ...]]:
    """The candidates that `annotate` wrote, by site; empty for a model without any.

    Raises:
        GraphError: The model cannot be read, or its metadata are not candidates.
    """
    text = load(path).metadata.get(KEY, "{}")
    try:
        content = json.loads(text)
        return {str(site): tuple(map(str, names)) for site, names in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        message = f"{path}: metadata {KEY!r} is not a JSON object of format lists: {error}"
        raise GraphError(f"{message}; annotate the model again") from error


def _check_sites(analysis: Analysis, candidates: Mapping[str, tuple[str, ...]]) -> None:
    known = {site.key for site in (*analysis.sites, *analysis.other_sites)}
    unknown = [f"{key!r}{nearest(key, known)}" for key in candidates if key not in known]
    if unknown:
        raise GraphError(
            f"{analysis.graph.path}: sites that the model does not have: {', '.join(unknown)}"
        )


def _write_metadata(model: onnx.ModelProto, candidates: Mapping[str, tuple[str, ...]]) -> None:
    text = json.dumps({site: list(names) for site, names in sorted(candidates.items())})
    _set(model.metadata_props, KEY, text)
    named = onnx.GraphProto()
    named.node.extend(model.graph.node)
    name_nodes(named)
    by_name = {name.name: node for name, node in zip(named.node, model.graph.node, strict=True)}
    for site, names in candidates.items():
        node, _, operand = site.rpartition("/")
        if node in by_name:  # a node of a model-local function is not in the file's own graph
            _set(by_name[node].metadata_props, f"{KEY}.{operand}", ",".join(names))


def _set(entries: object, key: str, value: str) -> None:
    """Sets a key of a protobuf list of string pairs."""
    for entry in entries:  # type: ignore[attr-defined]
        if entry.key == key:
            entry.value = value
            return
    entries.add(key=key, value=value)  # type: ignore[attr-defined]


def _copy_external(model: onnx.ModelProto, source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return
    for location in sorted(set(_locations(model))):
        path = external_path(source, location, where=str(source))
        copy = target / location
        if not path.is_file():
            continue  # a graph without weights stays one
        if copy.exists() and not filecmp.cmp(path, copy, shallow=False):
            message = f"{copy}: exists and differs from {path}"
            raise GraphError(f"{message}; write the model into another folder")
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(copy.name + ".partial")
            shutil.copyfile(path, partial)
            os.replace(partial, copy)


def _locations(model: onnx.ModelProto) -> Iterator[str]:
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")
