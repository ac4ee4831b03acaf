"""More bits of one family lose no more in a network: what no test on tensors sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from dse.evaluate.quality import SEPARATED, Quality
from dse.evaluate.setup import build_evaluator
from dse.model import open_model
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from hwmodels.formats.catalog import FORMATS

NETWORKS = {
    "fashion-resnet": Data(
        source="zoo:fashion-resnet", calibration=16, search=2, report=64, batch=32
    ),
    "byte-gpt": Data(
        source="zoo:byte-gpt", calibration=4, search=2, report=4, sequence=64, batch=4
    ),
}  # fmt: skip
FAMILIES = {
    **{f"posit, es {es}": [f"posit{n}_{es}" for n in (6, 8, 9, 10, 12, 16)] for es in (0, 1, 2)},
    "takum": ["takum8", "takum16"],
    "integers": ["int4", "int6", "int8", "int12", "int16"],
    "affine integers": ["uint4", "uint6", "uint8", "uint12", "uint16"],
    "floats of four exponent bits": ["e4m1", "e4m2", "e4m3"],
    "floats of five exponent bits": ["e5m1", "e5m2", "fp16"],
    "logarithmic": ["lns4_1", "lns6_2", "lns8_3"],
    # Not MXFP8: its digits are MXFP6's, and under OCP's scale, which is rounded down, E4M3 clips
    # from 448 of 512 on, E2M3 from 7.5 of 8.
    "block floats of two exponent bits": ["mxfp4", "mxfp6"],
}
EIGHT_BITS = [name for name, f in FORMATS.items() if f.element.is_tapered and f.element.bits == 8]
NOISE = 1e-6
"""Nats: rounding of the divergence itself."""


@cache
def _measured(network: str) -> Callable[[str], Quality]:
    analysis = open_model(f"zoo:{network}").analysis
    data = NETWORKS[network]

    @cache
    def quality(name: str) -> Quality:
        chosen = uniform_assignment(analysis.regions, name)
        evaluator = build_evaluator(analysis, data, analysis.by_key, tuple(chosen))
        return evaluator.measure(chosen, "report")

    return quality


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_more_bits_lose_no_more(family: str, network: str) -> None:
    losses = [np.array(_measured(network)(name).losses) for name in FAMILIES[family]]
    for name, narrow, wide in zip(FAMILIES[family][1:], losses, losses[1:], strict=False):
        gain = narrow - wide
        doubt = gain.std(ddof=1) / np.sqrt(len(gain))
        assert gain.mean() > -SEPARATED * doubt - NOISE, name


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_tapered_formats_lose_less_scaled_than_at_their_largest_number(
    name: str, network: str
) -> None:
    found = _measured(network)
    assert found(name).loss < 0.2 * found(f"{name}@tensor:absmax:static").loss
