"""Serving numbers against sums worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hwmodels.devices.load import load_device
from hwmodels.formats.catalog import quantizer
from hwmodels.formats.quantizer import Quantizer
from hwmodels.runtimes.load import load_runtime
from hwmodels.tables.network import Choices, CostTable, PhaseWork
from hwmodels.tables.served import ServedTable
from hwmodels.tables.serving import WORKSPACE_BYTES, Call, Demand, Loads, call_of, serve
from hwmodels.work.work import OperandName, Work

Formats = dict[OperandName, Quantizer]
GB = 1e9
H100 = load_device("h100-sxm")
DEMAND = Demand(
    prefill=Call(requests=1, tokens=1000, context=1000),
    decode=Call(requests=10, tokens=1, context=1250),
    generated=500,
    ways=2,
    price_usd_per_h=3.6,
)


def loads(**changes: float) -> Loads:
    """Loads of one assignment: 20 GB of weights, 1 GB of cache a request at 1250 positions."""
    figures = {
        "prefill_s": 0.1, "decode_s": 0.02, "weight_bytes": 20 * GB, "kv_bytes": 10 * GB,
        "prefill_peak_bytes": 1 * GB, "decode_peak_bytes": 0.0,
    }  # fmt: skip
    return Loads(
        **{name: np.array([value]) for name, value in (figures | changes).items()},
        batches=np.array([10.0, 40.0]),
        step_s=np.array([[0.02], [0.05]]),
    )


def test_the_batch_fills_what_weights_and_activations_leave() -> None:
    room = 0.9 * 80 * GB - WORKSPACE_BYTES - 20 * GB - 1 * GB
    # A finished request has 1500 positions: 1 GB / 1250 x 1500.
    assert serve(loads(), DEMAND, H100).max_batch[0] == room // (1.2 * GB)


def test_half_the_cache_bits_hold_twice_the_requests() -> None:
    whole, half = (serve(loads(kv_bytes=k * GB), DEMAND, H100).max_batch[0] for k in (10, 5))
    assert half == pytest.approx(2 * whole, abs=1)


def test_throughput_takes_turns_between_prompts_and_steps() -> None:
    served = serve(loads(), DEMAND, H100)
    # 10 requests: 10 prefills of 0.1 s and 500 steps of 0.02 s for 5000 tokens.
    assert served.tokens_per_s_per_gpu[0] == pytest.approx(5000 / 11 / 2)
    assert served.ttft_s[0] == 0.1
    assert served.tpot_s[0] == pytest.approx(11 / 500)


def test_a_million_tokens_cost_the_gpus_for_their_time() -> None:
    cost = serve(loads(), DEMAND, H100).cost_per_mtok
    assert cost is not None
    # 2 GPUs at 0.001 USD/s each, 5000 tokens in 11 s.
    assert cost[0] == pytest.approx(1e6 * 2 * 0.001 * 11 / 5000)


def test_what_does_not_fit_is_charged_for_the_gpus_that_it_needs() -> None:
    fits, not_ = serve(loads(), DEMAND, H100), serve(loads(weight_bytes=100 * GB), DEMAND, H100)
    assert not_.max_batch[0] == 0
    # 2 x 100 GB of weights and 24 GB of cache: four GPUs of 70 GB.
    assert not_.gpus[0] == 4
    assert fits.cost_per_mtok is not None
    assert not_.cost_per_mtok is not None
    assert not_.cost_per_mtok[0] == pytest.approx(2 * fits.cost_per_mtok[0])


def test_steps_are_interpolated_between_priced_batches() -> None:
    served = serve(loads(kv_bytes=20 * GB), DEMAND, H100)
    batch = served.max_batch[0]
    assert 10 < batch < 40
    step = 0.02 + (batch - 10) / 30 * 0.03
    assert served.full_tpot_s[0] == pytest.approx(step + batch * 0.1 / 500)


def test_without_a_price_there_is_no_cost() -> None:
    served = serve(loads(), replace(DEMAND, price_usd_per_h=None), H100)
    assert served.cost_per_mtok is None
    assert served.full_cost_per_mtok is None


def test_calls_are_read_off_the_attention(llama: Callable[..., Work]) -> None:
    assert call_of(llama(tokens=64, batch=2)) == Call(requests=2, tokens=64, context=64)
    assert call_of(llama(tokens=1, context=99)) == Call(requests=1, tokens=1, context=100)


def test_a_table_serves_what_its_phases_cost(llama: Callable[..., Work]) -> None:
    runtime = load_runtime("vllm")
    kv8: Formats = {"k": quantizer("e4m3_tensor:static"), "v": quantizer("e4m3_tensor:static")}
    choices: Choices = {"b0/attention": ({}, kv8)}
    phases = (
        PhaseWork(name="prefill", share=1, work=llama(tokens=256)),
        PhaseWork(name="decode", share=8, work=llama(tokens=1, context=512, batch=8)),
    )
    steps = tuple(
        PhaseWork(name=str(batch), share=1, work=llama(tokens=1, context=512, batch=batch))
        for batch in (8, 32)
    )
    table = CostTable.build(phases, choices, H100, runtime)
    demand = Demand(
        prefill=Call(requests=1, tokens=256, context=256),
        decode=Call(requests=8, tokens=1, context=513),
        generated=64,
    )
    served = ServedTable(
        table=table,
        prefill="prefill",
        decode="decode",
        steps=CostTable.build(steps, choices, H100, runtime),
        demand=demand,
        device=H100,
    )
    plain, small = (served.total({"b0/attention": choice}) for choice in (0, 1))
    parts = dict(table.total({}).parts)
    assert plain["ttft_s"] == pytest.approx(parts["prefill"].latency_s)
    turns = 8 * parts["prefill"].latency_s / 64
    assert plain["tpot_s"] == pytest.approx(parts["decode"].latency_s + turns)
    assert "cost_per_mtok" not in plain
    assert 1.8 < small["max_batch"] / plain["max_batch"] < 2.05
