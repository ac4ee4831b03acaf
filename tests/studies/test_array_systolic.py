"""Cycles of systolic arrays are SCALE-Sim's, and the study's README has its tables."""

from __future__ import annotations

import pandas as pd

from studies.array_systolic.__main__ import RESULTS, published, without_stalls

EVERY = 13
"""Rows apart of those that the test maps: no divisor of an array's or a dataflow's number."""


def test_the_readme_has_the_study_s_table() -> None:
    assert published() in (RESULTS.parent / "README.md").read_text(encoding="utf-8")


def test_cycles_without_stalls_are_scale_sim_s() -> None:
    rows = pd.read_csv(RESULTS / "compute.csv")[::EVERY]
    assert rows[["rows", "columns", "dataflow"]].drop_duplicates().shape[0] == 12
    assert without_stalls(rows).tolist() == rows["cycles"].tolist()


def test_scale_sim_reports_the_index_of_the_last_cycle() -> None:
    """Its report is one short of the lines of its demands for each layer that it runs."""
    whole = pd.read_csv(RESULTS / "whole.csv")
    assert (whole["total_cycles"] + whole["layers"] == whole["lines"]).all()
    assert (whole["stall_cycles"] == 0).all()
