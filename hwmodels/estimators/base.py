"""The seam between the cost model and its estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hwmodels.devices.device import Device
from hwmodels.runtimes.runtime import Runtime
from hwmodels.work.kernel import Kernel, KernelCost


class Estimator(Protocol):
    """Predicts what kernels cost on the devices that it claims.

    Every estimator passes the contract test in `tests/contracts/test_estimators.py`:
    nothing is faster than the speed of light, the interval holds the latency, more bytes or more
    operations never cost less.
    """

    def claims(self, device: Device) -> bool:
        """Whether this estimator knows the device's kind."""
        ...

    def estimate(
        self, kernels: Sequence[Kernel], device: Device, runtime: Runtime
    ) -> tuple[KernelCost, ...]:
        """The cost of each kernel, launched alone, in the order given."""
        ...
