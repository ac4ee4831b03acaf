"""A space that means the same from any folder."""

from __future__ import annotations

from pathlib import Path

from dse.space.schema import Space, Target
from hwmodels.yaml_file import SUFFIXES


def relocated(space: Space, folder: Path) -> Space:
    """The space with absolute paths; names of the zoo and of catalogues stay.

    Args:
        space: as its file says.
        folder: what its relative paths are relative to.
    """
    return space.model_copy(
        update={
            "model": _located(space.model, folder),
            "cost_model": _located(space.cost_model, folder) if space.cost_model else None,
            "data": space.data.model_copy(update={"source": _located(space.data.source, folder)}),
            "targets": tuple(located_target(target, folder) for target in space.targets),
        }
    )


def located_target(target: Target, folder: Path) -> Target:
    """The target with absolute paths of its files."""
    files = {
        name: str((folder / value).absolute())
        for name, value in (("device", target.device), ("runtime", target.runtime))
        if value is not None and Path(value).suffix in SUFFIXES
    }
    return target.model_copy(update=files)


def _located(name: str, folder: Path) -> str:
    """An absolute path where there is such a file, else the name as it is."""
    path = folder / name
    return str(path.absolute()) if path.exists() else name
