"""Every scheme and every weight method gives the same numbers on both devices."""

from __future__ import annotations

import pytest
import torch

from dse.execute.emulate import Emulator
from hwmodels.formats.catalog import FORMATS, SCHEMES, quantizer
from tests.cuda.networks import METHODS, NETWORKS, network, outcome
from tests.cuda.second_device import NAME

LOSS = 0.03
"""Largest relative difference of losses where sums are taken in another order."""
APART = 0.25
"""Largest difference of outputs, as a share of the quantization error: a value whose sum rounds
otherwise can take the neighbouring step of the grid."""
LEARNED = ("mse", "output_mse", "GPTQ", "DiscQuant")
CASES = [
    *((name, scheme) for name in NETWORKS for scheme in SCHEMES),
    *(("convolutional", f"w4a16:{words}") for words in METHODS.values()),
    *(("convolutional", f"w8a8_int8:{METHODS[m]}") for m in METHODS if m not in LEARNED),
    ("attention", "w4a4_nvfp4:gptq"), ("attention", "w8a8_fp8:smooth(0.5)"),
    ("attention", "uint8"), ("attention", "posit8_1"), ("recurrent", "uint8"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_a_network_has_the_same_outputs_and_loss(name: str, scheme: str, device: str) -> None:
    net = network(name)
    chosen = net.assignment(scheme)
    here, there = outcome(net, chosen, "cpu"), outcome(net, chosen, device)
    assert 0 < here.loss < 10
    assert torch.allclose(there.reference, here.reference, rtol=1e-4, atol=1e-5)
    if device == NAME:  # the same sums in the same order
        assert torch.equal(there.quantized, here.quantized)
    assert there.difference(here) < APART
    assert there.loss == pytest.approx(here.loss, rel=LOSS, abs=1e-7)


@pytest.mark.parametrize("name", [*FORMATS, "int8:static", "int4_g128:mse", "uint4_g32:mse"])
def test_weights_and_their_scales_have_the_same_bits(name: str, device: str) -> None:
    values = torch.randn(24, 130, generator=torch.Generator().manual_seed(0))
    emulate = Emulator(quantizer=quantizer(name).settled(weight=False), axes=(1,))
    assert torch.equal(emulate(values.to(device)).cpu(), emulate(values))
