"""A run folder from a stranger leads our writing nowhere else."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from dse.errors import RunError
from dse.explore.study.storage import has_study, local_file
from dse.explore.study.study import locked
from dse.files import write_atomically
from dse.run.folder import mismatch


@pytest.mark.parametrize("name", [".lock", "study.log", "study.log.lock", "state", "trials.csv"])
def test_a_folder_with_a_symbolic_link_is_not_written_to(tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(outside)
    with pytest.raises(RunError, match="is a symbolic link"), locked(run):
        pass
    assert outside.read_text() == "precious"


def test_a_link_deep_inside_and_a_pipe_are_found(tmp_path):
    (tmp_path / "state").mkdir()
    os.mkfifo(tmp_path / "state" / "pipe")
    with pytest.raises(RunError, match="is no file"), locked(tmp_path):
        pass


def test_a_file_that_replaces_a_link_leaves_what_it_led_to(tmp_path):
    outside, link = tmp_path / "outside", tmp_path / "report.html"
    outside.write_text("precious")
    link.symlink_to(outside)
    write_atomically(link, "new")
    assert outside.read_text() == "precious"
    assert link.read_text() == "new"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_file_modes_follow_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:////etc/cron.d/x", "/etc/cron.d/x"),
        ("sqlite+pysqlite:///near.db?timeout=1", "near.db"),
        ("/mnt/journal.log", "/mnt/journal.log"),
        ("postgresql://host/database", None),
    ],
)
def test_storages_that_are_files_are_known(url, file):
    assert local_file(url) == (None if file is None else Path(file))


def test_only_a_database_that_has_the_study_is_opened_unasked(tmp_path):
    file = tmp_path / "shared.db"
    assert not has_study(file, "mine")
    assert not file.exists()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE studies (study_name TEXT)")
        database.execute("INSERT INTO studies VALUES ('mine')")
    assert has_study(file, "mine")
    assert not has_study(file, "other")
    (tmp_path / "text").write_text("precious")
    assert not has_study(tmp_path / "text", "mine")


LONG = {"match": {"name": "a" * 90}, "use": ["bf16", "fp8"]}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([{**LONG, "use": ["bf16", "fp8", "w4a16"]}], '(0: use: more "w4a16")'),
        ([{**LONG, "use": ["fp8"]}], '(0: use: less "bf16")'),
        ([{**LONG, "use": ["fp8", "bf16"]}], "(0: use: in another order)"),
        ([{**LONG, "use": ["bf16", "w4a16"]}], '(0: use: 1: was "fp8", is "w4a16")'),
        ([LONG, {"use": ["bf16"]}], '(more {"use": ["bf16"]})'),
        ([{"match": {}, "use": []}], '(0: match: name: was "'),
    ],
)
def test_the_difference_of_two_lists_is_the_entry_that_differs(now, said):
    """Entries share long beginnings; cut off there, both sides of the message were the same."""
    assert said in mismatch({"candidates": [LONG]}, {"candidates": now})
