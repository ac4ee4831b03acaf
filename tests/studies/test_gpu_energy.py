"""The study's lines are its tables, and the shipped constants keep what it says of the H100."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hwmodels.devices.load import load_device
from hwmodels.fit.energy import DEVICE, read_energy
from studies.gpu_energy.run import PROFILE, RESULTS, joules, published

README = RESULTS.parent / "README.md"
ROOT = Path(__file__).parents[2]


def test_the_readme_has_the_study_s_tables() -> None:
    text = README.read_text(encoding="utf-8")
    assert all(table in text for table in published())


def test_the_headline_is_what_the_tables_say() -> None:
    h100 = pd.read_csv(RESULTS / "h100.csv").set_index("group")
    b200 = pd.read_csv(RESULTS / "b200.csv")
    assert h100["given"][["loops, all", "profile, all"]].max() <= 12
    assert h100["alone"]["GEMM"] <= 15
    whole = b200[(b200["table"] == "vllm/0.22.0") & (b200["window"] == "whole")]
    assert whole["given"].max() <= 12
    assert whole["alone"].max() <= 15


def test_energy_at_measured_times_errs_as_published() -> None:
    """The committed half of the H100's energies, which the shipped constants were fitted to."""
    calls = read_energy(None, PROFILE)
    found = joules(calls, load_device(DEVICE), calls.measured_s)
    errors = np.abs(found / calls.table["joules"].to_numpy() - 1)
    assert len(errors) == 101
    assert 0.05 < errors.mean() < 0.11
