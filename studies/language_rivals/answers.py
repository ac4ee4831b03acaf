"""Tables of what recipes answered to the questions of `questions`.

`python -m studies.language_rivals.answers WORK`, after the commands that score recipes: asks the
network in full precision, too, and writes `results/tasks.csv` and, paired question by question,
`results/paired_tasks.csv`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from studies.language_rivals import network, paired, score
from studies.language_rivals.ask import ANSWERS, METRICS, ask

TASKS = score.RESULTS.with_name("tasks.csv")
PAIRED = score.RESULTS.with_name("paired_tasks.csv")
FULL = ("full precision", "")
ALL = "all"
Answers = dict[str, NDArray[np.float64]]
"""`task/metric` -> a number a question."""


def answers(work: Path) -> dict[paired.Recipe, Answers]:
    """All that were kept, by recipe; `all` is every question of every task."""
    found: dict[paired.Recipe, Answers] = {}
    for path in sorted((work / ANSWERS).glob("*.json")):
        content = json.loads(path.read_text())
        by_task = {key: np.array(values) for key, values in content["answers"].items()}
        for metric in METRICS:
            parts = [by_task[key] for key in sorted(by_task) if key.endswith(f"/{metric}")]
            by_task[f"{ALL}/{metric}"] = np.concatenate(parts)
        found[content["tool"], content["recipe"]] = by_task
    return found


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    torch.set_num_threads(1)
    known = answers(work)
    if FULL not in known:
        ask(work, *FULL, score.model_of(network.weights_of(work / "relabelled.onnx")))
        known = answers(work)
    for path in (TASKS, PAIRED):
        path.unlink(missing_ok=True)
    for (tool, recipe), found in known.items():
        row = {"tool": tool, "recipe": recipe, "questions": len(found[f"{ALL}/acc"])}
        score.put(TASKS, {**row, **_figures(found, known[FULL])})
    for first, second in paired.pairs():
        if first in known and second in known:
            names = {"first": ": ".join(first), "second": ": ".join(second)}
            for key in sorted(known[first]):
                task, _, metric = key.partition("/")
                row = {**names, "task": task, "metric": metric}
                row |= paired.difference(known[first][key], known[second][key])
                row["questions"] = row.pop("windows")
                del row["windows_less"]
                score.put(PAIRED, row, ("first", "second", "task", "metric"))


def _figures(found: Answers, full: Answers) -> Mapping[str, float]:
    """Means, and what all questions differ by from full precision, with its paired error."""
    figures = {key.replace("/", "_"): float(values.mean()) for key, values in found.items()}
    for metric in METRICS:
        difference = paired.difference(found[f"{ALL}/{metric}"], full[f"{ALL}/{metric}"])
        figures[f"{metric}_less_full"] = difference["difference"]
        figures[f"{metric}_less_full_stderr"] = difference["stderr"]
    return figures


if __name__ == "__main__":
    main()
