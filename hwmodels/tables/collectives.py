"""Collectives: what several GPUs pay to sum or gather an activation over their links.

A message of S bytes over n GPUs, W the bandwidth of a GPU's link in one direction:

    v(all_reduce) = 2 (n-1)/n S      v(all_gather) = v(reduce_scatter) = (n-1)/n S    (ring)
    steps(all_reduce) = 2 (n-1)      steps(others) = n-1
    alpha = start + step steps       beta = v / (e W)
    t_ring = alpha + beta + sqrt(alpha beta)

The last term is what latency-oriented protocols lose between the two regimes. Where a runtime
has all-reduce kernels over peer memory (`Runtime.peer_all_reduce`), all-reduce is the fastest of
the ring and of

    t_one = a + (n-1) S / (e_1 W)                           every GPU reads all others
    t_two = r a + b + sqrt(r a b),  b = v / (e_2 W)         scatter, reduce, gather
    a     = k (start + 2 step) (1 + g (n-2))

Links that pass through the host (PCIe without peer access) share it: beta grows by
(n/2)^`HOST_CONTENTION`. Constants: least mean |log ratio| over NCCL and custom all-reduce tables
of A100, H100, B200 and L40S (`studies/collectives`, with the errors; also on devices left out).
Source of the ring's alpha-beta form: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of
Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwmodels.devices.device import Device, Link
from hwmodels.errors import WorkError
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import CollectiveLoops

EFFICIENCY = 0.70
"""e: share of the link's bandwidth that a ring reaches."""
ONE_SHOT_EFFICIENCY = 0.64
TWO_SHOT_EFFICIENCY = 0.84
PEER_LATENCY = 0.455
"""k: latency of a peer kernel over that of a ring of two."""
PEER_GROWTH = 0.023
"""g: what each further GPU adds to it."""
SECOND_SHOT = 3.67
"""r: latency of the two-shot kernel over that of the one-shot kernel."""
DEFAULT_START_S = 6.9e-6
"""Figures where the device file has none: geometric mean over A100, H100 and B200."""
DEFAULT_STEP_S = 0.92e-6
HOST_LINKS = ("pcie",)
HOST_CONTENTION = 2.0
"""Seen on one host with L40S GPUs without peer access (2, 4 and 8 GPUs: 20, 5.5 and 1.3 GB/s)."""
MEASURED_SPREAD = (0.85, 1.32)
"""5 % and 95 % quantiles of measured over predicted, devices whose link has measured figures."""
UNSEEN_SPREAD = (0.55, 1.8)
"""For all others; twice the mean error on a device left out."""


def ring_s(collective: str, message_bytes: float, ways: int, link: Link) -> float:
    """Seconds of a ring collective.

    `message_bytes` is the whole message: what is summed (all_reduce), what every GPU has in the
    end (all_gather) or had before (reduce_scatter).
    """
    rounds = 2 if collective == "all_reduce" else 1
    alpha = _start_s(link) + _step_s(link) * rounds * (ways - 1)
    moved = rounds * (ways - 1) / ways * message_bytes
    beta = moved / (EFFICIENCY * _one_way(link)) * _contention(link, ways)
    return alpha + beta + math.sqrt(alpha * beta)


def peer_all_reduce_s(message_bytes: float, ways: int, link: Link) -> float:
    """Seconds of the better of the one-shot and the two-shot kernel over peer memory."""
    first = PEER_LATENCY * (_start_s(link) + 2 * _step_s(link)) * (1 + PEER_GROWTH * (ways - 2))
    one = first + (ways - 1) * message_bytes / (ONE_SHOT_EFFICIENCY * _one_way(link))
    alpha = SECOND_SHOT * first
    moved = 2 * (ways - 1) / ways * message_bytes
    beta = moved / (TWO_SHOT_EFFICIENCY * _one_way(link))
    return min(one, alpha + beta + math.sqrt(alpha * beta))


def collective_costs(
    kernels: Sequence[Kernel], device: Device, runtime: Runtime
) -> tuple[KernelCost, ...]:
    """The cost of each collective kernel, for one of the GPUs that take part.

    Energy is the idle power while it lasts: links have no figure.

    Raises:
        WorkError: The device has no link to others.
    """
    return tuple(_cost(kernel, device, runtime) for kernel in kernels)


def _cost(kernel: Kernel, device: Device, runtime: Runtime) -> KernelCost:
    if not device.links:
        raise WorkError(
            f"{device.name}: no `links` in its file, so several of it cannot share a network; "
            "set tensor_parallel to 1 or add a link"
        )
    assert isinstance(kernel.loops, CollectiveLoops), "kernels check their loops"
    link, ways = device.links[0], kernel.loops.ways
    message = max(kernel.input_bytes, kernel.write_bytes)
    latency = ring_s(kernel.detail, message, ways, link)
    if kernel.detail == "all_reduce" and runtime.peer_all_reduce and link.name not in HOST_LINKS:
        latency = min(latency, peer_all_reduce_s(message, ways, link))
    measured = link.start_s is not None and link.start_s.kind == "measured"
    low, high = MEASURED_SPREAD if measured else UNSEEN_SPREAD
    return KernelCost(
        latency_s=latency,
        low_s=latency * low,
        high_s=latency * high,
        energy_j=device.power.idle_w.value * latency,
        traffic_bytes=2.0 * message,
        bound="communication",
    )


def _start_s(link: Link) -> float:
    return link.start_s.value if link.start_s else DEFAULT_START_S


def _step_s(link: Link) -> float:
    return link.step_s.value if link.step_s else DEFAULT_STEP_S


def _one_way(link: Link) -> float:
    return link.bandwidth_bytes_per_s.value / 2


def _contention(link: Link, ways: int) -> float:
    return float((ways / 2) ** HOST_CONTENTION) if link.name in HOST_LINKS else 1.0
