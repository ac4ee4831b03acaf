"""The README's errors by number type and device are those of the studies' tables."""

from pathlib import Path

from studies.gpu_latency.published import published

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_the_studies_errors() -> None:
    assert published() in README.read_text(encoding="utf-8")
