"""Files that are never half there, and where those are kept that can be made again."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dse.errors import DseError, WriteError

RUST_ERROR = "(os error "
"""The end of the text of an operating system's error in what safetensors raises."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Text is written as UTF-8.

    Raises:
        WriteError: it cannot be written there (no such folder, no permission, the disk is full).
    """
    with written_atomically(path) as place:
        place.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """An empty file beside `path` for a library to write to; it takes the place at the end.

    Raises:
        WriteError: as `write_atomically`.
    """
    with writing(path):
        if path.is_dir():  # `.` and mount points would be called busy
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            yield Path(name)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever a library says meanwhile of a place that cannot be written, as one error.

    Raises:
        WriteError: instead of an `OSError`, or of an error of Rust's that tells of one.
    """
    try:
        yield
    except DseError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and RUST_ERROR not in str(error):
            raise
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise WriteError(f"{path}: cannot be written: {reason}") from error


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
