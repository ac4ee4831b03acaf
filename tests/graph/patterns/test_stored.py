"""Tensors between products: which of them a runtime stores for whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def stored(body: str, folder: Path, result: str = "float[N, 8, 4, 4] y") -> dict[str, set[str]]:
    """Sites by region of a graph of 1x1 convolutions."""
    model = onnx.parser.parse_model(f"{HEAD}g (float[N, 8, 4, 4] x) => ({result}) {{ {body} }}")
    names = {name for node in model.graph.node for name in node.input if name[0] == "w"}
    for name in sorted(names):
        shape = (8,) if name == "wb" else (8, 8, 1, 1)
        values = np.random.default_rng(0).standard_normal(shape).astype("f4")
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, folder / "m.onnx")
    found = Analysis(load(folder / "m.onnx")).stored
    assert all(site.role == "stored" for sites in found.values() for site in sites)
    by_region = {name: {site.key for site in sites} for name, sites in found.items()}
    keys = [key for sites in by_region.values() for key in sites]
    assert len(keys) == len(set(keys))
    return by_region


def test_a_chain_stores_what_leaves_it(tmp_path: Path) -> None:
    found = stored("a = Conv (x, w1) b = Relu (a) y = Conv (b, w2)", tmp_path)
    assert list(found.values()) == [{"y/out0"}]


def test_a_sum_reads_what_is_stored_and_two_kernels_read_one_tensor(tmp_path: Path) -> None:
    body = """a = Conv (x, w1) r = Relu (a) b = Conv (r, w2) c = Conv (b, w3) s = Add (r, c)
    t = Relu (s) y = Conv (t, w4)"""
    found = stored(body, tmp_path)
    first, second, last = found.values()
    assert first == {"r/out0"}, "the second convolution reads r first, then the sum"
    assert second == {"s/in0", "s/in1"}
    assert last == {"y/out0"}


def test_one_kernel_that_reads_a_tensor_twice_needs_no_other_place_for_it(tmp_path: Path) -> None:
    body = "a = Conv (x, w1) b = Conv (a, w2) s = Add (a, b) y = Conv (s, w3)"
    keys = set().union(*stored(body, tmp_path).values())
    assert keys == {"s/in0", "s/in1", "y/out0"}


def test_a_stream_that_is_read_before_and_behind_a_relu_is_stored_before_it(
    tmp_path: Path,
) -> None:
    body = "a = Conv (x, w1) r = Relu (a) b = Conv (r, w2) s = Add (a, b) y = Conv (s, w3)"
    keys = set().union(*stored(body, tmp_path).values())
    assert keys == {"a/out0", "s/in0", "s/in1", "y/out0"}


def test_values_that_are_moved_are_stored_once(tmp_path: Path) -> None:
    body = """a = Conv (x, w1) b = Conv (x, w2) p = MaxPool <kernel_shape = [1, 1]> (a)
    c = Add (p, b) y = Conv (c, w3)"""
    keys = set().union(*stored(body, tmp_path).values())
    assert keys == {"c/in0", "c/in1", "y/out0"}


def test_a_bias_beside_a_product_is_part_of_it(tmp_path: Path) -> None:
    found = stored("a = Conv (x, w1) c = Add (a, wb4) y = Conv (c, w2)", tmp_path)
    assert list(found.values()) == [{"y/out0"}]


def test_an_activation_reads_a_stored_tensor(tmp_path: Path) -> None:
    keys = set().union(*stored("a = Conv (x, w1) y = Sigmoid (a)", tmp_path).values())
    assert keys == {"a/out0"}


def test_a_mean_follows_the_product_behind_it(tmp_path: Path) -> None:
    body = "a = Conv (x, w1) p = GlobalAveragePool (a) y = Conv (p, w2)"
    found = stored(body, tmp_path, "float[N, 8, 1, 1] y")
    (keys,) = found.values()
    assert keys == {"p/in0", "y/out0"}


@pytest.mark.parametrize("product", ["Mul", "Sub"])
def test_a_mean_at_the_end_follows_the_product_before_it(product: str, tmp_path: Path) -> None:
    body = f"a = Conv (x, w1) b = {product} (a, x) y = GlobalAveragePool (b)"
    (keys,) = stored(body, tmp_path, "float[N, 8, 1, 1] y").values()
    assert keys == {"b/in0", "b/in1", "y/in0", "y/out0"}
