"""docs/api.md as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dse

DOCUMENT = Path("docs/api.md")


def test_the_document_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "document"}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    assert (tmp_path / "kept" / "report.html").exists()
    assert isinstance(names["front"], dse.Front)
