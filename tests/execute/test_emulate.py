"""Assignments bound to sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from dse.errors import AssignmentError
from dse.execute.emulate import Emulator, emulators
from dse.execute.operators.step import Sharing
from dse.execute.weights.calibrate import Calibration, observe
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.site import Site
from dse.graph.patterns.analysis import Analysis
from dse.numerics import calibrated_state, quantize
from hwmodels.formats import catalog
from tests.execute.conftest import Exported

EMPTY = Calibration(statistics={})
INT8 = catalog.quantizer("int8")


@pytest.fixture
def llama(exported: Callable[[str], Exported]) -> Exported:
    return exported("llama-dynamo18")


@pytest.fixture
def sites(llama: Exported) -> Mapping[str, Site]:
    return Analysis(llama.graph).by_key


def of_role(sites: dict[str, Site], role: str) -> list[str]:
    return [key for key, site in sites.items() if site.role == role]


def test_an_emulator_is_the_quantizer_along_the_contraction(sites: dict[str, Site]) -> None:
    weight = of_role(sites, "weight")[0]
    quantizer = catalog.quantizer("mxfp4")
    (bound,) = emulators(Assignment.of({weight: quantizer}), sites, EMPTY).values()
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    expected = quantize(x, quantizer, axes=sites[weight].contraction_axes)
    assert torch.equal(bound(x), expected)
    assert not torch.equal(bound(x), x)


def test_static_scales_come_from_calibration(llama: Exported, sites: dict[str, Site]) -> None:
    key = of_role(sites, "activation")[0]
    calibration = observe(llama.program, [llama.feeds], [sites[key]])
    static = INT8.replaced(timing="static")
    bound = emulators(Assignment.of({key: static}), sites, calibration)[key]
    absmax = calibration.statistics[key].absmax
    x = torch.linspace(-3 * absmax, 3 * absmax, 4001)
    state = calibrated_state(torch.tensor([absmax]), static, axes=(0,))
    assert torch.equal(bound(x), quantize(x, static, axes=(0,), state=state))
    assert bound(x).max() == pytest.approx(absmax, rel=1e-6)


def test_equal_assignments_bind_equal_emulators(llama: Exported, sites: dict[str, Site]) -> None:
    """q, k and v read one value, so one quantisation serves all three."""
    values = [site.value for site in sites.values() if site.role == "activation"]
    shared = next(value for value in values if values.count(value) == 3)
    keys = [key for key, site in sites.items() if site.value == shared]
    calibration = observe(llama.program, [llama.feeds], list(sites.values()))
    static = INT8.replaced(timing="static")
    first = emulators(Assignment.of(dict.fromkeys(keys, static)), sites, calibration)
    again = emulators(Assignment.of(dict.fromkeys(keys, static)), sites, calibration)
    assert len({*first.values(), *again.values()}) == 1


def test_stochastic_rounding_has_a_seed_for_each_value(sites: dict[str, Site]) -> None:
    quantizer = catalog.quantizer("e4m3").replaced(rounding="stochastic")
    keys = of_role(sites, "weight")
    bound = emulators(Assignment.of(dict.fromkeys(keys, quantizer)), sites, EMPTY)
    seeds = {sites[key].value: emulator.seed for key, emulator in bound.items()}
    assert len(set(seeds.values())) == len(seeds) > 1


def test_wrong_sites_are_named_together(sites: dict[str, Site]) -> None:
    key = of_role(sites, "activation")[0]
    token = catalog.quantizer("int8_token").replaced(timing="static")
    assignment = Assignment.of({key: INT8.replaced(timing="static"), f"{key}9": INT8,
                                of_role(sites, "activation")[1]: token})  # fmt: skip
    with pytest.raises(AssignmentError) as caught:
        emulators(assignment, sites, EMPTY)
    assert "is static but not calibrated" in str(caught.value)
    assert f"no site '{key}9'; did you mean" in str(caught.value)
    assert "scales per token, which for an activation must be dynamic" in str(caught.value)


def test_quantized_run_differs_and_rerun_agrees(llama: Exported, sites: dict[str, Site]) -> None:
    chosen = {key: INT8 for key in sites if sites[key].role in ("weight", "activation")}
    bound = emulators(Assignment.of(chosen), sites, EMPTY)
    trace = llama.program.trace(llama.feeds)
    with torch.inference_mode():
        (full,) = llama.program.run(llama.feeds, bound).outputs.values()
    (again,) = llama.program.rerun(trace, bound).outputs.values()
    (plain,) = trace.execution.outputs.values()
    assert torch.equal(full, again)
    error = (full - plain).norm() / plain.norm()
    assert 0 < error < 0.1


def test_gradients_pass_straight_through() -> None:
    emulator = Emulator(quantizer=INT8, axes=(1,))
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = emulator(x)
    assert torch.equal(y, emulator(x.detach()))
    (y * torch.arange(8.0)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.arange(8.0).expand(4, 8))


@pytest.mark.parametrize(
    ("name", "sharing", "keeps_zeros"),
    [
        ("bf16", Sharing.NOTHING, True),
        ("mxfp4", Sharing.NOTHING, True),
        ("nvfp4", Sharing.LARGEST, True),
        ("e4m3_tensor", Sharing.EVERYTHING, True),
        ("e4m3:stochastic", Sharing.EVERYTHING, True),
        ("int8_token:percentile99.0", Sharing.NOTHING, False),
        ("uint8_token", Sharing.NOTHING, False),
        ("e8m0", Sharing.NOTHING, False),
    ],
)
def test_what_parts_must_know_of_each_other(
    name: str, sharing: Sharing, keeps_zeros: bool
) -> None:
    emulator = Emulator(quantizer=catalog.quantizer(name).settled(weight=False), axes=(1,))
    assert emulator.sharing == sharing
    assert emulator.keeps_zeros == keeps_zeros


def test_an_assignment_is_planned_once(llama: Exported, sites: dict[str, Site]) -> None:
    planner = llama.program._planner
    bound = emulators(Assignment.of(dict.fromkeys(of_role(sites, "weight"), INT8)), sites, EMPTY)
    plan = planner.whole(bound)
    assert planner.whole(dict(bound)) is plan
    fewer = dict(list(bound.items())[1:])
    assert planner.whole(fewer) is not plan
    assert len(planner.whole(fewer).readings.number) == len(bound) - 1
