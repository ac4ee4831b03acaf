"""Tables of integers against floats, and what their README says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from studies.int_vs_fp import losses, run
from studies.int_vs_fp.circuits import circuit
from studies.int_vs_fp.formats import entries


def test_every_line_of_the_readme_is_in_the_results():
    text = (Path(run.__file__).parent / "README.md").read_text(encoding="utf-8")
    heads = ("| network |",)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line for line in table if not line.startswith(heads)] == run.lines()


def test_every_format_was_measured_on_every_network():
    names = [one.name for one in entries()]
    assert len(set(names)) == len(names)
    for model in losses.SAMPLES:
        found = run.samples_of(model)
        assert set(found) == set(names)
        assert {len(own) for own in found.values()} == {losses.SAMPLES[model]}


def test_formats_are_those_of_the_losses_and_of_todays_circuits():
    table = run.formats_table()
    pd.testing.assert_frame_equal(
        pd.read_csv(run.RESULTS / "formats.csv"), table, rtol=2e-3, check_dtype=False
    )


def test_losses_and_costs_between_widths_lie_on_a_line_of_logarithms():
    points = [(10.0, 1.0), (20.0, 0.1), (80.0, 0.001)]
    assert run.cost_at(0.1, points) == pytest.approx(20.0)
    assert run.cost_at(0.01, points) == pytest.approx(40.0)
    assert np.isnan(run.cost_at(2.0, points))
    assert np.isnan(run.cost_at(1e-4, points))


def test_what_is_called_reproduced_is_within_its_interval():
    found = _rows(run.published_table(), "theirs")
    eight = found["byte-gpt", "e4m3"]
    assert eight["at_theirs_low"] <= 2.2 <= eight["at_theirs_high"]
    sixteen = found["byte-gpt", "fp16"]
    assert sixteen["at_theirs_high"] < 1.8
    orders = _rows(run.orders_table(), "integer")
    for model in losses.SAMPLES:
        mx = orders[model, "int8@g32/e8m0-rceil"]
        assert mx["integer_loss"] < mx["float_loss"]
        assert mx["energy_low"] > 1 < mx["area"]


def _rows(table: pd.DataFrame, column: str) -> dict[tuple[str, str], dict[Any, Any]]:
    """The rows of a table by its network and another column."""
    return {(row["model"], row[column]): row for row in table.to_dict("records")}


def test_wider_elements_of_a_family_take_more():
    for name in run.families():
        energies = [circuit(one).energy_j for one in run.family(name)]
        assert energies == sorted(energies)
