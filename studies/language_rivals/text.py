"""Windows of English prose that every machine with the tools has.

Tools calibrate and search on help topics of Python; what is reported is prose of scikit-learn
about its data sets, other authors and another subject, which no tool sees.
"""

from __future__ import annotations

import importlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 256
CALIBRATION, SEARCH, REPORT = 8, 8, 16
SHORT = 128
"""Tokens of a window that recipes are made and scored on, which keeps the study to minutes."""
REPORTED = (
    "twenty_newsgroups", "lfw", "kddcup99", "breast_cancer", "olivetti_faces", "rcv1",
    "species_distributions", "covtype", "california_housing", "wine_data", "digits", "diabetes",
)  # fmt: skip
Tokens = NDArray[np.int64]


def write(folder: Path) -> None:
    """`tokens.npz` with arrays that `dse` deals into just these splits."""
    if (folder / "tokens.npz").exists():
        return
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    topics = importlib.import_module("pydoc_data.topics").topics
    help_text = "\n\n".join(topics[name] for name in sorted(topics))
    prose = "\n\n".join(
        (resources.files("sklearn") / "datasets" / "descr" / f"{name}.rst").read_text()
        for name in REPORTED
    )
    pool = np.concatenate([
        spread(ids(tokenizer, help_text), CALIBRATION + SEARCH),
        spread(ids(tokenizer, prose), REPORT),
    ])  # fmt: skip
    # Even windows calibrate, odd ones are searched on.
    wanted = np.concatenate([pool[0:16:2], pool[1:16:2], pool[16:]])
    dealt = np.empty_like(wanted)
    dealt[np.random.default_rng(0).permutation(len(wanted))] = wanted
    np.savez(folder / "tokens.npz", tokens=dealt[:, :-1], labels=dealt[:, 1:])


def ids(tokenizer: Any, text: str) -> Tokens:
    """Tokens of a text."""
    return np.array(tokenizer(text)["input_ids"], dtype=np.int64)


def spread(tokens: Tokens, count: int) -> Tokens:
    """(count, WINDOW + 1): windows evenly over a text."""
    starts = np.linspace(0, len(tokens) - WINDOW - 2, count).astype(int)
    return np.stack([tokens[start : start + WINDOW + 1] for start in starts])


def split(folder: Path, name: str) -> Tokens:
    """(windows, SHORT + 1) of one split, `calibration`, `search` or `report`."""
    return _whole(folder, name)[:, : SHORT + 1]


def continued(folder: Path, name: str) -> Tokens:
    """(windows, SHORT + 1): what follows each window of `split`."""
    return _whole(folder, name)[:, SHORT:]


def _whole(folder: Path, name: str) -> Tokens:
    with np.load(folder / "tokens.npz") as held:
        both = np.concatenate([held["tokens"], held["labels"][:, -1:]], axis=1)
    order = np.random.default_rng(0).permutation(len(both))
    edges = {"calibration": (0, 8), "search": (8, 16), "report": (16, 32)}
    return both[np.sort(order[slice(*edges[name])])]
