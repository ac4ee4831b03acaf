"""Links of Hugging Face's cache that stand as text, where git or an archive kept no links."""

from __future__ import annotations

from pathlib import Path

from dse.errors import GraphError

MOST_BYTES = 1024
"""A path is shorter; so is no model."""
LFS = b"version https://git-lfs"


def followed(path: Path) -> Path:
    """The file itself, or the blob of the same repository that its text names.

    Args:
        path: a file in a snapshot of Hugging Face's cache, or anywhere else.

    Raises:
        GraphError: a blob that is not there, or a pointer of Git LFS.
    """
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return path
    content = path.read_bytes()
    if content.startswith(LFS):
        raise GraphError(
            f"{path}: a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"
        )
    blobs = blobs_of(path.parent)
    text = content.decode(errors="replace").strip()
    if blobs is None or not text.startswith("../") or "\n" in text or "\0" in text:
        return path
    found = (path.parent / text).resolve()
    if found.parent != blobs.resolve():
        return path
    if not found.is_file():
        raise GraphError(
            f"{path}: a link that is written as text, to {text}, which is not there; copy the "
            "repository's blobs too, or download the snapshot again"
        )
    return found


def blobs_of(folder: Path) -> Path | None:
    """The target of a snapshot's links in Hugging Face's cache: the same repository's blobs.

    The folder may be the snapshot or lie below it, as `onnx/` does.
    """
    for snapshots in folder.absolute().parents:
        repository = snapshots.parent
        if snapshots.name == "snapshots" and "--" in repository.name:
            return repository / "blobs"
    return None
