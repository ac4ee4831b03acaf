"""Processes end with what started them; what they train is saved."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from dse.errors import RunError
from dse.training.checkpoint import step_on
from dse.training.workers.processes import ended, interruptible, processes

_begun: list[str] = []


class Endless:
    """A training that never ends."""

    done = False

    def advance(self) -> None:
        """Takes a moment."""
        time.sleep(0.01)


def begin(word: str) -> None:
    _begun[:] = [word]


def begun() -> tuple[list[str], int]:
    return _begun, torch.get_num_threads()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train(place: Path) -> bool:
    (place / "began").touch()
    with interruptible():
        return step_on(Endless(), save=(place / "saved").touch, stop=lambda _: False)


def test_a_process_begins_with_what_it_is_given() -> None:
    with processes(2, begin, ("word",), threads=1) as executor:
        futures = [executor.submit(begun) for _ in range(3)]
        counts: list[int] = []
        ended(futures, counts.append)
        assert sum(counts) == 3
        assert [future.result() for future in futures] == [(["word"], 1)] * 3


def test_a_process_that_dies_is_told_and_nothing_hangs() -> None:
    with (
        pytest.raises(RunError, match="a worker died while it trained"),
        processes(1, begin, ("",)) as executor,
    ):
        ended([executor.submit(die)], lambda _: None)


def test_an_interruption_leaves_checkpoints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: int) -> None:
        if (tmp_path / "began").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), processes(2, begin, ("",)) as executor:
        ended([executor.submit(train, tmp_path) for _ in range(5)], interrupt, every=0.05)
    assert (tmp_path / "saved").exists()
    assert "Traceback" not in capfd.readouterr().err
