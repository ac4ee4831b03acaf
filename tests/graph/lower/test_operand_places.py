"""Products whose weight stands on the left, or is picked out of a stack; sequences; open ends."""

from collections.abc import Callable

import pytest

from dse.graph.ir.graph import Graph
from dse.graph.lower.work import lower
from dse.graph.patterns.analysis import Analysis
from dse.predict import Usage, predict
from hwmodels.work.work import Op, Work

Graphs = Callable[[str], Graph]

LEFT = """
g (float[n, 8, 4] x) => (float[n, 10, 4] y) <float[10, 8] w> { [mix] y = MatMul (w, x) }
"""
LEFT_GEMM = """
g (float[n, 8] x) => (float[10, n] y) <float[10, 8] w> { [mix] y = Gemm <transB = 1> (w, x) }
"""
LEFT_EINSUM = """
g (float[n, 8] x) => (float[n, 10] y) <float[10, 8] w>
{ [mix] y = Einsum <equation = "ok,nk->no"> (w, x) }
"""
STACK = """
g (float[n, 8] x) => (float[n, 8] y)
<float[3, 8, 8] stack, int64 times = {3}, bool go = {1}>
{
    [turns] y = Loop (times, go, x) <
        body = b (int64 i, bool on, float[n, 8] s) => (bool on2, float[n, 8] r) {
            on2 = Identity (on)
            w = Gather <axis = 0> (stack, i)
            v = Transpose <perm = [1, 0]> (w)
            [mix] r = MatMul (s, v)
        }
    >
}
"""


def work_of(g: Graph, **dims: int) -> Work:
    return lower(Analysis(g), dims)


def op_of(work: Work, name: str = "mix") -> Op:
    return next(op for r in work.regions for op in r.ops if op.name.rpartition("/")[2] == name)


def weight_bytes(g: Graph, *formats: str, **dims: int) -> list[int]:
    found = predict(g, ["h100-sxm:free"], formats, usage=Usage(dims=dims))
    return [one.cost.weight_bytes for one in found]


@pytest.mark.parametrize(("text", "rows"), [(LEFT, 4), (LEFT_GEMM, 2), (LEFT_EINSUM, 2)])
def test_a_weight_on_the_left_is_a_weight(weighted: Graphs, text: str, rows: int) -> None:
    """Users who mix tokens (MLP-Mixer) multiply so; the data's rows are rows of the product."""
    op = op_of(work_of(weighted(text), n=2))
    assert (op.sizes["M"], op.sizes["K"], op.sizes["N"]) == (rows, 8, 10)
    weight, data = op.operand("weight"), op.operand("input")
    assert weight is not None
    assert (weight.value, weight.is_weight) == ("w", True)
    assert data is not None
    assert (data.value, data.is_weight) == ("x", False)


@pytest.mark.parametrize("text", [LEFT, LEFT_GEMM, LEFT_EINSUM])
def test_a_weight_on_the_left_has_the_format_of_weights(weighted: Graphs, text: str) -> None:
    wide, narrow = weight_bytes(weighted(text), "bf16", "int8_channel", n=2)
    assert (wide, narrow) == (160, 80 + 10 * 4)


def test_all_matrices_of_a_stack_are_stored(weighted: Graphs) -> None:
    """A loop over layers picks one matrix an iteration: all three are in memory."""
    g = weighted(STACK)
    wide, narrow = weight_bytes(g, "bf16", "int8_channel", n=2)
    assert (wide, narrow) == (3 * 128, 3 * (64 + 8 * 4))
    work = work_of(g, n=2)
    assert work.notes == ()
    assert work.macs == 3 * 2 * 64


def test_an_iteration_reads_the_matrix_that_it_picks(weighted: Graphs) -> None:
    """Three iterations with a large matrix each take as long as three products with their own."""
    picked = STACK.replace("float[3, 8, 8]", "float[3, 2048, 2048]").replace("[n, 8]", "[n, 2048]")
    alone = """
    g (float[n, 2048] x) => (float[n, 2048] y)
    <float[2048, 2048] a, float[2048, 2048] b, float[2048, 2048] c>
    { p = MatMul (x, a) q = MatMul (p, b) y = MatMul (q, c) }
    """
    times = [
        predict(weighted(text), ["h100-sxm"], ["bf16"], usage=Usage(dims={"n": 2}))[0].cost
        for text in (picked, alone)
    ]
    assert times[0].weight_bytes == times[1].weight_bytes == 3 * 2 * 2048**2
    assert times[0].latency_s == pytest.approx(times[1].latency_s, rel=0.02)


def test_an_lstm_may_give_its_last_state_alone(weighted: Graphs) -> None:
    g = weighted("""
    g (float[5, n, 4] x) => (float[n, 3] y)
    <float[1, 24, 4] w, float[1, 24, 6] r, float[6, 3] v, int64[1] first = {0}>
    {
        [cell] "", last = LSTM <hidden_size = 6> (x, w, r)
        state = Squeeze (last, first)
        [head] y = MatMul (state, v)
    }
    """)
    work = work_of(g, n=2)
    assert work.macs == 5 * 2 * (4 + 6) * 24 + 2 * 18
    assert {o.value for region in work.regions for o in region.writes} == {"last", "y"}


def test_the_last_states_are_written_beside_all_others(weighted: Graphs) -> None:
    g = weighted("""
    g (float[5, n, 4] x) => (float[5, n, 3] y, float[n, 3] z)
    <float[1, 18, 4] w, float[1, 18, 6] r, float[6, 3] v, int64[1] first = {0}, int64[1] d = {1}>
    {
        [cell] all, last = GRU <hidden_size = 6> (x, w, r)
        states = Squeeze (all, d)
        y = MatMul (states, v)
        state = Squeeze (last, first)
        z = MatMul (state, v)
    }
    """)
    written = {o.value for region in work_of(g, n=2).regions for o in region.writes}
    assert written == {"all", "last", "y", "z"}


def test_a_sequence_of_tensors_is_priced_by_its_members(weighted: Graphs) -> None:
    g = weighted("""
    g (float[n, 8] x) => (float[n, 4] y)
    <float[8, 6] a, float[8, 6] b, float[12, 4] c>
    {
        p = MatMul (x, a)
        q = MatMul (x, b)
        parts = SequenceConstruct (p, q)
        [join] whole = ConcatFromSequence <axis = 1> (parts)
        [head] y = MatMul (whole, c)
    }
    """)
    work = work_of(g, n=2)
    assert work.macs == 2 * (48 + 48 + 48)
    assert {o.value for o in op_of(work, "join").operands} == {"p", "q", "whole"}
    assert weight_bytes(g, "bf16", n=2) == [2 * 3 * 48]
