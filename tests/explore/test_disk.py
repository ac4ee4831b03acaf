"""A disk that is full ends the run with a clear error and a state that can be resumed."""

from __future__ import annotations

import errno
from pathlib import Path

import pandas as pd
import pytest
from optuna.storages.journal import JournalFileBackend

from dse.errors import StorageError
from dse.explore.loop import run
from tests.explore import metrics
from tests.explore.measure.test_parallelism import front, session, settled


def test_a_full_disk_ends_the_run_and_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    run(session(metrics.fidelity), whole)
    room = (whole / "study.log").stat().st_size // 2
    folder = tmp_path / "full"
    journal = folder / "study.log"
    append = JournalFileBackend.append_logs

    def fill(self: JournalFileBackend, logs: list[dict[str, object]]) -> None:
        """What the kernel does: a part of the line still fits, the rest does not."""
        before = journal.stat().st_size
        append(self, logs)
        if journal.stat().st_size > room:
            with journal.open("r+b") as stream:
                stream.truncate(max(before, room))
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", fill)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            run(session(metrics.fidelity), folder)
    assert f"go on with: dse search --out {folder} --resume" in str(caught.value)
    assert 0 < len(settled(folder)) < len(settled(whole))
    run(session(metrics.fidelity), folder, resume=True)
    assert settled(folder) == settled(whole)
    pd.testing.assert_frame_equal(front(whole), front(folder))
