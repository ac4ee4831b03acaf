"""Collectives against NCCL and custom all-reduce tables: errors, also on a device left out.

Usage: python -m studies.collectives.run --aiconfigurator DIR [--refit]

Writes `results/errors.csv` and the README's table. With --refit (minutes) the constants are
fitted anew, once without each NVLink device: `results/left_out.csv`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from hwmodels.devices.device import Link
from hwmodels.devices.load import load_device
from hwmodels.devices.quantity import SourcedValue
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.collectives import (
    HOST_LINKS,
    LAW,
    MEASURED,
    SPREAD,
    Law,
    latencies,
    peer_all_reduce_s,
    ring_s,
)

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
README = FOLDER / "README.md"
DEVICES = {
    "a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm", "b200_sxm": "b200-sxm", "l40s": "l40s",
}  # fmt: skip
BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
"""Bytes of an element; `message_size` counts elements."""
OTHER_RELEASE = "2.23"
"""An H100's table without a device column: another NCCL, another day, perhaps another host."""
COLUMNS = ["device", "table", "release", "op_name", "num_gpus", "bytes", "seconds"]
NVLINK = ("a100-sxm-80gb", "b200-sxm", "h100-sxm")
RUNTIME = load_runtime("tensorrt-llm")
RING = ("ways_loss", "gather", "early", "late", "blend")
"""Constants of rings; the others are those of peer kernels."""
TAIL = 0.05

Figures = Mapping[str, tuple[float, float]]
"""Start and step in seconds by device."""


def measurements(folder: Path) -> pd.DataFrame:
    """Every all_reduce, all_gather and reduce_scatter row; medians over library versions.

    The table of `OTHER_RELEASE` stays apart.
    """
    frame = pd.concat(_tables(folder))
    keys = [name for name in COLUMNS if name != "seconds"]
    return frame.groupby(keys).seconds.median().reset_index()


def _tables(folder: Path) -> Iterator[pd.DataFrame]:
    for path in sorted(folder.glob("*/comm/*/*/*.parquet")):
        parts = path.relative_to(folder).parts
        table = pd.read_parquet(path)
        types = table["nccl_dtype" if "nccl_dtype" in table else "allreduce_dtype"]
        found = table.assign(
            device=DEVICES[parts[0]],
            table="custom" if "custom" in path.name else "nccl",
            release=OTHER_RELEASE if parts[3] == OTHER_RELEASE else "",
            bytes=table.message_size * types.map(BYTES),
            seconds=table.latency * 1e-3,
        )
        yield found.loc[found.op_name != "alltoall", COLUMNS]


def predicted(rows: pd.DataFrame, link: Callable[[str], Link], law: Law = LAW) -> np.ndarray:
    """Seconds of each row; of custom tables the better of ring and peer kernel."""
    found = []
    for row in rows.itertuples():
        size, gpus = cast("float", row.bytes), cast("int", row.num_gpus)
        mine = link(str(row.device))
        seconds = ring_s(str(row.op_name), size, gpus, mine, law=law)
        architecture = load_device(str(row.device)).architecture
        if (
            row.table == "custom"
            and mine.name not in HOST_LINKS
            and size <= RUNTIME.peer_limit_bytes(architecture, gpus)
        ):
            seconds = min(seconds, peer_all_reduce_s(size, gpus, mine, law))
        found.append(seconds)
    return np.array(found)


def own_link(device: str) -> Link:
    """The link of the device file, with its measured latencies."""
    return load_device(device).links[0]


def link_with(device: str, start: float, step: float) -> Link:
    """The link with other latencies, in seconds."""
    return replace(own_link(device), start_s=_figure(start), step_s=_figure(step))


def _figure(seconds: float) -> SourcedValue:
    return SourcedValue(value=seconds, unit="s", source="fitted", kind="scaled")


def fitted(rows: pd.DataFrame, law: Law) -> tuple[Law, Figures]:
    """Constants and every device's start and step: least mean |log ratio|, devices alike."""
    nccl = rows[rows.table == "nccl"]
    parts = {str(name): part for name, part in nccl.groupby("device")}
    first = [getattr(law, name) for name in RING]

    def split(x: np.ndarray) -> tuple[Law, Figures]:
        ends = np.exp(x[len(RING) :].reshape(-1, 2))
        figures = {name: (float(a), float(b)) for name, (a, b) in zip(parts, ends, strict=True)}
        return replace(law, **dict(zip(RING, np.abs(x), strict=False))), figures

    def loss(x: np.ndarray) -> float:
        found, figures = split(x)
        return float(np.mean([_loss(parts[one], figures, found) for one in parts]))

    start = np.array([*first, *np.log([7e-6, 0.9e-6] * len(parts))])
    ring, figures = split(_least(loss, start))
    return _with_peers(rows[rows.table == "custom"], ring, figures), figures


def _with_peers(rows: pd.DataFrame, law: Law, figures: Figures) -> Law:
    names = [field.name for field in fields(Law) if field.name not in RING]

    def of(x: np.ndarray) -> Law:
        return replace(law, **dict(zip(names, map(float, np.abs(x)), strict=True)))

    start = np.array([getattr(law, name) for name in names])
    return of(_least(lambda x: _loss(rows, figures, of(x)), start)) if len(rows) else law


def latencies_of(rows: pd.DataFrame, device: str, law: Law) -> tuple[float, float]:
    """Start and step of a device under given constants, from its NCCL rows."""
    mine = rows[(rows.device == device) & (rows.table == "nccl")]

    def loss(logs: np.ndarray) -> float:
        start, step = np.exp(logs)
        return _loss(mine, {device: (float(start), float(step))}, law)

    start, step = np.exp(_least(loss, np.log([7e-6, 0.9e-6])))
    return float(start), float(step)


def _loss(rows: pd.DataFrame, figures: Figures, law: Law) -> float:
    return float(np.mean(np.abs(_logs(rows, figures, law))))


def _logs(rows: pd.DataFrame, figures: Figures, law: Law) -> np.ndarray:
    """log(measured / predicted)."""
    links = {name: link_with(name, *ends) for name, ends in figures.items()}
    return np.log(rows.seconds.to_numpy() / predicted(rows, links.__getitem__, law))


def _least(loss: Callable[[np.ndarray], float], start: np.ndarray) -> np.ndarray:
    for _ in range(2):
        options = {"maxiter": 120 * len(start), "adaptive": True}
        start = minimize(loss, start, method="Nelder-Mead", options=options).x
    return start


def left_out(rows: pd.DataFrame) -> pd.DataFrame:
    """Each NVLink device with the constants of the other two.

    `own` has the device's own start and step, `others` the geometric means of theirs; `inside` is
    the share of its rows within the spread that each of these two left out under the other has.
    """
    found = []
    logs: dict[str, np.ndarray] = {}
    for device in NVLINK:
        others = rows[rows.device.isin(NVLINK) & (rows.device != device)]
        law, figures = fitted(others, LAW)
        mine = rows[rows.device == device]
        mean = np.exp(np.mean(np.log(list(figures.values())), axis=0))
        ends = {"own": latencies_of(rows, device, law), "others": (float(mean[0]), float(mean[1]))}
        for name, pair in ends.items():
            logs[name] = _logs(mine, {device: pair}, law)
        low, high = np.quantile(_among(others, figures, law), [TAIL, 1 - TAIL])
        held = (logs["others"] >= low) & (logs["others"] <= high)
        for table, at in mine.groupby("table").indices.items():
            error = {name: np.mean(np.abs(np.exp(-logs[name][at]) - 1)).round(3) for name in ends}
            found.append(
                {"device": device, "table": table, "rows": len(at), **error}
                | {
                    "inside": held[at].mean().round(3),
                    "high_over_low": round(np.exp(high - low), 2),
                }
            )
    return pd.DataFrame(found)


def _among(rows: pd.DataFrame, figures: Figures, law: Law) -> np.ndarray:
    """log(measured / predicted) of two devices, each with the latencies of the other."""
    first, second = figures
    swapped = {first: figures[second], second: figures[first]}
    return _logs(rows, swapped, law)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """MAPE, signed median, coverage, and the quantiles of measured over predicted."""
    seconds = predicted(rows, own_link)
    error = seconds / rows.seconds.to_numpy() - 1
    ratio = rows.seconds.to_numpy() / seconds
    standing = [
        latencies(own_link(str(device)))[2] if release == "" else "generation"
        for device, release in zip(rows.device, rows.release, strict=True)
    ]
    low, high = (np.array([SPREAD[one][end] for one in standing]) for end in (0, 1))
    frame = rows.assign(
        error=error, size=np.abs(error), ratio=ratio, held=(ratio >= low) & (ratio <= high)
    )
    by = frame.groupby(["device", "table", "release", "op_name"])
    return pd.DataFrame(
        {
            "rows": by.size(),
            "mape": by["size"].mean().round(3),
            "median": by.error.median().round(3),
            "inside": by.held.mean().round(3),
            "low": by.ratio.quantile(TAIL).round(2),
            "high": by.ratio.quantile(1 - TAIL).round(2),
        }
    ).reset_index()


NAMES = {
    "a100-sxm-80gb": "A100 SXM", "h100-sxm": "H100 SXM", "b200-sxm": "B200", "l40s": "L40S",
}  # fmt: skip
KINDS = ("all_reduce", "all_gather", "reduce_scatter")


def rendered(errors: pd.DataFrame, without: pd.DataFrame) -> str:
    """The README's table."""
    lines = [
        "| device | table | all_reduce | all_gather | reduce_scatter | inside | constants of the "
        "others | latencies too |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors = errors.assign(release=errors["release"].fillna("").astype(str))
    for (device, table, release), mine in errors.groupby(["device", "table", "release"]):
        kinds = mine.set_index("op_name")
        cells = [_percent(kinds.mape.get(kind)) for kind in KINDS]
        inside = (mine.inside * mine.rows).sum() / mine.rows.sum()
        name = {"nccl": "NCCL", "custom": "peer memory"}[str(table)]
        out = without[(without.device == device) & (without.table == table)]
        ends = [
            "-" if release or out.empty else _percent(out[name].iloc[0])
            for name in ("own", "others")
        ]
        label = f"{name} {release}".strip()
        row = [NAMES[str(device)], label, *cells, _percent(inside), *ends]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def with_table(text: str, table: str) -> str:
    """A README whose lines that start with a bar are the table."""
    lines = text.split("\n")
    bars = [index for index, line in enumerate(lines) if line.startswith("|")]
    return "\n".join([*lines[: bars[0]], *table.split("\n"), *lines[bars[-1] + 1 :]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True, metavar="DIR")
    parser.add_argument("--refit", action="store_true")
    given = parser.parse_args(arguments)
    rows = measurements(given.aiconfigurator)
    here = rows[rows.release == ""]
    if given.refit:
        law, figures = fitted(here[here.device.isin(NVLINK)], LAW)
        print(law, figures, {name: latencies_of(here, name, law) for name in MEASURED})
        left_out(here).to_csv(RESULTS / "left_out.csv", index=False, lineterminator="\n")
    errors = summary(rows)
    errors.to_csv(RESULTS / "errors.csv", index=False, lineterminator="\n")
    without = pd.read_csv(RESULTS / "left_out.csv")
    print(errors.to_string(index=False), without.to_string(index=False), sep="\n\n")
    table = rendered(pd.read_csv(RESULTS / "errors.csv", dtype={"release": str}), without)
    README.write_text(with_table(README.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
