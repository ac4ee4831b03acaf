"""Methods held against the network of a workload, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dse.errors import MethodError
from dse.training.idle import Fitted, idle
from dse.training.method import Method
from dse.training.quantized import apply
from dse.training.tuning.tuned import Tuned, check
from dse.training.workloads.deal import dealt
from dse.training.workloads.workload import Workload


def check_fit(
    methods: Mapping[str, Method], workload: Workload, *, steps: int | None = None
) -> list[str]:
    """Runs one held-out sample through the network under each method.

    Args:
        methods: By name.
        workload: The network, of seed 0, and what it holds out.
        steps: Of a run; the workload's by default.

    Returns:
        Parts of methods that do nothing to this network in so many steps, a line each.

    Raises:
        MethodError: rules, roles or passes that no site of the network has, data that cannot be
            dealt to clients; a line a method.
    """
    model, sample = workload.model(0), workload.held_out()[0].inputs[:1]
    samples = len(workload.batch(0, 0).inputs)
    lines, remarks = [], []
    for name, method in methods.items():
        try:
            with torch.no_grad():
                found = apply(model, method).eval()
                found(sample)
                if found.gates is not None:
                    found.gates.share()
            if method.rounds is not None:
                dealt(workload, method.rounds, seed=0)
            check(method.tuning)
            if method.tuning is not None:
                Tuned(method.tuning, found.weights, steps=1, seed=0)
        except MethodError as error:
            lines.append(f"{name} on {workload.name}: {error}")
            continue
        run = Fitted(method=method, found=found, samples=samples, steps=steps or workload.steps)
        remarks += [f"{name} on {workload.name}: {line}" for line in idle(run)]
    if lines:
        raise MethodError("\n".join(lines))
    return remarks
