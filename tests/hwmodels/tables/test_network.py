from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hwmodels.devices.load import load_device
from hwmodels.errors import WorkError
from hwmodels.formats import catalog
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import CostTable, PhaseWork
from hwmodels.tables.price import price
from hwmodels.work.work import OperandName, Work
from tests.hwmodels.conftest import conv, region

Choice = dict[OperandName, Quantizer]
PLAIN: Choice = {}
FP8: Choice = {
    "weight": catalog.quantizer("e4m3_channel"),
    "input": catalog.quantizer("e4m3_token"),
}
FP4: Choice = {"weight": catalog.quantizer("nvfp4"), "input": catalog.quantizer("nvfp4")}
INT8: Choice = {
    "weight": catalog.quantizer("int8_channel"),
    "input": catalog.quantizer("int8:static"),
}
INT16: Choice = {
    "weight": catalog.quantizer("int8_channel"),
    "input": Quantizer(
        format=replace(catalog.format("int8"), name="int16", element=catalog.ENCODINGS["int16"]),
        timing="static",
    ),
}


def _gemm_choices(work: Work, *choices: Choice) -> dict[str, tuple[Choice, ...]]:
    return {
        region.name: choices if region.kind in ("gemm", "conv2d") else (PLAIN,)
        for region in work.regions
    }


def _table(work: Work, device: str, runtime: str, *choices: Choice) -> CostTable:
    return CostTable.build(
        (PhaseWork(name="call", share=1.0, work=work),),
        _gemm_choices(work, *choices),
        load_device(device),
        load_runtime(runtime),
    )


@pytest.fixture(name="work")
def work_fixture(llama: Callable[..., Work]) -> Work:
    return llama(layers=2, tokens=256, width=1024)


def test_a_uniform_assignment_costs_the_sum_of_its_regions(work: Work) -> None:
    """Eager mode fuses nothing, so regions cost what they cost alone."""
    table = _table(work, "h100-sxm", "torch-eager", PLAIN, FP8)
    total = table.total({r.name: int(r.kind == "gemm") for r in work.regions})
    alone = [
        price(
            region.quantized(FP8) if region.kind == "gemm" else region,
            load_device("h100-sxm"),
            load_runtime("torch-eager"),
        )
        for region in work.regions
    ]
    assert total.latency_s == pytest.approx(sum(cost.latency_s for cost in alone))
    assert total.energy_j == pytest.approx(sum(cost.energy_j for cost in alone))
    assert total.weight_bytes == sum(cost.weight_bytes for cost in alone)


@pytest.mark.parametrize(
    ("device", "runtime", "choices"),
    [
        ("b200-sxm", "vllm", (PLAIN, FP8, FP4)),
        ("h100-sxm", "free", (FP4, FP8)),
        ("ethos-u55", "vela", (INT8, INT16, PLAIN)),
    ],
)
def test_many_assignments_cost_what_each_costs(
    work: Work, device: str, runtime: str, choices: tuple[Choice, ...]
) -> None:
    table = _table(work, device, runtime, *choices)
    rng = np.random.default_rng(1)
    counts = [len(choices) if r.kind == "gemm" else 1 for r in work.regions]
    chosen = rng.integers(0, counts, (20, len(counts)))
    for column in ("latency_s", "energy_j", "weight_bytes", "peak_bytes", "traffic_bytes"):
        singles = [
            getattr(table.total(dict(zip(table.regions, row.tolist(), strict=True))), column)
            for row in chosen
        ]
        assert table.totals(chosen, column) == pytest.approx(singles)


def test_costs_add_up_where_nothing_is_shared(work: Work) -> None:
    table = _table(work, "b200-sxm", "vllm", PLAIN, FP8, FP4)
    assert not table.has_conversions
    matrix = table.matrix("latency_s")
    assignment = {name: len(values) - 1 for name, values in matrix.items()}
    added = sum(values[assignment[name]] for name, values in matrix.items())
    assert table.total(assignment).latency_s == pytest.approx(added)


def test_an_activation_is_quantised_once_for_consumers_that_agree(pair: Work) -> None:
    table = CostTable.build(
        (PhaseWork(name="call", share=1.0, work=pair),),
        {"x": (PLAIN, FP8), "y": (PLAIN, FP8)},
        load_device("h100-sxm"),
        load_runtime("sglang"),
    )
    assert table.has_conversions
    none, one, other, two = (
        table.total({"x": x, "y": y}).latency_s for x, y in ((0, 0), (1, 0), (0, 1), (1, 1))
    )
    alone = price(pair.regions[0].quantized(FP8), load_device("h100-sxm"), load_runtime("sglang"))
    quantise = next(cost.latency_s for name, cost in alone.parts if "quantize" in name)
    assert two == pytest.approx(one + other - none - quantise)


def test_tensor_side_conversions_are_paid_between_regions_that_disagree(cnn: Work) -> None:
    """`second` at int16 between int8 neighbours: its input and its output are requantised."""
    table = _table(cnn, "ethos-u55", "vela", INT8, INT16)
    assert table.has_conversions
    agree = table.total({})
    mixed = table.total({"second": 1})
    edges = table.phases[0][2].edges
    assert len(edges) > 0
    chosen = np.array([0, 1, 0, 0, 0])
    paid = sum(float(edge.cost(chosen)[0]) for edge in edges)
    assert paid > 0
    assert mixed.latency_s > agree.latency_s + paid * 0.99
    assert sum(float(edge.cost(np.zeros(5, dtype=np.int64))[0]) for edge in edges) == 0


def test_choices_beyond_those_of_a_region_s_consumer_cost_something_finite(cnn: Work) -> None:
    """Stored in the consumer's format, a tensor may have fewer formats than its producer has."""
    choices = _gemm_choices(cnn, INT8, INT16) | {"last": (INT8,)}
    table = CostTable.build(
        (PhaseWork(name="call", share=1.0, work=cnn),),
        choices,
        load_device("ethos-u55"),
        load_runtime("vela"),
    )
    assert all(np.isfinite(entry.cost.latency_s) for entry in table.entries())
    assert all(np.isfinite(values).all() for values in table.matrix("latency_s").values())


def test_wider_tensors_raise_the_peak_where_they_are_stored(cnn: Work) -> None:
    """Maps take twice the bytes; weights that are staged beside them stay as they are."""
    table = _table(cnn, "ethos-u55", "vela", INT8, INT16)
    narrow = table.total({}).peak_bytes
    wide = table.total(dict.fromkeys(("first", "second", "third", "last"), 1)).peak_bytes
    phase = table.phases[0][2]
    assert 1.7 * narrow < wide <= 2 * narrow
    assert phase.value_bytes[:, 1] == pytest.approx(2 * phase.value_bytes[:, 0], rel=0.01)


def test_phases_share_weights_and_are_weighted_by_share(llama: Callable[..., Work]) -> None:
    prefill, decode = llama(tokens=128), llama(tokens=1, context=128)
    table = CostTable.build(
        (
            PhaseWork(name="prefill", share=0.2, work=prefill),
            PhaseWork(name="decode", share=0.8, work=decode),
        ),
        _gemm_choices(prefill, PLAIN, FP8),
        load_device("h100-sxm"),
        load_runtime("vllm"),
    )
    total = table.total({})
    parts = dict(total.parts)
    expected = 0.2 * parts["prefill"].latency_s + 0.8 * parts["decode"].latency_s
    assert total.latency_s == pytest.approx(expected)
    assert total.weight_bytes == parts["decode"].weight_bytes
    assert parts["prefill"].kv_bytes == 0
    assert total.kv_bytes == 2 * 2 * 2 * 129 * 64
    matrix = table.matrix("latency_s")
    assert sum(values[0] for values in matrix.values()) == pytest.approx(total.latency_s)
    alone = table.matrix("latency_s", phase="decode")
    assert sum(v[0] for v in alone.values()) == pytest.approx(parts["decode"].latency_s)


def test_native_share_counts_what_native_kernels_multiply(work: Work) -> None:
    table = _table(work, "h100-sxm", "vllm", PLAIN, FP4)
    assert table.native_share({}) == 1.0
    gemms = {r.name: 1 for r in work.regions if r.kind == "gemm"}
    attention = sum(r.macs for r in work.regions if r.kind != "gemm")
    assert table.native_share(gemms) == pytest.approx(attention / work.macs)


def test_entries_list_every_choice(work: Work) -> None:
    table = _table(work, "h100-sxm", "vllm", PLAIN, FP8)
    entries = list(table.entries())
    gemms = sum(r.kind == "gemm" for r in work.regions)
    assert len(entries) == len(work.regions) + gemms
    assert all(np.isfinite(entry.cost.latency_s) for entry in entries)


def test_unknown_regions_are_named(work: Work) -> None:
    table = _table(work, "h100-sxm", "vllm", PLAIN)
    with pytest.raises(WorkError, match="unknown region 'b0/qk'; did you mean 'b0/qkv'"):
        table.total({"b0/qk": 0})


def test_repeated_blocks_are_priced_once(llama: Callable[..., Work]) -> None:
    """A table of 40 blocks holds 40 times the cost of one, and takes no 40 times as long."""
    one, many = llama(layers=1, tokens=64), llama(layers=40, tokens=64)
    few = _table(one, "h100-sxm", "vllm", PLAIN).matrix("latency_s")
    all_ = _table(many, "h100-sxm", "vllm", PLAIN).matrix("latency_s")
    assert all_["b39/down"][0] == pytest.approx(few["b0/down"][0])


def test_a_region_of_an_npu_is_priced_behind_the_region_before_it() -> None:
    """On a U55 the weights are copied for 34,600 cycles, and computed for 30,300."""
    names = ("first", "second", "third", "last")
    values = ("image", "a", "b", "c", "out")
    regions = tuple(
        region(name, "conv", [conv(name, source, target, (64, 64), 14)])
        for name, (source, target) in zip(names, pairwise(values), strict=True)
    )
    work = Work(name="chain", regions=regions, outputs=("out",))
    parts = dict(_table(work, "ethos-u55", "vela", INT8).total({}).parts)
    alone = price(
        regions[0].quantized(INT8), load_device("ethos-u55"), load_runtime("vela")
    ).latency_s
    assert parts["third"].latency_s == parts["second"].latency_s < 0.9 * alone
    assert alone < parts["first"].latency_s < 1.3 * alone
