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
    path = imports._kept(imports._checkpoint(folder), served=served)
    kept = store / path.name
    with (store / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be about it
        if not kept.is_file():
            imports.open_folder(folder, served=served)
            write_atomically(kept, path.read_bytes())
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept, path)
    return folder
