"""Measures of quality for tests of scale-out: top-level functions, so that workers can have them.

Each is an accuracy-like score that costs next to nothing, and does what its name says on the way.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dse.evaluate.metric import Run
from dse.zoo.split import Split

SLOW_S = 0.08
POLL_S = 0.01


def fidelity(run: Run, data: Split) -> np.ndarray:
    """One score a sample: how sure the network is of what is on the picture."""
    logits = run(data.inputs).astype(np.float64)
    labels = np.asarray(data.labels)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))


def steady(run: Run, data: Split) -> np.ndarray:
    """Scores whose differences between assignments are much alike in all samples.

    They are mostly what the network makes of four fixed pictures.
    """
    shape = next(iter(data.inputs.values())).shape[1:]
    pictures = np.random.default_rng(0).random((4, *shape), dtype=np.float32)
    common = np.abs(run(pictures).astype(np.float64)).mean()
    return common + 1e-3 * fidelity(run, data)


def unevenly_steady(run: Run, data: Split) -> np.ndarray:
    """The same, after a while that differs."""
    uneven(run, data)
    return steady(run, data)


def slow(run: Run, data: Split) -> np.ndarray:
    time.sleep(SLOW_S)
    return fidelity(run, data)


def held(run: Run, data: Split, *, hold: Path) -> np.ndarray:
    """Does not end as long as the file is there."""
    while hold.exists():
        time.sleep(POLL_S)
    return fidelity(run, data)


def uneven(run: Run, data: Split) -> np.ndarray:
    """Takes longer or shorter, in another order in every process."""
    time.sleep(0.1 * ((os.getpid() + time.monotonic_ns()) % 3))
    return fidelity(run, data)


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What processes leave for each other in a folder; `driver` is spared."""

    folder: Path
    driver: int

    def in_worker(self) -> bool:
        return os.getpid() != self.driver

    def counted(self, what: str) -> int:
        """How often that happened in all processes, this time included."""
        with (self.folder / what).open("ab") as marks:
            marks.write(b".")
            marks.flush()
            return marks.tell()


def deadly(run: Run, data: Split, *, marks: Marks) -> np.ndarray:
    """Kills its process the fourth, twelfth and sixtieth time that a worker calls it."""
    if marks.in_worker() and marks.counted("calls") in (4, 12, 60):
        marks.counted("deaths")
        os.kill(os.getpid(), signal.SIGKILL)
    return fidelity(run, data)


def poisonous(
    run: Run, data: Split, *, marks: Marks, threshold: float, samples: int
) -> np.ndarray:
    """Kills every process that measures so many samples, if their scores have a low mean."""
    scores = fidelity(run, data)
    if marks.in_worker() and len(scores) == samples and scores.mean() < threshold:
        os.kill(os.getpid(), signal.SIGKILL)
    return scores


class Capricious:
    """Every fifth call raises, every seventh returns NaN."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, run: Run, data: Split) -> np.ndarray:
        self._calls += 1
        if self._calls % 5 == 0:
            raise ZeroDivisionError("the user's own mistake")
        scores = fidelity(run, data)
        return np.full_like(scores, np.nan) if self._calls % 7 == 0 else scores


def broken(run: Run, data: Split) -> float:
    raise ZeroDivisionError("the user's own mistake")
