"""The protocol over measured GEMMs: devices, families, number types and cells left out.

    cd studies/gpu_latency; python run.py --aiconfigurator DIR --graphs DIR -o results

prints and writes every table of GEMMs that README.md cites; `--graphs` is the unpacked
`graphs.tar.xz` of data/h100_torch. Nothing of what is left out is used before it is reported:
constants, overheads, trees and intervals come from the rest, the latter by leaving out each of
its devices.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import number_types
import numpy as np
import pandas as pd
from leave_out import devices
from real import real_gemms
from recollected import versions

from hwmodels.fit.measurement import read_aiconfigurator

PARTS = ("devices", "versions", "types", "device_types")
Rows = list[dict[str, object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.08)
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    arguments = parser.parse_args()
    whole = read_aiconfigurator(arguments.aiconfigurator)
    table = whole[sampled_shapes(whole, arguments.share)].reset_index(drop=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for part in arguments.only:
        found: dict[str, Rows] = {}
        for name, row in tables(part, table, whole, arguments):
            found.setdefault(name, []).append(row)
        for name, rows in found.items():
            frame = pd.DataFrame(rows)
            frame.to_csv(arguments.output / f"{name}.csv", index=False, float_format="%.4g")
            print(f"\n{name}\n{frame.to_string(index=False, float_format='%.3f')}", flush=True)


def tables(
    part: str, table: pd.DataFrame, whole: pd.DataFrame, arguments: argparse.Namespace
) -> Iterator[tuple[str, dict[str, object]]]:
    """Rows of the tables of a part. A family is one device here: leaving it out is the same."""
    if part == "devices":
        return devices(table, whole, real_gemms(arguments.graphs))
    if part == "versions":
        return (("versions", row) for row in versions(arguments.aiconfigurator, table))
    if part == "types":
        return number_types.everywhere(table)
    return number_types.on_one_device(table)


def sampled_shapes(table: pd.DataFrame, share: float) -> np.ndarray:
    """Rows of a fixed share of the shapes, the same on every device."""
    hashed = pd.util.hash_pandas_object(table[["m", "n", "k"]], index=False).to_numpy()
    return hashed % 1000 < 1000 * share


if __name__ == "__main__":
    main()
