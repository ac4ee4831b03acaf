"""Schedules: which stage a step and a site are in, and what changes with it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from dse.numerics import quantize
from dse.training.curvature import above_mean, mean_curvatures
from dse.training.load import load_method
from dse.training.method import Method
from dse.training.quantized import apply
from dse.training.stages import Stages
from dse.training.update.optimizer import Optimizer
from dse.training.workloads.workload import Batch
from hwmodels.formats.catalog import quantizer
from tests.training.methods import method

BITS = (2, 4, 6, 8)


def scheduled(kind: str, stages: int = 4, **options: object) -> Method:
    names = [f"int{bits}_channel" for bits in BITS[:stages]]
    return method(schedule={"kind": kind, "stages": [{"weight": one} for one in names], **options})


def bits_at(stages: Stages, step: int, site: str = "layer") -> int:
    name = stages.at(step, site)["weight"]
    assert isinstance(name, str)
    return int(name[3])


def test_phases_follow_each_other_at_shares_of_the_run() -> None:
    equal = Stages(scheduled("phase"), steps=8, seed=0)
    assert [bits_at(equal, step) for step in range(8)] == [2, 2, 4, 4, 6, 6, 8, 8]
    named = Stages(scheduled("phase", 2, starts=[0.75]), steps=8, seed=0)
    assert [bits_at(named, step) for step in range(8)] == [2] * 6 + [4] * 2


def test_a_cycle_rises_by_half_a_cosine_and_falls_at_once() -> None:
    """Cyclic precision training, equation 1: rint of 3 (1 - cos(pi t / T)) / 2."""
    stages = Stages(scheduled("cycle", cycles=2), steps=14, seed=0)
    assert [bits_at(stages, step) for step in range(14)] == [2, 2, 4, 4, 6, 6, 8] * 2


def reference_turns(losses: list[float], threshold: float, decay: float, turns: int) -> list[int]:
    """Epochs, counted from 1, at which FracTrain's loop finds its turning points."""
    kept: list[float] = []
    found: list[int] = []
    total = 0.0
    for epoch, loss in enumerate(losses, start=1):
        if epoch <= 10:
            total += loss
            scale = total / epoch
        if len(found) == turns:
            continue
        kept = [*kept, loss][-5:]
        if len(kept) == 5 and max(abs(one - kept[-1]) for one in kept) / scale <= threshold:
            found.append(epoch)
            threshold *= decay if len(found) <= 2 else 1
            kept = []
    return found


@pytest.mark.parametrize(("threshold", "decay"), [(0.05, 0.3), (0.15, 0.4)])
def test_a_plateau_is_found_where_fractrain_finds_it(threshold: float, decay: float) -> None:
    """Replayed on a loss that falls, stands, falls again and stands."""
    steps = range(60)
    losses = [1 / (1 + 0.4 * step) + (0.5 if step < 20 else 0.5 / (step - 18)) for step in steps]
    found = scheduled("plateau", threshold=threshold, decay=decay)
    stages = Stages(found, steps=60, seed=0)
    seen = [bits_at(stages, 0)]
    for loss in losses:
        stages.observe(loss)
        seen.append(bits_at(stages, 0))
    turns = [step for step in range(1, 61) if seen[step] != seen[step - 1]]
    assert turns == reference_turns(losses, threshold, decay, 3)
    assert len(turns) >= 2


def test_a_plateau_can_take_means_of_several_steps() -> None:
    stages = Stages(scheduled("plateau", every=3), steps=60, seed=0)
    for _ in range(14):
        stages.observe(1.0)
    assert bits_at(stages, 0) == 2
    stages.observe(1.0)
    assert bits_at(stages, 0) == 4


def test_sites_draw_for_themselves_and_again_the_same() -> None:
    stages, same = (Stages(scheduled("uniform"), steps=9, seed=1) for _ in range(2))
    drawn = [bits_at(stages, step, site) for step in range(50) for site in ("a", "b")]
    again = [bits_at(same, step, site) for step in range(50) for site in ("a", "b")]
    assert drawn == again
    assert drawn[::2] != drawn[1::2]
    assert set(drawn) == set(BITS)


def test_curved_sites_draw_wide_stages_more_often() -> None:
    """Bits over their sum: 8 of 20 for the widest, 2 of 20 for the narrowest."""
    stages = Stages(scheduled("hasb"), steps=9, seed=0, curved=["curved"])
    count = 4000
    curved = Counter(bits_at(stages, step, "curved") for step in range(count))
    flat = Counter(bits_at(stages, step, "flat") for step in range(count))
    for bits in BITS:
        assert curved[bits] / count == pytest.approx(bits / sum(BITS), abs=0.03)
        assert flat[bits] / count == pytest.approx(0.25, abs=0.03)


def test_what_is_held_out_is_read_at_the_last_stage_where_stages_are_drawn() -> None:
    assert (
        Stages(scheduled("uniform"), steps=9, seed=0).at_end("layer")["weight"] == "int8_channel"
    )


def test_a_stage_counts_before_the_method_and_after_its_rules() -> None:
    found = method(
        roles={"weight@fprop": "int8_channel"},
        rules=[{"match": {"name": "1"}, "roles": {"*": "bf16"}}],
        schedule={"kind": "phase", "stages": [{}, {"*": "int2_channel"}]},
    )
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    wrapped = apply(model, found)
    wrapped(torch.ones(1, 4))

    def formats() -> list[str]:
        return [wrapped.sites[name].operand("weight", "fprop").format for name in ("0", "1")]

    stages = Stages(found, steps=2, seed=0)
    assert formats() == ["int8_channel", "bf16"]
    wrapped.restage(lambda site: stages.at(1, site))
    assert formats() == ["int2_channel", "bf16"]


def test_weights_are_cut_to_the_format_of_the_stage_and_nothing_else_changes() -> None:
    """Continuous 16-bit training: fp32, then fp16 without a master copy."""
    found = load_method("fp16_continued")
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 8))
    optimizer = Optimizer([("layer.weight", weight)], found)
    weight.grad = torch.randn(8, 8)
    optimizer.step(0.01)
    before = weight.detach().clone()
    moments = optimizer.state_dict()["slots"]["layer.weight"]["m"].clone()
    assert found.schedule is not None
    last = found.schedule.stages[-1]
    optimizer.restage(lambda _: last)
    assert torch.equal(weight.detach(), quantize(before, quantizer("fp16"), axes=(1,)))
    assert torch.equal(optimizer.state_dict()["slots"]["layer.weight"]["m"], moments)


def test_curvature_of_a_linear_classifier_is_its_closed_form() -> None:
    """The Hessian of softmax regression is (diag p - p p') by x x': trace (1 - |p|^2) |x|^2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3, bias=False))
    x, labels = torch.randn(40, 5), torch.randint(3, (40,))
    p = torch.softmax(model(x), -1)
    exact = ((1 - p.square().sum(-1)) * x.square().sum(-1)).mean() / 15
    found = mean_curvatures(model, Batch(inputs=x, labels=labels), seed=0, probes=2000)
    assert found["0"] == pytest.approx(float(exact.detach()), rel=0.05)


def test_modules_above_the_mean_are_curved() -> None:
    assert above_mean({"a": 1.0, "b": 2.0, "c": 9.0}) == {"c"}
