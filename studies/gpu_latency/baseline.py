"""What the study compares with: peak roofline, and untuned boosted trees on top of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor

from hwmodels.devices.load import load_device
from hwmodels.fit.predict import device_rate
from hwmodels.operators.number_type import NUMBER_TYPES

BASELINE_ROWS = 25_000


def roofline(table: pd.DataFrame) -> np.ndarray:
    """Peak rate and peak bandwidth, the larger time."""
    compute, memory, _ = light(table)
    return np.maximum(compute, memory)


def light(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds of computing and of moving at peak, and the peak rate."""
    compute, memory, rates = (np.zeros(len(table)) for _ in range(3))
    for (device, dtype), rows in table.groupby(["device", "dtype"]):
        number = NUMBER_TYPES[str(dtype)]
        m, n, k = (rows[size].to_numpy(dtype=float) for size in ("m", "n", "k"))
        rate = device_rate(str(device), number)
        bandwidth = load_device(str(device)).main_memory.bandwidth_bytes_per_s.value
        moved = m * k * number.input_bytes + n * k * number.weight_bytes + 2 * m * n
        compute[rows.index] = 2 * m * n * k / rate
        memory[rows.index] = moved / bandwidth
        rates[rows.index] = rate
    return compute, memory, rates


def boosted_trees(
    kept: pd.DataFrame, held: pd.DataFrame, *, with_cache: bool = False
) -> np.ndarray:
    """Untuned boosted trees on log(latency / roofline): sizes, dtype and device figures.

    `with_cache`: the capacity of the L2 and the roofline itself are further inputs.
    """
    types = sorted(NUMBER_TYPES)

    def inputs(table: pd.DataFrame) -> np.ndarray:
        compute, memory, rates = light(table)
        devices = [load_device(name) for name in table["device"]]
        more = [
            [cache.capacity_bytes.value for d in devices if (cache := d.memory("l2"))],
            np.log(np.maximum(compute, memory)),
        ]
        return np.column_stack(
            [
                *(more if with_cache else []),
                *(np.log2(table[size]) for size in ("m", "n", "k")),
                table["dtype"].map(types.index),
                np.log(rates),
                [d.main_memory.bandwidth_bytes_per_s.value for d in devices],
                [d.unit("matrix").count.value for d in devices],
                np.log(compute / memory),
            ]
        )

    rows = kept.sample(min(BASELINE_ROWS, len(kept)), random_state=0).reset_index(drop=True)
    target = np.log(rows["latency_s"].to_numpy() / roofline(rows))
    trees = HistGradientBoostingRegressor(random_state=0).fit(inputs(rows), target)
    return roofline(held) * np.exp(trees.predict(inputs(held)))
