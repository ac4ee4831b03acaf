"""Cycles of systolic arrays are SCALE-Sim's, and the study's README has its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from studies.array_systolic.__main__ import (
    COPIES,
    NEAR,
    RESULTS,
    copies,
    published,
    with_stalls,
    without_stalls,
)
from studies.array_systolic.scale_sim_buffer import OperandBuffer, ResultBuffer, first_demands

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


def test_a_copy_of_scale_sim_s_buffers_takes_its_cycles_and_one_fault_is_most_of_them() -> None:
    found = {row["variant"]: row for row in copies().to_dict("records")}
    assert set(found) == set(COPIES)
    assert found["copied"]["equal"] == found["copied"]["rows"] == 180
    assert found["demand_order"]["buffer_near"] > 3 * found["copied"]["buffer_near"]


@pytest.mark.parametrize(("twice", "waits"), [(True, [0, -1, 6]), (False, [0, 0, 3])])
def test_a_word_that_was_passed_comes_after_a_turn_through_the_operand(
    twice: bool, waits: list[int]
) -> None:
    """Two halves of four words, a word a cycle: a move takes five cycles, one after another."""
    buffer = OperandBuffer.of(np.arange(8), 8, 8, 1, twice=twice)
    found = [buffer.wait([word], cycle) for word, cycle in ((3, 3), (4, 4), (0, 5))]
    assert found == waits
    assert buffer.begin == -4


def test_results_wait_for_a_half_that_drains() -> None:
    """Of eight words four drain from the fifth on, a word a cycle, while four more come."""
    buffer = ResultBuffer(size=8, rate=1)
    assert [buffer.wait(1, cycle) for cycle in range(5)] == [0] * 5
    assert buffer.drained == 4 + 3
    assert buffer.wait(7, 5) == 2
    assert buffer.empty(8) == 8 + 4 + 3


def test_each_word_is_fetched_once_a_half() -> None:
    demand = np.array([[1, -1], [2, 1], [3, 1], [-1, 2]])
    assert first_demands(demand, 2).tolist() == [1, 2, 3, 1, 2]
