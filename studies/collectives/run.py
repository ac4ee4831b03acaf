"""Collectives against NCCL and custom all-reduce tables: errors, also on a device left out.

Usage: python studies/collectives/run.py --aiconfigurator DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from hwmodels.devices.device import Link
from hwmodels.devices.load import load_device
from hwmodels.devices.quantity import SourcedValue
from hwmodels.tables import collectives
from hwmodels.tables.collectives import peer_all_reduce_s, ring_s

FOLDER = Path(__file__).parent
DEVICES = {
    "a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm", "b200_sxm": "b200-sxm", "l40s": "l40s",
}  # fmt: skip
BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
"""Bytes of an element; `message_size` counts elements."""
COLUMNS = ["device", "table", "op_name", "num_gpus", "bytes", "seconds"]
NVLINK = ("a100-sxm-80gb", "b200-sxm", "h100-sxm")


def measurements(folder: Path) -> pd.DataFrame:
    """Every all_reduce, all_gather and reduce_scatter row; medians over library versions."""
    frame = pd.concat(_tables(folder))
    keys = [name for name in COLUMNS if name != "seconds"]
    return frame.groupby(keys).seconds.median().reset_index()


def _tables(folder: Path) -> Iterator[pd.DataFrame]:
    for path in sorted(folder.glob("*/comm/*/*/*.parquet")):
        table = pd.read_parquet(path)
        types = table["nccl_dtype" if "nccl_dtype" in table else "allreduce_dtype"]
        found = table.assign(
            device=DEVICES[path.relative_to(folder).parts[0]],
            table="custom" if "custom" in path.name else "nccl",
            bytes=table.message_size * types.map(BYTES),
            seconds=table.latency * 1e-3,
        )
        yield found.loc[found.op_name != "alltoall", COLUMNS]


def predicted(rows: pd.DataFrame, link: Callable[[str], Link]) -> np.ndarray:
    """Seconds of each row; of custom tables the better of ring and peer kernel."""
    found = []
    for row in rows.itertuples():
        size, gpus = cast("float", row.bytes), cast("int", row.num_gpus)
        seconds = ring_s(str(row.op_name), size, gpus, link(str(row.device)))
        if row.table == "custom" and link(str(row.device)).name not in collectives.HOST_LINKS:
            peer = peer_all_reduce_s(size, gpus, link(str(row.device)))
            seconds = min(seconds, peer)
        found.append(seconds)
    return np.array(found)


def own_link(device: str) -> Link:
    """The link of the device file, with its measured latencies."""
    return load_device(device).links[0]


def left_out_link(device: str) -> Link:
    """The link as if the device had not been measured: latencies of the other two."""
    others = [load_device(name).links[0] for name in NVLINK if name != device]
    starts = [link.start_s.value for link in others if link.start_s]
    steps = [link.step_s.value for link in others if link.step_s]
    return replace(
        own_link(device), start_s=_figure(float(np.mean(np.log(starts)))), step_s=_figure(
            float(np.mean(np.log(steps))))
    )  # fmt: skip


def _figure(log_seconds: float) -> SourcedValue:
    return SourcedValue(
        value=float(np.exp(log_seconds)), unit="s", source="other devices", kind="scaled"
    )


def fitted(rows: pd.DataFrame, device: str) -> tuple[float, float]:
    """Start and step of a device in seconds: least mean |log ratio| over its NCCL rows."""
    mine = rows[(rows.device == device) & (rows.table == "nccl")]

    def loss(logs: np.ndarray) -> float:
        link = replace(own_link(device), start_s=_figure(logs[0]), step_s=_figure(logs[1]))
        ratio = predicted(mine, lambda _: link) / mine.seconds.to_numpy()
        return float(np.mean(np.abs(np.log(ratio))))

    start = np.log([collectives.DEFAULT_START_S, collectives.DEFAULT_STEP_S])
    best = minimize(loss, start, method="Nelder-Mead").x
    return float(np.exp(best[0])), float(np.exp(best[1]))


def summary(rows: pd.DataFrame, seconds: np.ndarray, name: str) -> pd.DataFrame:
    """MAPE, share within 25 %, and signed median by device, table and collective."""
    error = seconds / rows.seconds.to_numpy() - 1
    frame = rows.assign(error=error, size=np.abs(error), near=np.abs(error) <= 0.25)
    by = frame.groupby(["device", "table", "op_name"])
    return pd.DataFrame(
        {
            "link": name,
            "rows": by.size(),
            "mape": by["size"].mean().round(3),
            "median": by.error.median().round(3),
            "within_25_percent": by.near.mean().round(3),
        }
    ).reset_index()


def main() -> None:
    """Print and write the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True, metavar="DIR")
    rows = measurements(parser.parse_args().aiconfigurator)
    unseen = rows[rows.device.isin(NVLINK)]
    table = pd.concat(
        [
            summary(rows, predicted(rows, own_link), "measured"),
            summary(unseen, predicted(unseen, left_out_link), "left out"),
        ]
    )
    table.to_csv(FOLDER / "results" / "errors.csv", index=False)
    print(table.to_string(index=False))
    for device in DEVICES.values():
        start, step = fitted(rows, device)
        print(f"{device}: fitted start {start * 1e6:.2f} us, step {step * 1e6:.2f} us")


if __name__ == "__main__":
    main()
