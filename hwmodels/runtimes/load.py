"""Runtime files: YAML to `Runtime`, all errors at once with field path and file name."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from hwmodels.errors import RuntimeModeError
from hwmodels.file_catalogue import FileCatalogue
from hwmodels.runtimes.runtime import Runtime
from hwmodels.validation import validated
from hwmodels.yaml_file import read_yaml

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


def _read(path: Path) -> Runtime:
    content = read_yaml(path, RuntimeModeError, what="runtime file")
    return validated(_ADAPTER, content, str(path), RuntimeModeError)


RUNTIMES = FileCatalogue(
    kind="runtime",
    folder=Path(__file__).parent,
    group="dse.runtimes",
    error=RuntimeModeError,
    read=_read,
)
