"""Scenarios of a served model: sizes of a request, phases, cost columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse.errors import GraphError
from dse.evaluate.cost_tables import build_costs
from dse.evaluate.costs import Costs
from dse.evaluate.phases import exchange_of, growing_steps, phase_work
from dse.evaluate.request import Request
from dse.graph.ir.graph import Graph
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.predict import Usage, predict
from dse.space.build import build_problem
from dse.space.schema import Space
from hwmodels.tables.network import PhaseWork

REQUEST = Request(prompt=32, generate=16, batch=4)
SPACE = {
    "model": "zoo:llama-3-8b",
    "data": {"source": "zoo:byte-gpt"},
    "scenario": {
        "tensor_parallel": 2,
        "phases": {
            "prefill": {"share": 4, "dims": {"batch": 1, "sequence": 32, "past": 0}},
            "decode": {"share": 16, "dims": {"batch": 4, "sequence": 1, "past": 40}},
        },
    },
    "targets": [{"device": "h100-sxm", "runtime": "vllm", "price_usd_per_h": 2.0}],
    "candidates": [{"use": ["bf16", "w8a8_fp8_dynamic", "w4a4_mxfp4"]}],
}


@pytest.fixture(name="graph", scope="module")
def graph_fixture() -> Graph:
    return open_model("zoo:llama-3-8b").graph


@pytest.fixture(name="costs", scope="module")
def costs_fixture(graph: Graph) -> Costs:
    space = Space.model_validate(SPACE)
    found = Analysis(graph).regions
    problem = build_problem(space, found)
    return build_costs(space, problem, found, Analysis(graph), origin="space", folder=Path())


def test_a_request_binds_the_sizes_of_both_calls(graph: Graph) -> None:
    assert REQUEST.prefill_dims(graph, {}) == {"batch": 1, "sequence": 32, "past": 0}
    assert REQUEST.decode_dims(graph, {"past": 7}) == {"batch": 4, "sequence": 1, "past": 7}


def test_several_requests_need_a_size_that_counts_them(graph: Graph) -> None:
    with pytest.raises(GraphError, match=r"counts 4 requests \(--batch\), got batch=1"):
        REQUEST.decode_dims(graph, {"batch": 1})
    one = Request(prompt=32, generate=16)
    assert one.decode_dims(graph, {"batch": 3})["batch"] == 3


def test_a_graph_without_a_cache_cannot_be_asked() -> None:
    graph = open_model("zoo:fashion-resnet").graph
    with pytest.raises(GraphError, match="cannot decode"):
        REQUEST.decode_dims(graph, dict.fromkeys(("N", "batch"), 1))


def test_phases_are_told_apart_by_their_tokens(graph: Graph) -> None:
    analysis = Analysis(graph)
    phases = [
        PhaseWork(name=name, share=share, work=phase_work(analysis, dims, 1))
        for name, share, dims in (
            ("ask", 4.0, REQUEST.prefill_dims(graph, {})),
            ("answer", 16.0, REQUEST.decode_dims(graph, {})),
        )
    ]
    exchange = exchange_of(phases)
    assert exchange is not None
    assert (exchange.prefill, exchange.decode, exchange.generated) == ("ask", "answer", 16)
    assert exchange_of(phases[:1]) is None
    steps = growing_steps(analysis, REQUEST.decode_dims(graph, {}), 1)
    assert [step.name for step in steps] == ["1", "4", "16", "64", "256", "1024", "4096"]


def test_a_full_memory_serves_the_same_whatever_batch_was_asked_for(graph: Graph) -> None:
    full = ("max_batch", "full_tpot_s", "full_tokens_per_s_per_gpu")
    found = [
        predict(
            graph,
            ["b200-sxm"],
            ["bf16"],
            usage=Usage(dims={}, request=Request(prompt=512, generate=128, batch=batch)),
            runtime="vllm",
        )[0].serving
        for batch in (1, 16, 93, 1714)
    ]
    assert len({tuple(one[name] for name in full) for one in found}) == 1
    # The last one asks for what fits: its steps are priced, not interpolated.
    assert found[-1]["max_batch"] == 1714
    assert found[0]["full_tokens_per_s_per_gpu"] == pytest.approx(
        found[-1]["tokens_per_s_per_gpu"], rel=0.005
    )


@pytest.mark.parametrize("runtime", ["torch-eager", "torch-compile", "vllm", "free"])
def test_a_cache_is_counted_whatever_reads_it(graph: Graph, runtime: str) -> None:
    """Eager attention is nodes that know nothing of a cache: 32 layers, 8 heads, K and V."""
    (one,) = predict(
        graph, ["h100-sxm"], ["bf16"], usage=Usage(dims={}, request=REQUEST), runtime=runtime
    )
    positions = REQUEST.prompt + REQUEST.generate // 2 + 1
    bytes_of_one = 32 * 8 * 128 * 2 * 2
    assert one.cost.kv_bytes == REQUEST.batch * positions * bytes_of_one
    assert one.serving["max_batch"] < 80e9 / (REQUEST.prompt * bytes_of_one)


def test_a_search_and_a_prediction_price_the_same_requests(graph: Graph, costs: Costs) -> None:
    row = costs.total(costs.problem.uniforms["bf16"])
    usage = Usage(dims={}, request=REQUEST, gpus=2)
    (one,) = predict(graph, ["h100-sxm"], ["bf16"], usage=usage, runtime="vllm")
    for name in ("ttft_s", "tpot_s", "full_tokens_per_s_per_gpu", "max_batch"):
        assert row[name] == pytest.approx(one.serving[name]), name


def test_a_prompt_asks_for_the_logits_of_its_last_position(graph: Graph) -> None:
    analysis = Analysis(graph)
    dims = REQUEST.prefill_dims(graph, {})
    whole, asked = (
        phase_work(analysis, dims, 1, answers=answers).macs for answers in (False, True)
    )
    assert whole - asked == (REQUEST.prompt - 1) * 4096 * 128_256
    usage = Usage(dims={}, request=replace(REQUEST, prompt=2048))
    (one,) = predict(graph, ["h100-sxm"], ["bf16"], usage=usage, runtime="vllm")
    call = Usage(dims=usage.dims_by_phase(graph)["prefill"])
    (every,) = predict(graph, ["h100-sxm"], ["bf16"], usage=call, runtime="vllm")
    # The head is a fifteenth of the products of an 8B.
    assert 0.9 < one.serving["ttft_s"] / every.cost.latency_s < 0.97


def test_several_gpus_hold_a_part_of_the_weights_and_use_more_energy(graph: Graph) -> None:
    one, two = (
        predict(
            graph,
            ["h100-sxm"],
            ["w8a8_fp8"],
            usage=Usage(dims={}, request=REQUEST, gpus=gpus),
            runtime="vllm",
        )[0]
        for gpus in (1, 2)
    )
    assert 1.8 < one.cost.weight_bytes / two.cost.weight_bytes < 2
    assert two.cost.energy_j > one.cost.energy_j
    reduces = [
        name for name, _ in dict(two.cost.parts)["decode"].parts if name.endswith("/all_reduce")
    ]
    assert len(reduces) == 2 * 32 + 1


def test_serving_numbers_are_columns_of_a_search(costs: Costs) -> None:
    assert {"ttft_s", "tpot_s", "max_batch", "cost_per_mtok"} <= set(costs.columns)
    assert "max_batch" not in costs.bounded_columns
    point = costs.problem.uniforms["w8a8_fp8_dynamic"]
    row = costs.total(point)
    assert row["ttft_s"] == pytest.approx(row["prefill.latency_s"])
    turns = 4 * row["prefill.latency_s"] / 16
    assert row["tpot_s"] == pytest.approx(row["decode.latency_s"] + turns)


def test_columns_are_the_same_alone_and_for_many_points(costs: Costs) -> None:
    points = np.array(list(costs.problem.uniforms.values()))
    table = costs.totals(points, costs.columns)
    for point, row in zip(points.tolist(), table, strict=True):
        assert dict(zip(costs.columns, row.tolist(), strict=True)) == pytest.approx(
            dict(costs.total(point))
        )


def test_what_choices_change_adds_up_where_a_column_is_a_sum(costs: Costs) -> None:
    point = costs.problem.uniforms["w8a8_fp8_dynamic"]
    for column in ("native_share", "weight_bytes"):
        added = sum(part[c] for part, c in zip(costs.additive(column), point, strict=True))
        exact = costs.totals(np.array([point]), [column])[0, 0]
        assert costs.fixed(column) + added == pytest.approx(exact)


def test_a_substituted_kernel_is_not_native(costs: Costs) -> None:
    native, substituted = (
        costs.total(costs.problem.uniforms[name])["native_share"]
        for name in ("w8a8_fp8_dynamic", "w4a4_mxfp4")
    )
    assert native == 1
    assert substituted < 0.5
