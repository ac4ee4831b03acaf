"""The GPU estimator against our own H100 measurements (`tests/data/h100_ops.csv.gz`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.estimator import GpuEstimator
from hwmodels.estimators.gpu.features import FEATURES
from hwmodels.estimators.gpu.kernels import gemms_of
from hwmodels.estimators.gpu.residual import load_artefact, save_artefact
from hwmodels.estimators.gpu.skeleton import GpuFigures, gemm_terms
from hwmodels.fit.trees import exported
from hwmodels.formats import catalog
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.kernel import Kernel
from hwmodels.work.loops import ProductLoops
from hwmodels.work.work import plain_format

MEASURED = Path(__file__).parents[3] / "data" / "h100_ops.csv.gz"
ELEMENTS = {
    "bf16": ("bf16", 2, 2), "fp16": ("fp16", 2, 2), "tf32": ("tf32", 4, 4),
    "fp8": ("e4m3", 1, 2), "fp32": ("fp32", 4, 4),
}  # fmt: skip


@pytest.fixture(name="measured", scope="module")
def measured_fixture() -> pd.DataFrame:
    return pd.read_csv(MEASURED)


def _kernel(shape: dict[str, int], dtype: str) -> Kernel:
    element, read, written = ELEMENTS[dtype]
    m, n, k = shape["M"], shape["N"], shape["K"]
    return Kernel(
        kind="gemm",
        loops=ProductLoops(m=m, n=n, k=k),
        input_format=catalog.format(element),
        weight_format=catalog.format(element),
        output_format=plain_format(8 * written),
        weight_element=element,
        input_element=element,
        input_bytes=m * k * read,
        weight_bytes=n * k * read,
        write_bytes=m * n * written,
        inputs_are_cold=True,
    )


@pytest.mark.parametrize(
    ("dtype", "median", "mean"),
    [("bf16", 0.07, 0.11), ("fp16", 0.07, 0.11), ("tf32", 0.08, 0.12), ("fp8", 0.11, 0.15),
     ("fp32", 0.10, 0.16)],
)  # fmt: skip
def test_gemm_latencies_of_an_h100(
    measured: pd.DataFrame, dtype: str, median: float, mean: float
) -> None:
    """|log(predicted / measured)| of rows that the artefact was fitted to, among 1e5 others."""
    rows = measured[(measured["op"] == "gemm") & (measured["dtype"] == dtype)]
    kernels = [_kernel(json.loads(shape), dtype) for shape in rows["shape"]]
    costs = GpuEstimator().estimate(kernels, load_device("h100-sxm"), load_runtime("torch-eager"))
    predicted = np.array([cost.latency_s for cost in costs]) * 1e6
    error = np.abs(np.log(predicted / rows["median_us"].to_numpy()))
    assert np.median(error) < median
    assert np.mean(error) < mean
    assert len(error) > 60


@pytest.mark.parametrize(
    ("dtype", "median"), [("bf16", 0.25), ("fp16", 0.25), ("tf32", 0.25), ("fp8", 0.25)]
)
def test_the_skeleton_alone_stays_within_a_quarter(
    measured: pd.DataFrame, dtype: str, median: float
) -> None:
    """Constants that come from four devices with warm caches, on one with cold ones."""
    rows = measured[(measured["op"] == "gemm") & (measured["dtype"] == dtype)]
    device = load_device("h100-sxm")
    gemms = gemms_of([_kernel(json.loads(shape), dtype) for shape in rows["shape"]], device)
    terms = gemm_terms(gemms, GpuFigures.of(device), load_artefact().constants)
    error = np.abs(np.log(terms.latency_s * 1e6 / rows["median_us"].to_numpy()))
    assert np.median(error) < median


def test_the_artefact_survives_saving(tmp_path: Path) -> None:
    artefact = load_artefact()
    save_artefact(artefact, tmp_path / "copy.npz")
    copy = load_artefact(tmp_path / "copy.npz")
    features = np.random.default_rng(0).normal(size=(50, len(FEATURES)))
    assert copy.constants == artefact.constants
    for device in map(load_device, ("a10", "b300-sxm")):
        learned = [one.correction(features, "vllm", device) for one in (artefact, copy)]
        assert np.array_equal(learned[0], learned[1])
        doubts = [one.doubt(features, "vllm", device, np.zeros(50)) for one in (artefact, copy)]
        assert np.array_equal(doubts[0].high, doubts[1].high)


def test_trees_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 4)).astype(np.float32)
    target = inputs[:, 0] * 2 + np.abs(inputs[:, 1])
    boosted = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(inputs, target)
    ours = exported(boosted).predict(inputs.astype(float))
    assert ours == pytest.approx(boosted.predict(inputs), abs=1e-5)


def test_a_product_without_rows_costs_nothing_and_leaves_the_others_alone() -> None:
    """As of an empty cache; its logarithms were NaN."""
    device, runtime = load_device("h100-sxm"), load_runtime("torch-eager")
    empty, whole = (_kernel({"M": m, "N": 64, "K": 64}, "bf16") for m in (0, 64))
    both = GpuEstimator().estimate([empty, whole], device, runtime)
    assert both[0].latency_s == both[0].traffic_bytes == 0
    assert both[1] == GpuEstimator().estimate([whole], device, runtime)[0]
