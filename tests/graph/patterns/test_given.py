"""Formats that a model's operands come in, read off the nodes that state them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dse.graph.ir.graph import Graph
from dse.graph.patterns.analysis import Analysis

Graphs = Callable[[str], Graph]


def formats(graph: Graph) -> dict[str, str]:
    return {f"{n}/in{at}": g.quantizer.name for (n, at), g in Analysis(graph).given.items()}


def pairs(zero: str, codes: str = "uint8", scale: str = "s") -> str:
    return f"""
    g (float[4, 64] x) => (float[4, 8] y)
    <{codes}[64, 8] w, float s = {{0.1}}, float[8] by_row, {codes} z = {{{zero}}}, uint8 n = {{3}}>
    {{
        q = QuantizeLinear (x, s, n)
        d = DequantizeLinear (q, s, n)
        v = DequantizeLinear <axis = 1> (w, {scale}, z)
        [fc] y = MatMul (d, v)
    }}
    """


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        (pairs("0", "int8"), "int8"),
        (pairs("5", "int8"), "uint8"),  # the same codes, 128 higher
        (pairs("128"), "int8"),  # around the middle: signed
        (pairs("7"), "uint8"),
        (pairs("0", "int16"), "int16"),
    ],
)
def test_a_zero_point_of_its_own_makes_codes_unsigned(
    weighted: Graphs, text: str, weight: str
) -> None:
    assert formats(weighted(text)) == {"fc/in0": "uint8:static", "fc/in1": weight}


def test_scales_along_the_columns_of_a_weight_are_its_channels(weighted: Graphs) -> None:
    text = pairs("0", "int8", "by_row").replace(", z)", ")")
    assert formats(weighted(text))["fc/in1"] == "int8_channel"


def test_scales_along_the_summed_axis_are_no_format(weighted: Graphs) -> None:
    text = pairs("0", "int8", "by_row").replace(", z)", ")").replace("axis = 1", "axis = 0")
    text = text.replace("[64, 8] w", "[8, 8] w").replace("[4, 64]", "[4, 8]")
    analysis = Analysis(weighted(text))
    # Nor is the product one of integers then, though its input is rounded.
    assert (analysis.given, analysis.rounded) == ({}, ("fc",))


def test_scales_follow_a_transposed_weight(weighted: Graphs) -> None:
    g = weighted("""
    g (float[4, 64] x) => (float[4, 64] y) <int8[64, 64] w, float[64] s>
    {
        v = DequantizeLinear <axis = 0> (w, s)
        t = Transpose <perm = [1, 0]> (v)
        [fc] y = MatMul (x, t)
        [odd] o = MatMul (x, v)
    }
    """)
    assert formats(g) == {"fc/in1": "int8_channel"}


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("float16", "int4_g32"), ("float", "int4@g32/fp32")],
)
def test_blocks_are_groups_with_scales_of_their_own_type(
    weighted: Graphs, scale: str, expected: str
) -> None:
    g = weighted(f"""
    <ir_version: 10, opset_import: ["" : 21]>
    g ({scale}[4, 64] x) => ({scale}[4, 8] y) <int4[64, 8] w, {scale}[2, 8] s>
    {{
        v = DequantizeLinear <axis = 0, block_size = 32> (w, s)
        [fc] y = MatMul (x, v)
    }}
    """)
    assert formats(g) == {"fc/in1": expected}


def test_scales_of_scales_are_the_two_levels_of_nvfp4(weighted: Graphs) -> None:
    g = weighted("""
    <ir_version: 11, opset_import: ["" : 23]>
    g (float[4, 64] x) => (float[4, 8] y)
    <float4e2m1[64, 8] w, float8e4m3fn[4, 8] codes, float s = {0.1}>
    {
        scales = DequantizeLinear (codes, s)
        v = DequantizeLinear <axis = 0, block_size = 16> (w, scales)
        [fc] y = MatMul (x, v)
    }
    """)
    assert formats(g) == {"fc/in1": "nvfp4"}


def test_operators_over_integers_name_their_scales(weighted: Graphs) -> None:
    g = weighted(
        """
    g (float[1, 4, 8, 8] x) => (float[1, 6, 8, 8] y)
    <uint8[6, 4, 1, 1] w, float s = {0.1}, float[6] by_channel,
     uint8 z = {3}, uint8 middle = {128}>
    {
        q = QuantizeLinear (x, s, z)
        [conv] c = QLinearConv (q, s, z, w, by_channel, middle, s, z)
        [again] a = QLinearConv (c, s, z, other, s, z, s, middle)
        y = DequantizeLinear (a, s, middle)
    }
    """.replace("uint8[6, 4, 1, 1] w", "uint8[6, 4, 1, 1] w, uint8[6, 6, 1, 1] other")
    )
    assert formats(g) == {
        "conv/in0": "uint8:static", "conv/in3": "int8_channel",
        "again/in0": "uint8:static", "again/in3": "uint8",
    }  # fmt: skip
    assert all(given.is_stored for given in Analysis(g).given.values())


def test_a_pair_is_inside_where_only_products_read_it_through_moves(weighted: Graphs) -> None:
    g = weighted("""
    g (float[4, 8, 8] x) => (float[4, 8] y, float[4, 8, 8] z)
    <int8[64, 8] w, float s = {0.1}, int8 n = {0}, int64[2] flat = {4, 64}>
    {
        [q1] a = QuantizeLinear (x, s, n)
        [d1] b = DequantizeLinear (a, s, n)
        [r] c = Reshape (b, flat)
        [q2] d = QuantizeLinear (c, s, n)
        [d2] e = DequantizeLinear (d, s, n)
        [dw] v = DequantizeLinear (w, s, n)
        [fc] y = MatMul (e, v)
        [q3] f = QuantizeLinear (x, s, n)
        [d3] h = DequantizeLinear (f, s, n)
        [relu] z = Relu (h)
    }
    """)
    given = Analysis(g).given["fc", 0]
    assert given.inside == {"q1", "d1", "q2", "d2"}
    assert not given.is_stored


def test_codes_that_something_else_reads_are_a_tensor_of_their_own(weighted: Graphs) -> None:
    g = weighted("""
    g (float[4, 64] x) => (float[4, 8] y, int8[4, 64] a)
    <int8[64, 8] w, float s = {0.1}, int8 n = {0}>
    {
        [q] a = QuantizeLinear (x, s, n)
        [d] b = DequantizeLinear (a, s, n)
        v = DequantizeLinear (w, s, n)
        [fc] y = MatMul (b, v)
    }
    """)
    given = Analysis(g).given["fc", 0]
    assert given.inside == {"d"}
    assert given.is_stored


def test_a_signal_begins_at_a_table_of_codes_as_at_one_of_floats(weighted: Graphs) -> None:
    """ONNX Runtime's dynamic quantization dequantizes rows behind the look-up, not the table."""
    g = weighted("""
        g (int64[batch, 8] x) => (float[batch, 8, 5] y)
        <int8[30, 16] table, float scale, int8[16, 5] w, int8 zero> {
            rows = Gather(table, x)
            f = DequantizeLinear(rows, scale)
            q, s, z = DynamicQuantizeLinear(f)
            sum = MatMulInteger(q, w, z, zero)
            real = Cast <to = 1> (sum)
            y = Mul(real, s)
        }""")
    kinds = [region.kind for region in Analysis(g).regions]
    assert kinds[0] == "embedding"
    assert "gemm" in kinds


def test_products_of_bytes_are_grouped_though_no_signal_reaches_them(
    weighted: Graphs,
) -> None:
    g = weighted("""
        g (uint8[batch, 16] x) => (float[batch, 4] y)
        <float[16, 8] gate, float[16, 8] up, float[8, 4] down> {
            f = Cast <to = 1> (x)
            a = MatMul(f, gate)
            b = MatMul(f, up)
            h = Mul(a, b)
            y = MatMul(h, down)
        }""")
    assert [region.name for region in Analysis(g).regions][:2] == ["gate_up", "down"]
