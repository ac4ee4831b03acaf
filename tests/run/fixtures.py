"""Synthetic run folders, written once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dse.run.load import read_run
from dse.run.run import Run
from tests.run.synthetic import write_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that no test changes."""
    return write_run(tmp_path_factory.mktemp("run") / "fp4")


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "fp4"))


@pytest.fixture(scope="session")
def run(finished: Path) -> Run:
    return read_run(finished)
