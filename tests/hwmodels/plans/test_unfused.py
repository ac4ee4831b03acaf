"""Attention that runs as it is written has the floats that were asked for in every node."""

from __future__ import annotations

import pytest

from hwmodels.devices.load import load_device
from hwmodels.formats.catalog import quantizer
from hwmodels.plans.region import plan_region
from hwmodels.runtimes.load import load_runtime
from hwmodels.work.work import Op, Operand, RegionWork

ROWS, DEPTH = 64, 32
SCORES = ROWS * ROWS


def _operand(name: str, value: str, *shape: int, bits: int = 16) -> Operand:
    return Operand(name=name, value=value, shape=shape, bits=bits)  # type: ignore[arg-type]


def _attention() -> RegionWork:
    """Scores, a mask of bytes, and values, spelled out."""
    sizes = {"B": 1, "M": ROWS, "N": ROWS, "K": DEPTH}
    mixed = {"B": 1, "M": ROWS, "N": DEPTH, "K": ROWS}
    parts = (
        Op(name="scores", kind="bmm", sizes=sizes, operands=(
            _operand("input", "q", ROWS, DEPTH), _operand("weight", "k", ROWS, DEPTH),
            _operand("output", "s", ROWS, ROWS))),
        Op(name="mask", kind="elementwise", detail="where", sizes={}, operands=(
            _operand("input", "s", ROWS, ROWS), _operand("other", "m", ROWS, ROWS, bits=8),
            _operand("output", "t", ROWS, ROWS))),
        Op(name="mix", kind="bmm", sizes=mixed, operands=(
            _operand("input", "t", ROWS, ROWS), _operand("weight", "v", ROWS, DEPTH),
            _operand("output", "o", ROWS, DEPTH))),
    )  # fmt: skip
    whole = Op(
        name="attention",
        kind="attention",
        sizes={"B": 1, "H": 1, "Q": ROWS, "K": ROWS, "D": DEPTH},
        operands=(
            _operand("q", "q", ROWS, DEPTH), _operand("k", "k", ROWS, DEPTH),
            _operand("v", "v", ROWS, DEPTH), _operand("output", "o", ROWS, DEPTH),
        ),
        decomposition=parts,
    )  # fmt: skip
    return RegionWork(
        name="attention",
        role="attention",
        kind="attention",
        ops=(whole,),
        reads=whole.operands[:3],
        writes=whole.operands[3:],
    )


@pytest.mark.parametrize(("name", "size", "element"), [("bf16", 2, "bf16"), ("fp32", 4, "fp32")])
def test_every_node_moves_and_multiplies_what_was_asked_for(
    name: str, size: int, element: str
) -> None:
    asked = _attention().quantized(dict.fromkeys(("q", "k", "v"), quantizer(name)))
    plan = plan_region(asked, load_device("h100-sxm"), load_runtime("torch-eager"))
    scores, mask, mix = plan.kernels
    assert plan.status == "native"
    assert {one.weight_element for one in (scores, mix)} == {element}
    assert scores.input_bytes == scores.weight_bytes == size * ROWS * DEPTH
    assert scores.write_bytes == size * SCORES
    assert mask.input_bytes + mask.weight_bytes == size * SCORES + SCORES
    assert mix.input_bytes == size * SCORES
