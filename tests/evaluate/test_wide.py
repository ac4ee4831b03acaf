"""Networks whose products are all of 32 bits: values between them have 32, too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.graph.onnx.load import load
from dse.predict import IN_FULL, Prediction, Usage, predict
from hwmodels.formats import catalog

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[8, 16, 16, 16] image) => (float[8, 32, 16, 16] maps)
{
    [first] a = Conv <pads = [1, 1, 1, 1]> (image, stem)
    [relu] r = Relu (a)
    [second] maps = Conv <pads = [1, 1, 1, 1]> (r, body)
}
"""
WEIGHTS = {"stem": (16, 16, 3, 3), "body": (32, 16, 3, 3)}
SITES = ("first/in0", "first/in1", "second/in0", "second/in1")


@pytest.fixture(name="graph", scope="module")
def graph_fixture(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    model = onnx.parser.parse_model(MODEL)
    for name, shape in WEIGHTS.items():
        values = np.ones(shape, dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = tmp_path_factory.mktemp("wide") / "maps.onnx"
    onnx.save(model, path)
    return load(path)


def priced(
    graph: Graph, target: str, *formats: str, sites: dict[str, str] | None = None
) -> list[Prediction]:
    """Predictions of formats, then of an assignment."""
    quantizers = {site: catalog.quantizer(name) for site, name in (sites or {}).items()}
    assignment = Assignment.of(quantizers) if quantizers else None
    return list(predict(graph, [target], formats, usage=Usage(dims={}), assignment=assignment))


@pytest.mark.parametrize("format", ["fp32", "tf32"])
def test_values_between_products_of_32_bits_have_32(graph: Graph, format: str) -> None:
    """Maps of 8 x 16 x 16 x 16 in, 8 x 32 x 16 x 16 out: two and four bytes an element."""
    narrow, wide = priced(graph, "h100-sxm:torch-eager", "bf16", format)
    largest = 8 * 16 * 16 * (16 + 32)
    assert (narrow.cost.peak_bytes, wide.cost.peak_bytes) == (2 * largest, 4 * largest)
    assert wide.cost.status == "native"
    assert IN_FULL in wide.remarks
    assert IN_FULL not in narrow.remarks


def test_an_assignment_that_names_every_product_is_the_same_network(graph: Graph) -> None:
    by_format, by_site = priced(
        graph, "h100-sxm:torch-eager", "fp32", sites=dict.fromkeys(SITES, "fp32")
    )
    assert by_site.cost.latency_s == by_format.cost.latency_s
    assert by_site.remarks == by_format.remarks


def test_one_product_in_16_bits_leaves_the_network_in_16(graph: Graph) -> None:
    sites = dict.fromkeys(SITES, "fp32") | dict.fromkeys(SITES[:2], "bf16")
    plain, mixed = priced(graph, "h100-sxm:torch-eager", "bf16", sites=sites)
    assert mixed.cost.peak_bytes == plain.cost.peak_bytes
    assert IN_FULL not in mixed.remarks


def test_what_runs_in_16_bits_is_priced_in_16(graph: Graph) -> None:
    """vLLM has no kernel for fp32: the products run in bf16, and nothing is wider than that."""
    plain, asked, other = priced(graph, "h100-sxm:vllm", "bf16", "fp32", "w8a8_fp8")
    assert [one.format for one in (plain, asked, other)] == ["bf16", "fp32", "w8a8_fp8"]
    assert asked.cost.status == "emulated"
    assert asked.cost.latency_s == plain.cost.latency_s
    assert IN_FULL not in asked.remarks
