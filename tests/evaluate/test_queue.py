"""Requests that wait for one another, as columns of a search."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from dse.errors import InfeasibleError, SpaceError
from dse.evaluate.cost_tables import build_costs
from dse.evaluate.costs import Costs
from dse.evaluate.request import Request
from dse.explore.problem.design import cost_columns
from dse.explore.problem.feasible import check_load
from dse.graph.patterns.analysis import Analysis
from dse.model import open_model
from dse.predict import Usage, predict
from dse.queue import load_bounds
from dse.space.build import build_problem
from dse.space.schema import OfferedLoad, Space

BOUNDS = ("ttft_p99_s<=1", "tpot_p99_s<=0.05")
PHASES = {
    "prefill": {"share": 16, "dims": {"batch": 1, "sequence": 2048, "past": 0}},
    "decode": {"share": 256, "dims": {"batch": 16, "sequence": 1, "past": 2176}},
}


def space_of(load: object, phases: object = PHASES) -> Space:
    return Space.model_validate(
        {
            "model": "zoo:llama-3-8b",
            "data": {"source": "zoo:byte-gpt"},
            "scenario": {"phases": phases, "load": load},
            "targets": [{"device": "h100-sxm", "runtime": "vllm", "price_usd_per_h": 2.0}],
            "candidates": [
                {"match": {"role": "head"}, "use": ["bf16"]},  # as formats are predicted
                {"use": ["bf16", "w8a8_fp8_dynamic", "w4a16"]},
            ],
        }
    )


@cache
def analysis() -> Analysis:
    return Analysis(open_model("zoo:llama-3-8b").graph)


def opened(space: Space) -> Costs:
    found = analysis().regions
    problem = build_problem(space, found)
    return build_costs(space, problem, found, analysis(), origin="mine.yaml", folder=Path())


@pytest.fixture(scope="module")
def costs() -> Costs:
    return opened(space_of({"bounds": BOUNDS}))


def test_a_search_and_a_prediction_answer_alike(costs: Costs) -> None:
    row = costs.total(costs.problem.uniforms["w8a8_fp8_dynamic"])
    (one,) = predict(
        analysis().graph,
        ["h100-sxm"],
        ["w8a8_fp8_dynamic"],
        usage=Usage(
            dims={},
            request=Request(prompt=2048, generate=256, batch=16),
            bounds=load_bounds(BOUNDS, origin=""),
            detailed=True,
        ),
        runtime="vllm",
    )
    assert one.sustained_rate is not None
    assert row["sustained_rate"] == pytest.approx(one.sustained_rate)
    assert row["ttft_p99_s"] <= 1
    assert row["tpot_p99_s"] <= 0.05
    assert row["gpu_s_per_request"] == pytest.approx(1 / row["sustained_rate"])


def test_more_requests_a_second_are_cheaper_tokens(costs: Costs) -> None:
    rows = [costs.total(point) for point in costs.problem.uniforms.values()]
    paid = {round(row["load_cost_per_mtok"] * row["sustained_rate"], 9) for row in rows}
    assert len(paid) == 1  # the price of a second of the GPU, over the tokens of a request
    assert len({row["sustained_rate"] for row in rows}) == len(rows)


def test_columns_are_the_same_alone_and_for_many_points(costs: Costs) -> None:
    points = np.array(list(costs.problem.uniforms.values()))
    columns = ("sustained_rate", "load_cost_per_mtok", "ttft_p99_s", "most_rate")
    table = opened(space_of({"bounds": BOUNDS})).totals(points, columns)
    for point, row in zip(points.tolist(), table, strict=True):
        total = costs.total(point)
        assert [total[name] for name in columns] == pytest.approx(row.tolist())


def test_rates_are_no_objectives(costs: Costs) -> None:
    assert not {"rate", "most_rate", "sustained_rate"} & set(costs.bounded_columns)
    assert {"ttft_p99_s", "gpu_s_per_request", "load_cost_per_mtok"} <= set(costs.bounded_columns)


def test_where_no_rate_keeps_the_bounds_tokens_have_no_price_and_choices_still_guide() -> None:
    costs = opened(space_of({"bounds": ["ttft_p99_s<=0.01"]}))
    row = costs.total(costs.problem.fallback)
    assert row["sustained_rate"] == 0
    assert np.isinf([row["load_cost_per_mtok"], row["gpu_s_per_request"]]).all()
    assert np.isfinite(row["ttft_p99_s"])
    parts = costs.additive("load_cost_per_mtok")
    assert all(np.isfinite(part).all() for part in parts)
    assert min(float(part.min()) for part in parts) < 0  # FP8 makes a token faster


def test_a_rate_and_clients_are_loads_too() -> None:
    few, many, clients = (
        costs.total(costs.problem.fallback)
        for costs in (
            opened(space_of(load)) for load in ({"rate": 0.5}, {"rate": 2}, {"clients": 8})
        )
    )
    assert few["ttft_p99_s"] < many["ttft_p99_s"]
    assert few["gpu_s_per_request"] == pytest.approx(2.0, rel=0.05)
    assert "sustained_rate" not in few
    assert clients["in_flight"] == pytest.approx(8)


def test_a_queue_in_front_of_one_call_is_refused() -> None:
    alone = {"call": {"dims": {"batch": 1, "sequence": 64, "past": 0}}}
    with pytest.raises(SpaceError, match=r"mine\.yaml: scenario\.load: expected"):
        opened(space_of({"rate": 1}, alone))


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ("ttft_p99<=1", r"did you mean 'ttft_p99_s'"),
        ("rate>=1", "expected an upper bound"),
        ("most_rate<=3", "no such column"),
        ("soon", r"scenario\.load\.bounds: expected"),
    ],
)
def test_bounds_on_something_else_are_refused(bound: str, said: str) -> None:
    with pytest.raises(SpaceError, match=said):
        opened(space_of({"bounds": [bound]}))


@pytest.mark.parametrize(
    "load",
    [
        {},
        {"rate": 1, "clients": 2},
        {"bounds": []},
        {"rate": 0},
        {"clients": 0},
        {"clients": 10**9},
    ],
)
def test_a_load_is_one_thing(load: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="OfferedLoad"):
        OfferedLoad.model_validate(load)


def test_costs_err_as_their_calls_do(costs: Costs) -> None:
    points = list(costs.problem.uniforms.values())
    served = ("ttft_s", "tpot_s", "cost_per_mtok", "load_cost_per_mtok")
    errors = costs.latency_errors(points, served)
    # One prompt is a prefill call, a token of a full batch its share of the whole scenario.
    assert pdist(errors["ttft_s"]) == pytest.approx(pdist(errors["prefill.latency_s"]), rel=1e-6)
    assert pdist(errors["tpot_s"]) == pytest.approx(pdist(errors["latency_s"]), rel=1e-3)
    assert pdist(errors["cost_per_mtok"]) == pytest.approx(pdist(errors["tpot_s"]), rel=1e-6)
    loaded = pdist(errors["load_cost_per_mtok"])
    assert (loaded > 0).all()
    assert (loaded < 3 * pdist(errors["latency_s"]).max()).all()


def test_slower_calls_make_tokens_dearer_in_proportion(costs: Costs) -> None:
    (target,) = costs.targets
    assert target.served is not None
    assert target.queue is not None
    chosen = np.zeros((1, len(target.table.regions)), dtype=np.int64)
    for name in ("tpot_s", "cost_per_mtok"):
        assert target.served.elasticities(chosen, name).sum() == pytest.approx(1, abs=0.01)
    loaded = target.queue.elasticities(chosen, "load_cost_per_mtok")
    assert (loaded > 0).all()
    assert 0.9 < loaded.sum() < 2.5  # waiting makes slow calls worse than slow


def test_where_slower_calls_break_a_bound_faster_ones_say_how_much_they_count() -> None:
    alone = opened(space_of({"bounds": ["tpot_p99_s<=1"]}))
    (target,) = alone.targets
    assert target.queue is not None
    chosen = np.zeros((1, len(target.table.regions)), dtype=np.int64)
    step = float(target.queue.served.engines(chosen, target.queue.runtime.batching)[0].step_s[0])
    (edge,) = opened(space_of({"bounds": [f"tpot_p99_s<={1.08 * step}"]})).targets
    assert edge.queue is not None
    assert 0 < edge.queue.column(chosen, "gpu_s_per_request")[0] < np.inf
    found = edge.queue.elasticities(chosen, "gpu_s_per_request")
    assert np.isfinite(found).all()
    assert found[0, 1] > 1


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (["ttft_p99_s<=0.0001"], r"one request at a time finds ttft_p99_s 0\.0\d+ \(.* beyond"),
        (["ttft_p99_s<=9", "tpot_p99_s<=1e-5"], r"finds tpot_p99_s 0\.00.*; relax tpot_p99_s<=0"),
        (["ttft_p99_s<=-1"], "no rate of requests keeps ttft_p99_s<=-1"),
    ],
)
def test_bounds_that_nothing_keeps_are_refused_before_a_search(
    bounds: list[str], said: str
) -> None:
    with pytest.raises(InfeasibleError, match=said):
        check_load(opened(space_of({"bounds": bounds})))
    check_load(opened(space_of({"rate": 1})))


def test_a_cost_without_a_price_says_what_is_missing() -> None:
    space = space_of({"rate": 1})
    content = space.model_dump(mode="json")
    content |= {
        "targets": [{"device": "b200-sxm", "runtime": "vllm"}],
        "objectives": ["quality_loss", "load_cost_per_mtok"],
    }
    unpriced = Space.model_validate(content)
    with pytest.raises(SpaceError, match=r"no price is known of b200-sxm.*gpu_s_per_request"):
        cost_columns(unpriced, opened(unpriced), "mine.yaml")
