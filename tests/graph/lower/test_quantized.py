"""Products that were quantized before have a format already: a price, nothing to choose."""

from __future__ import annotations

from collections.abc import Callable

from dse.graph.ir.graph import Graph
from dse.graph.lower.work import lower
from dse.graph.patterns.analysis import Analysis

Graphs = Callable[[str], Graph]

MODEL = """
g (float[4, 64] x) => (float[4, 8] y)
<float[32, 8] head, uint8[64, 32] codes>
{
    q, s, z = DynamicQuantizeLinear (x)
    [int] product = MatMulInteger (q, codes, z)
    wide = Cast <to = 1> (product)
    real = Mul (wide, s)
    [fc] y = MatMul (real, head)
}
"""


def test_integer_products_have_no_sites_and_are_named(weighted: Graphs) -> None:
    analysis = Analysis(weighted(MODEL))
    assert analysis.quantized == ("int",)
    assert {site.node for site in analysis.sites} == {"fc"}
    assert "quantized already, priced as it is: int" in lower(analysis, {}).notes


def test_their_operands_are_eight_bits_wide_and_nothing_converts_them(weighted: Graphs) -> None:
    work = lower(Analysis(weighted(MODEL)), {})
    (op,) = (op for region in work.regions for op in region.ops if op.name == "int")
    assert op.macs == 4 * 64 * 32
    by_name = {operand.name: operand for operand in op.operands}
    for name in ("input", "weight"):
        quantizer = by_name[name].quantizer
        assert quantizer is not None
        assert quantizer.format.element.bits == 8
        assert by_name[name].is_stored
    assert by_name["weight"].elements == 64 * 32


def test_a_weight_that_no_region_holds_is_named_with_its_bytes(weighted: Graphs) -> None:
    g = weighted("""
    g (float[4, 64] x) => (float[4, 8] y)
    <float[64, 8] w, float[100, 3, 5] odd>
    {
        m = MatMul (x, w)
        [own] y = com.example.Layer (m, odd)
    }
    """)
    (note,) = lower(Analysis(g), {}).notes
    assert note == "own (Layer): not priced: no region holds its weights (odd), 3000 bytes"


def test_the_scales_of_a_batch_norm_are_held(weighted: Graphs) -> None:
    g = weighted("""
    g (float[2, 3, 8, 8] x) => (float[2, 128, 8, 8] y)
    <float[128, 3, 1, 1] w, float[128] scale, float[128] bias, float[128] mean, float[128] var>
    {
        c = Conv (x, w)
        [norm] b = BatchNormalization (c, scale, bias, mean, var)
        y = Relu (b)
    }
    """)
    work = lower(Analysis(g), {})
    assert work.notes == ()
    (op,) = (op for region in work.regions for op in region.ops if op.name == "norm")
    held = {operand.value: operand.elements for operand in op.operands if operand.is_weight}
    assert held == {"scale": 128, "bias": 128, "mean": 128, "var": 128}


def test_a_class_token_is_held(weighted: Graphs) -> None:
    g = weighted("""
    g (float[1, 4, 96] x) => (float[1, 5, 96] y)
    <float[1, 1, 96] token>
    { [all] y = Concat <axis = 1> (token, x) }
    """)
    assert lower(Analysis(g), {}).notes == ()
