"""Results of lm-evaluation-harness: `results_<time>.json` of `lm_eval --output_path`.

The schema is that of EleutherAI/lm-evaluation-harness 0.4 (`lm_eval/evaluator.py`,
`simple_evaluate`, and `lm_eval/loggers/evaluation_tracker.py`): under `results` a task has
`<metric>,<filter>` and `<metric>_stderr,<filter>`, which is "N/A" where nothing is bootstrapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dse.bench.reading import Reading, Score, number
from dse.errors import RunError

TOOL = "lm-eval"
PLAIN = "none"
"""The filter that leaves answers as they are."""
LOWER = ("perplexity", "bits_per_byte", "brier_score", "ter", "wer", "nll")
"""Ends of metrics of which less is better, where the file does not say."""


def is_mine(content: object) -> bool:
    """Whether a JSON value is such a file."""
    return isinstance(content, dict) and isinstance(content.get("results"), dict)


def read(content: Mapping[str, object], file: Path) -> Reading:
    """The scores of every task.

    Raises:
        RunError: a figure that is none, or no score at all.
    """
    results = content["results"]
    assert isinstance(results, dict), "is_mine has asked"
    better = content.get("higher_is_better")
    scores = tuple(
        score
        for task, metrics in results.items()
        if isinstance(metrics, dict)
        for score in _scores(task, metrics, better if isinstance(better, dict) else {}, file)
    )
    if not scores:
        raise RunError(f"{file}: results: no task has a score; measure it again")
    return Reading(file=file, tool=TOOL, model=_model(content), figures=scores)


def _scores(
    task: str, metrics: Mapping[str, object], better: Mapping[str, object], file: Path
) -> Iterator[Score]:
    for key in metrics:
        metric, comma, filter_ = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        where = f"{file}: results.{task}"
        error = metrics.get(f"{metric}_stderr,{filter_}")
        yield Score(
            name=f"{task}.{metric}" if filter_ == PLAIN else f"{task}.{metric}.{filter_}",
            value=number(metrics, key, where, least=-float("inf")),
            stderr=None if error in ("N/A", None) else number({key: error}, key, where),
            higher_is_better=_higher(better.get(task), metric),
        )


def _higher(said: object, metric: str) -> bool:
    if isinstance(said, dict) and isinstance(said.get(metric), bool):
        return bool(said[metric])
    return not metric.endswith(LOWER)


def _model(content: Mapping[str, object]) -> str:
    """All that the file says of the model: its name, and the arguments it was opened with."""
    config = content.get("config")
    arguments = config.get("model_args", "") if isinstance(config, dict) else ""
    return f"{content.get('model_name', '')} {arguments}".strip()
