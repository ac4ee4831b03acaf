"""The run folder as a place: begun, or found again and continued."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from dse.errors import RunError
from dse.run.files import MANIFEST, resume_command
from dse.run.manifest import Manifest
from dse.run.read import read_manifest
from dse.space.schema import Space

SHOWN = 80
"""Characters of a value in a message."""


def open_folder(folder: Path, identity: Mapping[str, object], *, resume: bool) -> None:
    """Create a run folder, or check that an existing one can be continued.

    Args:
        folder: the run folder.
        identity: what must be equal for a run to be continued: version, space, model digest.
        resume: whether a run that is there is continued.

    Raises:
        RunError: a run is there and `resume` is false, or none is and it is true; or it belongs
            to another space or model.
    """
    if resume:
        known = continued(folder).model_dump(mode="json")
        if other := mismatch(known, identity):
            raise RunError(f"{folder}: cannot be resumed: {other}; choose another --out")
        return
    begin_folder(folder)


def begin_folder(folder: Path) -> None:
    """Create the folder of a new run.

    Raises:
        RunError: a run, or anything else, is there.
    """
    if (folder / MANIFEST).exists():
        raise RunError(
            f"{folder}: exists already; continue it with: {resume_command(folder)}, or choose "
            "another --out"
        )
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder}: exists and is not a run folder; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)


def check_own(folder: Path) -> None:
    """A look at everything in a run folder, before something is written there.

    A folder from a stranger could lead our writing elsewhere: into a file by `.lock` or the
    journal, which are opened in place, or into another folder by `state`.

    Raises:
        RunError: something in it is a symbolic link, or neither a file nor a folder.
    """
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent) / name for name in (*folders, *names)):
            kind = path.lstat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                what = "a symbolic link" if stat.S_ISLNK(kind) else "no file"
                raise RunError(
                    f"{path}: is {what}; a run folder that is written to holds its own files "
                    "only: copy what it leads to"
                )


def continued(folder: Path) -> Manifest:
    """The manifest of the run that is to be continued.

    Raises:
        RunError: there is none, or it is of another version.
    """
    if not (folder / MANIFEST).is_file():
        raise RunError(f"--resume: {folder}: no run is there; begin one without --resume")
    return read_manifest(folder)


def mismatch(known: Mapping[str, object], identity: Mapping[str, object]) -> str:
    """The first difference of a search from the one given now; empty where it is the same.

    How many trials are wanted may differ: a run is extended so.
    """
    for key, value in identity.items():
        before, now = known.get(key), value
        if key == "data_digest" and not (before and now):  # of a version that took none
            continue
        if key == "space":
            before, now = _comparable(before), _comparable(now)
        if key == "data_digest" and before != now:
            return (
                f"its data hold other samples than when it was begun (digest {before}, "
                f"now {now}); "
                "put them back"
            )
        if before != now:
            return f"its {key} differs from the one given now ({_difference(before, now)})"
    return ""


def _comparable(space: object) -> object:
    """A space as this version writes it, whichever wrote it, without what may be changed."""
    try:
        content = Space.model_validate(space).model_dump(mode="json")
    except ValidationError:
        return space
    content["search"].pop("trials")
    return content


def _difference(before: object, now: object) -> str:
    """The first field or entry in which two nested values differ, readable in one line."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
                return f"{key}: {_difference(before.get(key), now.get(key))}"
    if isinstance(before, list) and isinstance(now, list):
        more, less = _only(now, before), _only(before, now)
        if len(before) == len(now) and len(more) == len(less) == 1:
            return f"{now.index(more[0])}: {_difference(less[0], more[0])}"
        changes = [
            f"{word} {shown}"
            for word, some in (("more", more), ("less", less))
            for shown in map(_shown, some)
        ]
        return "; ".join(changes) or "in another order"
    return f"was {_shown(before)}, is {_shown(now)}"


def _only(these: Sequence[object], others: Sequence[object]) -> list[object]:
    return [one for one in these if one not in others]


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
