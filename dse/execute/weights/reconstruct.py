"""Block-wise reconstruction: roundings that lower the error at the end of a block, by gradients.

Sources: Li et al., BRECQ, arXiv 2102.05426, section 3.2 (the block's end as the aim); Cheng et
al., SignRound, arXiv 2309.05516, section 3 (signs of gradients that pass straight through the
rounding, a rate that falls to zero); Wei et al., QDrop, arXiv 2203.05740, section 3.3 (what else
is quantized is left out at random).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dse.execute.operators.operator import Value
from dse.execute.program.program import Program
from dse.execute.weights.blocks import Block
from dse.execute.weights.product import Product
from dse.numerics import Neighbours, QuantizerState, neighbours
from hwmodels.formats.quantizer import Quantizer

STEPS = 200
"""SignRound's, each on one batch."""
LEFT_OUT = 0.5
"""The chance of a weight to stay in full precision for a step. Its neighbours in the block may
end in any format, so that it must not count on their errors."""
SEED = 0
FORWARDS = 3
"""Forward passes that a step costs: one, and about two for the gradients."""

Feeds = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A weight to round. Matrices are (groups, outputs, depth)."""

    product: Product
    matrix: Tensor
    """In full precision."""
    start: Tensor
    """On the grid: what is kept where nothing better is found."""
    near: Neighbours
    """The start and its neighbour on the other side of the weight."""
    mean: Tensor | None
    """(groups, depth) of the inputs, whose share in the error a correction takes out."""


def beside(
    matrix: Tensor, start: Tensor, quantizer: Quantizer, state: QuantizerState
) -> Neighbours:
    """Values on the grid and their neighbours on the other side of what they stand for.

    Where a value is not next to the weight, the neighbour is the one towards it.

    Args:
        matrix: (groups, outputs, depth), the weight.
        start: of that shape, on the grid.
        quantizer: along the last axis.
        state: its scales of the rows.
    """
    rows = matrix.reshape(-1, matrix.shape[-1])
    around = neighbours(rows, quantizer, axes=(1,), state=replace(state, values=None))
    down, up = around.down.reshape(matrix.shape), around.up.reshape(matrix.shape)
    return Neighbours(
        down=torch.where(start > up, up, torch.minimum(down, start)),
        up=torch.where(start < down, down, torch.maximum(up, start)),
    )


def reconstructed(
    blocks: Sequence[Block],
    batches: Iterable[Feeds],
    weights: Mapping[str, Tensor],
    candidates: Mapping[str, Candidate],
    *,
    device: torch.device,
) -> tuple[dict[str, Tensor], int]:
    """Rounded matrices by site key, and the multiply-accumulates that they took.

    Blocks are rounded one by one, with full precision's values before them and as their aim.

    Args:
        blocks: of the model, in order.
        batches: calibration data.
        weights: every weight of the blocks in full precision.
        candidates: those to round.
        device: where the model runs.
    """
    found: dict[str, Tensor] = {}
    given = list(batches)
    before: Sequence[Feeds] = given
    macs = 0
    for block in blocks:
        program = Program(block.graph, device=device)
        fixed = {value: weights[key] for key, value in block.weights.items()}
        names = block.graph.inputs
        feeds = [
            {name: value for name, value in {**one, **led, **fixed}.items() if name in names}
            for one, led in zip(given, before, strict=True)
        ]
        with torch.no_grad():
            runs = [program.run(one) for one in feeds]
        macs += sum(run.macs for run in runs)
        before = [run.outputs for run in runs]
        here = {key: candidates[key] for key in block.weights if key in candidates}
        if here:
            descent = _Descent(program, block, feeds, [run.outputs for run in runs], here)
            found |= descent.rounded()
            macs += descent.macs
    return found, macs


class _Shift:
    """Stands at a product's output and adds what corrects its mean."""

    def __init__(self) -> None:
        self.shift: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """X with the correction of the step."""
        return x if self.shift is None else x + self.shift


class _Descent:
    """The roundings of one block while they are learned."""

    def __init__(
        self,
        program: Program,
        block: Block,
        feeds: Sequence[Feeds],
        ends: Sequence[Mapping[str, Tensor]],
        candidates: Mapping[str, Candidate],
    ) -> None:
        self._program = program
        self._block = block
        self._feeds = feeds
        self._ends = ends
        self._candidates = candidates
        self._shifts = {
            f"{one.product.node.name}/out0": _Shift()
            for one in candidates.values()
            if one.mean is not None
        }
        self.macs = 0
        """Multiply-accumulates spent."""

    def rounded(self) -> dict[str, Tensor]:
        """The matrices after the last step, or the start where that errs less."""
        random = torch.Generator().manual_seed(SEED)
        shares = {key: _share(one) for key, one in self._candidates.items()}
        keys = tuple(shares)
        for step in range(STEPS):
            drawn = torch.rand(len(keys), generator=random) >= LEFT_OUT
            drawn[int(torch.randint(len(keys), (), generator=random))] = True
            used = [key for key, one in zip(keys, drawn.tolist(), strict=True) if one]
            leaves = [shares[key].requires_grad_(True) for key in used]
            with torch.enable_grad():
                matrices = {key: _straight(self._candidates[key], shares[key]) for key in used}
                error = self._error(step % len(self._feeds), matrices, FORWARDS)
                slopes = torch.autograd.grad(error, leaves)
            rate = (1 - step / STEPS) / STEPS
            with torch.no_grad():
                for key, slope in zip(used, slopes, strict=True):
                    shares[key] = (shares[key] - rate * slope.sign()).clamp(0, 1).detach()
        start = {key: one.start for key, one in self._candidates.items()}
        learned = {key: _hard(one, shares[key]) for key, one in self._candidates.items()}
        return min((start, learned), key=self._total)

    def _total(self, matrices: Mapping[str, Tensor]) -> float:
        """The error over all batches."""
        with torch.no_grad():
            return sum(float(self._error(n, matrices, 1)) for n in range(len(self._feeds)))

    def _error(self, number: int, matrices: Mapping[str, Tensor], forwards: int) -> Tensor:
        """The squared error at the block's end on a batch under some rounded matrices."""
        changed: dict[str, Value] = {}
        for shift in self._shifts.values():
            shift.shift = None
        for key, matrix in matrices.items():
            one = self._candidates[key]
            changed[self._block.weights[key]] = one.product.weight(matrix)
            if one.mean is not None:
                lost = (one.matrix - matrix) @ one.mean.to(matrix.dtype)[..., None]
                moved = one.product.along_outputs(lost.flatten() * one.product.scale)
                self._shifts[f"{one.product.node.name}/out0"].shift = moved
        run = self._program.run({**self._feeds[number], **changed}, self._shifts)
        self.macs += forwards * run.macs
        wanted = self._ends[number]
        return torch.stack([(run.outputs[n] - wanted[n]).square().mean() for n in wanted]).sum()


def _share(one: Candidate) -> Tensor:
    """The place of each weight between its neighbours, moved halfway to where the start is."""
    width = one.near.up - one.near.down
    up = (one.start - one.near.down) > width / 2
    place = torch.where(width > 0, (one.matrix - one.near.down) / width, 0.5).clamp(0, 1)
    # A hair beyond the middle, so that the start is where it was.
    return torch.where(up, 0.501 + 0.499 * place, 0.499 * place)


def _hard(one: Candidate, share: Tensor) -> Tensor:
    return torch.where(share >= 0.5, one.near.up, one.near.down)


def _straight(one: Candidate, share: Tensor) -> Tensor:
    """The rounded matrix, whose gradient is that of the mixture of its neighbours."""
    mixed = one.near.down + share * (one.near.up - one.near.down)
    return mixed + (_hard(one, share) - mixed).detach()
