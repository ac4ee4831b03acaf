"""Which shapes a profile measures."""

from __future__ import annotations

import numpy as np
import pytest

from dse.profile.plan import TYPES, Operator, plan_table, queues, standard_plan
from dse.profile.shapes import shapes
from hwmodels.devices.load import load_device
from hwmodels.operators.lower import SIZES_OF_OP
from hwmodels.operators.number_type import NUMBER_TYPES


@pytest.mark.parametrize("op", SIZES_OF_OP)
def test_every_operator_of_the_table_has_shapes_of_real_networks_and_drawn_ones(op: str) -> None:
    found = shapes(op)
    assert len(found) > 400
    assert all(set(SIZES_OF_OP[op]) <= set(shape) for shape in found)
    assert len({tuple(sorted(shape.items())) for shape in found}) == len(found)
    assert all(size > 0 for shape in found for name, size in shape.items() if name != "causal")


def test_llama_and_bert_come_within_the_first_shapes() -> None:
    first = [(shape["K"], shape["N"]) for shape in shapes("gemm")[:60]]
    assert (4096, 6144) in first
    assert (768, 2304) in first


def test_drawn_sizes_are_spread_evenly_over_powers_of_two() -> None:
    """The quartiles of log2 of a log-uniform size divide its range in four."""
    rows = np.log2([shape["rows"] for shape in shapes("add")])
    assert np.quantile(rows, 0.5) == pytest.approx(8, abs=2)
    assert rows.max() - rows.min() > 12


def test_number_types_share_their_shapes_so_that_formats_compare() -> None:
    plan = queues(standard_plan())
    wide, narrow = (
        [one.sizes for one in plan["gemm", dtype, "torch-eager"]] for dtype in ("bf16", "fp8")
    )
    assert wide == narrow


def test_only_known_number_types_are_planned() -> None:
    assert {one.dtype for one in standard_plan()} <= set(NUMBER_TYPES)
    assert set(TYPES) <= set(SIZES_OF_OP)


def test_no_tf32_where_there_is_none() -> None:
    assert not [one for one in standard_plan(tf32=False) if one.dtype == "tf32"]


def test_what_a_device_cannot_multiply_is_not_suggested() -> None:
    table = plan_table(standard_plan(), load_device("v100-sxm2"))
    assert "bf16" not in table.dtypes
    assert "fp16" in table.dtypes


def test_sizes_keep_the_order_of_the_table() -> None:
    shape = {"causal": 1, "D": 64, "L": 8, "S": 8, "HK": 2, "H": 4, "B": 1}
    operator = Operator.of("attention", shape, "bf16")
    assert list(operator.shape) == ["B", "H", "HK", "S", "L", "D", "causal"]
    assert operator.shape["causal"] is True
