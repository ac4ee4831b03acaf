"""Attention whose probabilities pass a quantizer: in tiles that stay in cache where they can."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from dse.execute.operators.attention import additive
from dse.execute.step import Overwriting, Quantize

TILE = 1 << 19
"""Scores of a tile: 1 MiB of float32, half of a core's second-level cache."""


def quantized_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    quantize: Quantize,
    *,
    guarded: bool,
) -> Tensor:
    """quantize(softmax(query key + mask)) value.

    query: (lead, S, D), key: (lead, D, L), value: (lead, L, Dv); mask: bool (True where a query
    may look) or additive, broadcastable to (lead, S, L). A row without any access is NaN, or zero
    where `guarded`.
    """
    bias = None if mask is None else additive(mask, query.dtype)
    blind = _blind(bias) if guarded and bias is not None else None
    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if tracked or query.dim() < 3:
        probabilities = _softmax(torch.matmul(query, key), bias, blind)
        return torch.matmul(quantize(probabilities), value)
    lead = query.shape[:-2]
    query, key, value = (_matrices(x, lead) for x in (query, key, value))
    tiles = _Tiles(
        query=query,
        key=key,
        bias=None if bias is None else _matrices(bias, lead),
        blind=None if blind is None else _matrices(blind, lead),
        axes=len(lead) + 2,
    )
    if isinstance(quantize, Overwriting) and quantize.separable:
        y = _mixed(tiles, value, quantize)
    else:
        whole = tiles.whole()
        quantized = quantize(whole.reshape(*lead, *whole.shape[-2:]))
        y = torch.matmul(quantized.reshape(whole.shape), value)
    return y.reshape(*lead, *y.shape[-2:])


def _blind(bias: Tensor) -> Tensor | None:
    """Rows without any access, (..., S, 1); None where there are none, if that is soon said."""
    blind = torch.isneginf(bias.amax(-1, keepdim=True))
    return blind if bias.device.type != "cpu" or blind.any() else None


def _softmax(scores: Tensor, bias: Tensor | None, blind: Tensor | None) -> Tensor:
    probabilities = torch.softmax(scores if bias is None else scores + bias, -1)
    return probabilities if blind is None else probabilities.masked_fill(blind, 0)


def _matrices(x: Tensor, lead: torch.Size) -> Tensor:
    """(..., a, b), broadcast with `lead` -> (first of lead, the rest of it, a, b)."""
    x = x.expand(*lead, *x.shape[-2:])
    return x.reshape(lead[0], lead[1:].numel(), *x.shape[-2:])


def _mixed(tiles: _Tiles, value: Tensor, quantize: Overwriting) -> Tensor:
    """Quantized probabilities times values, a tile at a time."""
    y = value.new_empty(*tiles.query.shape[:-1], value.shape[-1])
    for (first, heads, rows), probabilities in tiles:
        weights = quantize.overwrite(probabilities)
        torch.bmm(
            weights.reshape(-1, *weights.shape[-2:]),
            value[first, heads],
            out=y[first, heads, rows],
        )
    return y


Place = tuple[int, slice, slice]
"""Index of the first axis, the heads and the rows that a tile covers."""


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """Probabilities a tile at a time, each in the memory of the one before."""

    query: Tensor
    """(N, H, S, D)"""
    key: Tensor
    """(N, H, D, L)"""
    bias: Tensor | None
    """(N, H, S, L)"""
    blind: Tensor | None
    """(N, H, S, 1), True for rows that must be zero."""
    axes: int
    """Axes of the tensor that the tiles are parts of: contraction axes keep their index."""

    def whole(self) -> Tensor:
        """All probabilities, (N, H, S, L)."""
        found = self.query.new_empty(*self.query.shape[:-1], self.key.shape[-1])
        for (first, heads, rows), probabilities in self:
            found[first, heads, rows] = probabilities.reshape(-1, *probabilities.shape[-2:])
        return found

    def __iter__(self) -> Iterator[tuple[Place, Tensor]]:
        """Tiles of whole heads, or of rows of one head where a head is too large."""
        count, heads, length, _ = self.query.shape
        keys = self.key.shape[-1]
        some = max(1, min(heads, TILE // max(1, length * keys)))
        rows = length if some * length * keys <= TILE else max(1, TILE // keys)
        memory = self.query.new_empty(some * rows * keys)
        for first, head, row in product(
            range(count), range(0, heads, some), range(0, length, rows)
        ):
            at = (first, slice(head, head + some), slice(row, row + rows))
            tile = self._tile(at, memory)
            yield at, tile.reshape(*(1,) * (self.axes - 3), *tile.shape)

    def _tile(self, at: Place, memory: Tensor) -> Tensor:
        """The probabilities of a place, (heads, rows, L)."""
        query, key = self.query[at], self.key[at[:2]]
        shape = (*query.shape[:2], key.shape[-1])
        scores = memory[: math.prod(shape)].view(shape)
        if self.bias is None:
            torch.bmm(query, key, out=scores)
        else:
            torch.baddbmm(self.bias[at], query, key, out=scores)
        torch.softmax(scores, -1, out=scores)
        return scores if self.blind is None else scores.masked_fill_(self.blind[at], 0)
