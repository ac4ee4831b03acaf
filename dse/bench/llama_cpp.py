"""Results of `llama-perplexity` (its text) and `llama-bench` (json, jsonl, csv, md).

The forms are those of ggml-org/llama.cpp, `tools/perplexity/perplexity.cpp` and
`tools/llama-bench/llama-bench.cpp` (`test::get_fields`; in md `pp512`, `tg128 @ d4096`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dse.bench.reading import Call, Divergence, Reading, Score, number, positive
from dse.errors import RunError

PERPLEXITY, BENCH = "llama-perplexity", "llama-bench"
NUMBER = r"(-?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf))"
FINAL = re.compile(rf"Final estimate: PPL = {NUMBER} \+/- {NUMBER}")
MEAN_PPL = re.compile(rf"Mean PPL\(Q\)\s*:\s*{NUMBER} ±\s*{NUMBER}")
MEAN_KLD = re.compile(rf"Mean\s+KLD:\s*{NUMBER} ±\s*{NUMBER}")
BEGUN = ("perplexity: calculating", "kl_divergence: computing", "KL divergence statistics",
         "Perplexity statistics", "KL Divergence", "Final estimate")  # fmt: skip
"""Some of it stands in every output of llama-perplexity, ended or not."""
TEST = re.compile(r"(?:pp(?P<prompt>\d+))?\+?(?:tg(?P<gen>\d+))?(?: @ d(?P<depth>\d+))?")
SCORE = "text.perplexity"
"""Per token, of the text that was given to llama-perplexity."""


def is_perplexity(text: str) -> bool:
    """Whether a text is what llama-perplexity prints."""
    return any(line in text for line in BEGUN)


def read_perplexity(text: str, file: Path) -> Reading:
    """The mean divergence from the base's logits where it was asked for, and the perplexity.

    Raises:
        RunError: it has no last line: the program was ended before.
    """
    figures: list[Score | Divergence] = []
    divergence = MEAN_KLD.search(text)
    if divergence is not None:
        # Rounding in the base's file leaves the mean of equal models a little below zero.
        loss = max(0.0, _value(divergence[1], "Mean KLD", file, least=-1e-3))
        figures.append(Divergence(loss=loss, stderr=_value(divergence[2], "Mean KLD ±", file)))
    perplexity = MEAN_PPL.search(text) or FINAL.search(text)
    if perplexity is not None:
        value = _value(perplexity[1], "PPL", file, least=1.0)
        error = _value(perplexity[2], "PPL ±", file)
        figures.append(Score(name=SCORE, value=value, stderr=error, higher_is_better=False))
    if not figures:
        raise RunError(
            f"{file}: llama-perplexity has not ended: neither 'Final estimate' nor 'Mean KLD' is "
            "there; measure it again"
        )
    return Reading(file=file, tool=PERPLEXITY, model="", figures=tuple(figures))


def _value(text: str, key: str, file: Path, *, least: float = 0.0) -> float:
    return number({key: float(text)}, key, str(file), least=least)


def is_bench(rows: object) -> bool:
    """Whether a JSON value is rows of llama-bench."""
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, dict) and {"n_prompt", "avg_ns"} <= row.keys() for row in rows)
    )


def read_bench(rows: Sequence[Mapping[str, object]], file: Path) -> Reading:
    """A call for each row.

    Raises:
        RunError: a figure that is none, or rows of several models.
    """
    names = {str(row.get("model_filename", "")) for row in rows}
    if len(names) > 1:
        raise RunError(
            f"{file}: rows of several models, {', '.join(sorted(names))}; one file a model"
        )
    calls = tuple(_call(row, f"{file}: row {place}") for place, row in enumerate(rows, start=1))
    return Reading(file=file, tool=BENCH, model=names.pop(), figures=calls)


def _call(row: Mapping[str, object], where: str) -> Call:
    """One row: a prompt at once, or tokens one after another."""
    prompt, generated, depth = (
        int(number(row, key, where)) if row.get(key) is not None else 0
        for key in ("n_prompt", "n_gen", "n_depth")
    )
    if bool(prompt) == bool(generated):
        raise RunError(
            f"{where}: n_prompt {prompt}, n_gen {generated}: expected one of them, so that a call "
            "can be told from the other (llama-bench -p and -n, not -pg)"
        )
    seconds = positive(row, "avg_ns", where) / 1e9
    if prompt:
        return Call(requests=1, tokens=prompt, context=depth + prompt, seconds=seconds)
    # The cache grows while it is measured: the mean step sees half of what is generated.
    mean = depth + (generated + 1) / 2
    return Call(requests=1, tokens=1, context=mean, seconds=seconds / generated)


def bench_csv(lines: Iterable[str], where: str) -> list[dict[str, object]] | None:
    """Rows of `-o csv`; None where it is another table.

    Raises:
        RunError: a row with more cells than the header, in which columns cannot be told.
    """
    reader = csv.DictReader(lines)
    if not {"n_prompt", "avg_ns"} <= set(reader.fieldnames or ()):
        return None
    rows = []
    for row in reader:
        if None in row:  # where `DictReader` puts what has no name
            raise RunError(f"{where}: line {reader.line_num} has more cells than the header")
        rows.append({key: _plain(text) for key, text in row.items()})
    return rows


def bench_markdown(text: str) -> list[dict[str, object]] | None:
    """Rows of `-o md`; None where it is another text."""
    table = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.lstrip().startswith("|")
    ]
    if not table or not {"test", "t/s"} <= set(table[0]):
        return None
    test, speed = table[0].index("test"), table[0].index("t/s")
    return [
        _row(cells[test], cells[speed])
        for cells in table[1:]
        if len(cells) == len(table[0]) and not set(cells[test]) <= set("-: ")
    ]


def _row(test: str, speed: str) -> dict[str, object]:
    """The row of json of a row of md; a test of another form has no sizes."""
    found = TEST.fullmatch(test)
    sizes = {key: int(value or 0) for key, value in found.groupdict().items()} if found else {}
    prompt, generated = sizes.get("prompt", 0), sizes.get("gen", 0)
    rate = _plain(speed.partition("±")[0].strip())
    usable = isinstance(rate, float) and rate > 0
    return {
        "n_prompt": prompt,
        "n_gen": generated,
        "n_depth": sizes.get("depth", 0),
        "avg_ns": 1e9 * (prompt + generated) / float(str(rate)) if usable else rate,
    }


def _plain(text: str | None) -> object:
    """A number where the text is one."""
    try:
        return float(text or "")
    except ValueError:
        return text
