"""Archives that this repository has of its own measurements."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive, whose members stay within the folder that they are extracted to.

    As an attribute, which Python before 3.11.4 ignores: it has no filters.
    """
    with tarfile.open(path) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        yield archive
