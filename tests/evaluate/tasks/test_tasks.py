"""Standard tasks give what `transformers` gives, and paired standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dse.cli.app import run
from dse.errors import DataError
from dse.evaluate.tasks.likelihood import Request, score, windows
from dse.evaluate.tasks.schema import load_tasks
from dse.evaluate.tasks.score import Scores, compared, mean
from dse.text.tokenizer import read_tokenizer
from tests.imports import families
from tests.text import toy

TEXTS = [toy.TEXT * 3, "the dog saw the cat. " * 70, "a log; a mat, a cat! " * 55]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = families.save("llama", tmp_path_factory.mktemp("models") / "tiny", eos_token_id=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    return toy.save(folder)


@pytest.fixture
def evaluate(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))

    def call(task: Mapping[str, Any], records: Sequence[Mapping[str, Any]] = ()) -> Any:
        (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, records)))
        file = tmp_path / "tasks.yaml"
        file.write_text(yaml.safe_dump({"tasks": [{"name": "it", **task}]}))
        calibration = ["--data", str(texts)]
        code = run(["--quiet", "evaluate", str(folder), "--format", "w4a16", *calibration,
                    "--tasks", str(file), "--json"])  # fmt: skip
        streams = capsys.readouterr()
        return json.loads(streams.out) if code == 0 else streams.err

    return call


def tokens_of(folder: Path, text: str) -> list[int]:
    return read_tokenizer(folder).encode(text)


def test_perplexity_of_words_and_tokens(folder: Path, evaluate: Any) -> None:
    rows = evaluate({"kind": "perplexity", "data": "texts.jsonl", "length": 32})
    network = families.reference(folder)
    nats, words, tokens = 0.0, 0, 0
    for text in TEXTS:
        ids = tokens_of(folder, text)
        for start in range(0, len(ids), 32):
            part = [ids[start - 1] if start else 0, *ids[start : start + 32]]
            with torch.no_grad():
                output = network(torch.tensor([part[:-1]])).logits[0].log_softmax(-1)
            nats -= float(output[range(len(part) - 1), part[1:]].sum())
        words, tokens = words + len(text.split(" ")), tokens + len(ids)
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["token_perplexity"]["reference"] == pytest.approx(
        math.exp(nats / tokens), rel=1e-4
    )
    assert by_metric["word_perplexity"]["reference"] == pytest.approx(
        math.exp(nats / words), rel=1e-4
    )
    for row in rows:
        assert row["difference"] == pytest.approx(row["value"] - row["reference"])
        assert 0 < row["difference_stderr"] < row["stderr"]


def test_generation_is_that_of_transformers(folder: Path, evaluate: Any) -> None:
    prompts = ["the cat", "and the dog sat on", "what did"]
    network = families.reference(folder)
    tokenizer = read_tokenizer(folder)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt)])
        out = network.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
            eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        answers.append(" ".join(tokenizer.decode(out[0, ids.shape[1] :].tolist()).split()))
    records = [{"prompt": p, "answer": a} for p, a in zip(prompts, answers, strict=True)]
    task = {"kind": "generation", "data": "data.jsonl", "max_tokens": 6, "stop": []}
    (row,) = evaluate(task, records)
    assert row["metric"] == "exact_match"
    assert row["reference"] == 1.0
    (row,) = evaluate(task, [{**record, "answer": "something else"} for record in records])
    assert row["reference"] == 0.0


def test_multiple_choice_takes_the_likeliest(folder: Path, evaluate: Any) -> None:
    network = families.reference(folder)
    prompts, choices = ["the cat sat on", "what did"], ["the mat", "the dog", "a"]
    best, nats = [], []
    for prompt in prompts:
        sums = []
        for choice in choices:
            whole, start = tokens_of(folder, f"{prompt} {choice}"), len(tokens_of(folder, prompt))
            with torch.no_grad():
                output = network(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
            rows = range(start - 1, len(whole) - 1)
            sums.append(float(output[rows, whole[start:]].sum()))
        best.append(int(np.argmax(sums)))
        nats.append(float(np.log(np.exp(sums).sum()) - max(sums)))
    records = [{"prompt": p, "choices": choices, "answer": b}
               for p, b in zip(prompts, best, strict=True)]  # fmt: skip
    rows = evaluate({"kind": "multiple_choice", "data": "data.jsonl"}, records)
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["acc"]["reference"] == 1.0
    assert by_metric["answer_nats"]["reference"] == pytest.approx(np.mean(nats), rel=1e-4)
    assert by_metric["answer_nats"]["difference"] != 0


def test_a_long_context_is_searched_for_the_answer(evaluate: Any) -> None:
    records = [{"context": "the cat sat. " * 5, "prompt": "what", "answer": ["", "x"]}] * 2
    (row,) = evaluate({"kind": "retrieval", "data": "data.jsonl", "max_tokens": 2}, records)
    assert row["metric"] == "contains_match"
    assert row["reference"] == 1.0


def test_a_prompt_beyond_the_context_is_refused(evaluate: Any) -> None:
    records = [{"context": "the cat sat. " * 100, "prompt": "what", "answer": "x"}]
    message = evaluate({"kind": "retrieval", "data": "data.jsonl"}, records)
    assert "has a context of 128" in message


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "x", "choices": ["a"], "answer": 0}, "two or more"),
        ({"prompt": "x", "choices": ["a", "b"], "answer": "C"}, "expected a choice's index"),
    ],
)
def test_a_bad_record_is_named(evaluate: Any, record: Mapping[str, Any], expected: str) -> None:
    message = evaluate({"kind": "multiple_choice", "data": "data.jsonl"}, [record])
    assert "record 1" in message
    assert expected in message


def test_an_unknown_field_of_a_task_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text("tasks: [{name: a, kind: perplexity, data: x.txt, lenght: 3}]")
    with pytest.raises(DataError, match="lenght"):
        load_tasks(path)


def test_what_requests_read_alike_is_read_once() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(7, 7)).astype(np.float32)
    read: list[tuple[int, ...]] = []

    def logits(tokens: Any) -> Any:
        read.extend(tuple(row) for row in tokens.tolist())
        return table[tokens].cumsum(axis=1)  # what comes after a place does not change it

    requests = [Request(context=[1, 2], target=[one]) for one in (3, 4, 5)]
    requests += [Request(context=[1], target=[2, 6]), Request(context=[1, 2, 3], target=[4, 5])]
    together = score(logits, requests, batch=2)
    assert read == [(1, 2, 0, 0), (1, 2, 3, 4)]
    for request, found in zip(requests, together, strict=True):
        (alone,) = score(logits, [request], batch=1)
        assert found.logprob == pytest.approx(alone.logprob, rel=1e-6)
        assert found.greedy == alone.greedy


def test_every_token_is_scored_once_in_windows() -> None:
    ids = list(range(10, 21))
    found = windows(ids, first=0, length=4)
    assert [token for part in found for token in part.target] == ids
    assert [part.context for part in found] == [[0], [13], [17]]


def test_standard_errors_are_those_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(5, 50, 400).astype(float)
    values = weights * rng.gamma(4, 0.5, 400)
    scores = Scores(values=values, weights=weights, exponential=True)
    other = Scores(values=values * 1.1 + rng.normal(0, 1, 400), weights=weights, exponential=True)
    draws = rng.integers(0, 400, (2000, 400))
    one = np.exp(values[draws].sum(1) / weights[draws].sum(1))
    two = np.exp(other.values[draws].sum(1) / weights[draws].sum(1))
    result = compared("t", "ppl", other, scores)
    assert scores.stderr == pytest.approx(one.std(), rel=0.1)
    assert result.difference_stderr == pytest.approx((two - one).std(), rel=0.1)


def test_a_share_has_the_error_of_a_binomial() -> None:
    assert mean([1, 0, 1, 1]).stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
