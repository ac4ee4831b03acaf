"""Runtime files: YAML to `Runtime`, all errors at once with field path and file name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from hwmodels.errors import RuntimeModeError
from hwmodels.file_catalogue import FileCatalogue
from hwmodels.runtimes.runtime import Runtime
from hwmodels.validation import validated
from hwmodels.yaml_file import SUFFIXES, read_yaml

_ADAPTER = TypeAdapter(Runtime)


def runtime_names() -> tuple[str, ...]:
    """Names of the runtimes that are shipped or that other packages bring."""
    return RUNTIMES.names()


def load_runtime(name_or_path: str | Path) -> Runtime:
    """The runtime of that name, or of that YAML file.

    Raises:
        RuntimeModeError: An unknown name, or a file with missing or unknown entries; the message
            lists all of them.
    """
    return RUNTIMES.load(name_or_path)


def runtime_with(name_or_path: str | Path, changes: Mapping[str, object]) -> Runtime:
    """The runtime of a file with other entries: what it would be without a fusion, say.

    Args:
        name_or_path: As `load_runtime`.
        changes: Entries of the file by their keys, each as a whole (`{"epilogue": []}`).

    Raises:
        RuntimeModeError: As `load_runtime`, and for a key or value that no runtime file has.
    """
    if not changes:
        return load_runtime(name_or_path)
    given = Path(name_or_path)
    path = given if given.suffix in SUFFIXES else RUNTIMES.path(str(name_or_path))
    content = read_yaml(path, RuntimeModeError, what="runtime file")
    changed = {**content, **changes} if isinstance(content, dict) else content
    return validated(_ADAPTER, changed, f"{path} with other entries", RuntimeModeError)


def _read(path: Path) -> Runtime:
    content = read_yaml(path, RuntimeModeError, what="runtime file")
    return validated(_ADAPTER, content, str(path), RuntimeModeError)


RUNTIMES = FileCatalogue(
    kind="runtime",
    folder=Path(__file__).parent,
    group="dse.runtimes",
    error=RuntimeModeError,
    read=_read,
    essence=lambda runtime: runtime,
)
