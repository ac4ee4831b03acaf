"""The seam between the cost model and its estimators: one protocol and its laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hwmodels.devices.device import Device, DeviceKind
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel, KernelCost


@runtime_checkable
class Estimator(Protocol):
    """A predictor of what kernels cost on devices of some kinds.

    Laws, which `tests/contracts/test_estimators.py` holds every member of `ESTIMATORS` to:

    1. One cost a kernel, in the order given. A kernel's cost does not depend on those beside it:
       many at once cost what each costs alone. Equal calls give equal costs.
    2. Physics: `low_s` is never below the operations over the unit's peak rate, nor below the
       bytes that must come from main memory over its bandwidth (of weights those that are stored
       there, where a device codes them); `traffic_bytes` counts at least those. No latency is
       below the device's launch.
    3. `0 < low_s <= latency_s <= high_s`, all finite: the interval holds the estimate.
    4. `energy_j` is positive, and its mean power is at most the device's limit.
    5. More bytes, or twice the depth of a product, never cost less, up to what a learned or a
       padded model wobbles by (a fifth).
    6. Collectives are none of its business: links price them (`hwmodels.tables.collectives`).
    7. What the device cannot multiply, even widened, is a `WorkError`, never a number.
    """

    @property
    def kinds(self) -> frozenset[DeviceKind]:
        """Kinds of devices whose kernels it can price."""
        ...

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        """The cost of each kernel, launched alone, in the order given.

        Raises:
            WorkError: Elements that no unit of the device multiplies.
        """
        ...
