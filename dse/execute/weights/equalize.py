"""Cross-layer equalisation: ranges of channels evened between the weights that make and read them.

The factors follow from the weights of the whole network alone, no data. They are used between two
weights that both ask for it; what stands at the values between sees them scaled, too. So what is
emulated is what folding the factors into both weights, the bias and static scales computes.

Source: Nagel et al., Data-Free Quantization, arXiv 1906.04721, section 4.1: equation 11, repeated
over all pairs until nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dse.errors import AssignmentError
from dse.execute.weights.channel_pairs import Pair, pairs_of
from dse.execute.weights.product import Product
from dse.graph.ir.assignment import Assignment
from dse.graph.ir.graph import Graph
from dse.numerics import equalized, transform, transform_arguments
from hwmodels.formats.quantizer import Quantizer

WORD = "equalize"
SWEEPS = 40
CONVERGED = 1e-4
"""Largest relative move of a factor in the last sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Between which neighbours a weight is equalised."""

    before: bool
    after: bool

    @property
    def spec(self) -> str:
        """The transform that says so."""
        return f"{WORD}({self.before:d},{self.after:d})"


def sides_of(quantizer: Quantizer) -> Sides | None:
    """The sides that a quantizer's `equalize` names; None where it has none."""
    for spec in quantizer.transforms:
        name, arguments = transform_arguments(spec)
        if name == WORD:
            transform(spec)  # which refuses what is neither 0 nor 1
            before, after = (*arguments, 1.0, 1.0)[:2]
            return Sides(before=bool(before), after=bool(after))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalization:
    """Weights of a network that can be equalised, and their factors."""

    products: Mapping[str, Product]
    before: Mapping[str, Pair]
    """Pairs by the weight that they end with."""
    after: Mapping[str, Pair]
    """Pairs by the weight that they begin with."""
    refused: Mapping[str, str]
    """The obstacle before each weight that no pair ends with."""
    factors: Mapping[str, Tensor]
    """(channels,) by the weight that a pair ends with: it is multiplied, the other divided."""

    def settled(self, assignment: Assignment) -> Assignment:
        """The assignment with `equalize` between neighbours that both have it, and nowhere else.

        Raises:
            AssignmentError: `equalize` where there is no neighbour to scale.
        """
        chosen = assignment.as_dict()
        asking = {key for key, quantizer in chosen.items() if sides_of(quantizer) is not None}
        self.check(asking)
        written = {key.rpartition("/")[0] for key in chosen if "/out" in key}
        active = {
            key
            for key, pair in self.before.items()
            if {pair.first, key} <= asking and written.isdisjoint(pair.inside)
        }
        changes = {key: _asked(chosen[key], Sides(before=False, after=False)) for key in asking}
        for key in asking & self.products.keys():
            behind = self.after.get(key)
            follows = behind is not None and behind.second in active
            changes[key] = _asked(chosen[key], Sides(before=key in active, after=follows))
        for operand in (self.products[key].activation for key in active):
            if operand in chosen:
                changes[operand] = _asked(chosen[operand], Sides(before=True, after=False))
        return assignment.replaced(changes)

    def check(self, keys: Iterable[str]) -> None:
        """Raises AssignmentError for sites without a neighbour to scale."""
        operands = {product.activation: key for key, product in self.products.items()}
        wrong = []
        for key in sorted(keys):
            weight = operands.get(key, key)
            if weight in self.before or weight in self.after:
                continue
            reason = self.refused.get(weight, "no convolution or matrix product reads it")
            wrong.append(
                f"site {key!r}: {WORD} has no neighbour to scale: {reason}; and behind it no "
                "other weight follows by ReLU, pooling and bias alone"
            )
        if wrong:
            raise AssignmentError("\n".join(wrong))

    def of(self, key: str, sides: Sides) -> Tensor:
        """Factors of a site: a weight (outputs, depth), an activation (channels,)."""
        product = self.products.get(key)
        if product is None:
            weight = f"{key.rpartition('/')[0]}/in1"
            factors = self.factors.get(weight)
            return torch.ones(self.products[weight].channels) if factors is None else 1 / factors
        found = torch.ones(product.groups, product.outputs // product.groups, product.depth)
        if sides.before and key in self.before:
            rows = self.factors[key].reshape(product.groups, 1, -1)
            found *= rows.repeat_interleave(product.taps, 2)
        found = found.reshape(product.outputs, product.depth)
        if sides.after and key in self.after:
            found /= self.factors[self.after[key].second][:, None]
        return found


def equalization(
    graph: Graph, products: Mapping[str, Product], weight: Callable[[str], Tensor]
) -> Equalization:
    """The pairs of a graph and their factors; `weight` has the values of a site."""
    before, refused = pairs_of(graph, products)
    used = {key for pair in before.values() for key in (pair.first, pair.second)}
    matrices = {key: products[key].matrix(weight(key).cpu()) for key in used}
    factors = {key: torch.ones(products[key].channels) for key in before}
    for _ in range(SWEEPS):
        moved = 0.0
        for key, pair in before.items():
            first, second = matrices[pair.first], matrices[key]
            rows = first.reshape(-1, first.shape[2])
            divided, multiplied, found = equalized(rows, _by_channel(products[key], second))
            matrices[pair.first] = divided.reshape(first.shape)
            matrices[key] = _by_group(products[key], multiplied)
            factors[key] *= found
            moved = max(moved, float((found - 1).abs().max()))
        if moved < CONVERGED:
            break
    after = {pair.first: pair for pair in before.values()}
    return Equalization(
        products=products, before=before, after=after, refused=refused, factors=factors
    )


def _by_channel(product: Product, matrix: Tensor) -> Tensor:
    """(groups, outputs, depth) -> (outputs of a group, channels, taps)."""
    split = matrix.reshape(product.groups, matrix.shape[1], -1, product.taps)
    return split.transpose(0, 1).reshape(matrix.shape[1], product.channels, product.taps)


def _by_group(product: Product, channels: Tensor) -> Tensor:
    """The inverse of `_by_channel`."""
    split = channels.reshape(channels.shape[0], product.groups, -1, product.taps)
    return split.transpose(0, 1).reshape(product.groups, channels.shape[0], product.depth)


def _asked(quantizer: Quantizer, sides: Sides) -> Quantizer:
    """The quantizer with `equalize` on these sides, innermost, in place of the one it had."""
    kept = tuple(t for t in quantizer.transforms if transform_arguments(t)[0] != WORD)
    if not (sides.before or sides.after):
        return quantizer.replaced(transforms=kept)
    if any(transform_arguments(spec)[0] == "smooth" for spec in kept):
        raise AssignmentError(f"{quantizer.name}: smooth and {WORD} scale the same channels")
    return quantizer.replaced(transforms=(*kept, sides.spec))
