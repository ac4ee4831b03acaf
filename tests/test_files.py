from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dse.cli import app
from dse.errors import RunError, StorageError, WriteError
from dse.files import write_atomically, writing, written_atomically


@pytest.mark.parametrize("content", ["text ±", b"\x00bytes"])
def test_a_file_is_replaced_whole(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "page"
    path.write_text("something longer that was there before")
    write_atomically(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [found.name for found in tmp_path.iterdir()] == ["page"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(WriteError, match=r"page\.html: cannot be written"):
        write_atomically(tmp_path / "page.html", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"nowhere/page: cannot be written: No such file"):
        write_atomically(tmp_path / "nowhere" / "page", "text")


@pytest.mark.parametrize("name", [".", "made"])
def test_a_folder_in_the_place_of_a_file_is_a_wrong_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made").mkdir()
    with pytest.raises(WriteError, match="cannot be written: Is a directory") as caught:
        write_atomically(Path(name), "text")
    assert app.described(caught.value)[1] == app.WRONG_INPUT
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_library_writes_takes_its_place_at_the_end(tmp_path: Path) -> None:
    with written_atomically(tmp_path / "state") as place:
        save_file({"a": np.zeros(2)}, place)
        assert not (tmp_path / "state").exists()
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_a_library_of_rust_that_finds_no_place_says_so_as_well(tmp_path: Path) -> None:
    refused = pytest.raises(WriteError, match=r"weights: cannot be written: .*No such file")
    with refused, writing(tmp_path / "weights"):
        save_file({"a": np.zeros(2)}, tmp_path / "nowhere" / "weights")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="mine"), writing(tmp_path):
        raise RunError("mine")
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, app.FAILED),
        (errno.EDQUOT, app.FAILED),
        (errno.EIO, app.FAILED),
        (errno.ENOENT, app.WRONG_INPUT),
        (errno.EACCES, app.WRONG_INPUT),
    ],
)
@pytest.mark.parametrize("kind", [WriteError, StorageError])
def test_a_full_disk_has_one_exit_code_and_a_wrong_path_another(
    kind: type[WriteError | StorageError], number: int, code: int
) -> None:
    error = kind("go on with")
    error.__cause__ = WriteError("cannot be written")
    error.__cause__.__cause__ = OSError(number, "said by the kernel")
    assert app.described(error) == ("go on with", code)
