"""`dse check` reads a space's data as its search will."""

from __future__ import annotations

from pathlib import Path

from dse.evaluate.described import described_outputs
from dse.model import open_model
from dse.space.schema import Data, QualityOf
from tests.export import folders
from tests.text import toy


def test_a_text_is_read_by_the_models_tokenizer(tmp_path: Path) -> None:
    toy.save(folders.folder("llama", tmp_path / "tiny", num_hidden_layers=1))
    (tmp_path / "told.txt").write_text(toy.TEXT * 8)
    analysis = open_model("tiny", folder=tmp_path).analysis
    data = Data(source="told.txt", sequence=16, calibration=2, search=2, report=2)
    said = described_outputs(analysis, data, QualityOf(), tmp_path)
    assert [line for line in said if "cannot be read" in line] == []
    assert "labels are classes" in said[0]
