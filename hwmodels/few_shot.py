"""`dse fit`: a device file that carries a few measurements of the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from hwmodels.adaptation import Sample, adapted
from hwmodels.device import Device
from hwmodels.device_file import DEVICE_FOLDER, device_names, load_device
from hwmodels.errors import DeviceError
from hwmodels.estimators.gpu import gemms_of
from hwmodels.estimators.gpu_features import gemm_features
from hwmodels.estimators.gpu_residual import load_artefact
from hwmodels.estimators.gpu_skeleton import GpuFigures, gemm_terms
from hwmodels.optable import (
    OpTable,
    refuse_impossible,
    rows_kernels,
    runtimes_of,
    timed_rows,
)
from hwmodels.yaml_file import read_yaml


def fitted_device_file(
    device_file: str | Path, table: OpTable, *, runtime: str, samples: int | None, seed: int = 0
) -> str:
    """The text of a device file with up to `samples` rows of `table` as its measurements.

    Rows are drawn so that each is the one that the earlier ones say least about (`suggested`).

    Raises:
        DeviceError: The device file is wrong or is not a GPU.
        MeasurementError: Times that are faster than light on the device.
    """
    path = Path(device_file)
    if str(device_file) in device_names():
        path = DEVICE_FOLDER / f"{device_file}.yaml"
    device = load_device(path)
    if device.kind != "gpu":
        raise DeviceError(f"{path}: few-shot fitting is for GPUs; {device.name} is {device.kind}")
    refuse_impossible(table, device, light_us(table, device, runtime))
    rows = timed_rows(table)
    if samples is not None and samples < len(rows):
        rows = suggested(table, rows, device, runtime=runtime, count=samples, seed=seed)
    runtimes = runtimes_of(table, runtime)
    content = read_yaml(path, DeviceError)
    assert isinstance(content, dict), "load_device has read it"
    times = table.frame["median_us"].to_numpy(dtype=float)
    content["measurements"] = [
        {
            "op": table.ops[int(row)],
            "shape": table.shapes[int(row)],
            "dtype": table.dtypes[int(row)],
            "runtime": runtimes[int(row)],
            "median_us": float(times[int(row)]),
        }
        for row in rows
    ]
    return yaml.safe_dump(content, sort_keys=False, width=100)


def suggested(
    table: OpTable, rows: np.ndarray, device: Device, *, runtime: str, count: int, seed: int = 0
) -> np.ndarray:
    """`count` rows that say the most about the others, the first one at random.

    Each next row is the one whose correction is the least certain given those before.
    """
    gemms = [int(row) for row in rows if table.ops[int(row)] in ("gemm", "bmm")]
    if not gemms:
        return rows[:count]
    features = np.vstack([_features(table, row, device, runtime) for row in gemms])
    runtimes = np.array(runtimes_of(table, runtime))[gemms]
    chosen = [int(np.random.default_rng(seed).integers(len(gemms)))]
    while len(chosen) < min(count, len(gemms)):
        samples = tuple(
            Sample(runtime=str(runtimes[i]), features=tuple(features[i]), log_ratio=0.0)
            for i in chosen
        )
        unsure = np.zeros(len(gemms))
        for name in np.unique(runtimes):
            here = runtimes == name
            unsure[here] = adapted(samples, features[here], str(name)).sd_share
        unsure[chosen] = -1.0
        chosen.append(int(np.argmax(unsure)))
    return np.array([gemms[i] for i in chosen])


def light_us(table: OpTable, device: Device, runtime: str) -> np.ndarray:
    """The physical limit of every row in microseconds.

    Operations at the peak rate, or its bytes from main memory where caches are cold.
    """
    fastest = np.zeros(len(table.shapes))
    bandwidth = device.main_memory.bandwidth_bytes_per_s.value
    for row, name in enumerate(runtimes_of(table, runtime)):
        for kernel in rows_kernels(table, [row], device, name)[0]:
            rate = device.rate(kernel.weight_element, kernel.input_element)
            compute = 2 * kernel.macs / rate.ops_per_s.value if rate else 0.0
            memory = kernel.bytes / bandwidth if kernel.inputs_are_cold else 0.0
            fastest[row] += max(compute, memory) * 1e6
    return fastest


def _features(table: OpTable, row: int, device: Device, runtime: str) -> np.ndarray:
    gpu = GpuFigures.of(device)
    gemms = gemms_of([rows_kernels(table, [row], device, runtime)[0][-1]], device)
    return gemm_features(gemms, gemm_terms(gemms, gpu, load_artefact().constants), gpu)
