"""The study's lines are its tables."""

from __future__ import annotations

import pandas as pd

from studies.tuned_gemm.run import RESULTS, published


def test_the_readme_has_the_study_s_table() -> None:
    assert published() in (RESULTS.parent / "README.md").read_text(encoding="utf-8")


def test_the_headline_is_what_the_table_says() -> None:
    table = pd.read_csv(RESULTS / "left_out.csv")
    block = table[table["type"] == "fp8_block"]
    whole = block[block["from"] == "all"].iloc[0]
    assert whole["trees"] <= 20
    assert whole["inside"] >= 80
    assert block["trees"].max() <= 20
