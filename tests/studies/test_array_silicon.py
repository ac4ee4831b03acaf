"""The study of arrays against silicon: its README has its tables, and they are today's."""

from __future__ import annotations

import pandas as pd
import pytest

from hwmodels.estimators.array.estimator import SPREAD
from studies.array_silicon.__main__ import RESULTS, eyeriss, llama, published, tpu


def test_the_readme_has_the_study_s_tables() -> None:
    assert published() in (RESULTS.parent / "README.md").read_text(encoding="utf-8")


def test_main_memory_moves_the_least_that_arithmetic_allows() -> None:
    found = llama()
    assert found["dram_bytes"].tolist() == pytest.approx(found["least_bytes"].tolist())


def test_the_bounds_of_tpu_v1_are_the_paper_s() -> None:
    found = tpu()
    assert found["bound"].tolist() == found["published_bound"].tolist()
    kept = pd.read_csv(RESULTS / "tpu.csv")
    assert found["ours"].tolist() == pytest.approx(kept["ours"].tolist(), rel=1e-4)


def test_frames_and_accesses_of_eyeriss_are_those_that_the_study_keeps() -> None:
    for found, name in zip(eyeriss(), ("eyeriss", "layers"), strict=True):
        kept = pd.read_csv(RESULTS / f"{name}.csv")
        assert found["ours"].tolist() == pytest.approx(kept["ours"].tolist(), rel=1e-4)


def test_the_interval_rests_on_published_times_and_rates() -> None:
    networks = pd.read_csv(RESULTS / "eyeriss.csv")
    tables = [
        networks[networks["figure"] == "frames/s"],
        pd.read_csv(RESULTS / "layers.csv"),
        pd.read_csv(RESULTS / "tpu.csv"),
    ]
    ratios = pd.concat([table["ours"] / table["published"] for table in tables])
    inside = ratios.between(1 / SPREAD, SPREAD)
    assert len(ratios) == 12
    assert inside.mean() >= 0.8
