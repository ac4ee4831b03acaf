"""GEMMs of real networks, and the measured shapes that stand for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from dse.graph.lower.work import lower
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis

NEAR = 0.5
"""Powers of two by which a shape that stands for another may differ in M, N or K."""
LEAST_SHARE = 0.5
"""Networks with a smaller part of their multiply-accumulates in GEMMs say nothing here."""
SHAPE = ["m", "n", "k"]


def real_gemms(graphs: Path) -> pd.DataFrame:
    """GEMMs of the networks in a folder of ONNX graphs: network, m, n, k, calls.

    Transformers; of convolutional networks only the classifier would be here.
    """
    rows = []
    for path in sorted(graphs.glob("*.onnx")):
        graph = load(path)
        work = lower(Analysis(graph), {})
        ops = [op for region in work.regions for op in region.ops]
        gemms = [op for op in ops if op.kind == "gemm"]
        if sum(op.macs for op in gemms) < LEAST_SHARE * sum(op.macs for op in ops):
            continue
        calls = Counter((op.sizes["M"], op.sizes["N"], op.sizes["K"]) for op in gemms)
        rows += [(path.stem, *shape, count) for shape, count in calls.items()]
    return pd.DataFrame(rows, columns=["network", *SHAPE, "calls"])


def standing(table: pd.DataFrame, gemms: pd.DataFrame) -> pd.DataFrame:
    """Rows of a measured table that stand for GEMMs of networks, with `network` and `calls`.

    For each device, runtime and number type the nearest measured shape, where one is near. A row
    that stands for several GEMMs comes several times.
    """
    wanted = np.log2(gemms[SHAPE].to_numpy(dtype=float))
    found = []
    for _, rows in table.groupby(["device", "runtime", "dtype"]):
        known = np.log2(rows[SHAPE].to_numpy(dtype=float))
        _, nearest = cKDTree(known).query(wanted)
        near = (np.abs(known[nearest] - wanted) <= NEAR).all(axis=1)
        chosen = rows.iloc[nearest[near]].reset_index(drop=True)
        named = gemms.loc[near, ["network", "calls"]].reset_index(drop=True)
        found.append(pd.concat([chosen, named], axis=1))
    return pd.concat(found, ignore_index=True)


def weighted_mape(held: pd.DataFrame, seconds: np.ndarray) -> float:
    """Percent error weighted by the share of time, of rows of `standing`.

    A GEMM weighs its calls times its measured time; each network under each runtime and number
    type weighs the same.
    """
    measured = held["latency_s"].to_numpy()
    time = held["calls"] * measured
    total = time.groupby([held["network"], held["runtime"], held["dtype"]]).transform("sum")
    weight = (time / total).to_numpy()
    return 100 * float(weight @ np.abs(seconds / measured - 1) / weight.sum())
