"""Collectives: what several GPUs pay to sum or gather an activation over their links.

A message of S bytes over n GPUs, W the bandwidth of a GPU's link in one direction:

    v(all_reduce) = 2 (n-1)/n S      v(all_gather) = v(reduce_scatter) = (n-1)/n S    (ring)
    steps(all_reduce) = 2 (n-1)      steps(others) = n-1
    alpha = start + step steps       beta = v / ((1 - c/n) s W)
    t(a, b) = a + b + m sqrt(a b)
    t_ring  = min(t(alpha, beta / h), t(k alpha, beta))

The two are NCCL's protocols: one that flags every word, ready early at h of the bandwidth, and one
that fills the link and starts late. `s` is 1 for all_reduce. Where a runtime has all-reduce
kernels over peer memory (`Runtime.peer_all_reduce`) for the message, all_reduce is the fastest of
the ring and of

    t_one = a + (n-1) S / (e_1 W)                           every GPU reads all others
    t_two = r a + b + q sqrt(r a b),  b = v / (e_2 W)       scatter, reduce, gather
    a     = p (start + 2 step) (1 + g (n-2))

Links that pass through the host (PCIe) share it: beta grows by (n/2)^contention, a figure of the
host more than of the GPU, else `HOSTS`. Constants: least mean |log ratio| over NCCL and custom
all-reduce tables of A100, H100 and B200 (`studies/collectives`, with the errors of devices left
out). Source of the alpha-beta form: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of
Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, section 4; of the protocols:
NCCL's user guide, NCCL_PROTO.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from hwmodels.devices.device import Device, Link
from hwmodels.devices.load import load_device
from hwmodels.devices.quantity import SourcedValue
from hwmodels.errors import WorkError
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.loops import CollectiveLoops


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Constants that all links share."""

    ways_loss: float = 0.744
    """c: of the link that few GPUs don't fill; 0.63 is left with two, 0.91 with eight."""
    gather: float = 0.864
    """s: what collectives that don't sum reach of that."""
    early: float = 0.577
    """h: bandwidth of the protocol that is ready early, of that of the other."""
    late: float = 2.025
    """k: latency of the other, of that of the first."""
    blend: float = 0.463
    """m: what is lost between the two regimes."""
    peer_latency: float = 0.466
    """p: latency of a peer kernel over that of a ring of two."""
    peer_growth: float = 0.023
    """g: what each further GPU adds to it."""
    one_shot: float = 0.707
    """e_1: share of the link's bandwidth."""
    two_shot: float = 0.779
    second_shot: float = 3.121
    """r: latency of the two-shot kernel over that of the one-shot kernel."""
    peer_blend: float = 1.382
    """q."""


LAW = Law()
MEASURED = ("a100-sxm-80gb", "h100-sxm", "b200-sxm", "l40s")
"""Devices whose links have measured latencies, for links that have none."""
GENERATION = 1.25
"""Bandwidths that differ by less are one generation of a link: NVLink doubles or grows by half."""
HOST_LINKS = ("pcie",)
HOSTS = (0.0, 0.5, 2.1)
"""Contention of three hosts, and what a host that nobody measured may have: none (four RTX 4090
with peer access under one root: 26 GB/s each of 32; tinygrad/open-gpu-kernel-modules issue 36),
two sockets of Xeon 8480 (RTX 5090: 35 GB/s with four, 28 with eight, of 63; NVIDIA/nccl issue
1639), and the L40S's without peer access (20, 5.4 and 1.4 with two, four and eight, of 32)."""
Standing = Literal["measured", "generation", "host", "unseen"]
SPREAD: dict[Standing, tuple[float, float]] = {
    "measured": (0.87, 1.2),
    "generation": (0.75, 1.45),
    "host": (0.74, 1.34),
    "unseen": (0.55, 1.8),
}
"""5 % and 95 % quantiles of measured over predicted: the device's own latencies, those of its
link's generation, its own on a link through the host, those of other generations. The second is
assumed: the first with twice what a table of another NCCL adds to it. The last is twice the mean
error of devices left out."""


def ring_s(
    collective: str,
    message_bytes: float,
    ways: int,
    link: Link,
    *,
    contention: float | None = None,
    law: Law = LAW,
) -> float:
    """Seconds of a ring collective.

    Args:
        collective: all_reduce, all_gather or reduce_scatter.
        message_bytes: The whole message: what is summed (all_reduce), what every GPU has in the
            end (all_gather) or had before (reduce_scatter).
        ways: GPUs that take part.
        link: What connects them.
        contention: Exponent of the host's sharing; None: the link's, or that of a host in
            between.
        law: Constants of all links.
    """
    rounds = 2 if collective == "all_reduce" else 1
    filled = (1 - law.ways_loss / ways) * (1.0 if rounds == 2 else law.gather)
    start, step, _ = latencies(link)
    alpha = start + step * rounds * (ways - 1)
    moved = rounds * (ways - 1) / ways * message_bytes
    shared = _contention(link) if contention is None else contention
    beta = moved / (filled * _one_way(link)) * (ways / 2) ** shared
    early = _blended(alpha, beta / law.early, law.blend)
    return min(early, _blended(law.late * alpha, beta, law.blend))


def peer_all_reduce_s(message_bytes: float, ways: int, link: Link, law: Law = LAW) -> float:
    """Seconds of the better of the one-shot and the two-shot kernel over peer memory."""
    start, step, _ = latencies(link)
    first = law.peer_latency * (start + 2 * step) * (1 + law.peer_growth * (ways - 2))
    one = first + (ways - 1) * message_bytes / (law.one_shot * _one_way(link))
    moved = 2 * (ways - 1) / ways * message_bytes
    beta = moved / (law.two_shot * _one_way(link))
    return min(one, _blended(law.second_shot * first, beta, law.peer_blend))


def latencies(link: Link) -> tuple[float, float, Standing]:
    """Start and step of a link in seconds, and how they are known.

    A link without figures has those of the measured link of its kind and generation; else of its
    kind (PCIe), else the geometric means of all NVLinks.
    """
    alike = [one for one in measured_links() if one.name == link.name]
    near = [one for one in alike if _is_near(one, link)]
    kin = near or alike or [one for one in measured_links() if one.name not in HOST_LINKS]
    start = link.start_s.value if link.start_s else _mean([one.start_s for one in kin])
    step = link.step_s.value if link.step_s else _mean([one.step_s for one in kin])
    return start, step, _standing(link, bool(near))


def _standing(link: Link, has_near: bool) -> Standing:
    own = (link.start_s, link.step_s)
    by_host = link.name in HOST_LINKS
    if all(figure and figure.kind == "measured" for figure in own):
        return "host" if by_host else "measured"
    # Boards on PCIe differ by their hosts, not by their generation.
    return "generation" if has_near and not by_host else "unseen"


def _is_near(first: Link, second: Link) -> bool:
    ratio = first.bandwidth_bytes_per_s.value / second.bandwidth_bytes_per_s.value
    return abs(math.log(ratio)) < math.log(GENERATION)


@cache
def measured_links() -> tuple[Link, ...]:
    """The links of `MEASURED`, in its order."""
    return tuple(load_device(name).links[0] for name in MEASURED)


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
    ends = (latency, latency)
    if link.name in HOST_LINKS:
        if link.contention is None:
            best, worst = min(HOSTS), max(HOSTS)
            ends = (
                ring_s(kernel.detail, message, ways, link, contention=best),
                ring_s(kernel.detail, message, ways, link, contention=worst),
            )
    elif kernel.detail == "all_reduce" and message <= runtime.peer_limit_bytes(
        device.architecture, ways
    ):
        latency = min(latency, peer_all_reduce_s(message, ways, link))
        ends = (latency, latency)
    low, high = SPREAD[latencies(link)[2]]
    return KernelCost(
        latency_s=latency,
        low_s=ends[0] * low,
        high_s=ends[1] * high,
        energy_j=device.power.idle_w.value * latency,
        traffic_bytes=2.0 * message,
        bound="communication",
    )


def _contention(link: Link) -> float:
    if link.name not in HOST_LINKS:
        return 0.0
    return link.contention.value if link.contention else statistics.median(HOSTS)


def _blended(alpha: float, beta: float, blend: float) -> float:
    return alpha + beta + blend * math.sqrt(alpha * beta)


def _one_way(link: Link) -> float:
    return link.bandwidth_bytes_per_s.value / 2


def _mean(figures: Sequence[SourcedValue | None]) -> float:
    return statistics.geometric_mean(figure.value for figure in figures if figure)
