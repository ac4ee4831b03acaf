"""A constant that two regions read is stored once in every format that they agree on."""

from __future__ import annotations

import pytest

from hwmodels.devices.load import load_device
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.work.work import Op, Operand, OperandName, RegionWork, Work

ROWS, DEPTH = 512, 64


def _table(*, turned: bool) -> Operand:
    shape = (DEPTH, ROWS) if turned else (ROWS, DEPTH)
    axes = (0,) if turned else ()
    return Operand(
        name="weight", value="table", shape=shape, contraction_axes=axes, is_weight=True
    )


def _regions(repeats: int) -> tuple[RegionWork, ...]:
    ids = Operand(name="input", value="ids", shape=(8,), bits=64)
    rows = Operand(name="output", value="rows", shape=(8, DEPTH))
    hidden = Operand(name="input", value="rows", shape=(8, DEPTH), contraction_axes=(1,))
    logits = Operand(name="output", value="logits", shape=(8, ROWS))
    look_up = Op(
        name="look_up",
        kind="embedding",
        sizes={"vocab": ROWS, "dim": DEPTH, "tokens": 8},
        operands=(ids, _table(turned=False), rows),
    )
    head = Op(
        name="head",
        kind="gemm",
        sizes={"M": 8, "K": DEPTH, "N": ROWS},
        operands=(hidden, _table(turned=True), logits),
    )
    return (
        RegionWork(name="look_up", kind="embedding", role="embedding", ops=(look_up,),
                   reads=(ids,), writes=(rows,)),
        RegionWork(name="head", kind="gemm", role="head", ops=(head,),
                   reads=(hidden, _table(turned=True)), writes=(logits,), repeats=repeats),
    )  # fmt: skip


def _priced(quantizer: Quantizer | None, repeats: int = 1) -> CostTable:
    work = Work(name="tied", regions=_regions(repeats), outputs=("logits",))
    chosen: dict[OperandName, Quantizer] = {}
    if quantizer is not None:
        chosen = {"weight": quantizer, "input": quantizer}
    return CostTable.build(
        (PhaseWork(name="call", share=1.0, work=work),),
        {"look_up": ({},), "head": (chosen,)},
        load_device("h100-sxm"),
        load_runtime("free"),
    )


CHOSEN = {"look_up": 0, "head": 0}


@pytest.mark.parametrize("name", ["", "bf16", "fp16"])
def test_a_tied_table_in_16_bits_is_stored_once(name: str) -> None:
    quantizer = catalog.quantizer(name) if name else None
    assert _priced(quantizer).total(CHOSEN).weight_bytes == 2 * ROWS * DEPTH


def test_what_is_repeated_costs_its_time_again_and_its_bytes_once() -> None:
    once, thrice, never = (_priced(None, repeats).total(CHOSEN) for repeats in (1, 3, 0))
    parts = [dict(cost.parts)["head"].latency_s for cost in (once, thrice, never)]
    assert parts[1] == pytest.approx(3 * parts[0])
    assert parts[2] == 0
    assert once.weight_bytes == thrice.weight_bytes == never.weight_bytes


def _product(name: str, shape: tuple[int, int], reads: str, writes: str) -> RegionWork:
    """Eight rows times one orientation of the table."""
    depth, outputs = shape
    rows = Operand(name="input", value=reads, shape=(8, depth), contraction_axes=(1,))
    table = Operand(
        name="weight", value="table", shape=shape, contraction_axes=(0,), is_weight=True
    )
    made = Operand(name="output", value=writes, shape=(8, outputs))
    op = Op(
        name=name,
        kind="gemm",
        sizes={"M": 8, "K": depth, "N": outputs},
        operands=(rows, table, made),
    )
    return RegionWork(name=name, kind="gemm", role="linear", ops=(op,),
                      reads=(rows, table), writes=(made,))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "copies"),
    [("int8_channel", 2), ("mxfp4", 2), ("int4_g32", 2), ("int8", 1), ("e4m3_tensor", 1)],
)
def test_a_matrix_and_its_transpose_share_a_copy_where_scales_have_no_axis(
    name: str, copies: int
) -> None:
    quantizer = catalog.quantizer(name)
    forth = _product("forth", (ROWS, DEPTH), "x", "h")
    back = _product("back", (DEPTH, ROWS), "h", "y")
    table = CostTable.build(
        (PhaseWork(name="call", share=1.0,
                   work=Work(name="tied", regions=(forth, back), outputs=("y",))),),
        {"forth": ({"weight": quantizer},), "back": ({"weight": quantizer},)},
        load_device("h100-sxm"),
        load_runtime("free"),
    )  # fmt: skip
    stored = [
        quantizer.format.storage_bytes(shape, (0,)) for shape in ((ROWS, DEPTH), (DEPTH, ROWS))
    ]
    assert table.total({"forth": 0, "back": 0}).weight_bytes == sum(stored[:copies])


def test_products_that_multiply_one_weight_alike_store_it_once() -> None:
    quantizer = catalog.quantizer("int4_g32")
    first, second = (_product(name, (DEPTH, ROWS), "x", name) for name in ("a", "b"))
    work = Work(name="shared", regions=(first, second), outputs=("a", "b"))
    table = CostTable.build(
        (PhaseWork(name="call", share=1.0, work=work),),
        {"a": ({"weight": quantizer}, {}), "b": ({"weight": quantizer}, {})},
        load_device("h100-sxm"),
        load_runtime("free"),
    )
    once = quantizer.format.storage_bytes((DEPTH, ROWS), (0,))
    assert once == ROWS * DEPTH // 2 + 2 * ROWS * DEPTH // 32
    assert table.total({"a": 0, "b": 0}).weight_bytes == once
    assert table.total({"a": 0, "b": 1}).weight_bytes == once + 2 * ROWS * DEPTH
