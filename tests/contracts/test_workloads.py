"""What every workload promises, ours or another's."""

from __future__ import annotations

import pytest
import torch

from dse.training.workloads.catalogue import WORKLOADS, workload
from dse.training.workloads.workload import Workload, outputs_loss


@pytest.fixture(scope="module", params=WORKLOADS)
def found(request: pytest.FixtureRequest) -> Workload:
    return workload(request.param)


def test_it_has_the_name_that_people_write(found: Workload) -> None:
    assert workload(found.name).name == found.name
    assert found.steps > 0
    assert min(found.rate, found.sgd_rate) > 0
    assert found.origin


def test_a_seed_is_one_start(found: Workload) -> None:
    first, same, other = (dict(found.model(seed).named_parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_batch_follows_from_seed_and_step(found: Workload) -> None:
    first, same = found.batch(1, 5), found.batch(1, 5)
    assert torch.equal(first.inputs, same.inputs)
    assert torch.equal(first.labels, same.labels)
    for seed, step in ((1, 6), (2, 5)):
        assert not torch.equal(first.inputs, found.batch(seed, step).inputs)


def test_the_loss_of_what_is_held_out_is_finite_at_first(found: Workload) -> None:
    held, again = found.held_out(), found.held_out()
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(held, again, strict=True))
    model = found.model(0).eval()
    with torch.no_grad():
        loss = outputs_loss(model(held[0].inputs[:2]), held[0].labels[:2])
    assert torch.isfinite(loss)


def test_drawing_a_model_leaves_the_programs_random_numbers_alone(found: Workload) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    found.model(0)
    assert torch.equal(torch.rand(3), expected)
