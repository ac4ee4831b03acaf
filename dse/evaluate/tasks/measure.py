"""Measures of a task's records under one network."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dse.errors import DataError
from dse.evaluate.metric import Run
from dse.evaluate.tasks.generate import generate
from dse.evaluate.tasks.likelihood import Logits, Request, score, windows
from dse.evaluate.tasks.schema import TaskEntry
from dse.evaluate.tasks.score import ByMetric, Scores, mean
from dse.text.documents import Record, documents, jsonl
from dse.text.reader import TextReader

WINDOW = 2048
"""The longest window of perplexity by default."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A causal network under an assignment, with its tokenizer."""

    run: Run
    reader: TextReader
    batch: int

    @property
    def logits(self) -> Logits:
        """Tokens to logits."""
        return self.run

    @property
    def first(self) -> int:
        """The token that a text without context begins after.

        Raises:
            DataError: The tokenizer has neither a first nor an end-of-text token.
        """
        tokenizer = self.reader.tokenizer
        found = (tokenizer.id_of("bos_token"), tokenizer.id_of("eos_token"))
        token = next((token for token in found if token is not None), None)
        if token is None:
            raise DataError(f"{tokenizer.folder}: names no bos_token and no eos_token")
        return token


def measure(entry: TaskEntry, network: Network) -> ByMetric:
    """The scores of a task by metric.

    Raises:
        DataError: Records that do not fit the kind, or are longer than the model's context.
    """
    records = _records(entry)
    return KINDS[entry.kind](entry, records, network)


def _records(entry: TaskEntry) -> list[Record]:
    path = Path(entry.data)
    read = documents if entry.kind == "perplexity" else jsonl
    found = list(islice(read(path), entry.samples))
    if not found:
        raise DataError(f"{path}: no records")
    return found


def _perplexity(entry: TaskEntry, records: Sequence[Record], network: Network) -> ByMetric:
    """Per token and per word, words counted as lm-eval's wikitext does."""
    tokenizer = network.reader.tokenizer
    length = entry.length or min(network.reader.context or WINDOW, WINDOW)
    network.reader.check_length(length, f"{entry.data}: length")
    requests: list[Request] = []
    words: list[float] = []
    for record in records:
        ids = network.reader.ids(record)
        parts = windows(ids, first=network.first, length=length)
        text = record.get("text") or tokenizer.decode(ids)
        count = len(re.split(r"\s+", str(text)))
        requests += parts
        words += [count * len(part.target) / max(len(ids), 1) for part in parts]
    scored = score(network.logits, requests, batch=network.batch)
    nats = np.array([-one.logprob for one in scored])
    tokens = np.array([len(request.target) for request in requests], dtype=np.float64)
    return {
        "word_perplexity": Scores(values=nats, weights=np.array(words), exponential=True),
        "token_perplexity": Scores(values=nats, weights=tokens, exponential=True),
    }


def _multiple_choice(entry: TaskEntry, records: Sequence[Record], network: Network) -> ByMetric:
    """`acc`: the likeliest choice is right; `acc_norm`: the likeliest a character.

    `answer_nats` is what the right choice costs among the choices: a number where `acc` has a bit
    a record, so that it tells networks apart by fewer records.
    """
    requests: list[Request] = []
    for number, record in enumerate(records, start=1):
        prompt, choices, _ = _question(record, f"{entry.data}: record {number}")
        requests += [_continued(network, prompt, choice) for choice in choices]
    _check_lengths(requests, entry, network)
    scored = iter(score(network.logits, requests, batch=network.batch))
    right, normed, nats = [], [], []
    for number, record in enumerate(records, start=1):
        _, choices, answer = _question(record, f"{entry.data}: record {number}")
        sums = np.array([next(scored).logprob for _ in choices])
        sizes = np.array([max(len(choice), 1) for choice in choices])
        right.append(int(sums.argmax()) == answer)
        normed.append(int((sums / sizes).argmax()) == answer)
        nats.append(float(np.logaddexp.reduce(sums) - sums[answer]))
    return {"acc": mean(right), "acc_norm": mean(normed), "answer_nats": mean(nats)}


def _question(record: Record, where: str) -> tuple[str, list[str], int]:
    prompt, choices, answer = (record.get(name) for name in ("prompt", "choices", "answer"))
    if not isinstance(prompt, str) or not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{where}: expected 'prompt', 'choices' (two or more) and 'answer'")
    if isinstance(answer, str) and len(answer) == 1:
        answer = LETTERS.find(answer.upper())
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: 'answer' is {record.get('answer')!r}; expected a choice's index"
        )
    return prompt, [str(choice) for choice in choices], answer


def _continued(network: Network, prompt: str, choice: str) -> Request:
    """A choice after its prompt, a space between them; tokenized together, as a text is."""
    tokenizer = network.reader.tokenizer
    whole = tokenizer.encode(f"{prompt.rstrip()} {choice}")
    context = tokenizer.encode(prompt.rstrip()) or [network.first]
    size = min(len(context), len(whole) - 1)
    return Request(context=whole[:size] or [network.first], target=whole[max(size, 0) :])


def _check_lengths(requests: Sequence[Request], entry: TaskEntry, network: Network) -> None:
    longest = max(request.length for request in requests)
    network.reader.check_length(longest, entry.data)


def _generation(entry: TaskEntry, records: Sequence[Record], network: Network) -> ByMetric:
    """Whether greedy decoding writes the answer."""
    tokenizer = network.reader.tokenizer
    prompts = [_prompt(record, network, f"{entry.data}: record {number}")
               for number, record in enumerate(records, start=1)]  # fmt: skip
    longest = max(map(len, prompts)) + entry.max_tokens
    network.reader.check_length(longest, f"{entry.data}: prompt and answer")
    written = generate(
        network.logits,
        prompts,
        max_tokens=entry.max_tokens,
        batch=network.batch,
        end=tokenizer.id_of("eos_token"),
        decode=tokenizer.decode,
        stop=entry.stop,
    )
    how = entry.match or ("contains" if entry.kind == "retrieval" else "exact")
    hits = [
        _matches(text, _answers(record, f"{entry.data}: record {number}"), how)
        for number, (text, record) in enumerate(zip(written, records, strict=True), start=1)
    ]
    return {f"{how}_match": mean(hits)}


def _prompt(record: Record, network: Network, where: str) -> list[int]:
    _answers(record, where)
    tokenizer = network.reader.tokenizer
    if isinstance(record.get("messages"), list):
        return tokenizer.chat(record["messages"], prompt=True)
    if not isinstance(record.get("prompt"), str):
        raise DataError(f"{where}: expected 'prompt' or 'messages', and 'answer'")
    context = record.get("context")
    text = f"{context}\n{record['prompt']}" if isinstance(context, str) else record["prompt"]
    return tokenizer.encode(text) or [network.first]


def _answers(record: Record, where: str) -> list[str]:
    answer = record.get("answer")
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or not all(isinstance(one, str | int | float) for one in answers):
        raise DataError(f"{where}: expected 'answer', a text or several")
    return [str(one).strip() for one in answers]


def _matches(text: str, answers: Sequence[str], how: str) -> bool:
    found = " ".join(text.split())
    if how == "contains":
        return any(answer in found for answer in answers)
    return found in answers


def _function(entry: TaskEntry, records: Sequence[Record], network: Network) -> ByMetric:
    """A user's function: a number a record."""
    module, _, name = str(entry.function).partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DataError(f"{entry.function}: {error}; expected module:function") from error
    values = np.asarray(function(network.run, records, network.reader.tokenizer), dtype=float)
    if values.shape != (len(records),) or np.isnan(values).any():
        raise DataError(
            f"{entry.function}: expected a number for each of {len(records)} records, got "
            f"{'NaN' if values.shape == (len(records),) else values.shape}"
        )
    return {name: mean(values)}


KINDS: Mapping[str, Callable[[TaskEntry, Sequence[Record], Network], ByMetric]] = {
    "perplexity": _perplexity,
    "multiple_choice": _multiple_choice,
    "generation": _generation,
    "retrieval": _generation,
    "function": _function,
}
"""The measure of each kind of task."""
