"""Every choice of every variable scored by one forward and one backward pass a batch.

At full precision the KL divergence is zero and so is its gradient: what is left of a small
perturbation `d` of the operands is `d' F d / 2`, where `F`, the Fisher information, is the
covariance of gradients of the log-likelihood of labels drawn from the model's own distribution.
Rounding errors of activations are nearly independent of each other, so that only its diagonal is
needed: squared gradients, times squared errors, summed over the operands that a choice changes.
Those of a weight are made to cancel in what an output sums up (searched ranges, GPTQ, corrected
means): there `F` has a block for every output, and gradients times errors are summed over what
the output reads before they are squared, with what a corrected mean puts into the bias.

Good to rank choices before anything is measured; it knows nothing of large errors, where direct
scores (`dse.sensitivity.table`) are right.

Source: FIT, arXiv 2210.08502, section 3 (Fisher information of weights and activations); labels
from the model, not from the data: Kunstner et al., arXiv 1905.12558.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dse.evaluate.batches import Batch, batches
from dse.evaluate.evaluator import Evaluator, SplitName
from dse.evaluate.outputs.output import Output
from dse.execute.emulate import Emulator
from dse.execute.program.backward import Backward
from dse.graph.ir.site import SUM_ROLE
from dse.numerics.precision import exact_float32
from dse.sensitivity.table import Score, Sensitivity
from dse.space.problem import Problem
from hwmodels.formats.quantizer import Quantizer
from hwmodels.work.role import ROLES

BACKWARD_FORWARDS = 2
"""A backward pass contracts twice what the forward did: towards operands and towards weights."""
LEAST_PART_BYTES = 1 << 28
"""Of a pass that are held at once, however little memory there is."""


class Probe:
    """Stands at a site like a quantizer; keeps what passes and its gradient.

    In the body of a Loop it is passed in every iteration, in a branch that is not taken never.
    """

    def __init__(self) -> None:
        self._seen: list[Tensor] = []

    @property
    def holds(self) -> bool:
        """Whether something has passed."""
        return bool(self._seen)

    def forget(self) -> None:
        """Lets go of all that has passed."""
        self._seen.clear()

    def __call__(self, x: Tensor) -> Tensor:
        """X, as something that a gradient reaches; integers, which have none, as they are."""
        if not x.is_floating_point():
            return x
        tracked = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
        tracked.retain_grad()
        self._seen.append(tracked)
        return tracked

    @property
    def values(self) -> list[Tensor]:
        """The batches that passed, in order."""
        return [seen.detach() for seen in self._seen]

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients with respect to it; zeros where nothing depends on it."""
        return [torch.zeros_like(s) if s.grad is None else s.grad for s in self._seen]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operand:
    """One quantized value with the sites that read it."""

    sites: tuple[str, ...]
    emulator: Emulator
    is_weight: bool
    correction: tuple[str, Tensor] | None = None
    """The site of the bias that takes a weight's corrected means, and what is added there."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The sites whose gradients its score is made of."""
        return self.sites if self.correction is None else (*self.sites, self.correction[0])


def gradient_scores(
    evaluator: Evaluator,
    problem: Problem,
    *,
    split: SplitName = "calibration",
    samples: int | None = None,
    seed: int = 0,
) -> Sensitivity:
    """Second-order estimates of every choice's loss, in the units of measured losses.

    Adds what it executes to `evaluator.macs`, the backward pass as two forwards.

    Args:
        evaluator: model, data and calibration.
        problem: the decision variables.
        split: where gradients are taken; the calibration split leaves the search split unseen.
        samples: whole batches until so many are seen (default: all). Batches are at most half of
            the samples, so that there is a spread between them.
        seed: of the labels that are drawn.

    Returns:
        A score of each choice; its standard error is over batches, infinite with one sample.
    """
    operands = {
        (v, c): _operands(evaluator, problem, v, c)
        for v, variable in enumerate(problem.variables)
        for c in range(len(variable.choices))
    }
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[float]] = []
    seen = 0
    for batch in _batches(evaluator, split, samples):
        seen += batch.samples
        rows.append(_batch_losses(evaluator, batch, problem, list(operands.values()), generator))
    table = np.array(rows)
    means = table.mean(axis=0)
    spread = table.std(axis=0, ddof=1) / math.sqrt(len(table)) if len(table) > 1 else means * 0
    return Sensitivity(
        scores=tuple(
            Score(
                variable=problem.variables[v].name,
                choice=problem.variables[v].choices[c].name,
                loss=float(mean),
                stderr=float(error) if len(table) > 1 else math.inf,
                samples=seen,
            )
            for (v, c), mean, error in zip(operands, means, spread, strict=True)
        )
    )


def _batches(evaluator: Evaluator, split: SplitName, samples: int | None) -> Iterator[Batch]:
    seen = 0
    data = getattr(evaluator.splits, split)
    wanted = min(samples or data.samples, data.samples)
    for batch in batches(data, min(evaluator.batch, -(-wanted // 2)), evaluator.device):
        if seen >= wanted:
            return
        seen += batch.samples
        yield batch


def _operands(
    evaluator: Evaluator, problem: Problem, variable: int, choice: int
) -> tuple[_Operand, ...]:
    """The values that a choice quantizes: what several sites read alike is one operand."""
    assignment = problem.changed(variable, choice)
    bound = evaluator.emulators(assignment)
    # States are known by what the assignment says, not by what its words come to at the site.
    named = dict(evaluator.weights.settled(assignment.without_sums))
    groups: dict[tuple[str, Emulator], list[str]] = {}
    for key, emulator in bound.items():
        groups.setdefault((evaluator.sites[key].value, emulator), []).append(key)
    return tuple(
        _Operand(
            sites=tuple(keys),
            emulator=emulator,
            is_weight=ROLES[evaluator.sites[keys[0]].role].is_constant,
            correction=_correction(evaluator, keys[0], named[keys[0]]),
        )
        for (_, emulator), keys in groups.items()
    )


def _correction(evaluator: Evaluator, key: str, quantizer: Quantizer) -> tuple[str, Tensor] | None:
    product = evaluator.weights.product(key)
    if product is None or product.bias is None:
        return None
    state = evaluator.weights.state(key, quantizer)
    if state is None or state.output_shift is None:
        return None
    return product.bias, state.output_shift


def _batch_losses(
    evaluator: Evaluator,
    batch: Batch,
    problem: Problem,
    operands: Sequence[tuple[_Operand, ...]],
    generator: torch.Generator,
) -> list[float]:
    """The loss of each choice on one batch: a forward and a backward pass an output."""
    keys = [site.key for v in problem.variables for site in v.every_site if site.role != SUM_ROLE]
    keys += [key for every in operands for one in every for key in one.keys]
    probes = {key: Probe() for key in dict.fromkeys(keys)}
    part_bytes = max(evaluator.trace_bytes // 2, LEAST_PART_BYTES)
    outputs = evaluator.task.outputs
    total = np.zeros(len(operands))
    for place, output in enumerate(outputs):
        found, back = evaluator.program.watched(batch.feeds, probes, part_bytes=part_bytes)
        forward = back.macs
        with torch.enable_grad(), exact_float32(evaluator.program.device):
            scores = output.scores(found[output.value], batch.samples)  # type: ignore[arg-type]
            drawn, positions = _drawn(scores, output, generator)
        del found, scores
        unit = positions
        if not output.is_distribution:
            unit = evaluator.spread(place) * math.sqrt(batch.samples)
        losses = [_loss(one, output, unit) for one in _energies(back, drawn, operands, probes)]
        total += output.weight * np.array(losses)
        evaluator.macs += back.macs + BACKWARD_FORWARDS * forward
    whole = sum(output.weight for output in outputs)
    return [float(one) for one in total / whole]


def _energies(
    back: Backward,
    drawn: Tensor,
    operands: Sequence[tuple[_Operand, ...]],
    probes: Mapping[str, Probe],
) -> list[float]:
    """The energy of each choice, of its operands as soon as the backward pass has met them."""
    keys = {id(probe): key for key, probe in probes.items()}
    pending = [(number, one) for number, every in enumerate(operands) for one in every]
    total = [0.0] * len(operands)
    met: set[str] = set()
    for watches in back.parts(drawn):
        met |= {keys[id(one)] for one in watches}
        waiting = []
        for number, operand in pending:
            if met.issuperset(operand.keys):
                total[number] += _energy(operand, probes)
            else:
                waiting.append((number, operand))
        pending = waiting
        wanted = {key for _, operand in pending for key in operand.keys}
        for key in met - wanted:
            probes[key].forget()
    return total


def _drawn(scores: Tensor, output: Output, generator: torch.Generator) -> tuple[Tensor, float]:
    """A scalar whose gradient has the curvature of the loss as its covariance; the positions.

    Draws are the host's, so that one seed means the same on every device.
    """
    if not output.is_distribution:
        noise = torch.randn(scores.shape, generator=generator).to(scores.device)
        return (scores * noise)[scores.isfinite()].sum(), float(scores.numel())
    log_probabilities = torch.log_softmax(scores, dim=-1).flatten(0, -2)
    likely = log_probabilities.detach().exp().cpu()
    kept = likely.sum(dim=-1).isfinite()
    if not bool(kept.all()):
        log_probabilities, likely = log_probabilities[kept.to(scores.device)], likely[kept]
    drawn = torch.multinomial(likely, 1, generator=generator).to(scores.device)
    return log_probabilities.gather(-1, drawn).sum(), float(len(drawn))


def _energy(operand: _Operand, probes: Mapping[str, Probe]) -> float:
    """Sum of squared gradient times error: of a weight's outputs, else of every element."""
    total = 0.0
    # Nothing passes in the branch of an If that is not taken.
    read = [probes[key] for key in operand.sites if probes[key].holds]
    if not read:
        return total
    gradients = zip(*(probe.gradients for probe in read), strict=True)
    taken: Sequence[Tensor | None] = [None] * len(read[0].values)
    if operand.correction is not None:
        bias, shift = operand.correction
        taken = [gradient * shift.to(gradient) for gradient in probes[bias].gradients]
    for value, parts, put_back in zip(read[0].values, gradients, taken, strict=True):
        gradient = torch.stack(parts).sum(dim=0)
        moved = gradient * (operand.emulator(value) - value)
        if operand.is_weight and operand.emulator.axes:
            moved = moved.sum(operand.emulator.axes)
            if put_back is not None:
                moved = moved.flatten() + put_back
        total += float(moved.square().sum(dtype=torch.float64))
    return total


def _loss(energy: float, output: Output, unit: float) -> float:
    """In nats per position, or as an error over the spread of the reference."""
    if output.is_distribution:
        return energy / (2 * max(unit, 1.0))
    return math.sqrt(energy) / unit
