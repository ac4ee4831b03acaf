"""The study of recipes for a language model: paired differences, tables, questions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from studies.language_rivals import answers, paired, questions, score


def test_a_paired_interval_is_that_of_student_for_related_samples() -> None:
    draw = np.random.default_rng(0)
    first = draw.normal(1.0, 0.5, 8)
    second = first + draw.normal(0.1, 0.05, 8)
    found = paired.difference(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found["low"] == pytest.approx(expected.low)
    assert found["high"] == pytest.approx(expected.high)
    assert found["low"] < found["difference"] < found["high"] < 0
    assert found["windows_less"] == int((first < second).sum())


def test_a_row_takes_the_place_of_the_older_one_of_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "results" / "rows.csv"
    for tool, recipe, kl in (("a", "x", 1.0), ("a", "y", 2.0), ("b", "x", 3.0), ("a", "x", 4.0)):
        score.put(path, {"tool": tool, "recipe": recipe, "kl": kl})
    with path.open(newline="") as stream:
        rows = [(row["tool"], row["recipe"], float(row["kl"])) for row in csv.DictReader(stream)]
    assert rows == [("a", "y", 2.0), ("b", "x", 3.0), ("a", "x", 4.0)]


DATA = """  1 This software and database is being provided
00000001 03 n 01 thing 0 000 | what there is
00000002 05 n 01 animal 0 001 @ 00000001 n 0000 | a living thing that moves
00000003 05 n 02 dog 0 hound 0 001 @ 00000002 n 0000 | it barks; "the dog barked"
00000004 05 n 01 cat 0 001 @ 00000002 n 0000 | it purrs
00000005 05 n 01 cow 0 001 @ 00000002 n 0000 | it moos
00000006 05 n 01 hen 0 001 @ 00000002 n 0000 | it lays eggs
00000007 06 n 01 dog 0 000 | an iron that holds logs
00000008 06 n 01 saw 0 001 @ 00000001 n 0000 | it cuts
"""
INDEX = """  1 This software and database is being provided
animal n 1 2 @ ~ 1 9 00000002
cat n 1 1 @ 1 9 00000004
cow n 1 1 @ 1 9 00000005
dog n 2 1 @ 2 9 00000003 00000007
hen n 1 1 @ 1 9 00000006
hound n 1 1 @ 1 0 00000003
saw n 1 1 @ 1 9 00000008
"""


def test_questions_of_wordnet_ask_for_first_senses_among_words_of_their_topic(
    tmp_path: Path,
) -> None:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    known = questions.nouns(tmp_path)
    assert [noun.word for noun in known] == ["animal", "cat", "cow", "dog", "hen", "saw"]
    asked = questions.definitions(known, lambda word: True, np.random.default_rng(0))
    by_gloss = {str(one["prompt"]).split("\n")[0]: one for one in asked}
    barks = by_gloss["Definition: it barks"]
    choices, answer = barks["choices"], barks["answer"]
    assert isinstance(choices, list)
    assert isinstance(answer, int)
    assert choices[answer] == "dog"
    assert sorted(choices) == ["cat", "cow", "dog", "hen"]  # no saw, and not what a dog is
    assert "Definition: it cuts" not in by_gloss  # alone in its topic


def test_last_words_are_asked_for_among_the_saying_s_own(tmp_path: Path) -> None:
    saying = "A man who never planted any tree should not sit under those of his neighbour."
    for name in questions.FILES:
        (tmp_path / name).write_text("Too short.\n%\n" if name != "wisdom" else
                                     f"{saying}\n\t\t-- Somebody\n%\n")  # fmt: skip
    (found,) = questions.last_words(tmp_path, lambda word: True, np.random.default_rng(0))
    assert found["prompt"] == saying.removesuffix(" neighbour.")
    assert isinstance(found["choices"], list)
    assert found["choices"][int(str(found["answer"]))] == "neighbour"
    assert {*found["choices"]} < {*saying.rstrip(".").split()}


def test_answers_of_all_tasks_are_pooled_question_by_question(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    kept = {"a/acc": [1, 0], "b/acc": [1], "a/answer_nats": [0.5, 2], "b/answer_nats": [1]}
    content = {"tool": "t", "recipe": "r", "answers": kept}
    (tmp_path / "answers" / "t.json").write_text(json.dumps(content))
    found = answers.answers(tmp_path)["t", "r"]
    assert found["all/acc"].tolist() == [1, 0, 1]
    assert found["all/answer_nats"].tolist() == [0.5, 2, 1]
