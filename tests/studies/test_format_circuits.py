"""The README's table is what the study computes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from studies.format_circuits import run


def test_every_line_of_the_readme_is_computed_and_every_goal_is_met():
    found = run.checks()
    text = (Path(run.__file__).parent / "README.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert table == [one.line for one in found]
    assert not [one.what for one in found if one.verdict.startswith("missed")]
    assert sum(one.factor != run.FREE for one in found) >= 12


def test_formats_of_equal_accuracy_stand_in_dacs_order():
    ratios = [one.model for one in run.checks() if one.what.startswith("DAC 2025")]
    assert len(ratios) == 3
    assert min(ratios) > 1


def test_errors_of_sram_are_those_of_the_artefact():
    kept = pd.read_csv(run.RESULTS / "sram.csv").set_index("quantity")
    found = run.sram_errors().set_index("quantity")
    assert (kept - found).abs().max().max() < 1e-3
    assert dict((found.left_out_median * 100).round()) == {
        "read_j": 6, "write_j": 4, "leakage_w": 2, "area_mm2": 5, "access_s": 4
    }  # fmt: skip
