"""Graphs that this very importer exported before: for other workers, and for later runs.

An export takes seconds of processor time and depends on the importer, its libraries and the
folder. What tests ask of a graph they ask of the stored one; a changed importer stores anew.
Tests of exporting itself (copies of layers, memory, refusals) have nothing stored.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest

import dse.imports
from dse.files import write_atomically
from dse.imports import folder as imports

LIBRARIES = ("torch", "transformers", "onnxscript", "onnx_ir", "onnx", "numpy", "sympy")
PREFIX = "imports-"


def place(config: pytest.Config) -> Path:
    """The store of the code as it is, in pytest's cache; those of other code are removed."""
    total = hashlib.sha256(sys.version.encode())
    total.update(repr([metadata.version(name) for name in LIBRARIES]).encode())
    for path in sorted(Path(dse.imports.__file__).parent.glob("*.py")):
        total.update(path.name.encode() + path.read_bytes())
    store = config.cache.mkdir(f"{PREFIX}{total.hexdigest()[:16]}")
    for other in store.parent.glob(f"{PREFIX}*"):
        if other != store:
            shutil.rmtree(other, ignore_errors=True)
    return store


def exported(folder: Path, store: Path, *, served: bool = False) -> Path:
    """The folder, whose graph `open_folder` finds; exported here where the store has it not."""
    name = _graph(folder, served=served).name
    with (store / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be about it
        fetch(folder, store, served=served)
        imports.open_folder(folder, served=served)
        keep(folder, store, served=served)
    return folder


def fetch(folder: Path, store: Path, *, served: bool) -> None:
    """Lets `open_folder` find the folder's graph if the store has it."""
    path = _graph(folder, served=served)
    if (store / path.name).is_file() and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store / path.name, path)


def keep(folder: Path, store: Path, *, served: bool) -> None:
    """Stores the folder's graph if it was exported."""
    path = _graph(folder, served=served)
    if path.is_file() and not (store / path.name).is_file():
        write_atomically(store / path.name, path.read_bytes())


def _graph(folder: Path, *, served: bool) -> Path:
    return imports._kept(imports._checkpoint(folder), served=served)
