"""Where little memory is, losses are the same: batches in step, references made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.execute.program import block
from dse.graph.ir.assignment import Assignment
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment


@pytest.fixture(scope="module")
def given() -> tuple[Evaluator, Assignment, Assignment]:
    """Three batches a split of byte-gpt, and two assignments."""
    analysis = open_model("zoo:byte-gpt").analysis
    first, second = (uniform_assignment(analysis.regions, f) for f in ("nvfp4", "w4a16"))
    pairs = (*first, *second)
    data = Data(source="zoo:byte-gpt", calibration=2, search=5, report=5, batch=2)
    evaluator = build_evaluator(
        analysis, data, analysis.sites_with(key for key, _ in pairs), pairs
    )
    return evaluator, first, second


@pytest.fixture
def short(
    given: tuple[Evaluator, Assignment, Assignment], monkeypatch: pytest.MonkeyPatch
) -> Evaluator:
    """As if memory were short."""
    monkeypatch.setattr(block, "LARGE_BYTES", 1 << 10)
    fresh = Evaluator.__new__(Evaluator)
    fresh.__dict__.update(given[0].__getstate__())
    return replace(fresh, in_step=2, keeps_references=False, trace_bytes=0)


def test_losses_are_the_same_to_the_bit(
    given: tuple[Evaluator, Assignment, Assignment], short: Evaluator
) -> None:
    usual, first, second = given
    for assignment in (first, second, first):
        for split in ("search", "report"):
            assert short.measure(assignment, split) == usual.measure(assignment, split)
    assert short.reference("report") == usual.reference("report")
    assert short.constant("report") == usual.constant("report")
    assert short._batches["search"][0].made is None


def test_another_network_may_be_the_reference(
    given: tuple[Evaluator, Assignment, Assignment], short: Evaluator
) -> None:
    _, first, second = given
    short.compared = first
    plain = replace(short, in_step=1, keeps_references=True, _batches={})
    loss, ratios = short.compare(second, "report")
    assert (loss, ratios) == plain.compare(second, "report")
    assert short.measure(first, "report").loss == pytest.approx(0, abs=1e-6)
    assert 0 < loss.loss < 1
