"""The study of arrays against silicon: its README has its tables, and they are today's."""

from __future__ import annotations

import pandas as pd
import pytest

from hwmodels.estimators.array.estimator import FASTER, SLOWER
from studies.array_silicon.__main__ import (
    PUBLISHED,
    RESULTS,
    eyeriss,
    llama,
    nest_of,
    published,
    slower,
    tpu,
)


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
    networks, layers = eyeriss()
    for found, name, column in (
        (networks, "eyeriss", "ours"), (layers, "layers", "ours_ms"),
        (layers, "layers", "ours_dram_mb"),
    ):  # fmt: skip
        kept = pd.read_csv(RESULTS / f"{name}.csv")
        assert found[column].tolist() == pytest.approx(kept[column].tolist(), rel=1e-4)


def test_main_memory_of_eyeriss_is_read_and_written_as_published() -> None:
    networks = pd.read_csv(RESULTS / "eyeriss.csv")
    accesses = networks[networks["figure"] == "DRAM accesses/MAC"]
    assert accesses["ours"].tolist() == pytest.approx(accesses["published"].tolist(), rel=0.15)


def test_published_layers_sum_up_to_what_the_abstract_says() -> None:
    for layers, images, frames, accesses in PUBLISHED.values():
        seconds = 1e-3 * sum(one.total_ms for one in layers)
        assert images / seconds == pytest.approx(frames, rel=0.01)
        macs = sum(nest_of(one, images, 0.0).macs for one in layers)
        words = 1e6 / 2 * sum(one.dram_mb for one in layers)
        assert words / macs == pytest.approx(accesses, rel=0.01)


def test_the_interval_rests_on_published_times_and_rates() -> None:
    networks, parts = slower()
    assert (len(networks), len(parts)) == (7, 23)
    assert all(1 / FASTER <= ratio <= SLOWER for ratio in networks)
    assert sum(1 / FASTER <= ratio <= SLOWER for ratio in parts) == 20
