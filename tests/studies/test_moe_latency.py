"""The study's table is that of its results."""

import pandas as pd

from studies.moe_latency.run import README, RESULTS, rendered, with_table

TABLE = pd.read_csv(RESULTS / "errors.csv")


def test_the_readme_has_the_study_s_errors() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text, rendered(TABLE)) == text


def test_measured_devices_are_predicted_as_the_readme_says() -> None:
    means = TABLE[["gemm", "rows", "models", "left_out"]].mean().round()
    assert means.to_dict() == {"gemm": 39, "rows": 10, "models": 18, "left_out": 31}
    assert TABLE["rows"].max() < 15
    inside = TABLE[["rows_inside", "models_inside"]].mean(axis=1).mean()
    assert 85 <= inside <= 95
