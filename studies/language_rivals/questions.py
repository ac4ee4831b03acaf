"""Questions with four answers, made of Debian's WordNet 3.0 and of its fortunes.

`python -m studies.language_rivals.questions WORK SHARE` writes WORK/tasks.yaml and the records of
three tasks, as `dse evaluate --tasks` reads them; after `prepare`, whose tokenizer says which
words are one token: only such are answers, so that a question is read once. SHARE holds `wordnet`
and `games/fortunes`: /usr/share with the packages `wordnet-base` and `fortunes`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

from dse.text.tokenizer import read_tokenizer

TASKS = "tasks.yaml"
COUNTS = {"definitions": 300, "kinds": 300, "last_words": 200}
CHOICES = 4
SEEN = 2
"""Senses of a word that WordNet's own corpus must have: those of everyday words."""
FILES = ("cookie", "literature", "miscellaneous", "people", "science", "wisdom", "work")
LENGTHS = range(12, 40)
"""Words of a saying."""
LONG = 4
"""Letters of the words that are asked for: no articles."""
Question = dict[str, object]
OneToken = Callable[[str], bool]
Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """The first sense of an everyday noun."""

    word: str
    gloss: str
    topic: str
    """The lexicographer's file: animal, artifact, food and so on."""
    kinds: Sequence[str]
    """Words of all that it is a kind of, nearest first."""


def nouns(folder: Path) -> list[Noun]:
    """Of WordNet's files, by the alphabet."""
    synsets: dict[str, tuple[str, list[str], list[str], str]] = {}
    for fields, gloss in _entries(folder / "data.noun"):
        count = int(fields[3], 16)
        words = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        pointers = fields[5 + 2 * count :]
        above = [target for sign, target in pairwise(pointers) if sign == "@"]
        synsets[fields[0]] = (fields[1], words, above, gloss.split(";")[0].strip())
    found = []
    for fields, _ in _entries(folder / "index.noun"):
        word, signs = fields[0], int(fields[3])
        tagged, first = int(fields[5 + signs]), fields[6 + signs]
        topic, words, _, gloss = synsets[first]
        if tagged >= SEEN and re.fullmatch(r"[a-z]+", word) and word in words:
            kinds = list(_above(synsets, first))
            found.append(Noun(word=word, gloss=gloss, topic=topic, kinds=kinds))
    return found


def _entries(path: Path) -> Iterator[tuple[list[str], str]]:
    """Fields and gloss of every line but those of the licence."""
    for line in path.read_text().splitlines():
        if not line.startswith("  "):
            data, _, gloss = line.partition("|")
            yield data.split(), gloss


def _above(
    synsets: dict[str, tuple[str, list[str], list[str], str]], offset: str
) -> Iterator[str]:
    for parent in synsets[offset][2]:
        yield from synsets[parent][1]
        yield from _above(synsets, parent)


def definitions(known: Sequence[Noun], one: OneToken, draw: np.random.Generator) -> list[Question]:
    """The word that a gloss defines, among words of the same topic."""
    asked = [noun for noun in known if one(noun.word) and noun.word not in noun.gloss]
    by_topic: dict[str, list[str]] = {}
    for noun in asked:
        by_topic.setdefault(noun.topic, []).append(noun.word)
    found = []
    for noun in _some(asked, COUNTS["definitions"], draw):
        others = [word for word in by_topic[noun.topic] if word not in (noun.word, *noun.kinds)]
        if len(others) >= CHOICES - 1:
            prompt = f"Definition: {noun.gloss}\nWord:"
            found.append(_question(prompt, noun.word, others, draw))
    return found


def kinds(known: Sequence[Noun], one: OneToken, draw: np.random.Generator) -> list[Question]:
    """What a thing is a kind of, nearest first, among what other things are."""
    asked = []
    for noun in known:
        nearest = next((kind for kind in noun.kinds if kind.isalpha() and one(kind)), None)
        if nearest is not None and nearest not in noun.word:
            asked.append((noun, nearest))
    pool = sorted({nearest for _, nearest in asked})
    found = []
    for noun, nearest in _some(asked, COUNTS["kinds"], draw):
        others = [kind for kind in pool if kind not in noun.kinds and kind != noun.word]
        article = "An" if noun.word[0] in "aeiou" else "A"
        prompt = f"{article} {noun.word} is a kind of"
        found.append(_question(prompt, nearest, others, draw))
    return found


def last_words(folder: Path, one: OneToken, draw: np.random.Generator) -> list[Question]:
    """The last word of a saying, among others of its words."""
    asked = []
    for name in FILES:
        for saying in (folder / name).read_text(errors="replace").split("\n%\n"):
            text = " ".join(saying.split("\t\t--")[0].split())
            if len(text.split()) not in LENGTHS or not re.search(r"[a-z]\.$", text):
                continue
            prompt, _, last = text[:-1].rpartition(" ")
            words = {word for word in re.findall(r"[a-z]+", prompt) if len(word) >= LONG}
            others = sorted(word for word in words if word != last and one(word))
            if len(last) >= LONG and last.isalpha() and one(last) and len(others) >= CHOICES - 1:
                asked.append((prompt, last, others))
    return [_question(prompt, last, others, draw)
            for prompt, last, others in _some(asked, COUNTS["last_words"], draw)]  # fmt: skip


def _some(items: Sequence[Kind], count: int, draw: np.random.Generator) -> list[Kind]:
    order = draw.permutation(len(items))[:count]
    return [items[place] for place in order]


def _question(
    prompt: str, right: str, others: Sequence[str], draw: np.random.Generator
) -> Question:
    choices = [right, *(str(word) for word in draw.choice(others, CHOICES - 1, replace=False))]
    order = draw.permutation(CHOICES)
    return {
        "prompt": prompt, "choices": [choices[place] for place in order],
        "answer": int(np.flatnonzero(order == 0)[0]),
    }  # fmt: skip


def main() -> None:
    """Every task's records, and the file that names them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("share", type=Path, nargs="?", default=Path("/usr/share"))
    asked = parser.parse_args()
    tokenizer = read_tokenizer(asked.work / "hf")

    def one(word: str) -> bool:
        return len(tokenizer.encode(f" {word}", special=False)) == 1

    known = nouns(asked.share / "wordnet")
    sayings = asked.share / "games" / "fortunes"
    tasks = {
        "definitions": definitions(known, one, np.random.default_rng(0)),
        "kinds": kinds(known, one, np.random.default_rng(1)),
        "last_words": last_words(sayings, one, np.random.default_rng(2)),
    }
    for name, records in tasks.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (asked.work / f"{name}.jsonl").write_text(lines)
        print(name, len(records), *records[:2], sep="\n")
    entries = [{"name": name, "kind": "multiple_choice", "data": f"{name}.jsonl"}
               for name in tasks]  # fmt: skip
    (asked.work / TASKS).write_text(yaml.safe_dump({"tasks": entries}))


if __name__ == "__main__":
    main()
