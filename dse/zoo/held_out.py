"""The text that byte-gpt never saw: modules and help topics of Python's own library.

No text ships with the package. It is read from the Python that runs this code, so its bytes
differ a little between Python versions; the lists are fixed. Training excluded every name below,
the tests of these modules, and every file that shares more than a few lines with them
(`studies/zoo/corpus.py`).
"""

from __future__ import annotations

import importlib
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Names of the texts of one split."""

    modules: tuple[str, ...]
    """Top-level modules of the standard library that exist in Python 3.11 to 3.14."""
    topics: tuple[str, ...]
    """Keys of `pydoc_data.topics.topics`."""


CALIBRATION = HeldOut(
    modules=(
        "csv", "fractions", "gettext", "queue", "selectors", "textwrap", "uuid", "webbrowser",
    ),
    topics=("calls", "integers", "lambda", "raise", "strings"),
)  # fmt: skip

SEARCH = HeldOut(
    modules=("argparse", "calendar", "heapq", "imaplib", "pprint", "trace", "wave", "weakref"),
    topics=("binary", "booleans", "dict", "import", "typesmapping"),
)

REPORT = HeldOut(
    modules=(
        "contextlib", "difflib", "plistlib", "random",
        "shlex", "smtplib", "statistics", "tempfile",
    ),
    topics=("formatstrings", "global", "objects", "operator-summary", "slicings", "specialattrs"),
)  # fmt: skip

SPLITS: Mapping[str, HeldOut] = {
    "calibration": CALIBRATION,
    "search": SEARCH,
    "report": REPORT,
}


def module_text(name: str) -> str | None:
    """Source text of a standard-library module, or None where this Python has no source of it.

    Looks only in the library's own folder: a `calendar.py` in the working folder must not
    become evaluation data.
    """
    spec = PathFinder.find_spec(name, [sysconfig.get_path("stdlib")])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).read_text(encoding="utf-8")


def topic_text(name: str) -> str | None:
    """Text of a help topic, or None where this Python has no such topic."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # Some distributions package pydoc_data apart.
        return None
    text = topics.get(name)
    return None if text is None else str(text)


def texts(split: HeldOut) -> dict[str, bytes]:
    """Texts of a split in list order, those that this Python has, as `kind:name` -> UTF-8."""
    found: dict[str, bytes] = {}
    for kind, names, read in (
        ("module", split.modules, module_text),
        ("topic", split.topics, topic_text),
    ):
        for name in names:
            text = read(name)
            if text is not None:
                found[f"{kind}:{name}"] = text.encode()
    return found
