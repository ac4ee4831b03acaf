"""Traces, re-execution and gradient scores on a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dse.sensitivity.gradient import gradient_scores
from dse.space.build import build_problem
from dse.space.load import parse_space
from tests.cuda.networks import NETWORKS, network

SPACE = """
model: given
data: {source: given}
targets: [{device: h100-sxm}]
candidates: [{match: {}, use: [bf16, w8a8_fp8, w4a4_mxfp4, w4a16]}]
"""


@pytest.mark.parametrize("budget", [0, 2**20])
@pytest.mark.parametrize("name", NETWORKS)
def test_reruns_are_full_runs(name: str, budget: int, device: str) -> None:
    net = network(name)
    output = net.graph.outputs[0]
    first, second = net.assignment("w8a8_fp8"), net.assignment("w4a4_mxfp4")
    evaluator = net.evaluator(first, device)
    program = evaluator.program
    feeds = {
        key: torch.from_numpy(values).to(device)
        for key, values in net.splits.search.inputs.items()
    }
    trace = program.trace(feeds, keep_bytes=budget)
    retraced = program.retrace(trace, evaluator.bound(first), keep_bytes=budget)
    with torch.inference_mode():
        for chosen in (first, second):
            bound = evaluator.bound(chosen)
            whole = program.run(feeds, bound).outputs[output]
            assert whole.device.type == torch.device(device).type
            for start in (trace, retraced):
                assert torch.equal(program.rerun(start, bound).outputs[output], whole)
    everything = [x for x in trace.values.values() if isinstance(x, torch.Tensor)]
    assert budget == 0 or any(x.device.type == torch.device(device).type for x in everything)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_scores_are_the_same(name: str, device: str) -> None:
    net = network(name)
    problem = build_problem(parse_space(SPACE, origin="test"), net.analysis.regions)
    scores = []
    for place in ("cpu", device):
        evaluator = net.evaluator(net.assignment("e4m3"), place)  # every activation observed
        found = gradient_scores(evaluator, problem, seed=1)
        scores.append(np.concatenate(found.losses(problem)))
    assert (scores[0] > 0).any()
    np.testing.assert_allclose(scores[1], scores[0], rtol=0.02, atol=1e-7)
