"""A recipe written for a target: all of it, checked, or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dse.errors import ExportError
from dse.export.base import Check, Recipe, refusal
from dse.export.exporters import exporter, refused_by
from dse.files import writing


def deliver(recipe: Recipe, target: str, out: Path, *, verify: bool = False) -> tuple[Check, ...]:
    """Write a recipe for a target.

    It is written in a hidden folder beside `out`, checked there if that is asked for, and moved
    when all is well: a refusal, an error or an interruption leaves nothing behind.

    Args:
        recipe: what to write.
        target: a name of `exporter_names`.
        out: the file or folder to make; an older file is replaced, a folder is not.
        verify: whether checkers read it back.

    Returns:
        What the checkers said; nothing without `verify`.

    Raises:
        ExportError: the target is unknown or cannot express the recipe, the folder is in use, or
            a checker computes something else than the emulator.
        WriteError: it cannot be written.
    """
    chosen = exporter(target)
    if refused := refused_by(target, recipe):
        raise ExportError(refusal(target, refused))
    if out.is_dir() and any(out.iterdir()):
        raise ExportError(f"{out}: is a folder with files in it; choose another -o")
    with writing(out), _staged(out) as staging:
        chosen.write(recipe, staging)
        return chosen.verify(recipe, staging) if verify else ()


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A path named as `out` in a folder whose content is moved to it when the block ends well."""
    folder = out.absolute().parent
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{out.name}.") as staging:
            yield Path(staging) / out.name
            for found in sorted(Path(staging).iterdir()):
                os.replace(found, folder / found.name)
    except BaseException:
        for parent in made:
            with contextlib.suppress(OSError):  # no longer empty: somebody else uses it
                parent.rmdir()
        raise
