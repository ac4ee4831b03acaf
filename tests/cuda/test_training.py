"""Training on a device is training on the CPU, up to the order of sums."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dse.training.load import load_method
from dse.training.method import Distillation, Pruning, Tuning
from dse.training.run import Run
from dse.training.search.seed_run import Job, trained
from dse.training.workloads.workload import Batch, seeded

STEPS = 6


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Points whose class is the sign of their first number."""

    name: str = "signs"
    steps: int = STEPS
    rate: float = 0.01
    sgd_rate: float = 0.1
    origin: str = "a test"

    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def batch(self, seed: int, step: int) -> Batch:
        x = torch.randn(32, 32, generator=seeded(seed, step))
        return Batch(inputs=x, labels=(x[:, 0] > 0).long())

    def held_out(self) -> list[Batch]:
        return [self.batch(10**6, 0)]


@pytest.mark.parametrize(
    "name",
    ["bf16", "mxfp8", "nvfp4", "quartet_ii", "fp8_delayed", "bf16_stochastic", "adam8bit",
     "bit_switching", "smooth_swiglu", "fp16_mixed", "switchback"],
)  # fmt: skip
def test_a_run_on_the_device_is_the_one_on_the_cpu(name: str, device: str, tmp_path: Path) -> None:
    method = load_method(name)
    expected = Run(method, Signs(), 0, steps=STEPS)
    run = Run(method, Signs(), 0, steps=STEPS, device=device)
    while not expected.done:
        expected.advance()
        run.advance()
    assert run.curve.loss == pytest.approx(expected.curve.loss, abs=5e-3)
    run.save(tmp_path / "end.safetensors")
    again = Run(method, Signs(), 0, steps=STEPS, device=device)
    again.resume(tmp_path / "end.safetensors")
    assert again.outcome().last == run.outcome().last


@dataclass(frozen=True, kw_only=True)
class Placed(Signs):
    """It keeps the devices that its models were called on."""

    seen: set[str] = field(default_factory=set)

    def model(self, seed: int) -> nn.Module:
        made = super().model(seed)
        made.register_forward_pre_hook(lambda _, inputs: self.seen.add(inputs[0].device.type))
        return made


def test_a_search_trains_its_seeds_on_the_device(device: str, tmp_path: Path) -> None:
    def job(folder: str) -> Job:
        return Job(folder=tmp_path / folder, method=load_method("mxfp8"), split="search", seed=0,
                   steps=STEPS)  # fmt: skip

    here = trained(job("here"), Signs())
    placed = Placed()
    there = trained(job("there"), placed, device=device)
    assert placed.seen == {torch.device(device).type}
    assert there.losses == pytest.approx(here.losses, abs=5e-3)
    assert there.losses[0] != there.losses[-1]


def test_a_network_that_is_cut_learns_from_itself_on_the_device(device: str) -> None:
    prune = Pruning(layers=("0",), every=1, ends=0.5, fade=1)
    tuning = Tuning(rank=2, density=0.5, prune=prune, distill=Distillation())
    method = replace(load_method("bf16"), tuning=tuning)
    here, there = (Run(method, Signs(), 0, steps=STEPS, device=one) for one in ("cpu", device))
    while not here.done:
        here.advance()
        there.advance()
    assert there.curve.loss == pytest.approx(here.curve.loss, abs=5e-3)
    assert there.curve.density == here.curve.density
    assert here.curve.density[-1] == 0.5
