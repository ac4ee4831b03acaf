"""The order of a compiler that goes backwards from the outputs, beside Arm's Vela 5.2."""

from __future__ import annotations

import numpy as np
import pytest

from hwmodels.work.memory import Liveness
from hwmodels.work.order import backwards
from hwmodels.work.work import Op, Operand, RegionWork, Work

Graph = list[tuple[str, list[str]]]


def work(graph: Graph, outputs: tuple[str, ...]) -> Work:
    """A region a node: of one value convolutions, of two sums."""
    regions = []
    for name, read in graph:
        operands = (
            *(Operand(name="input", value=value, shape=(1, 8)) for value in read),
            Operand(name="output", value=name, shape=(1, 8)),
        )
        op = Op(name=name, kind="elementwise", sizes={"rows": 1, "cols": 8}, operands=operands)
        regions.append(RegionWork(name=name, kind="elementwise", role="", ops=(op,),
                                  reads=operands[:-1], writes=operands[-1:]))  # fmt: skip
    return Work(name="graph", regions=tuple(regions), outputs=outputs)


VELA = {
    "a=image c=a b=a d=b s=d+c": "a c b d s",
    "a=image b=a d=b c=a s=c+d": "a b d c s",
    "n0=image n1=n0 n2=image n3=n2 n4=n1+n0 n5=n2 n6=n3 n7=n6+n5 n8=n7+n4":
        "n0 n1 n4 n2 n5 n3 n6 n7 n8",
    "n0=image n1=image n2=image n3=n0 n4=n3+n0 n5=n0+n1 n6=n1+n3 n7=n6+n5 n8=n7+n4 n9=n8+n2":
        "n2 n0 n3 n4 n1 n5 n6 n7 n8 n9",
    "n0=image n1=image n2=n1+n0 n3=n0 n4=n3+n1 n5=n2+n0 n6=n1+n4 n7=n6+n5":
        "n0 n1 n2 n5 n3 n4 n6 n7",
}  # fmt: skip
"""Graphs, and the order in which Vela 5.2 runs them on a U65."""


@pytest.mark.parametrize(("text", "order"), VELA.items())
def test_operations_run_as_the_vendor_s_compiler_runs_them(text: str, order: str) -> None:
    graph = [(name, read.split("+")) for name, read in (o.split("=") for o in text.split())]
    one = work(graph, (graph[-1][0],))
    assert [one.regions[index].name for index in backwards(one)] == order.split()


def test_what_no_output_needs_runs_last() -> None:
    one = work([("idle", ["image"]), ("a", ["image"]), ("b", ["a"])], ("b",))
    assert [one.regions[index].name for index in backwards(one)] == ["a", "b", "idle"]


def test_a_value_is_alive_from_its_step_in_the_order_to_its_last_reader_s() -> None:
    """`b` waits for `c` and `d` where it runs first, and for nothing where it runs last."""
    graph: Graph = [("a", ["image"]), ("b", ["a"]), ("c", ["a"]), ("d", ["c"]), ("s", ["b", "d"])]
    one = work(graph, ("s",))
    written, run = Liveness.of(one), Liveness.of(one, backwards(one))
    assert [one.regions[index].name for index in backwards(one)] == ["a", "c", "d", "b", "s"]
    sizes = {"image": 1.0, "a": 10.0, "b": 100.0, "c": 1000.0, "d": 10000.0, "s": 0.0}
    alive = [
        dict(
            zip("abcds", lives.alive(np.array([sizes[one] for one in lives.values])), strict=True)
        )
        for lives in (written, run)
    ]
    assert alive[0] == {"a": 11, "b": 110, "c": 1110, "d": 11100, "s": 10100}
    assert alive[1] == {"a": 11, "c": 1010, "d": 11010, "b": 10110, "s": 10100}
