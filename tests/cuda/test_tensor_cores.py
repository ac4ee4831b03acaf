"""Products of codes on the device, beside products of values there and on the CPU."""

from __future__ import annotations

import pytest
import torch

from dse.execute.tensor_cores import has_tensor_cores, parts, product, tensor_core_products
from tests.cuda.networks import network

SCHEMES = (
    "bf16", "w4a16", "w8a8_int8", "w8a8_int8_static", "w8a8_fp8_dynamic", "w4a4_nvfp4",
    "w4a4_mxfp4",
)  # fmt: skip


def test_a_gpu_of_this_decade_has_them(device: str) -> None:
    there = torch.device(device)
    newer = device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    assert has_tensor_cores(there) == newer


@pytest.mark.parametrize("depth", [1, 7, 64, 4096])
def test_sums_are_of_float32(depth: int, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randint(-127, 128, (33, depth), generator=generator).float()
    right = torch.randn(depth, 17, generator=generator).half().float()
    halves = parts(right, axis=0)
    assert halves.shape[0] == 2 * depth
    found = product(left.to(device), halves.to(device)).cpu()
    exact = left.double() @ right.double()
    scale = (left.abs().double() @ right.abs().double()).clamp_min(1e-30)
    assert ((found.double() - exact).abs() / scale).max() < 2.0**-17  # of bfloat16: 2**-9


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["convolutional", "attention"])
def test_outputs_are_those_of_products_of_values(name: str, scheme: str, device: str) -> None:
    net = network(name)
    chosen = net.assignment(scheme)
    evaluator = net.evaluator(chosen, device)
    with_sums = evaluator.bound(chosen)
    values = {key: one for key, one in with_sums.items() if not key.endswith("/sum")}
    nodes = evaluator.program.analysis.flat.graph.nodes
    sums = tensor_core_products(nodes, values, evaluator.sites)
    assert sums
    assert (with_sums.keys() > values.keys()) == has_tensor_cores(torch.device(device))
    feeds = {k: torch.from_numpy(v).to(device) for k, v in net.splits.search.inputs.items()}
    (output,) = net.graph.outputs
    with torch.inference_mode():
        full = evaluator.program.run(feeds).outputs[output]
        of_values = evaluator.program.run(feeds, values).outputs[output]
        of_codes = evaluator.program.run(feeds, {**values, **sums}).outputs[output]
    assert of_codes.device.type == torch.device(device).type
    norm = torch.linalg.vector_norm
    assert norm(of_codes - of_values) < 0.05 * norm(of_values - full)
