"""Weights that oscillate: which ones are set back, and when."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dse.errors import MethodError
from dse.numerics import quantize
from dse.training.at_site import AtSite
from dse.training.method import Oscillation
from dse.training.roles import Site, SiteFormats
from dse.training.update.oscillation import Oscillations
from hwmodels.formats.catalog import quantizer
from tests.training.methods import method


def watch(weight: nn.Parameter, format: str = "int4_channel", **settings: float) -> Oscillations:
    at = AtSite(site=Site(name="layer", kind="linear"), formats=SiteFormats([{"weight": format}]))
    return Oscillations(Oscillation(**settings), {"layer.weight": (weight, at)})  # type: ignore[arg-type]


def test_only_the_weight_that_jumps_and_hardly_moves_is_set_back() -> None:
    """Steps of 1 under int4 with a largest value of 7: 2.5 is the border of 2 and 3."""
    weight = nn.Parameter(torch.tensor([[7.0, 2.49, 1.2, -3.0]]))
    found = watch(weight, every=10, window=4, ratio=16)
    ways = torch.tensor([[0.0, 0.02, 0.0001, 0.5]])
    back = []
    for step in range(1, 21):
        sign = 1 if step % 2 else -1
        weight.data += ways * torch.tensor([[1.0, sign, 1.0, 1.0]])
        back.append(found.observe())
    assert [step for step, count in enumerate(back, 1) if count] == [14]
    assert back[13] == 1
    # At step 14 it is at 2.49, whose value is 2; it goes on from there.
    _, swinging, slow, _ = weight.detach()[0].tolist()
    assert swinging == pytest.approx(2.0, abs=0.021)
    assert slow == pytest.approx(1.2 + 20 * 0.0001, abs=1e-5)


@pytest.mark.parametrize("format", ["nvfp4", "e2m1@b16x16/e4m3+fp32"])
def test_ways_are_those_of_the_formula(format: str) -> None:
    """TetraJet-v2: sum |Q(w) - Q(w')| over sum |w - w'|, from 16 on w becomes Q(w)."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(16, 32))
    found = watch(weight, format, every=8, window=5, ratio=16)
    path: list[Tensor] = []
    for _ in range(8 + 5):
        weight.data += 0.003 * torch.randn(16, 32)
        path.append(weight.detach().clone())
        found.observe()
    seen = path[7:]
    values = [quantize(one, quantizer(format), axes=(1,)) for one in seen]
    moved, jumped = torch.zeros(16, 32), torch.zeros(16, 32)
    for i in range(1, 6):
        moved += (seen[i] - seen[i - 1]).abs()
        jumped += (values[i] - values[i - 1]).abs()
    swings = jumped / moved >= 16
    assert 0 < int(swings.sum()) < swings.numel() / 2
    expected = torch.where(swings, values[-1], seen[-1])
    assert torch.equal(weight.detach(), expected)


def test_a_watch_can_be_carried_on() -> None:
    torch.manual_seed(0)
    steps = 0.01 * torch.randn(20, 4, 16)
    whole, first, second = (nn.Parameter(torch.ones(4, 16)) for _ in range(3))
    watches = [watch(one, every=6, window=4, ratio=2) for one in (whole, first, second)]
    for step in steps:
        whole.data += step
        watches[0].observe()
    for step in steps[:9]:
        first.data += step
        watches[1].observe()
    second.data = first.data.clone()
    watches[2].load_state_dict(watches[1].state_dict())
    for step in steps[9:]:
        second.data += step
        watches[2].observe()
    assert torch.equal(whole, second)
    assert not torch.equal(whole, 1 + steps.sum(0))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"oscillation": {}}, "no weight is rounded in fprop"),
        (
            {"oscillation": {"every": 10, "window": 10}, "roles": {"weight": "nvfp4"}},
            "expected fewer than every: 10",
        ),
        (
            {"oscillation": {}, "roles": {"weight": "nvfp4:stochastic"}},
            "drawn, rotated or scaled by steps before",
        ),
        ({"oscillation": {"ratio": 0.5}, "roles": {"weight": "nvfp4"}}, r"oscillation\.ratio"),
    ],
)
def test_a_watch_that_can_see_nothing_is_refused(content: dict[str, object], words: str) -> None:
    with pytest.raises(MethodError, match=words):
        method(**content)
