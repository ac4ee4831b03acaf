"""Files that are never half there, and where those are kept that can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dse.errors import WriteError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Text is written as UTF-8.

    Raises:
        WriteError: it cannot be written there (no such folder, no permission, the disk is full).
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror}") from error


def _umask() -> int:
    """The permissions that new files do not get; Python tells them only by setting others."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def is_there(path: Path) -> bool:
    """Whether there is something at a path; a text that can be no path is nowhere."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a NUL
        return False


def cache_folder() -> Path:
    """The folder of exported models: `$XDG_CACHE_HOME/dse` (default `~/.cache/dse`)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dse"
