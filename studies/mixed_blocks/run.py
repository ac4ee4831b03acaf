"""Mixed assignments of a Llama block on an H100: predicted order against the measured one.

    cd studies/mixed_blocks; python run.py --h100-torch DIR --graphs DIR -o results

`--graphs` is the unpacked `graphs.tar.xz`. Every row of `mixed.csv.gz` is priced as a user would
(`dse predict GRAPH --assignment A.json`): the graph of one block as it is, one format for each of
its four groups of linear layers. No constant of the model was fitted to these rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from dse.predict import Usage, predict
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer

RUNTIMES = {"eager-graph": "torch-eager", "compile-graph": "torch-compile"}
GROUPS = {
    "qkv": "node_linear", "o": "node_linear_1", "gu": "node_linear_2", "dn": "node_linear_3",
}  # fmt: skip
"""Node of each group in the exported block."""
MODES: dict[str, tuple[str, str]] = {
    "bf16": ("", ""),
    "fp8_static": ("e4m3_tensor", "e4m3_tensor:static"),
    "fp8_dynamic": ("e4m3_tensor", "e4m3_tensor"),
    "int8_static": ("int8", "int8:static"),
}
"""Formats of weight and activation."""
SHAPE = ["runtime", "model", "shape"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--h100-torch", type=Path, required=True)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    frame = pd.read_csv(arguments.h100_torch / "mixed.csv.gz").rename(
        columns={"median_us_block": "median_us"}
    )
    frame["predicted_us"] = list(predictions(frame, arguments.graphs))
    table = pd.DataFrame(
        [{**dict(zip(SHAPE, key, strict=True)), **scores(rows)} for key, rows in
         frame.groupby(SHAPE, sort=False)]
    )  # fmt: skip
    arguments.output.mkdir(parents=True, exist_ok=True)
    columns = [*SHAPE, *GROUPS, "median_us", "predicted_us"]
    frame[columns].to_csv(arguments.output / "blocks.csv", index=False, float_format="%.5g")
    table.to_csv(arguments.output / "shapes.csv", index=False, float_format="%.3g")
    print(table.to_string(index=False, float_format="%.3f"))


def predictions(frame: pd.DataFrame, graphs: Path) -> Iterator[float]:
    """Microseconds of every row."""
    loaded: dict[str, Graph] = {}
    for row in frame.to_dict("records"):
        shape = json.loads(str(row["shape"]))
        sizes = "-".join(f"{name.lower()}{shape[name]}" for name in ("B", "S", "L"))
        name = f"{row['model']}-{shape['phase']}-{sizes}.onnx"
        if name not in loaded:
            loaded[name] = load(graphs / name)
        runtime = RUNTIMES[str(row["runtime"])]
        assignment = Assignment.of(formats({group: str(row[group]) for group in GROUPS}))
        (found,) = predict(
            loaded[name], [f"h100-sxm:{runtime}"], [], usage=Usage(dims={}), assignment=assignment
        )
        yield found.cost.latency_s * 1e6


def formats(modes: dict[str, str]) -> dict[str, Quantizer]:
    """Quantizer by site of a block whose groups run in these modes."""
    return {
        f"{GROUPS[group]}/{operand}": catalog.quantizer(name)
        for group, mode in modes.items()
        for operand, name in zip(("in1", "in0"), MODES[mode], strict=True)
        if name
    }


def scores(rows: pd.DataFrame) -> dict[str, float]:
    """Error, rank correlation, and what the assignments lose that the prediction chooses.

    `regret`: measured time of the row that is predicted the fastest over that of the fastest,
    among all mixed rows. `worst_regret`: the same, the largest among the mixed rows of every set
    of modes, as another quality leaves other modes to choose from.
    """
    ratio = rows["predicted_us"] / rows["median_us"]
    mixed = rows[rows[list(GROUPS)].nunique(axis=1) > 1]
    regrets = [
        _regret(chosen)
        for count in range(2, len(MODES) + 1)
        for modes in combinations(MODES, count)
        if len(chosen := mixed[mixed[list(GROUPS)].isin(modes).all(axis=1)]) > 1
    ]
    return {
        "rows": len(rows),
        "bias": float(np.exp(np.log(ratio).mean()) - 1),
        "mape": float((ratio - 1).abs().mean()),
        "worst": float((ratio - 1).abs().max()),
        "tau": float(kendalltau(rows["predicted_us"], rows["median_us"]).statistic),
        "regret": _regret(mixed),
        "worst_regret": max(regrets),
    }


def _regret(rows: pd.DataFrame) -> float:
    chosen = rows["median_us"].to_numpy()[rows["predicted_us"].to_numpy().argmin()]
    return float(chosen / rows["median_us"].min() - 1)


if __name__ == "__main__":
    main()
