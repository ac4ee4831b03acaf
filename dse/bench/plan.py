"""The folder of proposals in its own words: `plan.json`, beside the script."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dse.errors import RunError

FILE = "plan.json"
VERSION = 1


class Plan(BaseModel):
    """For whom proposals were written, and what is measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = VERSION
    to: str = ""
    """The exporter."""
    target: str = ""
    """Label of the run's target that is measured on; empty where nothing is timed."""
    models: dict[str, str] = {}
    """Digest -> file or folder of the model, relative to this file; `reference` too."""


def read_plan(folder: Path) -> Plan:
    """The plan in a folder of proposals, or beside a folder of results; an empty one without any.

    Raises:
        RunError: it is torn, or of another version.
    """
    path = next((p for p in (folder / FILE, folder.parent / FILE) if p.is_file()), None)
    if path is None:
        return Plan()
    try:
        found = TypeAdapter(Plan).validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError) as error:
        raise RunError(f"{path}: is not what `dse propose --to` writes: {error}") from error
    if found.version != VERSION:
        raise RunError(f"{path}: version {found.version}, expected {VERSION}; propose again")
    return found
