"""Requests that wait for one another: laws of queues, and what an iteration may hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import WorkError
from hwmodels.runtimes.load import load_runtime
from hwmodels.runtimes.runtime import ASSUMED, Batching
from hwmodels.tables.iterations import Times, between, iteration_s, reading_s
from hwmodels.tables.load import capacity, load_of, sustained
from hwmodels.tables.queueing import Engine, Traffic, simulate

ENGINE = Engine(
    tokens=np.array([1000.0]),
    read_s=np.array([0.1]),
    batches=np.array([1.0, 4, 16, 64]),
    step_s=np.array([0.01, 0.011, 0.015, 0.03]),
    most=100,
    batching=Batching(),
)
TRAFFIC = Traffic(prompt=1000, generate=100, clients=8)


def test_one_client_finds_an_idle_group() -> None:
    found = simulate(ENGINE, replace(TRAFFIC, clients=1, spread=0.0))
    assert found.ttft_s == pytest.approx(np.full(len(found.ttft_s), 0.1))
    assert found.tpot_s == pytest.approx(np.full(len(found.tpot_s), 0.01))
    assert found.rate == pytest.approx(1 / (0.1 + 99 * 0.01), rel=0.01)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_prompts_alone_wait_as_pollaczek_and_khinchine_say(share: float) -> None:
    """Poisson arrivals, equal services, one at a time: M/D/1."""
    engine = replace(ENGINE, batching=Batching(tokens=1000, cuts=False))
    traffic = Traffic(prompt=1000, generate=1, rate=share / 0.1, spread=0.0, count=60_000)
    waited = simulate(engine, traffic).ttft_s.mean() - 0.1
    assert waited == pytest.approx(0.1 * share / (2 * (1 - share)), rel=0.1)


@given(
    clients=st.integers(1, 40),
    most=st.integers(1, 60),
    batching=st.builds(
        Batching, tokens=st.integers(64, 4000), cuts=st.booleans(), mixes=st.booleans()
    ),
    spread=st.floats(0, 0.9),
)
def test_every_request_is_answered_and_none_before_its_prompt_is_read(
    clients: int, most: int, batching: Batching, spread: float
) -> None:
    engine = replace(ENGINE, most=most, batching=batching)
    traffic = replace(TRAFFIC, clients=clients, spread=spread, count=120, start=0.0)
    found = simulate(engine, traffic)
    prompts, _, _ = traffic.requests()
    shortest = prompts.min()
    assert len(found.ttft_s) == 120
    assert (found.ttft_s >= 0.1 * shortest / 1000 - 1e-9).all()
    assert (found.tpot_s >= 0.01 - 1e-9).all()
    assert found.in_flight <= clients + 1e-9


@given(st.integers(1, 40), st.booleans())
def test_clients_who_wait_are_as_many_as_there_are(clients: int, mixes: bool) -> None:
    """Little's law: whoever is answered sends again at once."""
    engine = replace(ENGINE, batching=Batching(mixes=mixes))
    found = simulate(engine, replace(TRAFFIC, clients=clients))
    assert found.in_flight == pytest.approx(clients)
    stay = found.ttft_s + 99 * found.tpot_s
    assert found.rate * stay.mean() == pytest.approx(clients, rel=0.1)


def test_clients_who_begin_at_once_queue_for_their_prompts() -> None:
    engine = replace(ENGINE, batching=Batching(tokens=1000))
    burst = Traffic(prompt=1000, generate=1, clients=5, spread=0.0, count=5, start=0.0)
    assert simulate(engine, burst).ttft_s == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_prompt_is_cut_where_the_budget_ends() -> None:
    burst = Traffic(prompt=1000, generate=1, clients=2, spread=0.0, count=2, start=0.0)
    cut = replace(ENGINE, batching=Batching(tokens=1500))
    whole = replace(ENGINE, batching=Batching(tokens=1500, cuts=False))
    # 1000 + 500 tokens, then 500: the first waits for a half of the second.
    assert simulate(cut, burst).ttft_s == pytest.approx([0.15, 0.2])
    assert simulate(whole, burst).ttft_s == pytest.approx([0.1, 0.2])


def test_prompts_that_share_an_iteration_read_the_weights_once() -> None:
    """Eight short prompts take 0.02 s together, not eight times 0.015."""
    short = replace(ENGINE, tokens=np.array([100.0, 800]), read_s=np.array([0.015, 0.02]))
    times = times_of(short)
    assert reading_s(50, times) == pytest.approx(0.0075)
    assert reading_s(1500, times) == pytest.approx(0.025)
    burst = Traffic(prompt=100, generate=1, clients=8, spread=0.0, count=8, start=0.0)
    assert simulate(short, burst).ttft_s == pytest.approx(np.full(8, 0.02))


def test_a_prompt_that_no_budget_holds_goes_alone_where_none_is_cut() -> None:
    engine = replace(ENGINE, batching=Batching(tokens=500, cuts=False))
    found = simulate(engine, replace(TRAFFIC, clients=3, count=30))
    assert np.isfinite(found.ttft_s).all()


def test_prompts_that_share_an_iteration_slow_those_who_write() -> None:
    times = times_of(ENGINE)
    alone = iteration_s(8, 0, times)
    assert iteration_s(8, 100, times) == pytest.approx(alone)  # as long as reading the weights
    assert iteration_s(8, 1000, times) == pytest.approx(alone - 0.01 + 0.1)
    assert iteration_s(0, 1000, times) == pytest.approx(0.1)


@given(
    st.lists(st.floats(1, 1e4), min_size=2, max_size=6, unique=True),
    st.floats(0, 2e4),
    st.integers(0, 2**32 - 1),
)
def test_prices_between_sizes_are_numpys(sizes: list[float], size: float, seed: int) -> None:
    at = np.sort(np.array(sizes))
    seconds = np.random.default_rng(seed).random(len(at))
    if size <= at[-1]:
        assert between(size, at, seconds) == pytest.approx(np.interp(size, at, seconds))
    else:
        slope = (seconds[-1] - seconds[-2]) / (at[-1] - at[-2])
        assert between(size, at, seconds) == pytest.approx(seconds[-1] + slope * (size - at[-1]))


def times_of(engine: Engine) -> Times:
    return Times(engine.tokens, engine.read_s, engine.batches, engine.step_s)


def test_whoever_finds_memory_full_waits_for_an_answer_to_end() -> None:
    full = replace(ENGINE, most=4)
    free, held = (
        simulate(one, Traffic(prompt=100, generate=100, clients=8, count=80, spread=0.1))
        for one in (ENGINE, full)
    )
    assert free.ttft_s.mean() < 0.1
    assert held.ttft_s.mean() > 0.5


def test_nothing_is_answered_where_no_request_fits() -> None:
    with pytest.raises(WorkError, match="no request fits"):
        simulate(replace(ENGINE, most=0), TRAFFIC)


def test_more_requests_than_are_answered_make_a_queue_without_end() -> None:
    most = capacity(ENGINE, TRAFFIC)
    calm, full = (
        load_of(ENGINE, replace(TRAFFIC, clients=None, rate=share * most)) for share in (0.5, 1.2)
    )
    assert calm.rate == 0.5 * most
    assert calm.ttft_p50_s <= calm.ttft_mean_s <= calm.ttft_p99_s < 1
    assert 0.01 < calm.tpot_mean_s < calm.tpot_p99_s < full.tpot_mean_s
    assert np.isinf([full.ttft_mean_s, full.ttft_p99_s, full.in_flight]).all()
    assert full.rate == pytest.approx(most)


@pytest.mark.parametrize("clients", [1, 30, 99, 100, 101, 150, 400])
@pytest.mark.parametrize("generate", [16, 1000])
def test_no_more_is_answered_than_where_somebody_always_waits(clients: int, generate: int) -> None:
    found = load_of(ENGINE, replace(TRAFFIC, clients=clients, generate=generate))
    assert found.rate <= found.most_rate
    if clients > ENGINE.most:  # the same question; a window of a thousand cuts waves of hundreds
        assert found.rate == found.most_rate
        most = capacity(ENGINE, replace(TRAFFIC, generate=generate))
        assert found.rate == pytest.approx(most, rel=0.05)


def test_a_queue_that_still_grows_says_so() -> None:
    most = capacity(ENGINE, TRAFFIC)
    calm, late = (
        load_of(ENGINE, replace(TRAFFIC, clients=None, rate=share * most, count=1000))
        for share in (0.5, 0.99)
    )
    assert (calm.settled, late.settled) == (True, False)
    assert (calm.rate, late.rate) == (0.5 * most, 0.99 * most)
    longer = load_of(ENGINE, replace(TRAFFIC, clients=None, rate=0.99 * most, count=4000))
    assert longer.ttft_mean_s > late.ttft_mean_s


def test_the_most_requests_within_a_bound_keep_it_and_more_do_not() -> None:
    rate, found = sustained(ENGINE, TRAFFIC, lambda load: load.ttft_p99_s <= 0.4)
    assert found.ttft_p99_s <= 0.4
    more = load_of(ENGINE, replace(TRAFFIC, clients=None, rate=1.1 * rate))
    assert more.ttft_p99_s > 0.4
    wider, _ = sustained(ENGINE, TRAFFIC, lambda load: load.ttft_p99_s <= 0.8)
    assert rate < wider < capacity(ENGINE, TRAFFIC)


def test_a_bound_that_one_client_breaks_is_kept_at_no_rate() -> None:
    rate, found = sustained(ENGINE, TRAFFIC, lambda load: load.ttft_p99_s <= 0.05)
    assert rate == 0
    assert found.ttft_p99_s > 0.05


def test_serving_runtimes_say_how_they_batch() -> None:
    for name in ("vllm", "sglang", "tensorrt-llm"):
        assert load_runtime(name).batching.source != ASSUMED
    assert not load_runtime("sglang").batching.mixes
    assert not load_runtime("tensorrt-llm").batching.cuts


def test_traffic_is_of_clients_or_of_a_rate() -> None:
    with pytest.raises(ValueError, match="either clients or a rate"):
        Traffic(prompt=10, generate=10)
    with pytest.raises(ValueError, match="either clients or a rate"):
        Traffic(prompt=10, generate=10, clients=2, rate=2.0)


def test_more_clients_than_can_be_simulated_are_refused() -> None:
    with pytest.raises(WorkError, match="at most 100000 are simulated"):
        simulate(ENGINE, replace(TRAFFIC, clients=10**9))
