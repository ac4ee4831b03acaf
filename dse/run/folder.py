"""The run folder: where its files are, written so that none is ever half there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from dse.errors import RunError
from dse.files import write_atomically

FORMAT = 1
"""Of the run folder, as its manifest says."""
MANIFEST = "manifest.json"
SENSITIVITY = "sensitivity.csv"
TRIALS = "trials.csv"
FRONT = "front.csv"
FRONT_ASSIGNMENTS = "front.json"
CHOICES = "choices.csv"
COSTS = "costs.csv"
RECOMMENDED = "recommended.json"
FRONTS = "fronts.csv"
ROBUST = "robust.json"
FAILURES = "failures.csv"
PRUNED = "pruned.csv"
STATE = "state"


def write_json(path: Path, content: Mapping[str, object] | Sequence[object]) -> None:
    """Write JSON in one step; NaN is refused, since JSON has none."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_table(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Write a CSV in one step; what a row does not have is left empty."""
    table = pd.DataFrame.from_records(list(rows), columns=list(columns))
    write_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def write_failures(folder: Path, failures: Mapping[int, str]) -> None:
    """Write why trials failed; no file where none did."""
    if failures:
        rows = [{"trial": trial, "error": error} for trial, error in failures.items()]
        write_table(folder / FAILURES, rows, ["trial", "error"])


def read_failures(folder: Path) -> Mapping[int, str]:
    """Trial -> why it failed."""
    path = folder / FAILURES
    if not path.exists():
        return {}
    table = pd.read_csv(path, keep_default_na=False)
    return dict(zip(table["trial"].astype(int), table["error"].astype(str), strict=True))


def read_json(path: Path) -> dict[str, object]:
    """The content of a JSON file.

    Raises:
        RunError: missing or torn.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; is {path.parent} a run folder?") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object")
    return content


def open_folder(folder: Path, identity: Mapping[str, object], *, resume: bool) -> None:
    """Create a run folder, or check that an existing one can be continued.

    Args:
        folder: the run folder.
        identity: what must be equal for a run to be continued: space, model digest, seed.
        resume: whether an existing folder may be continued.

    Raises:
        RunError: it exists and `resume` is false, or it belongs to another space or model.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        if folder.exists() and any(folder.iterdir()):
            raise RunError(f"{folder}: exists and is not a run folder; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        return
    if not resume:
        raise RunError(
            f"{folder}: exists already; continue it with --resume or choose another --out"
        )
    known = read_json(manifest)
    if other := mismatch(known, identity):
        raise RunError(f"{folder}: cannot be resumed: {other}; choose another --out")


def mismatch(known: Mapping[str, object], identity: Mapping[str, object]) -> str:
    """In what a search differs from the one given now; empty where it is the same."""
    for key, value in identity.items():
        if known.get(key) != value:
            return (
                f"its {key} differs from the one given now ({_difference(known.get(key), value)})"
            )
    return ""


def _difference(before: object, now: object) -> str:
    """The first field in which two nested values differ, readable in one line."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
                return f"{key}: {_difference(before.get(key), now.get(key))}"
    return f"was {json.dumps(before)[:80]}, is {json.dumps(now)[:80]}"
