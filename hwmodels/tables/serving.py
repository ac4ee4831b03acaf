"""Serving numbers of a language model: time to first token, per token, batch, price.

One prefill call takes p prompts and t_p seconds, one decoding step r requests and t_d(r). A
request has g generated tokens; a GPU of n has w bytes of weights, k bytes of cache a request at
its longest, a_p bytes of activations in a prefill call, a_d a request in a step:

    ttft      = t_p                     tpot = t_d(r) + (r/p) t_p / g
    max_batch = floor((u C - s - w - a_p) / (k + a_d))      C capacity, u utilisation, s workspace
    tokens/s  = r g / (r/p t_p + g t_d(r))
    gpus      = least power of two N with (w + r (k + a_d)) n/N + a_p + s <= u C
    price of a million generated tokens = 1e6 max(n, gpus) (USD/s) / (tokens/s)

What does not fit is so charged for the GPUs that it would need, at the speed of the group that
was asked for. Prefill and decoding take turns: under a steady load every other request is replaced
once while one decodes, and their prompts are in its time per token, as in measured times
(`studies/served_models`). Queues, chunked prefill and speculation are not modelled. Everything is
computed on arrays, one element an assignment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwmodels.devices.device import Device
from hwmodels.work.work import Work

Floats = NDArray[np.float64]

UTILISATION = 0.9
"""Share of the memory that a runtime fills. Source: the default of `gpu_memory_utilization` in
vLLM's engine arguments (vllm/config/cache.py)."""
WORKSPACE_BYTES = 1.5 * 2**30
"""CUDA context, communication buffers, captured graphs, scratch of libraries; assumed."""
MOST_GPUS = 4096
"""GPUs that are charged where activations alone overflow one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a decoder, read off its attention."""

    requests: int
    tokens: int
    """New tokens of each request; 1 in a decoding step."""
    context: int
    """Positions that the last of them sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The load on a group of GPUs."""

    prefill: Call
    decode: Call
    generated: float
    """Tokens that a request generates."""
    ways: int = 1
    """GPUs that share the network."""
    utilisation: float = UTILISATION
    price_usd_per_h: float | None = None
    """Of one GPU; None: unknown, and so are costs."""

    @property
    def longest(self) -> float:
        """Positions of a finished request."""
        return max(self.prefill.context + self.generated, float(self.decode.context))


@dataclass(frozen=True, kw_only=True)
class Loads:
    """Costs of assignments on one GPU, arrays of shape (assignments,)."""

    prefill_s: Floats
    decode_s: Floats
    weight_bytes: Floats
    kv_bytes: Floats
    """Caches of all requests of a decoding step."""
    prefill_peak_bytes: Floats
    decode_peak_bytes: Floats
    batches: Floats
    """Requests at which `step_s` was priced, ascending, shape (batches,)."""
    step_s: Floats
    """Seconds of a decoding step, shape (batches, assignments)."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Serving numbers, arrays of shape (assignments,)."""

    ttft_s: Floats
    tpot_s: Floats
    """A decoding step and what the prompts of the other requests add to it."""
    tokens_per_s_per_gpu: Floats
    max_batch: Floats
    """Requests that fit; below the demand's it is not feasible."""
    gpus: Floats
    """GPUs that the demand's batch needs."""
    full_tpot_s: Floats
    """The same with as many requests as fit (one, where none does)."""
    full_tokens_per_s_per_gpu: Floats
    cost_per_mtok: Floats | None
    """USD for a million generated tokens; None without a price."""
    full_cost_per_mtok: Floats | None


def call_of(work: Work) -> Call | None:
    """The call as the work's attentions show it; None without attention."""
    sizes = [op.sizes for region in work.regions for op in region.ops if op.kind == "attention"]
    if not sizes:
        return None
    largest = max(sizes, key=lambda s: s["L"])
    return Call(requests=largest["B"], tokens=largest["S"], context=largest["L"])


def serve(loads: Loads, demand: Demand, device: Device) -> Serving:
    """Serving numbers of assignments on a device."""
    room = _Room(loads=loads, demand=demand, usable=_usable(demand, device))
    batch = room.most()
    full = np.maximum(batch, 1.0)
    full_step = _step_s(loads, demand, full)
    requests = np.full_like(loads.decode_s, float(demand.decode.requests))
    speed = _tokens_per_s(loads, demand, requests, loads.decode_s)
    full_speed = _tokens_per_s(loads, demand, full, full_step)
    gpus = room.gpus(requests)
    return Serving(
        ttft_s=loads.prefill_s,
        tpot_s=requests / speed,
        tokens_per_s_per_gpu=speed / demand.ways,
        max_batch=batch,
        gpus=gpus,
        full_tpot_s=full / full_speed,
        full_tokens_per_s_per_gpu=full_speed / demand.ways,
        cost_per_mtok=_cost(demand, gpus, speed),
        full_cost_per_mtok=_cost(demand, room.gpus(full), full_speed),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """Memory of one GPU and what is in it."""

    loads: Loads
    demand: Demand
    usable: float

    @property
    def per_request(self) -> Floats:
        step = self.demand.decode
        cache = self.loads.kv_bytes * (self.demand.longest / max(step.context, 1))
        total: Floats = (cache + self.loads.decode_peak_bytes) / step.requests
        return total

    def most(self) -> Floats:
        """Requests that fit beside weights and the activations of a prefill call."""
        left = self.usable - self.loads.weight_bytes - self.loads.prefill_peak_bytes
        batch: Floats = np.floor(np.maximum(left, 0.0) / np.maximum(self.per_request, 1.0))
        return batch

    def gpus(self, requests: Floats) -> Floats:
        """Least power of two of GPUs that hold `requests`; `MOST_GPUS` where none does."""
        ways = self.demand.ways
        spread = (self.loads.weight_bytes + requests * self.per_request) * ways
        room = self.usable - self.loads.prefill_peak_bytes
        needed = np.divide(spread, room, out=np.full_like(spread, np.inf), where=room > 0)
        power: Floats = 2.0 ** np.ceil(np.log2(np.maximum(needed, 1.0)))
        return np.minimum(power, MOST_GPUS)


def _usable(demand: Demand, device: Device) -> float:
    return demand.utilisation * device.main_memory.capacity_bytes.value - WORKSPACE_BYTES


def _step_s(loads: Loads, demand: Demand, requests: Floats) -> Floats:
    """Seconds of a step, linear between the batches that were priced and beyond the last."""
    at = loads.batches
    if len(at) < 2:
        scaled: Floats = loads.decode_s * requests / demand.decode.requests
        return np.maximum(scaled, loads.decode_s)
    upper = np.clip(np.searchsorted(at, requests), 1, len(at) - 1)
    column = np.arange(len(requests))
    low, high = loads.step_s[upper - 1, column], loads.step_s[upper, column]
    share = (requests - at[upper - 1]) / (at[upper] - at[upper - 1])
    found: Floats = low + np.maximum(share, 0.0) * (high - low)
    return found


def _tokens_per_s(loads: Loads, demand: Demand, requests: Floats, step_s: Floats) -> Floats:
    prefills = requests / demand.prefill.requests * loads.prefill_s
    speed: Floats = requests * demand.generated / (prefills + demand.generated * step_s)
    return speed


def _cost(demand: Demand, gpus: Floats, tokens_per_s: Floats) -> Floats | None:
    if demand.price_usd_per_h is None:
        return None
    paid = np.maximum(gpus, demand.ways) * demand.price_usd_per_h / 3600
    cost: Floats = 1e6 * paid / tokens_per_s
    return cost
