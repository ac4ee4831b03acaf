"""Run lengths of zeros, against an encoder that is run."""

from __future__ import annotations

import numpy as np
import pytest

from hwmodels.devices.spatial import RunLengths

EYERISS = RunLengths(run_bits=5, elements=3, word_bits=64)


def encoded(values: np.ndarray, run_bits: int) -> list[tuple[int, int]]:
    """Pairs of a run of zeros and the element behind it, a zero after a full run."""
    found, run = [], 0
    for value in values:
        if value == 0 and run < 2**run_bits - 1:
            run += 1
            continue
        found.append((run, int(value)))
        run = 0
    return found


@pytest.mark.parametrize("zeros", [0.4, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("run_bits", [2, 5])
def test_the_share_is_that_of_an_encoder_of_random_zeros(zeros: float, run_bits: int) -> None:
    values = (np.random.default_rng(1).random(200_000) >= zeros).astype(int)
    code = RunLengths(run_bits=run_bits, elements=3, word_bits=3 * (16 + run_bits) + 1)
    bits = len(encoded(values, run_bits)) / code.elements * code.word_bits
    assert code.share(zeros, 16) == pytest.approx(min(bits / (16 * len(values)), 1), rel=0.02)


def test_what_would_grow_is_stored_plain() -> None:
    assert EYERISS.share(0.0, 16) == EYERISS.share(0.2, 16) == 1
    assert EYERISS.share(0.5, 16) < 1
    assert EYERISS.share(1.0, 16) == pytest.approx(64 / 3 / 32 / 16)
