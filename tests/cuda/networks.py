"""Networks measured on a device: what stands at which site, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from torch import Tensor

from dse.evaluate.evaluator import Evaluator
from dse.evaluate.setup import build_evaluator
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from dse.space.schema import Data
from dse.space.uniform import uniform_assignment
from dse.zoo.split import Split, Splits

CONVOLUTIONAL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 8, 6, 6] x) => (float[N, 10] y)
<float[12, 8, 3, 3] w0, float[12] b0, float[16, 6, 3, 3] w1, float[16] b1, float[24, 16] w2,
 float[24] b2, float[24, 10] w3, int64[2] shape = {-1, 16}> {
  [first] c = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
  r = Relu(c)
  [grouped] d = Conv <group = 2, strides = [2, 2], pads = [1, 0, 2, 1]> (r, w1, b1)
  s = Relu(d)
  p = GlobalAveragePool(s)
  f = Reshape(p, shape)
  [gemm] t = Gemm <transB = 1> (f, w2, b2)
  u = Relu(t)
  [matmul] y = MatMul(u, w3)
}
"""
RECURRENT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 5, 12] x) => (float[N, 5, 16] y)
<float[2, 64, 12] w0, float[2, 64, 16] r0, float[2, 128] b0,
 float[1, 48, 32] w1, float[1, 48, 16] r1, int64[3] merged = {0, 0, -1}, int64[1] one = {1},
 float gain = {8.0}> {
  t = Transpose <perm = [1, 0, 2]> (x)
  [lstm] h = LSTM <hidden_size = 16, direction = "bidirectional"> (t, w0, r0, b0)
  m = Transpose <perm = [0, 2, 1, 3]> (h)
  q = Reshape(m, merged)
  [gru] g = GRU <hidden_size = 16, linear_before_reset = 1> (q, w1, r1)
  s = Squeeze(g, one)
  l = Transpose <perm = [1, 0, 2]> (s)
  y = Mul(l, gain)
}
"""
ATTENTION = """
<ir_version: 10, opset_import: ["" : 23]>
g (float[N, 6, 16] x) => (float[N, 6, 16] y)
<float[16, 16] wq, float[16, 16] wk, float[16, 16] wv, float[16, 16] wo> {
  [q] q = MatMul(x, wq)
  [k] k = MatMul(x, wk)
  [v] v = MatMul(x, wv)
  [attention] a = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (q, k, v)
  [o] o = MatMul(a, wo)
  y = Add(o, x)
}
"""
NETWORKS = {"convolutional": CONVOLUTIONAL, "recurrent": RECURRENT, "attention": ATTENTION}
SAMPLES = 8
METHODS = {
    "nearest": "absmax:uncorrected",
    "mse": "mse:uncorrected",
    "output_mse": "output_mse:uncorrected",
    "bias correction": "absmax:bias_corrected",
    "GPTQ": "gptq",
    "DiscQuant": "discquant",
    "equalisation": "equalize:absmax:uncorrected",
}
"""What can be done about the weights of a scheme, as words behind its name."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A graph with data for it."""

    analysis: Analysis
    splits: Splits

    @property
    def graph(self) -> Graph:
        """The graph."""
        return self.analysis.graph

    def assignment(self, name: str) -> Assignment:
        """A scheme or a format wherever it can stand."""
        return uniform_assignment(self.analysis.regions, name)

    def evaluator(self, chosen: Assignment, device: str) -> Evaluator:
        """What measures an assignment on a device."""
        data = Data(source="given", calibration=SAMPLES, search=SAMPLES, report=2, batch=4)
        by_key = {site.key: site for site in self.analysis.sites}
        return build_evaluator(
            self.analysis, data, by_key, tuple(chosen), compute=device, splits=self.splits
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a network gives on a device."""

    reference: Tensor
    """The output in full precision, on the host."""
    quantized: Tensor
    loss: float

    def difference(self, other: Outcome) -> float:
        """How far two devices' quantized outputs are apart, as a share of what quantizing did."""
        norm = torch.linalg.vector_norm
        apart = norm(self.quantized - other.quantized)
        return float(apart / norm(other.quantized - other.reference))


def outcome(network: Network, chosen: Assignment, device: str) -> Outcome:
    """What an assignment makes of the first output, over the search split at once."""
    evaluator = network.evaluator(chosen, device)
    inputs = network.splits.search.inputs
    feeds = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
    name = network.graph.outputs[0]
    with torch.inference_mode():
        reference = evaluator.program.run(feeds).outputs[name]
        quantized = evaluator.program.run(feeds, evaluator.bound(chosen)).outputs[name]
    return Outcome(
        reference=reference.cpu(), quantized=quantized.cpu(), loss=evaluator.measure(chosen).loss
    )


@cache
def network(name: str) -> Network:
    """One of `NETWORKS`, with random weights and data."""
    model = onnx.parser.parse_model(NETWORKS[name])
    rng = np.random.default_rng(0)
    for declared in model.graph.value_info:  # weights without values
        shape = _dims(declared)
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32), declared.name)
        model.graph.initializer.append(tensor)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        onnx.save(model, path)
        graph = load(path)
    (fed,) = model.graph.input
    *positions, classes = _dims(model.graph.output[0])[1:]

    def split(count: int) -> Split:
        values = rng.standard_normal((count, *_dims(fed)[1:])).astype(np.float32) + 0.5
        labels = rng.integers(0, classes, (count, *positions))
        return Split(inputs={fed.name: values.astype(np.float32)}, labels=labels, kind="images")

    splits = Splits(calibration=split(SAMPLES), search=split(SAMPLES), report=split(2))
    return Network(analysis=Analysis(graph), splits=splits)


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
