"""Weights that stay on the host while the model runs on another device."""

from __future__ import annotations

import pytest
import torch

from dse.execute.program import block
from dse.execute.program.program import Program
from dse.execute.tensor_cores import tensor_core_products
from dse.sensitivity.gradient import gradient_scores
from dse.space.build import build_problem
from dse.space.load import parse_space
from tests.cuda.networks import NETWORKS, network

SPACE = """
model: given
data: {source: given}
targets: [{device: h100-sxm}]
candidates: [{match: {}, use: [bf16, w8a8_fp8, w4a16]}]
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "LARGE_BYTES", 256)


def ways(network, evaluator, scheme):
    """What stands at sites: nothing, quantizers alone, and with sums on tensor cores."""
    bound = evaluator.bound(network.assignment(scheme))
    values = {key: one for key, one in bound.items() if not key.endswith("/sum")}
    sums = tensor_core_products(network.graph.nodes, values, evaluator.sites)
    return {}, values, {**values, **sums}


def fed(network, device):
    """The search split on a device."""
    inputs = network.splits.search.inputs
    return {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}


@pytest.mark.parametrize("scheme", ["w8a8_int8", "w4a16", "w4a4_nvfp4"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_weights_on_the_device(name: str, scheme: str, device: str) -> None:
    net = network(name)
    evaluator = net.evaluator(net.assignment(scheme), device)
    (output,) = net.graph.outputs
    here, there = (Program(net.graph, device=device, streams=streams) for streams in (True, False))
    with torch.inference_mode():
        for at_sites in ways(net, evaluator, scheme):
            streamed = here.run(fed(net, device), at_sites).outputs[output]
            assert torch.equal(streamed, there.run(fed(net, device), at_sites).outputs[output])
    expected = {"convolutional": ["Conv", "Conv", "Gemm", "MatMul"], "recurrent": []}
    assert [step.what for step in here._block.steps if step.streamed] == expected.get(
        name, ["MatMul"] * 4
    )


def test_only_what_is_read_comes_to_the_device(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []

    def counted(x: torch.Tensor, there: torch.device) -> torch.Tensor:
        if x.device.type != there.type:
            copies.append(x.numel())
        return x.to(there)

    monkeypatch.setattr("dse.execute.program.run.copied", counted)
    monkeypatch.setattr("dse.execute.program.weight_store.copied", counted)
    net = network("attention")
    evaluator = net.evaluator(net.assignment("w8a8_int8"), device)
    program = Program(net.graph, device=device, streams=True)
    plain, values, codes = ways(net, evaluator, "w8a8_int8")
    counts = []
    with torch.inference_mode():
        for at_sites in (plain, values, codes, codes):
            copies.clear()
            program.run(fed(net, device), at_sites)
            counts.append(len(copies))
    assert counts == [4, 4, 4, 0]  # codes and scales are made of one copy, and kept


def test_gradient_scores_are_the_same(device: str) -> None:
    net = network("attention")
    problem = build_problem(parse_space(SPACE, origin="test"), net.analysis.regions)
    found = []
    for streams in (False, True):
        evaluator = net.evaluator(net.assignment("e4m3"), device)
        evaluator.program = Program(net.graph, device=device, streams=streams)
        scores = gradient_scores(evaluator, problem, seed=1)
        found.append([torch.from_numpy(one) for one in scores.losses(problem)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_host_streams_nothing() -> None:
    program = Program(network("attention").graph, streams=True)
    assert not any(step.streamed for step in program._block.steps)
