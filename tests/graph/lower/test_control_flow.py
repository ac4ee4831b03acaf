"""What stands in the bodies of If, Loop and Scan has regions, sites and a price."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dse.errors import GraphError
from dse.graph.ir.graph import Graph
from dse.graph.lower.work import lower
from dse.graph.onnx.shapes import bind_sizes
from dse.graph.patterns.analysis import Analysis
from hwmodels.work.work import RegionWork

Graphs = Callable[[str], Graph]

BRANCHES = """
g (float[n, 64] x, bool use) => (float[n, 8] y)
<float[64, 32] a, float[32, 8] b, float[64, 8] c>
{
    [pick] y = If (use) <
        then_branch = t () => (float[n, 8] p) { [up] m = MatMul (x, a) [down] p = MatMul (m, b) },
        else_branch = e () => (float[n, 8] p) { [up] p = MatMul (x, c) }
    >
    [act] z = Relu (y)
}
"""

LOOP = """
g (float[n, 16] x) => (float[n, 16] y)
<float[16, 16] w, int64 times = {12}, bool go = {1}>
{
    [turns] y = Loop (times, go, x) <
        body = b (int64 i, bool on, float[n, 16] s) => (bool on2, float[n, 16] r) {
            on2 = Identity (on)
            [step] m = MatMul (s, w)
            r = Tanh (m)
        }
    >
}
"""


def work_of(g: Graph, **dims: int) -> tuple[RegionWork, ...]:
    return lower(Analysis(g), dims).regions


def executed(g: Graph, **dims: int) -> dict[str, int]:
    """Multiply-accumulates of the products that a call executes."""
    return {
        op.name: region.repeats * op.macs
        for region in work_of(g, **dims)
        for op in region.ops
        if region.repeats and op.macs
    }


def stored(g: Graph, **dims: int) -> dict[str, int]:
    return {
        operand.value: operand.bytes
        for region in work_of(g, **dims)
        for op in region.ops
        for operand in op.operands
        if operand.is_weight
    }


def test_nodes_of_bodies_have_names_of_their_own(weighted: Graphs) -> None:
    keys = {site.key for site in Analysis(weighted(BRANCHES)).sites if site.role == "weight"}
    then, other = "pick/then_branch", "pick/else_branch"
    assert keys == {f"{then}/up/in1", f"{then}/down/in1", f"{other}/up/in1"}


def test_the_dearer_branch_is_priced_and_said(weighted: Graphs) -> None:
    g = weighted(BRANCHES)
    assert executed(g, n=4) == {
        "pick/then_branch/up": 4 * 64 * 32,
        "pick/then_branch/down": 4 * 32 * 8,
    }
    notes = lower(Analysis(g), {"n": 4}).notes
    assert any("pick (If): the dearer branch is priced, then_branch" in note for note in notes)


@pytest.mark.parametrize("name", ["pick", "use"])
def test_a_dimension_says_which_branch_is_taken(weighted: Graphs, name: str) -> None:
    g = weighted(BRANCHES)
    assert executed(g, n=4, **{name: 0}) == {"pick/else_branch/up": 4 * 64 * 8}
    assert len(executed(g, n=4, **{name: 1})) == 2
    assert not lower(Analysis(g), {"n": 4, name: 0}).notes


def test_weights_of_both_branches_are_stored(weighted: Graphs) -> None:
    assert stored(weighted(BRANCHES), n=4) == {"a": 64 * 32 * 2, "b": 32 * 8 * 2, "c": 64 * 8 * 2}


def test_a_constant_condition_decides(weighted: Graphs) -> None:
    text = BRANCHES.replace("float[n, 64] x, bool use", "float[n, 64] x").replace(
        "float[64, 8] c", "float[64, 8] c, bool use = {0}"
    )
    g = weighted(text)
    assert list(executed(g, n=4)) == ["pick/else_branch/up"]
    assert not lower(Analysis(g), {"n": 4}).notes


def test_a_loop_costs_its_iterations_and_stores_once(weighted: Graphs) -> None:
    g = weighted(LOOP)
    assert executed(g, n=3) == {"turns/body/step": 12 * 3 * 16 * 16}
    assert executed(g, n=3, turns=5) == {"turns/body/step": 5 * 3 * 16 * 16}
    assert stored(g, n=3) == {"w": 512}


def test_a_trip_count_that_only_a_run_knows_is_asked_for(weighted: Graphs) -> None:
    g = weighted(
        LOOP.replace("int64 times = {12}, ", "").replace(
            "float[n, 16] x)", "float[n, 16] x, int64 times)"
        )
    )
    with pytest.raises(GraphError, match=r"turns \(Loop\): how often it runs .* --dim turns=N"):
        lower(Analysis(g), {"n": 3})
    assert executed(g, n=3, turns=2) == {"turns/body/step": 2 * 3 * 16 * 16}


def test_a_scan_costs_its_steps(weighted: Graphs) -> None:
    g = weighted("""
    g (float[7, n, 16] x, float[n, 16] h) => (float[n, 16] last, float[7, n, 16] all)
    <float[16, 16] w>
    {
        [steps] last, all = Scan <
            num_scan_inputs = 1,
            body = b (float[n, 16] s, float[n, 16] v) => (float[n, 16] r, float[n, 16] out) {
                a = Add (s, v)
                [mix] r = MatMul (a, w)
                out = Identity (r)
            }
        > (h, x)
    }
    """)
    assert executed(g, n=2) == {"steps/body/mix": 7 * 2 * 16 * 16}
    assert bind_sizes(g, {"n": 2}).types["all"].shape == (7, 2, 16)


def test_what_a_loop_carries_may_grow(weighted: Graphs) -> None:
    g = weighted("""
    g (float[2, 8] x, float[k, 8] cache) => (float[m, 8] y)
    <int64 times = {4}, bool go = {1}>
    {
        [turns] y = Loop (times, go, cache) <
            body = b (int64 i, bool on, float[a, 8] s) => (bool on2, float[c, 8] r) {
                on2 = Identity (on)
                r = Concat <axis = 0> (s, x)
            }
        >
    }
    """)
    found = bind_sizes(g, {"k": 3})
    assert found.types["y"].shape == (3 + 4 * 2, 8)
    assert any("grows" in note for note in found.notes)


def test_branches_inside_of_branches_are_priced(weighted: Graphs) -> None:
    g = weighted("""
    g (float[n, 8] x, bool p, bool q) => (float[n, 8] y)
    <float[8, 8] a, float[8, 8] b, float[8, 8] c>
    {
        [outer] y = If (p) <
            then_branch = t () => (float[n, 8] r) {
                [inner] r = If (q) <
                    then_branch = tt () => (float[n, 8] s) { [one] s = MatMul (x, a) },
                    else_branch = te () => (float[n, 8] s) { [one] s = MatMul (x, b) }
                >
            },
            else_branch = e () => (float[n, 8] r) { [one] r = MatMul (x, c) }
        >
    }
    """)
    chosen = executed(g, n=2, outer=1, **{"outer/then_branch/inner": 0})
    assert chosen == {"outer/then_branch/inner/else_branch/one": 2 * 64}


def test_every_course_has_the_same_regions(weighted: Graphs) -> None:
    g = weighted(BRANCHES)
    names = [[r.name for r in work_of(g, n=4, pick=taken)] for taken in (0, 1)]
    assert names[0] == names[1]
