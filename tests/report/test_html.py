from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dse.errors import RunError
from dse.report.html import write_report
from dse.run.read import read_run


class Outline(HTMLParser):
    """Attributes that load something, headings, and table rows."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.headings: list[str] = []
        self.rows = 0
        self._in_heading = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {k}" for k, v in attrs if k in ("src", "href", "srcset") and v]
        self._in_heading = tag == "h2"
        self.rows += tag == "tr"

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings.append(data)
            self._in_heading = False


def test_the_page_loads_nothing(folder: Path) -> None:
    page = write_report(folder)
    assert page == folder / "report.html"
    text = page.read_text(encoding="utf-8")
    assert Outline(page).loaded == []
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?http", text)


def test_what_breaks_a_constraint_is_marked_in_table_and_figure(folder: Path) -> None:
    assert 'class="uniform broken"' not in write_report(folder).read_text(encoding="utf-8")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    bounds = {"constraints": ["h100.native_share>=1"]}
    path.write_text(json.dumps(manifest | bounds), encoding="utf-8")
    run = read_run(folder)
    front = {point.trial for point in run.front}
    beside = [p for p in run.uniforms if p.trial not in front]
    expected = sum(point.columns["h100.native_share"] < 1 for point in beside)
    text = write_report(folder).read_text(encoding="utf-8")
    assert text.count('class="uniform broken"') == expected > 0
    assert "breaks h100.native_share&gt;=1: shown for comparison" in text
    assert "\\u2717" in text or "mxfp8 ✗" in text


def test_one_copy_of_plotly(folder: Path) -> None:
    text = write_report(folder).read_text(encoding="utf-8")
    assert text.count("plotly.js v") == 1


def test_every_section_is_there(folder: Path) -> None:
    assert Outline(write_report(folder)).headings == [
        "Front", "Which format where", "Where the time goes", "What runs natively", "Sensitivity",
        "Effort", "Provenance",
    ]  # fmt: skip


def test_sections_without_data_are_left_out(folder: Path) -> None:
    (folder / "costs.csv").unlink()
    (folder / "sensitivity.csv").unlink()
    headings = Outline(write_report(folder)).headings
    assert headings == ["Front", "Which format where", "Effort", "Provenance"]


def test_the_question_is_text_not_markup(folder: Path) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text()) | {"question": "</script><script>alert(1)</script>"}
    name = content["variables"][0]["name"]
    content["variables"][0]["name"] = "</script><b>"
    path.write_text(json.dumps(content))
    choices = folder / "choices.csv"
    choices.write_text(choices.read_text().replace(f",{name},", ",</script><b>,"))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "</script><b>" not in text


def test_the_same_run_gives_the_same_page(folder: Path) -> None:
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_a_torn_folder_leaves_the_old_page(folder: Path) -> None:
    page = write_report(folder)
    before = page.stat().st_mtime_ns
    (folder / "trials.csv").unlink()
    with pytest.raises(RunError):
        write_report(folder)
    assert page.stat().st_mtime_ns == before
