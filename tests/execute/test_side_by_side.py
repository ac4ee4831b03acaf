"""Forwards on several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dse.evaluate import evaluator as module
from dse.execute.side_by_side import side_by_side
from dse.explore.measure.session import prepare
from dse.space.load import load_space

SMOKE = Path("spaces/smoke.yaml")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_run_at_once_with_a_thread_of_torch_each() -> None:
    both = threading.Barrier(2, timeout=60)

    def meet(number: int) -> tuple[int, int]:
        both.wait()
        return number, torch.get_num_threads()

    assert side_by_side(meet, range(4), threads=2) == [(i, 1) for i in range(4)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("count", "threads"), [(3, 2), (4, 1), (1, 2), (0, 2), (6, 4)])
def test_work_that_would_leave_threads_idle_runs_one_by_one(count: int, threads: int) -> None:
    here = threading.get_ident()
    found = side_by_side(lambda _: threading.get_ident(), range(count), threads=threads)
    assert found == [here] * count


def test_an_error_reaches_whoever_asked() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 // number, range(4), threads=2)
    assert torch.get_num_threads() == 2


def test_batches_side_by_side_have_the_same_bits_and_cost_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = load_space(SMOKE)
    space = space.model_copy(update={"data": space.data.model_copy(update={"batch": 8})})
    session = prepare(space, origin="smoke", folder=SMOKE.parent)
    problem = session.design.problem
    points = [*problem.uniforms.values()]
    points += [(*points[-1][:-1], 0), (*points[-1][:-2], 0, 0), points[-1]]
    found = {}
    for small in (0, 1 << 30):
        monkeypatch.setattr(module, "SMALL_BYTES", small)
        one = replace(
            session.evaluator, _batches={}, _forward_macs={}, _scores={}, _held_bytes=0, macs=0
        )
        one.forward_macs("search")
        assert one._threads == (2 if small else 1)
        found[small] = [repr(one.measure(problem.assignment(point))) for point in points], one.macs
    assert found[0] == found[1 << 30]


def test_batches_are_small_by_what_they_make_whatever_is_kept_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = prepare(load_space(SMOKE), origin="smoke", folder=SMOKE.parent)
    one = replace(
        session.evaluator, _batches={}, _forward_macs={}, _scores={}, _held_bytes=0, trace_bytes=0
    )
    monkeypatch.setattr(module, "SMALL_BYTES", 1 << 16)
    one.forward_macs("search")
    assert 0 < one._held_bytes < 1 << 16
    assert one._threads == 1
