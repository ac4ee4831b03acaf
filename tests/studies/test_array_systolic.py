"""Cycles of systolic arrays are SCALE-Sim's, and the study's README has its tables."""

from __future__ import annotations

import pandas as pd

from studies.array_systolic.__main__ import (
    NEAR,
    RESULTS,
    published,
    with_stalls,
    without_stalls,
)

EVERY = 13
"""Rows apart of those that the test maps: no divisor of an array's or a dataflow's number."""


def test_the_readme_has_the_study_s_table() -> None:
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    assert all(table in text for table in published())


def test_cycles_without_stalls_are_scale_sim_s() -> None:
    rows = pd.read_csv(RESULTS / "compute.csv")[::EVERY]
    assert rows[["rows", "columns", "dataflow"]].drop_duplicates().shape[0] == 12
    assert without_stalls(rows).tolist() == rows["cycles"].tolist()


def test_scale_sim_reports_the_index_of_the_last_cycle() -> None:
    """Its report is one short of the lines of its demands for each layer that it runs."""
    whole = pd.read_csv(RESULTS / "whole.csv")
    assert (whole["total_cycles"] + whole["layers"] == whole["lines"]).all()
    assert (whole["stall_cycles"] == 0).all()


def test_cycles_behind_double_buffers_are_within_three_percent() -> None:
    rows = pd.read_csv(RESULTS / "stalls.csv")
    products = rows[rows["name"].str.startswith("gemm")]
    error = (with_stalls(products) / products["buffer_cycles"] - 1).abs()
    assert (error <= NEAR).mean() >= 0.96
    assert error.max() < 0.13


def test_scale_sim_fetches_words_twice_that_are_needed_once() -> None:
    """A 4 x 4 input, 16 words, under 2 x 2 places: every word is demanded once."""
    hand = pd.read_csv(RESULTS / "hand.csv").iloc[0]
    assert hand["lines"] == 2 * (2 + 2 + 2 + 4 - 2)
    assert hand["buffer_input_words"] == 16
    assert hand["input_words"] == 36
    # A word a cycle: its 36 words, of which a half comes before the first cycle, are its time.
    assert hand["cycles"] >= 36 > hand["buffer_cycles"] >= 16 + 4
    assert abs(with_stalls(hand.to_frame().T)[0] - hand["buffer_cycles"]) <= 2
