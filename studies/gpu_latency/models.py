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

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph, Initializer, Node, TensorType
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.predict import Usage, predict
from hwmodels.formats import catalog

RUNTIMES = {
    "eager-graph": "torch-eager", "eager-graph-folded": "torch-eager",
    "compile-graph": "torch-compile",
}  # fmt: skip
TABLES = ("models.csv.gz", "models2.csv.gz")
PLAIN = ("bf16", "fp16")
WIDE = ("fp32", "tf32")
QUANTISED = {
    "fp8_static": {"in1": "e4m3_tensor", "in0": "e4m3_tensor:static"},
    "fp8_dynamic": {"in1": "e4m3_tensor", "in0": "e4m3_tensor"},
    "int8_static": {"in1": "int8", "in0": "int8:static"},
    "w4a16": {"in1": "int4_g128"},
}
"""Formats of the linear layers of a block."""
LINEAR = ("qkv", "o", "gate_up", "down")
BATCH_NORM = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121")
NORM_PARTS = ("scale", "bias", "mean", "variance")
MASK = "expand_2"
"""What the exporter calls the mask of BERT (`bidirectional_mask_function`: everything)."""
CONV_INPUTS = 2
"""Of a convolution without bias."""


def _farthest(errors: pd.Series) -> float:
    return float(errors.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--h100-torch", type=Path, required=True)
    parser.add_argument("--graphs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    measured = pd.concat([pd.read_csv(arguments.h100_torch / name) for name in TABLES])
    rows = [
        row_of({str(name): value for name, value in entry.items()}, arguments.graphs)
        for entry in measured.to_dict("records")
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(arguments.output / "models.csv", index=False, float_format="%.4g")
    plain = frame[frame["dtype"].isin(PLAIN)]
    error = plain.groupby(["runtime", "model"])["log_ratio"]
    print(error.agg(["size", "median", _farthest]).round(3).to_string())
    groups = [(str(name), group) for name, group in plain.groupby("runtime")]
    others = frame[~frame["dtype"].isin(PLAIN)].groupby(["runtime", "dtype"])
    groups += [("16 bit", plain), *((" ".join(map(str, key)), group) for key, group in others)]
    for runtime, group in groups:
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
    folded = entry["runtime"] != "eager-graph"
    graph = load(graphs / f"{'-'.join([*parts, *sizes])}.onnx")
    graph = as_timed(graph, str(entry["model"]), folded=folded)
    dtype = str(entry["dtype"])
    (found,) = predict(
        graph,
        [f"h100-sxm:{RUNTIMES[str(entry['runtime'])]}"],
        [dtype] if dtype in WIDE else [],
        usage=Usage(dims={}),
        assignment=linear_layers(graph, QUANTISED[dtype]) if dtype in QUANTISED else None,
    )
    predicted = found.cost.latency_s * 1e6 * shape.get("layers", 1)
    return {
        **{name: entry[name] for name in ("model", "shape", "dtype", "runtime", "median_us")},
        "predicted_us": predicted,
        "log_ratio": float(np.log(predicted / float(str(entry["median_us"])))),
    }


def linear_layers(graph: Graph, formats: dict[str, str]) -> Assignment:
    """One format an operand for all linear layers of a block."""
    return Assignment.of(
        {
            site.key: catalog.quantizer(formats[site.operand])
            for region in Analysis(graph).regions
            if region.role in LINEAR
            for site in region.sites
            if site.operand in formats
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A constant without data."""

    name: str
    type: TensorType
    has_data: bool = False
    where: str = "nowhere"

    def numpy(self) -> np.ndarray:
        """Never asked for."""
        raise NotImplementedError

    def tobytes(self) -> bytes:
        """None."""
        return b""


def as_timed(graph: Graph, model: str, *, folded: bool) -> Graph:
    """The graph with what its convolutions had when they were timed.

    The exporter folded batch norms, and its optimiser dropped the biases of these randomly
    initialised networks, which are all zero. Rows of `eager-graph` have the norms, the others
    biases in their place; what else has a bias is the architecture's (torchvision).
    """
    initializers: dict[str, Initializer] = dict(graph.initializers)
    types = dict(graph.types)
    nodes: list[Node] = []

    def vector(name: str, weight: str) -> str:
        shape = types[weight].shape
        assert shape is not None, "a weight has a shape"
        kind = TensorType(dtype="float32", shape=shape[:1])
        initializers[name], types[name] = Constant(name=name, type=kind), kind
        return name

    for node in graph.nodes:
        if node.op_type != "Conv" or len(node.inputs) > CONV_INPUTS:
            nodes.append(node)
            continue
        weight, (output,) = node.inputs[1], node.outputs
        normed = model in BATCH_NORM and _is_normed(graph, model, node)
        if normed and not folded:
            raw = f"{output}.conv"
            types[raw] = types[output]
            parameters = [vector(f"{node.name}.{part}", weight) for part in NORM_PARTS]
            norm = Node(
                name=f"{node.name}.norm", op_type="BatchNormalization", domain="",
                inputs=(raw, *parameters), outputs=(output,),
            )  # fmt: skip
            nodes += [replace(node, outputs=(raw,)), norm]
        elif normed or model != "densenet121":
            bias = vector(f"{node.name}.bias", weight)
            nodes.append(replace(node, inputs=(*node.inputs, bias)))
        else:
            nodes.append(node)
    timed = replace(graph, nodes=tuple(nodes), initializers=initializers, types=types)
    return with_expanded_mask(timed) if model == "bert_base" else timed


def with_expanded_mask(graph: Graph) -> Graph:
    """BERT's graph with its mask as transformers makes it: one value a query, expanded.

    The exporter folded the mask into a constant where it is small.
    """
    if MASK not in graph.initializers:
        return graph
    mask = graph.initializers[MASK]
    shape = mask.type.shape
    assert shape is not None, "a constant has a shape"
    kind = replace(mask.type, shape=(*shape[:-1], 1))
    queries = Constant(name=f"{MASK}.queries", type=kind)
    node = Node(
        name=f"{MASK}.expand", op_type="Expand", domain="",
        inputs=(queries.name,), outputs=(MASK,),
    )  # fmt: skip
    kept = {name: value for name, value in graph.initializers.items() if name != MASK}
    return replace(
        graph,
        nodes=(node, *graph.nodes),
        initializers={**kept, queries.name: queries},
        types={**graph.types, queries.name: kind},
    )


def _is_normed(graph: Graph, model: str, node: Node) -> bool:
    """Whether a batch norm followed the convolution.

    Not in squeeze-and-excitation (maps of one pixel); in DenseNet, whose other norms stand before
    their convolution and are in the graph, only between a convolution and its activation.
    """
    (output,) = node.outputs
    if model == "densenet121":
        readers = [other for other in graph.nodes if output in other.inputs]
        return all(reader.op_type == "Relu" for reader in readers)
    shape = graph.types[output].shape
    return shape is not None and shape[-1] != 1


if __name__ == "__main__":
    main()
