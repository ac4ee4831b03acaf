"""Curvature of the loss by module: the mean of the Hessian's diagonal, by random probes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dse.training.workloads.workload import Batch, outputs_loss

PROBES = 8


def mean_curvatures(
    model: nn.Module, batch: Batch, *, seed: int, probes: int = PROBES
) -> Mapping[str, float]:
    """The Hessian's trace over the number of its rows, of each module with a matrix of weights.

    Signs at random are multiplied by the Hessian from both sides; the mean is the trace.

    Source: Hutchinson's estimator, as HAWQ-V2 uses it (arXiv 1911.03852, section 3.2).
    """
    named = {name: one for name, one in model.named_parameters() if one.dim() > 1}
    generator = torch.Generator().manual_seed(seed)
    found = dict.fromkeys(named, 0.0)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        loss = outputs_loss(model(batch.inputs), batch.labels)
        gradients = torch.autograd.grad(loss, list(named.values()), create_graph=True)
        for _ in range(probes):
            signs = [
                (2.0 * torch.randint(2, one.shape, generator=generator) - 1).to(one.device)
                for one in named.values()
            ]
            products = torch.autograd.grad(
                gradients, list(named.values()), grad_outputs=signs, retain_graph=True
            )
            for name, sign, product in zip(named, signs, products, strict=True):
                found[name] += float((sign * product).sum()) / probes
    return {name.rpartition(".")[0]: trace / named[name].numel() for name, trace in found.items()}


def above_mean(curvatures: Mapping[str, float]) -> frozenset[str]:
    """Modules whose curvature is above the mean of all."""
    limit = sum(curvatures.values()) / max(len(curvatures), 1)
    return frozenset(name for name, value in curvatures.items() if value > limit)
