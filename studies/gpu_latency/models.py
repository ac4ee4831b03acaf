"""Whole networks on an H100: predicted against measured, from their weight-free ONNX graphs.

    python studies/gpu_latency/models.py --h100-torch DIR --graphs DIR -o DIR

`--graphs` is the unpacked `graphs.tar.xz`. The operators of these networks are not in the fit,
apart from shapes that they share with `ops.csv.gz`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from dse.graph.graph import Graph, Initializer, TensorType
from dse.graph.load import load
from dse.graph.lower import lower
from dse.graph.regions import regions
from hwmodels.device_file import load_device
from hwmodels.runtime_file import load_runtime
from hwmodels.table import CostTable, Phase

RUNTIMES = {
    "eager-graph": "torch-eager", "eager-graph-folded": "torch-eager",
    "compile-graph": "torch-compile",
}  # fmt: skip
TABLES = ("models.csv.gz", "models2.csv.gz")
PLAIN = ("bf16", "fp16")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--h100-torch", type=Path, required=True)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    measured = pd.concat([pd.read_csv(arguments.h100_torch / name) for name in TABLES])
    rows = [
        row_of(entry, arguments.graphs)
        for entry in measured.to_dict("records")
        if entry["dtype"] in PLAIN
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(arguments.output / "models.csv", index=False, float_format="%.4g")
    error = frame.groupby(["runtime", "model"])["log_ratio"]
    print(error.agg(["size", "median", lambda x: x.abs().max()]).round(3).to_string())
    for runtime, group in [*frame.groupby("runtime"), ("all", frame)]:
        ratio = np.exp(group["log_ratio"])
        print(
            f"{runtime}: {len(group)} rows, median error {np.median(np.abs(ratio - 1)):.3f}, "
            f"worst {np.abs(ratio - 1).max():.3f}, "
            f"Spearman {group['predicted_us'].corr(group['median_us'], method='spearman'):.3f}"
        )


def row_of(entry: dict[str, object], graphs: Path) -> dict[str, object]:
    """One measured network with its prediction; a Llama graph is one block of `layers`."""
    shape = json.loads(str(entry["shape"]))
    parts = [str(entry["model"]), *([shape["phase"]] if "phase" in shape else [])]
    sizes = [f"{name.lower()}{shape[name]}" for name in ("B", "S", "L") if name in shape]
    graph = with_biases(load(graphs / f"{'-'.join([*parts, *sizes])}.onnx"))
    found = regions(graph)
    table = CostTable.build(
        (Phase(name="call", share=1.0, work=lower(graph, found, {})),),
        {},
        load_device("h100-sxm"),
        load_runtime(RUNTIMES[str(entry["runtime"])]),
    )
    predicted = table.total({}).latency_s * 1e6 * shape.get("layers", 1)
    return {
        **{name: entry[name] for name in ("model", "shape", "dtype", "runtime", "median_us")},
        "predicted_us": predicted,
        "log_ratio": float(np.log(predicted / float(str(entry["median_us"])))),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """A constant without data."""

    name: str
    type: TensorType
    has_data: bool = False

    def numpy(self) -> np.ndarray:
        """Never asked for."""
        raise NotImplementedError


def with_biases(graph: Graph) -> Graph:
    """The graph with a bias at every convolution, as the measured networks have.

    The exporter's optimiser dropped the biases of these randomly initialised networks, which are
    all zero. A row of `eager-graph` has a batch norm where a folded one has the bias: the same
    bytes, a pass over the output.
    """
    initializers: dict[str, Initializer] = dict(graph.initializers)
    types = dict(graph.types)
    nodes = []
    for node in graph.nodes:
        if node.op_type == "Conv" and len(node.inputs) == 2:
            shape = graph.types[node.inputs[1]].shape
            assert shape is not None, "a weight has a shape"
            kind = TensorType(dtype="float32", shape=shape[:1])
            name = f"{node.name}.bias"
            initializers[name], types[name] = Bias(name=name, type=kind), kind
            node = replace(node, inputs=(*node.inputs, name))  # noqa: PLW2901
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), initializers=initializers, types=types)


if __name__ == "__main__":
    main()
