"""Synthetic run folders, written once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dse.run.read import read_run
from dse.run.search_run import SearchRun
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
def run(finished: Path) -> SearchRun:
    return read_run(finished)
