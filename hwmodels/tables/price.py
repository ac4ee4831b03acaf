"""The price of one region on a device under a runtime; `network` prices whole networks."""

from __future__ import annotations

from collections.abc import Sequence

from hwmodels.devices.device import Device
from hwmodels.estimators.npu.memory import map_bytes, scratch_of
from hwmodels.estimators.registry import estimator_of
from hwmodels.plans.conversion import kernels_of
from hwmodels.plans.region import Context, RegionPlan, plan_region
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tables.collectives import collective_costs
from hwmodels.tables.corrections import corrected
from hwmodels.tables.sequence import in_sequence
from hwmodels.work.cost import CostEstimate
from hwmodels.work.kernel import Kernel, KernelCost
from hwmodels.work.memory import is_activation
from hwmodels.work.work import RegionWork


def kernel_costs(
    kernels: Sequence[Kernel], device: Device, runtime: Runtime
) -> tuple[KernelCost, ...]:
    """The cost of each kernel, one after another: collectives by links, others by the estimator.

    Raises:
        DeviceError: As `estimator_of`.
        WorkError: As `Estimator.estimate` and `collective_costs`.
    """
    shared = [kernel for kernel in kernels if kernel.kind == "collective"]
    own = [kernel for kernel in kernels if kernel.kind != "collective"]
    over_links = iter(collective_costs(shared, device, runtime))
    costs = estimator_of(device).estimate(own, device, runtime)
    alone = iter(in_sequence(costs, device, runtime))
    found = [next(over_links if kernel.kind == "collective" else alone) for kernel in kernels]
    return corrected(found, kernels, device, runtime)


def price(
    region: RegionWork, device: Device, runtime: Runtime, context: Context | None = None
) -> CostEstimate:
    """The cost of one region whose operands carry their quantizers, conversions included.

    Its peak is what the region alone needs: reads, writes and converted copies.

    Raises:
        WorkError: An op that lacks sizes, or elements that no unit of the device holds.
    """
    plan = plan_region(region, device, runtime, context)
    kernels = [*kernels_of(plan.conversions), *plan.kernels]
    costs = kernel_costs(kernels, device, runtime)
    total = cost_of(plan, kernels, costs)
    border = {
        o.value: map_bytes(o, o.bytes, device)
        for o in (*region.reads, *region.writes)
        if is_activation(o)
    }
    held = scratch_of(kernels, device, float("inf")).held_bytes
    copies = sum(conversion.copy_bytes for conversion in plan.conversions)
    return total.replaced(peak_bytes=round(sum(border.values()) + held) + copies)


def cost_of(
    plan: RegionPlan, kernels: Sequence[Kernel], costs: Sequence[KernelCost]
) -> CostEstimate:
    """The costs of a plan's kernels as one estimate; a plan without kernels costs no time."""
    named = [
        (
            f"{index}:{kernel.kind}",
            CostEstimate(
                latency_s=cost.latency_s,
                low_s=cost.low_s,
                high_s=cost.high_s,
                energy_j=cost.energy_j,
                traffic_bytes=cost.traffic_bytes,
                bound=cost.bound,
                spatial=cost.spatial,
            ),
        )
        for index, (kernel, cost) in enumerate(zip(kernels, costs, strict=True))
    ]
    return CostEstimate.total(named).replaced(
        weight_bytes=sum(entry.bytes for entry in plan.constants if not entry.is_cache),
        kv_bytes=sum(entry.bytes for entry in plan.constants if entry.is_cache),
        status=plan.status,
        notes=plan.notes,
    )
