from __future__ import annotations

from pathlib import Path

import pytest

from dse.errors import WriteError
from dse.files import write_atomically


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
