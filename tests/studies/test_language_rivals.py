"""The study of recipes for a language model: paired differences, and tables kept up to date."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from studies.language_rivals import paired, score


def test_a_paired_interval_is_that_of_student_for_related_samples() -> None:
    draw = np.random.default_rng(0)
    first = draw.normal(1.0, 0.5, 8)
    second = first + draw.normal(0.1, 0.05, 8)
    found = paired.difference(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found["low"] == pytest.approx(expected.low)
    assert found["high"] == pytest.approx(expected.high)
    assert found["low"] < found["difference"] < found["high"] < 0
    assert found["windows_less"] == int((first < second).sum())


def test_a_row_takes_the_place_of_the_older_one_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "results" / "rows.csv"
    for tool, recipe, kl in (("a", "x", 1.0), ("a", "y", 2.0), ("b", "x", 3.0), ("a", "x", 4.0)):
        score.put(path, {"tool": tool, "recipe": recipe, "kl": kl})
    with path.open(newline="") as stream:
        rows = [(row["tool"], row["recipe"], float(row["kl"])) for row in csv.DictReader(stream)]
    assert rows == [("a", "y", 2.0), ("b", "x", 3.0), ("a", "x", 4.0)]
