"""A group of equal GPUs under a runtime: what prices a model's phases and its serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dse.evaluate.phases import Exchange
from hwmodels.devices.device import Device
from hwmodels.runtimes.runtime import Runtime
from hwmodels.tables.network import Choices, CostTable, PhaseWork
from hwmodels.tables.served import ServedTable
from hwmodels.tables.serving import UTILISATION, Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The device and runtime of a model."""

    device: Device
    runtime: Runtime
    gpus: int = 1
    """Number of devices that share the network (tensor parallelism)."""
    utilisation: float = UTILISATION
    """Share of a GPU's memory that may be filled."""
    price_usd_per_h: float | None = None
    """Of one GPU; None takes the device file's, where it has one."""

    def table(
        self, phases: Sequence[PhaseWork], choices: Choices, *, detailed: bool = False
    ) -> CostTable:
        """The cost table of phases whose work is that of one of the GPUs.

        Raises:
            WorkError: as `CostTable.build`.
        """
        return CostTable.build(
            phases, choices, self.device, self.runtime, gpus=self.gpus, detailed=detailed
        )

    def served(
        self,
        table: CostTable,
        exchange: Exchange,
        steps: Sequence[PhaseWork],
        choices: Choices,
        *,
        prompts: Sequence[PhaseWork] = (),
    ) -> ServedTable:
        """Serving numbers of the assignments of `table`.

        Args:
            table: prices the prefill and the decoding phase.
            exchange: which phases these are.
            steps: decoding steps of more and more requests (`growing_steps`).
            choices: what `table` was built with.
            prompts: prefill calls of more and more prompts (`fuller_prompts`), for queues.

        Raises:
            WorkError: as `CostTable.build`.
        """
        listed = self.device.price_usd_per_h
        return ServedTable(
            table=table,
            prefill=exchange.prefill,
            decode=exchange.decode,
            steps=self.table(steps, choices) if steps else None,
            prompts=self.table(prompts, choices) if prompts else None,
            demand=Demand(
                prefill=exchange.prompt,
                decode=exchange.step,
                generated=exchange.generated,
                ways=self.gpus,
                utilisation=self.utilisation,
                price_usd_per_h=self.price_usd_per_h or (listed.value if listed else None),
            ),
            device=self.device,
        )
