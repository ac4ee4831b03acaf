"""Fits find again what made the data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hwmodels.estimators.gpu.constants import CONSTANTS
from hwmodels.estimators.gpu.overhead import Overhead
from hwmodels.fit.measurement import release
from hwmodels.fit.predict import predict
from hwmodels.fit.skeleton import fit_overheads

TRUE = Overhead(
    launches=2.0, row_cycles=900, depth_cycles=0.8, element_cycles=0.02, passes=1.5,
    fixed_cycles=100,
)  # fmt: skip


def shapes(count: int) -> pd.DataFrame:
    """Warm fp8 GEMMs of an H100 under vLLM, without times."""
    rng = np.random.default_rng(0)
    m, n, k = (2 ** rng.integers(low, 13, size=count) for low in (0, 7, 7))
    return pd.DataFrame(
        {"device": "h100-sxm", "runtime": "vllm", "dtype": "fp8_dynamic", "m": m, "n": n, "k": k,
         "cold": False}
    )  # fmt: skip


def test_the_overhead_of_a_runtime_is_found_again() -> None:
    table = shapes(150)
    account = predict(table, CONSTANTS)
    table["latency_s"] = account.gemm_s + TRUE.seconds(account.basis)
    found = fit_overheads(table, account, account.gemm_s)["vllm/fp8_dynamic"]
    ratio = found.seconds(account.basis) / TRUE.seconds(account.basis)
    assert np.abs(np.log(ratio)).mean() < 0.1


def test_versions_are_ordered_as_their_numbers() -> None:
    ordered = ["0.5.6.post2", "0.5.10", "1.0.0", "1.3.0rc15", "1.3.0rc20"]
    assert sorted(ordered, key=release) == ordered
