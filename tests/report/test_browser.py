"""The page in a real browser, without any network."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dse.report.compare import compare
from dse.report.html import write_report
from tests.run.synthetic import write_run

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom",
    "--virtual-time-budget=10000", "--window-size=1280,1000",
)  # fmt: skip

CLICK_EVERYTHING = """<script>
window.addEventListener("load", async () => {
  for (const button of document.querySelectorAll("button")) {
    button.click();
    await new Promise((done) => setTimeout(done, 5));
  }
  document.body.dataset.clicked = document.querySelectorAll("button").length;
});
</script></body>"""


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's elements once its scripts have run, and what the console said."""
    command = ["chromium", *FLAGS, f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_every_figure_is_drawn_and_the_console_is_silent(folder: Path, tmp_path: Path) -> None:
    elements, console = opened(write_report(folder), tmp_path / "profile")
    assert console == []
    plots = re.findall(r'id="plot-([a-z-]+)"', elements)
    assert plots == ["pareto", "format-map", "time", "heat", "rank", "hypervolume", "effort"]
    drawn = re.findall(r'class="[^"]*plot-container', elements)
    assert len(drawn) == len(plots)
    assert len(re.findall(r'class="point"', elements)) > 100


def test_every_button_works(folder: Path, tmp_path: Path) -> None:
    page = write_report(folder)
    page.write_text(page.read_text().replace("</body>", CLICK_EVERYTHING))
    elements, console = opened(page, tmp_path / "profile")
    assert console == []
    assert re.search(r'<body data-clicked="\d\d"', elements)
    assert "predicted weights (GB)" in elements
    assert 'aria-sort="ascending"' in elements


def test_a_script_error_is_noticed(folder: Path, tmp_path: Path) -> None:
    page = write_report(folder)
    page.write_text(page.read_text().replace("</body>", "<script>nothing()</script></body>"))
    _, console = opened(page, tmp_path / "profile")
    assert any("nothing is not defined" in line for line in console)


def test_the_comparison_is_drawn(finished: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=3)
    page = compare([finished, other], tmp_path / "both.html")
    elements, console = opened(page, tmp_path / "profile")
    assert console == []
    assert len(re.findall(r'class="[^"]*plot-container', elements)) == 1
