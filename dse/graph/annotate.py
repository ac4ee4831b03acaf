"""Annotations written into an ONNX file; `dse.graph.annotations` reads them."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from dse.errors import GraphError, nearest
from dse.files import write_atomically, writing
from dse.graph.annotations import (
    CANDIDATES,
    CHOSEN,
    KEYS,
    TIES,
    VERSION,
    VERSION_KEY,
    Annotations,
    Formats,
)
from dse.graph.assignment_json import quantizer_spec
from dse.graph.ir.initializer import external_path
from dse.graph.ir.text_link import followed
from dse.graph.onnx.load import load
from dse.graph.onnx.order import name_nodes
from dse.graph.patterns.analysis import Analysis

Specs = Mapping[str, object]
"""JSON values by site."""


def annotate(path: Path, annotations: Annotations, out: Path) -> None:
    """Writes a copy of a model whose metadata name the formats of its sites.

    The graph is not touched: the copy computes the same and has the same digest. Earlier
    annotations are replaced. External data is copied along if `out` is in another folder. Nothing
    is half-written: the model appears last and at once.

    Raises:
        GraphError: The model cannot be read, a site does not exist, or external data of another
            model is in the way.
        WriteError: The folder cannot be written.
    """
    graph = load(path)
    _check_sites(Analysis(graph), annotations)
    model = onnx.load_model_from_string(followed(path).read_bytes())
    _write_metadata(model, annotations)
    with writing(out):
        _copy_external(model, path.parent, out.parent)
    write_atomically(out, model.SerializeToString())


def _check_sites(analysis: Analysis, annotations: Annotations) -> None:
    known = analysis.every_site.keys()
    named = {*annotations.candidates, *annotations.chosen, *sum(annotations.ties.values(), ())}
    unknown = [f"{key!r}{nearest(key, known)}" for key in sorted(named - known)]
    if unknown:
        raise GraphError(
            f"{analysis.graph.path}: sites that the model does not have: {', '.join(unknown)}"
        )


def _write_metadata(model: onnx.ModelProto, annotations: Annotations) -> None:
    """The whole at the model, and beside it at the nodes, where viewers show it."""
    candidates = {site: _listed(formats) for site, formats in annotations.candidates.items()}
    chosen = {site: quantizer_spec(found) for site, found in annotations.chosen.items()}
    stated: dict[str, Specs] = {
        CANDIDATES: candidates, CHOSEN: chosen, TIES: dict(annotations.ties),
    }  # fmt: skip
    _remove(model.metadata_props, KEYS)
    _set(model.metadata_props, VERSION_KEY, str(VERSION))
    for key, specs in stated.items():
        if specs:
            _set(model.metadata_props, key, json.dumps(specs, sort_keys=True))
    named = onnx.GraphProto()
    named.node.extend(model.graph.node)
    name_nodes(named)
    by_name = {name.name: node for name, node in zip(named.node, model.graph.node, strict=True)}
    for node in by_name.values():
        _remove(node.metadata_props, (CANDIDATES, CHOSEN))
    for key in (CANDIDATES, CHOSEN):
        for site, spec in stated[key].items():
            name, _, operand = site.rpartition("/")
            if name in by_name:  # nodes of bodies and functions are not in the file's own graph
                _set(by_name[name].metadata_props, f"{key}.{operand}", json.dumps(spec))


def _listed(formats: Formats) -> list[object]:
    return [None if one is None else quantizer_spec(one) for one in formats]


def _set(entries: object, key: str, value: str) -> None:
    """Sets a key of a protobuf list of string pairs."""
    for entry in entries:  # type: ignore[attr-defined]
        if entry.key == key:
            entry.value = value
            return
    entries.add(key=key, value=value)  # type: ignore[attr-defined]


def _remove(entries: object, keys: tuple[str, ...]) -> None:
    """Removes keys, and those that go on with a dot, from a protobuf list of string pairs."""
    kept = [
        (entry.key, entry.value)
        for entry in entries  # type: ignore[attr-defined]
        if not any(entry.key == key or entry.key.startswith(f"{key}.") for key in keys)
    ]
    del entries[:]  # type: ignore[attr-defined]
    for key, value in kept:
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
