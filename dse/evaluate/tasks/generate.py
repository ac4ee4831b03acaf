"""Greedy generation by repeated forward passes: slow, exact, and the same on every device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dse.evaluate.tasks.likelihood import Logits

Decode = Callable[[Sequence[int]], str]


def generate(
    logits: Logits,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    batch: int,
    end: int | None,
    decode: Decode,
    stop: Sequence[str],
) -> list[str]:
    """The text of a causal network after each prompt, the most likely token each time.

    Args:
        logits: the network.
        prompts: token ids, none empty.
        max_tokens: at most so many new ones.
        batch: prompts in one forward pass; rows are padded at the end.
        end: the end-of-text token.
        decode: ids to text.
        stop: texts that an answer ends before.
    """
    answers: list[str] = []
    for start in range(0, len(prompts), batch):
        rows = [list(prompt) for prompt in prompts[start : start + batch]]
        sizes = [len(row) for row in rows]
        live = set(range(len(rows)))
        for _ in range(max_tokens):
            if not live:
                break
            for place, token in _next(logits, rows, sorted(live)):
                rows[place].append(token)
                text = decode(rows[place][sizes[place] :])
                if token == end or any(mark in text for mark in stop):
                    live.discard(place)
        answers += [
            _before(decode(_without(row[size:], end)), stop)
            for row, size in zip(rows, sizes, strict=True)
        ]
    return answers


def _next(
    logits: Logits, rows: Sequence[Sequence[int]], live: Sequence[int]
) -> list[tuple[int, int]]:
    """The next token of every row that is not done."""
    length = max(len(rows[place]) for place in live)
    tokens = np.zeros((len(live), length), dtype=np.int64)
    for at, place in enumerate(live):
        tokens[at, : len(rows[place])] = rows[place]
    output = logits(tokens)
    return [
        (place, int(output[at, len(rows[place]) - 1].argmax())) for at, place in enumerate(live)
    ]


def _without(ids: Sequence[int], end: int | None) -> list[int]:
    return [token for token in ids if token != end]


def _before(text: str, stop: Sequence[str]) -> str:
    for mark in stop:
        text = text.partition(mark)[0]
    return text
