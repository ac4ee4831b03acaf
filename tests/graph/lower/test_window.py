"""A sliding window in a mask bounds what an attention keeps, reads and multiplies."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, parser

from dse.graph.lower.work import lower
from dse.graph.onnx.load import load
from dse.graph.patterns.analysis import Analysis
from hwmodels.work.loops import AttentionLoops
from hwmodels.work.work import Op

MODEL = """
<ir_version: 9, opset_import: ["" : 20]>
g (float[1, 2, S, 8] q, float[1, 2, P, 8] past, float[1, 2, S, 8] k, float[1, 2, T, 8] v)
  => (float[1, 2, S, 8] y)
<int64 zero = {{0}}, int64 one = {{1}}, int64[1] rows = {{1}}, int64[1] first = {{0}},
 int64 size = {{{size}}}, float kept = {{0}}, float dropped = {{-1e30}}, int64[1] two = {{2}}>
{{
  keys = Concat<axis = 2>(past, k)
  turned = Transpose<perm = [0, 1, 3, 2]>(keys)
  scores = MatMul(q, turned)
  n_new = Shape<start = 2, end = 3>(q)
  n_old = Shape<start = 2, end = 3>(past)
  n_all = Shape<start = 2, end = 3>(keys)
  s = Squeeze(n_new)
  p = Squeeze(n_old)
  t = Squeeze(n_all)
  at = Range(zero, s, one)
  query_at = Add(at, p)
  query = Unsqueeze(query_at, rows)
  key_at = Range(zero, t, one)
  key = Unsqueeze(key_at, first)
  causal = LessOrEqual(key, query)
  {window}
  seen = And(near, causal)
  mask = Where(seen, kept, dropped)
  masked = Add(scores, mask)
  share = Softmax<axis = -1>(masked)
  y = MatMul(share, v)
}}
"""
SPELLINGS = {
    "key > query - 4": (4, "low = Sub(query, size)\n near = Greater(key, low)"),
    "query - 3 <= key": (3, "low = Sub(query, size)\n near = LessOrEqual(low, key)"),
    "key + 4 > query": (4, "high = Add(key, size)\n near = Greater(high, query)"),
}


def attention(tmp_path: Path, size: int, window: str, **dims: int) -> Op:
    model = parser.parse_model(MODEL.format(size=size, window=window))
    onnx.save(model, tmp_path / "model.onnx")
    work = lower(Analysis(load(tmp_path / "model.onnx")), {**dims, "T": dims["S"] + dims["P"]})
    ops = [op for region in work.regions for op in region.ops if op.kind == "attention"]
    return ops[0]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_window_is_read_off_the_mask(spelling: str, tmp_path: Path) -> None:
    op = attention(tmp_path, *SPELLINGS[spelling], S=1, P=9)
    assert (op.sizes["L"], op.sizes["window"]) == (10, 4)
    key = op.operand("k")
    assert key is not None
    assert key.shape == (1, 2, 4, 8)


CHUNKS = {
    "key // 4 == query // 4": "a = Div(key, size)\n b = Div(query, size)\n near = Equal(a, b)",
    "as torch writes it": """
        a = Div(query, size)
        rest = Mod(query, size)
        below = Less(rest, zero)
        off = Cast<to = 7>(below)
        c = Sub(a, off)
        b = Div(key, size)
        near = Equal(c, b)""",
}


@pytest.mark.parametrize("spelling", CHUNKS)
def test_a_chunk_is_read_off_the_mask(spelling: str, tmp_path: Path) -> None:
    """Llama 4's layers but every fourth: positions of one chunk see each other alone."""
    op = attention(tmp_path, 4, CHUNKS[spelling], S=1, P=9)
    assert (op.sizes["L"], op.sizes["window"]) == (10, 4)


def test_other_equalities_are_no_chunks(tmp_path: Path) -> None:
    unlike = "a = Div(key, size)\n b = Div(query, one)\n near = Equal(a, b)"
    assert "window" not in attention(tmp_path, 4, unlike, S=1, P=9).sizes
    plain = "near = Equal(key, query)"
    assert "window" not in attention(tmp_path, 4, plain, S=1, P=9).sizes


def test_a_mask_that_lets_older_keys_through_is_no_window(tmp_path: Path) -> None:
    op = attention(tmp_path, 4, "low = Sub(query, size)\n near = Less(key, low)", S=1, P=9)
    assert "window" not in op.sizes


def test_a_context_shorter_than_the_window_is_unbounded(tmp_path: Path) -> None:
    op = attention(tmp_path, *SPELLINGS["key > query - 4"], S=1, P=2)
    assert "window" not in op.sizes


def test_local_attention_of_a_fused_operator_is_a_window(tmp_path: Path) -> None:
    shape = ["B", "S", 16]
    node = helper.make_node(
        "GroupQueryAttention", ["q", "k", "v", "pk", "pv", "lengths", "total"], ["y", "nk", "nv"],
        domain="com.microsoft", num_heads=2, kv_num_heads=2, local_window_size=4, name="att",
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "g",
        [
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "qkv"),
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 2, "P", 8])
              for n in ("pk", "pv")),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
            helper.make_tensor_value_info("total", TensorProto.INT32, []),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 2, "P + S", 8])
              for n in ("nk", "nv")),
        ],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "model.onnx")
    work = lower(Analysis(load(tmp_path / "model.onnx")), {"B": 1, "S": 1, "P": 9})
    (op,) = [op for region in work.regions for op in region.ops if op.kind == "attention"]
    assert op.sizes["window"] == 4


@pytest.mark.parametrize(("queries", "keys", "window"), [(1, 10, 4), (10, 10, 4), (3, 10, None),
                                                         (5, 8, 6), (10, 10, None)])  # fmt: skip
def test_pairs_are_those_of_the_mask(queries: int, keys: int, window: int | None) -> None:
    loops = AttentionLoops(
        batch=1, heads=1, kv_heads=1, queries=queries, keys=keys, depth=1, causal=True,
        window=window,
    )  # fmt: skip
    seen = [min(position + 1, window or keys) for position in range(keys - queries, keys)]
    assert loops.macs == 2 * sum(seen)
