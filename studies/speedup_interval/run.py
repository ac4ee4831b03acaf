"""The interval of a speed-up: shares of errors that kernels have in common, and its coverage.

    cd studies/speedup_interval
    python run.py --aiconfigurator DIR --h100-torch DIR --graphs DIR -o results

`--graphs` is the unpacked `graphs.tar.xz`. Models are fitted without a third of the shapes and
without a device (`errors`), what errors of two GEMMs have in common is counted (`alike`), and
ratios of single GEMMs, of stacks of GEMMs and of the mixed blocks are held against their intervals
(`coverage`). `--errors FILE.parquet` keeps the errors, six minutes of work, for the next time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from dse.graph.ir.assignment import Assignment
from dse.graph.onnx.load import load
from dse.predict import Prediction, Usage, predict
from hwmodels.devices.load import load_device
from hwmodels.estimators.gpu.residual import load_artefact
from hwmodels.fit.__main__ import read_tables
from hwmodels.fit.few_shot import forecast
from hwmodels.fit.measurement import read_aiconfigurator, read_torch_ops
from hwmodels.fit.residual import FOLDS, Model, fit_model
from hwmodels.operators.lower import compute_elements, operator_kernels
from hwmodels.operators.number_type import NUMBER_TYPES
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.price import kernel_costs
from hwmodels.tables.speedup import Times, half_widths
from hwmodels.work.kernel import Kernel, KernelCost, PricedKernel
from hwmodels.work.loops import ProductLoops

sys.path.insert(0, str(Path(__file__).parents[1] / "mixed_blocks"))
from run import GROUPS, RUNTIMES, SHAPE, formats

SHAPES_KEPT = np.uint64(29)
"""One shape in so many is evaluated, in all its number types."""
DRAWN = 2_000_000
"""Pairs of GEMMs of a device and runtime whose errors are multiplied."""
CLIPPED = 0.7
"""Errors beyond count as this: a few broken rows would rule products."""
LEAST_PAIRS = 200
STACK = 4
"""GEMMs of a stack: those of a decoder layer."""
STACKS = 100
"""Of each device, runtime, number of rows and pair of types."""
NEAR_DOUBLE = ("fp8_precise",)
"""Types whose kernels have the formats of another type."""
ALIKE = ["type", "rows", "weight"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aiconfigurator", type=Path, required=True)
    parser.add_argument("--h100-torch", type=Path, required=True)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("--errors", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = errors(arguments.aiconfigurator, arguments.h100_torch, arguments.errors)
    tables = {
        "alike": alike(table),
        "operators": alike_operators(arguments.h100_torch),
        "scales": scales(table),
        "gemms": pd.DataFrame(gemm_coverage(table)),
        "blocks": pd.DataFrame(block_coverage(arguments.h100_torch, arguments.graphs)),
    }
    for name, frame in tables.items():
        frame.to_csv(arguments.output / f"{name}.csv", index=False, float_format="%.4g")
        print(f"\n{name}\n{frame.to_string(index=False, float_format='%.3f')}")


def errors(aiconfigurator: Path, h100_torch: Path, kept: Path | None) -> pd.DataFrame:
    """Rows with `left_out` (shapes, device), predicted seconds, interval, log error."""
    if kept is not None and kept.is_file():
        return pd.read_parquet(kept)
    ops = h100_torch / "ops.csv.gz"
    table = read_tables(aiconfigurator, ops, 0.08, 0)
    whole = pd.concat([read_aiconfigurator(aiconfigurator), read_torch_ops(ops)])
    chosen = _hash(whole, ["m", "n", "k"]) % SHAPES_KEPT == 0
    whole = whole[chosen | whole["cold"].to_numpy()].reset_index(drop=True)
    constants = fit_model(table, 0).constants
    found = []
    for fold in range(FOLDS):
        model = fit_model(_numbered(table[_fold(table) != fold]), 0, constants)
        found.append(_predicted(whole[_fold(whole) == fold], model, "shapes"))
    for device in sorted(table["device"].unique()):
        model = fit_model(_numbered(table[table["device"] != device]), 0)
        found.append(_predicted(whole[whole["device"] == device], model, "device"))
    joined = pd.concat(found, ignore_index=True)
    if kept is not None:
        joined.to_parquet(kept)
    return joined


def _predicted(rows: pd.DataFrame, model: Model, left_out: str) -> pd.DataFrame:
    rows = _numbered(rows)
    shipped = load_artefact().learned
    learned = replace(model.learned, seen=shipped.seen, unseen=shipped.unseen)
    found = forecast(replace(model, learned=learned), (), rows)
    return rows.assign(
        left_out=left_out,
        predicted_s=found.latency_s,
        low=np.log(found.low_s / found.latency_s),
        high=np.log(found.high_s / found.latency_s),
        error=np.log(rows["latency_s"] / found.latency_s),
    )


def _fold(table: pd.DataFrame) -> np.ndarray:
    return _hash(table, ["n", "k"]) % FOLDS


def _hash(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return pd.util.hash_pandas_object(table[columns], index=False).to_numpy()


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.reset_index(drop=True)


def alike(table: pd.DataFrame) -> pd.DataFrame:
    """Mean product of two GEMMs' errors over the mean square, by what they have alike.

    Devices and runtimes weigh the same. A part that all pairs share is in every line, what a type
    shares in the lines with one type, and so on: differences of lines are `Parts`.
    """
    generator = np.random.default_rng(0)
    found = []
    warm = table[~table["cold"].astype(bool)]
    for (left_out, _, _), rows in warm.groupby(["left_out", "device", "runtime"]):
        error = rows["error"].clip(-CLIPPED, CLIPPED).to_numpy()
        first, second = generator.integers(0, len(rows), (2, DRAWN))
        first, second = first[first != second], second[first != second]
        labels = {
            "type": rows["dtype"].astype("category").cat.codes.to_numpy(),
            "rows": rows["m"].to_numpy(),
            "weight": _hash(rows, ["n", "k"]),
        }
        pairs = pd.DataFrame({name: of[first] == of[second] for name, of in labels.items()})
        pairs["product"] = error[first] * error[second] / np.mean(error**2)
        means = pairs.groupby(ALIKE)["product"].agg(["mean", "size"])
        found.append(
            means[means["size"] >= LEAST_PAIRS].reset_index().assign(left_out=str(left_out))
        )
    joined = pd.concat(found).groupby(["left_out", *ALIKE])["mean"].mean()
    return joined.rename("product").reset_index()


def alike_operators(h100_torch: Path) -> pd.DataFrame:
    """The same of operators that are one kernel other than a GEMM, on the H100."""
    device, runtime = load_device("h100-sxm"), load_runtime("torch-eager")
    switch = runtime.switch_cycles / device.unit("matrix").clock_hz.value
    rows = []
    for row in pd.read_csv(h100_torch / "ops.csv.gz").to_dict("records"):
        dtype, sizes = row["dtype"], json.loads(row["shape"])
        compute = compute_elements(dtype, device)
        kernel, *more = operator_kernels(row["op"], sizes, dtype, runtime, compute)
        if more or kernel.kind in ("gemm", "tiled_gemm"):
            continue
        (cost,) = kernel_costs([kernel], device, runtime)
        error = np.log(row["median_us"] * 1e-6 / (cost.latency_s - switch))
        multiplies = kernel.kind in ("attention", "conv2d")
        rows.append((multiplies, kernel.kind, row["op"], dtype, row["shape"], error))
    table = pd.DataFrame(rows, columns=["multiplies", "kind", "op", "type", "sizes", "error"])
    table["error"] = table["error"].clip(-CLIPPED, CLIPPED)
    squares = (table["error"] ** 2).groupby(table["kind"]).transform("mean")
    table["error"] /= np.sqrt(squares)
    found = []
    for multiplying, group in table.groupby("multiplies"):
        first, second = np.triu_indices(len(group), 1)
        names = ("kind", "op", "type", "sizes")
        same = {name: group[name].to_numpy() for name in names}
        pairs = pd.DataFrame({name: of[first] == of[second] for name, of in same.items()})
        error = group["error"].to_numpy()
        pairs["product"] = error[first] * error[second]
        means = pairs.groupby(list(names))["product"].agg(["mean", "size"]).reset_index()
        found.append(means.assign(multiplies=bool(multiplying)))
    return pd.concat(found, ignore_index=True)


def scales(table: pd.DataFrame) -> pd.DataFrame:
    """90 % quantiles of a device's errors over the half-width that the estimator gives it."""
    found = []
    for (left_out, device), rows in table.groupby(["left_out", "device"]):
        ratio = rows["error"].abs() / _half(rows)
        found.append({"left_out": left_out, "device": device, "scale": ratio.quantile(0.9)})
    return pd.DataFrame(found)


def _half(rows: pd.DataFrame) -> np.ndarray:
    low, high = _ends(rows)
    return (high - low) / 2


def _ends(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows["low"].to_numpy(), rows["high"].to_numpy()


def gemm_coverage(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Ratios of two number types at equal sizes: of one GEMM, and of stacks of four.

    In a mixed stack half of the GEMMs have the other type.
    """
    rows = table[~table["dtype"].isin(NEAR_DOUBLE)]
    for (left_out, device), group in rows.groupby(["left_out", "device"]):
        # A device that was left out must not have its own scale.
        name = str(device) if left_out == "shapes" else ""
        single, stacks, mixed = [], [], []
        for _, cell in group.groupby(["runtime", "cold", "m"]):
            priced = _priced(cell, str(left_out))
            for first, second in combinations(sorted(cell["dtype"].unique()), 2):
                shapes = sorted(priced[first].keys() & priced[second].keys())
                one, other = priced[first], priced[second]
                single += [((one[shape],), (other[shape],)) for shape in shapes]
                for chosen in _stacks(len(shapes)):
                    names = [shapes[index] for index in chosen]
                    whole = tuple(one[shape] for shape in names)
                    stacks.append((whole, tuple(other[shape] for shape in names)))
                    half = [other[shape] for shape in names[: STACK // 2]]
                    mixed.append((whole, (*half, *whole[STACK // 2 :])))
        for kind, pairs in (("gemm", single), ("stack", stacks), ("mixed stack", mixed)):
            if pairs:
                said = {"left_out": left_out, "device": device, "ratio": kind}
                yield said | _scored(pairs, name)


Timed = tuple[PricedKernel, float]
"""A kernel with its measured seconds."""


def _priced(cell: pd.DataFrame, left_out: str) -> dict[str, dict[tuple[int, int], Timed]]:
    """By number type, and by columns and depth."""
    low, high = _ends(cell)
    found: dict[str, dict[tuple[int, int], Timed]] = {}
    for row, below, above in zip(cell.to_dict("records"), low, high, strict=True):
        number, predicted = NUMBER_TYPES[row["dtype"]], row["predicted_s"]
        kernel = Kernel(
            kind="gemm",
            loops=ProductLoops(m=row["m"], n=row["n"], k=row["k"]),
            input_format=number.input,
            weight_format=number.weight,
        )
        cost = KernelCost(
            latency_s=predicted,
            low_s=predicted * np.exp(below),
            high_s=predicted * np.exp(above),
            energy_j=0.0,
            traffic_bytes=0.0,
            bound="compute",
        )
        timed = (PricedKernel(kernel=kernel, cost=cost), row["latency_s"])
        found.setdefault(row["dtype"], {})[row["n"], row["k"]] = timed
    return found


def _stacks(count: int) -> np.ndarray:
    """Indices of shapes, drawn without putting back, (stacks, STACK)."""
    if count < 2 * STACK:
        return np.zeros((0, STACK), dtype=int)
    draws = min(STACKS, count)
    generator = np.random.default_rng(count)
    return np.array([generator.choice(count, STACK, replace=False) for _ in range(draws)])


def _scored(pairs: Sequence[tuple[Sequence[Timed], Sequence[Timed]]], device: str) -> dict:
    gaps, paired, apart = [], [], []
    for first, second in pairs:
        times = [{priced: priced.cost.latency_s for priced, _ in side} for side in (first, second)]
        logs = [np.log(sum(s for _, s in side) / sum(t.values()))
                for side, t in zip((first, second), times, strict=True)]  # fmt: skip
        gaps.append(abs(logs[0] - logs[1]))
        paired.append(half_widths(times, device)[0, 1])
        apart.append(sum(map(_latency_half, times)))
    return _summary(np.array(gaps), np.array(paired), np.array(apart))


def _latency_half(times: Times) -> float:
    """Half-width of a latency whose kernels' ends add up."""
    low, high = (
        sum(seconds * getattr(priced.cost, end) / priced.cost.latency_s
            for priced, seconds in times.items())
        for end in ("low_s", "high_s")
    )  # fmt: skip
    return float(np.log(high / low) / 2)


def _summary(gaps: np.ndarray, paired: np.ndarray, apart: np.ndarray) -> dict[str, float]:
    """Coverage and median high over low, of the paired interval and of the two latencies' own."""
    return {
        "ratios": len(gaps),
        "coverage": float((gaps <= paired).mean()),
        "width": float(np.exp(2 * np.median(paired))),
        "apart_coverage": float((gaps <= apart).mean()),
        "apart_width": float(np.exp(2 * np.median(apart))),
    }


def block_coverage(h100_torch: Path, graphs: Path) -> Iterator[dict[str, object]]:
    """Ratios of every two mixed blocks of one shape, and how many of their orders are right.

    `sure`: ratios whose interval leaves 1 out; `right` and `tied_right`: orders of those, and of
    the others, that are the measured ones.
    """
    frame = pd.read_csv(h100_torch / "mixed.csv.gz").rename(
        columns={"median_us_block": "median_us"}
    )
    every = []
    for key, rows in frame.groupby(SHAPE, sort=False):
        found = list(_block_predictions(rows, graphs))
        times = [one.times for one in found]
        predicted = np.log([one.cost.latency_s * 1e6 for one in found])
        measured = np.log(rows["median_us"].to_numpy())
        first, second = np.triu_indices(len(rows), 1)
        half = half_widths(times, "h100-sxm")[first, second]
        own = np.array([_latency_half(one) for one in times])
        said, true = (log[first] - log[second] for log in (predicted, measured))
        row = (np.abs(said - true), half, own[first] + own[second], said, true)
        every.append(row)
        named: dict[str, object] = dict(zip(SHAPE, key, strict=True))
        yield named | _summary(*row[:3]) | _orders(half, said, true)
    gaps, half, apart, said, true = map(np.concatenate, zip(*every, strict=True))
    every_shape: dict[str, object] = dict.fromkeys(SHAPE, "all")
    yield every_shape | _summary(gaps, half, apart) | _orders(half, said, true)


def _orders(half: np.ndarray, said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    sure, right = np.abs(said) > half, np.sign(said) == np.sign(true)
    return {
        "sure": float(sure.mean()),
        "right": float(right[sure].mean()),
        "tied_right": float(right[~sure].mean()),
    }


def _block_predictions(rows: pd.DataFrame, graphs: Path) -> Iterator[Prediction]:
    graph = None
    for row in rows.to_dict("records"):
        shape = json.loads(str(row["shape"]))
        sizes = "-".join(f"{name.lower()}{shape[name]}" for name in ("B", "S", "L"))
        graph = graph or load(graphs / f"{row['model']}-{shape['phase']}-{sizes}.onnx")
        assignment = Assignment.of(formats({group: str(row[group]) for group in GROUPS}))
        platform = f"h100-sxm:{RUNTIMES[str(row['runtime'])]}"
        usage = Usage(dims={}, detailed=True)
        yield from predict(graph, [platform], [], usage=usage, assignment=assignment)


if __name__ == "__main__":
    main()
