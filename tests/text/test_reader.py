"""Text becomes samples as the model's own tokenizer and template say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from dse.errors import DataError
from dse.text.reader import TextReader
from dse.text.tokenizer import read_tokenizer
from tests.text import toy

INPUTS = {"input_ids": ("batch", "sequence")}
CHAT = [
    {"role": "user", "content": "  what did the cat see? "},
    {"role": "assistant", "content": "the dog"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.save(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def reader(folder: Path) -> TextReader:
    return TextReader(tokenizer=read_tokenizer(folder), context=64, causal=True)


def test_tokens_equal_transformers(folder: Path, reader: TextReader) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    assert reader.tokenizer.encode(toy.TEXT) == theirs(toy.TEXT)["input_ids"]
    assert reader.tokenizer.decode(reader.tokenizer.encode(toy.TEXT)) == toy.TEXT


@pytest.mark.parametrize("prompt", [False, True])
def test_conversations_equal_transformers(folder: Path, reader: TextReader, prompt: bool) -> None:
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        CHAT, add_generation_prompt=prompt, return_dict=False
    )
    assert reader.tokenizer.chat(CHAT, prompt=prompt) == theirs


def test_documents_follow_each_other_with_an_end_between(
    reader: TextReader, tmp_path: Path
) -> None:
    path = tmp_path / "text.jsonl"
    texts = ["the cat sat on the mat", "and the dog", "sat on the log; what?"]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    split = reader.read(path, samples=2, sequence=4, inputs=INPUTS)
    row = [token for text in texts for token in (*reader.tokenizer.encode(text), 0)]
    tokens, labels = split.inputs["input_ids"], split.labels
    assert labels is not None
    assert tokens.shape[1] == 4
    np.testing.assert_array_equal(tokens.ravel(), row[: tokens.size])
    np.testing.assert_array_equal(labels.ravel(), row[1 : tokens.size + 1])


def test_parquet_and_jsonl_give_the_same(reader: TextReader, tmp_path: Path) -> None:
    records = [{"messages": CHAT}] * 4
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, records)))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "chat.parquet")
    one, other = (
        reader.read(tmp_path / name, samples=2, sequence=8, inputs=INPUTS).inputs["input_ids"]
        for name in ("chat.jsonl", "chat.parquet")
    )
    np.testing.assert_array_equal(one, other)


def test_reading_ends_when_there_is_enough(reader: TextReader, tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text("\n".join([json.dumps({"text": toy.TEXT})] * 2000))
    split = reader.read(tmp_path / "many.jsonl", samples=4, sequence=8, inputs=INPUTS)
    assert 4 <= len(split.inputs["input_ids"]) < 200


def test_a_sequence_beyond_the_context_is_refused(reader: TextReader, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text(toy.TEXT)
    with pytest.raises(DataError, match=r"65 tokens, but .* has a context of 64"):
        reader.read(path, samples=1, sequence=65, inputs=INPUTS)


def test_a_tokenizer_without_a_template_says_so(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(toy.save(tmp_path / "plain", template=None))
    with pytest.raises(DataError, match="has no chat template"):
        tokenizer.chat(CHAT)


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no tokenizer\.json"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[0] }}",
        "{% for x in messages.append(1) %}{% endfor %}",
        "{{ raise_exception('no system turns') }}",
        "{% if %}",
    ],
)
def test_templates_are_kept_in_a_sandbox(tmp_path: Path, template: str) -> None:
    tokenizer = read_tokenizer(toy.save(tmp_path / "evil", template=template))
    with pytest.raises(DataError, match=r"chat_template\.jinja"):
        tokenizer.chat(CHAT)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object, got list"),
        ('{"txt": "x"}', "expected 'text'"),
        ('{"messages": ["x"]}', "expected 'text'"),
    ],
)
def test_a_bad_record_is_named(
    reader: TextReader, tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line)
    with pytest.raises(DataError, match=message):
        reader.read(path, samples=1, sequence=4, inputs=INPUTS)
