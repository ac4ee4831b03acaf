"""`dse evaluate --reference`: two quantized networks against each other."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.cli.conftest import Dse

FASHION = ("evaluate", "zoo:fashion-resnet", "--samples", "8")


@pytest.fixture
def row(dse: Dse) -> Any:
    def run(format: str, reference: str) -> dict[str, Any]:
        words = ("--format", format, "--reference", reference, "--json")
        (found,) = json.loads(dse(*FASHION, *words).out)
        return dict(found)

    return run


def test_a_network_is_no_distance_from_itself(row: Any) -> None:
    same = row("int4", "int4")
    assert (same["loss"], same["flip_rate"]) == (0, 0)
    assert same["acceptance"] == pytest.approx(1)
    assert same["effective_share"] == pytest.approx(1)


def test_sampler_and_reference_change_places(row: Any) -> None:
    there, back = row("int4", "w8a8_fp8"), row("w8a8_fp8", "int4")
    assert there["acceptance"] == pytest.approx(back["acceptance"])  # min(p, q) is symmetric
    assert there["loss"] == pytest.approx(-back["mean_log_ratio"], rel=1e-3)
    assert there["accuracy"] == back["reference_accuracy"]
    assert not math.isclose(there["loss"], back["loss"], rel_tol=1e-3)


def test_tasks_have_no_likelihood_ratios(dse: Dse) -> None:
    outcome = dse(*FASHION, "--format", "int8", "--reference", "bf16", "--tasks", "t.yaml")
    assert outcome.code == 2
    assert "--reference compares outputs" in outcome.err


def test_an_unknown_reference_is_an_error(dse: Dse) -> None:
    outcome = dse(*FASHION, "--format", "int8", "--reference", "w8a8_fp9")
    assert outcome.code == 2
    assert "w8a8_fp8" in outcome.err
