"""Intervals hold the share of times that they promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hwmodels.estimators.gpu.constants import CONSTANTS
from hwmodels.fit.predict import predict
from hwmodels.fit.spread import DeviceFits, spread_of, unseen_spread

DEVICES = ("a100-sxm-80gb", "h100-sxm", "l40s")
SPEEDS = dict(zip(DEVICES, (0.8, 1.0, 1.25), strict=True))
"""Measured over predicted time: what nothing that is known of a device tells."""


def test_an_interval_holds_its_share_of_the_errors() -> None:
    errors = np.random.default_rng(1).normal(0.1, 0.2, size=4000)
    spread = spread_of(errors, np.zeros(4000), np.full(4000, "a"))
    assert spread.low == pytest.approx(0.1 - 1.645 * 0.2, abs=0.02)
    assert spread.high == pytest.approx(0.1 + 1.645 * 0.2, abs=0.02)


def test_an_interval_is_wider_where_errors_are() -> None:
    rng = np.random.default_rng(2)
    overhead = rng.uniform(size=8000)
    errors = rng.normal(size=8000) * 0.1 * np.exp(1.5 * overhead)
    spread = spread_of(errors, overhead, np.full(8000, "a"))
    assert 1.0 < spread.slope < 1.6, "drawn to 0"
    for chosen in (overhead < 0.3, overhead > 0.7):
        low, high = spread.interval(overhead[chosen])
        inside = (errors[chosen] > low) & (errors[chosen] < high)
        assert inside.mean() == pytest.approx(0.9, abs=0.05)


def test_devices_count_equally_however_many_rows_they_have() -> None:
    rng = np.random.default_rng(3)
    errors = np.concatenate([rng.normal(size=9000) * 0.05, rng.normal(size=1000) * 0.5])
    devices = np.array(["many"] * 9000 + ["few"] * 1000)
    spread = spread_of(errors, np.zeros(10000), devices)
    assert np.mean(errors[9000:] > spread.high) == pytest.approx(0.1, abs=0.02)


@pytest.fixture(name="fits", scope="module")
def fits_fixture() -> DeviceFits:
    """Of bf16 GEMMs of three devices, each as much slower than the skeleton as `SPEEDS` says."""
    rng = np.random.default_rng(0)
    tables = []
    for device in DEVICES:
        m, n, k = (2 ** rng.integers(low, 13, size=25) for low in (0, 7, 7))
        rows = pd.DataFrame(
            {"device": device, "runtime": "vllm", "dtype": "bf16", "m": m, "n": n, "k": k,
             "cold": False}
        )  # fmt: skip
        rows["latency_s"] = predict(rows, CONSTANTS).gemm_s * SPEEDS[device]
        tables.append(rows)
    return DeviceFits(pd.concat(tables, ignore_index=True))


def test_errors_of_a_device_come_from_a_model_of_the_others(fits: DeviceFits) -> None:
    errors = fits.errors(DEVICES)
    medians = [np.median(errors.log[errors.devices == one]) for one in DEVICES]
    assert medians[0] < -0.05
    assert medians[2] > 0.05
    assert (np.abs(errors.beyond) <= np.abs(errors.log) / 0.3).all(), "of a doubt below 1"


def test_an_interval_covers_devices_that_differ(fits: DeviceFits) -> None:
    """Wide enough for a device as unlike the known ones as they are unlike each other."""
    spread = unseen_spread(fits.errors(DEVICES))
    assert spread.low < -0.1
    assert spread.high > 0.1
    assert spread.high - spread.low < 1.0
