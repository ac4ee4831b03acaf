"""The study's table is that of its results, and the model's intervals are theirs."""

import pandas as pd

from hwmodels.tables.collectives import SPREAD
from studies.collectives.run import README, RESULTS, rendered, with_table

ERRORS = pd.read_csv(RESULTS / "errors.csv", dtype={"release": str})
LEFT_OUT = pd.read_csv(RESULTS / "left_out.csv")


def test_the_readme_has_the_study_s_errors() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text, rendered(ERRORS, LEFT_OUT)) == text


def test_devices_with_own_figures_are_predicted_as_the_readme_says() -> None:
    own = ERRORS[ERRORS.release.isna()]
    nvlink = own[own.device != "l40s"]
    assert nvlink.mape.max() < 0.09
    assert own[own.device == "l40s"].mape.max() < 0.16
    assert LEFT_OUT.own.max() < 0.10


def test_intervals_hold_nine_rows_in_ten() -> None:
    own = ERRORS[ERRORS.release.isna()]
    for standing, rows in (
        ("measured", own[own.device != "l40s"]),
        ("host", own[own.device == "l40s"]),
    ):
        inside = (rows.inside * rows.rows).sum() / rows.rows.sum()
        assert 0.85 <= inside <= 0.96, standing
    low, high = SPREAD["unseen"]
    assert (1 / (1 + LEFT_OUT.others)).min() > low
    assert (1 + LEFT_OUT.others).max() < high
