"""Attention whose probabilities pass a quantizer: in tiles that stay in cache where they can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from dse.execute.operators.attention import additive
from dse.execute.operators.step import Overwriting, Quantize, Sharing, overwrites
from dse.numerics.scales import largest_finite

TILE = 1 << 18
"""Scores of a tile a thread: 1 MiB of float32, half of a core's second-level cache."""

ROWS = 64
"""Most rows of a tile: of fewer rows, a causal mask hides more keys from all."""

DEVICE_TILE = 1 << 24
"""The same on accelerators, where few large kernels count, and rows are not cut."""


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
        spans=_spans(query, key.shape[3], bias, quantize),
        axes=len(lead) + 2,
    )
    some = query.numel() > 0 and key.numel() > 0
    if some and overwrites(quantize) and quantize.sharing != Sharing.EVERYTHING:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Some rows, and the keys that a mask leaves them."""

    rows: slice
    keys: int
    """From here on all keys are hidden from all rows."""
    clear: int
    """Up to here nothing is added to any score."""

    @property
    def scores(self) -> int:
        """Of one head."""
        count: int = self.rows.stop - self.rows.start
        return count * self.keys


def _spans(query: Tensor, keys: int, bias: Tensor | None, quantize: Quantize) -> tuple[_Span, ...]:
    """All rows in spans; hidden keys count as seen where their zeros matter to the quantizer."""
    queries = query.shape[-2]
    on_host = query.device.type == "cpu"
    most, tile = (ROWS, TILE) if on_host else (queries, DEVICE_TILE)
    length = max(1, min(most, queries, tile // max(1, keys)))
    rows = [slice(top, top + length) for top in range(0, queries, length)]
    if bias is None or not on_host or not bias.numel():
        return tuple(_Span(rows=part, keys=keys, clear=0) for part in rows)
    skips = overwrites(quantize) and quantize.keeps_zeros
    bias = bias.expand(*bias.shape[:-2], queries, keys).reshape(-1, queries, keys)
    number = torch.arange(1, keys + 1, dtype=torch.int32)
    last = ((bias != -math.inf) * number).amax((0, 2))
    first = torch.where(bias == 0, keys + 1, number).amin((0, 2)) - 1
    return tuple(
        _Span(
            rows=part,
            keys=max(1, int(last[part].max())) if skips else keys,
            clear=int(first[part].min()),
        )
        for part in rows
    )


def _mixed(tiles: _Tiles, value: Tensor, quantize: Overwriting) -> Tensor:
    """Quantized probabilities times values, a tile at a time."""
    y = value.new_empty(*tiles.query.shape[:-1], value.shape[-1])
    largest = None
    parts: Iterable[tuple[Place, Tensor]] = tiles
    if quantize.sharing == Sharing.LARGEST:
        parts = list(tiles.kept())
        largest = torch.stack([x.amax() for _, x in parts]).amax()
        if not bool(largest.isfinite()):
            largest = torch.stack([largest_finite(x) for _, x in parts]).amax()
    for (some, heads, rows), probabilities in parts:
        found = quantize.overwrite(probabilities, largest=largest)
        keys, mixed = found.shape[-1], y[some, heads, rows]
        weights = found.reshape(*mixed.shape[:-1], keys)
        for left, right, out in zip(weights, value[some, heads, :keys], mixed, strict=True):
            torch.bmm(left, right, out=out)
    return y


Place = tuple[slice, slice, slice]
"""The indices of the first axis, the heads and the rows that a tile covers."""


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """Probabilities a tile at a time, without those of keys that no row of it sees."""

    query: Tensor
    """(N, H, S, D)"""
    key: Tensor
    """(N, H, D, L)"""
    bias: Tensor | None
    """(N, H, S, L)"""
    blind: Tensor | None
    """(N, H, S, 1), True for rows that must be zero."""
    spans: tuple[_Span, ...]
    axes: int
    """Axes of the tensor that the tiles are parts of: contraction axes keep their index."""

    def whole(self) -> Tensor:
        """All probabilities, (N, H, S, L)."""
        found = self.query.new_zeros(*self.query.shape[:-1], self.key.shape[-1])
        for at, probabilities in self:
            part = found[at][..., : probabilities.shape[-1]]
            part.copy_(probabilities.reshape(part.shape))
        return found

    def __iter__(self) -> Iterator[tuple[Place, Tensor]]:
        """Each tile in the memory of the one before."""
        memory = self.query.new_empty(max(map(self._size, self.spans), default=0))
        for at, span in self._places():
            yield at, self._tile(at, span, memory)

    def kept(self) -> Iterator[tuple[Place, Tensor]]:
        """Each tile in memory of its own."""
        for at, span in self._places():
            yield at, self._tile(at, span, self.query.new_empty(self._size(span)))

    def _places(self) -> Iterator[tuple[Place, _Span]]:
        count, heads = self.query.shape[:2]
        for span in self.spans:
            many, few = self._extent(span)
            for first, head in product(range(0, count, many), range(0, heads, few)):
                yield (slice(first, first + many), slice(head, head + few), span.rows), span

    def _extent(self, span: _Span) -> tuple[int, int]:
        """Indices of the first axis, and of heads, that fit a tile: all heads before a second."""
        count, heads = self.query.shape[:2]
        on_host = self.query.device.type == "cpu"
        room = TILE * torch.get_num_threads() if on_host else DEVICE_TILE
        fit = max(1, room // max(1, span.scores))
        return max(1, min(count, fit // max(1, heads))), min(heads, fit)

    def _size(self, span: _Span) -> int:
        return math.prod(self._extent(span)) * span.scores

    def _tile(self, at: Place, span: _Span, memory: Tensor) -> Tensor:
        """The probabilities of a place, in as many axes as those of the whole have."""
        query, key = self.query[at], self.key[at[:2]][..., : span.keys]
        shape = (*query.shape[:3], span.keys)
        scores = memory[: math.prod(shape)].view(shape)
        for left, right, out in zip(query, key, scores, strict=True):
            torch.bmm(left, right, out=out)
        if self.bias is not None and span.clear < span.keys:
            scores[..., span.clear :] += self.bias[at][..., span.clear : span.keys]
        torch.softmax(scores, -1, out=scores)
        if self.blind is not None:
            scores.masked_fill_(self.blind[at], 0)
        if self.axes < len(shape):
            return scores.flatten(0, len(shape) - self.axes)
        return scores.reshape(*(1,) * (self.axes - len(shape)), *shape)
